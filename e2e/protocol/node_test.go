package protocol

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/internal/proctest"
)

// In the tests of this file, the client that most JavaScript programs use,
// npm's ws, talks to a hub. Its authors are not those of the hub's library, and
// it implements the protocol in its own way.

// A transport is a way in which the client connects.
type transport struct {
	name         string
	tls, deflate bool
}

func eachTransport(t *testing.T, test func(t *testing.T, way transport)) {
	t.Parallel()
	for _, way := range []transport{
		{"ws", false, false}, {"ws, compressed", false, true}, {"wss", true, false}, {"wss, compressed", true, true},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			test(t, way)
		})
	}
}

// serve starts a hub that keeps history.
func (way transport) serve(t *testing.T, o channels.Options) *hubtest.Server {
	t.Helper()
	o.Channel = func(string) channels.ChannelOptions { return channels.ChannelOptions{HistorySize: 5000} }
	s := hubtest.New(t, o)
	if way.tls {
		s.HTTP.EnableHTTP2 = true // it must not interfere
		s.HTTP.StartTLS()
	} else {
		s.HTTP.Start()
	}
	return s
}

func publish(s *hubtest.Server, header string, body any) {
	s.T.Helper()
	b, err := json.Marshal(body)
	require.NoError(s.T, err)
	_, err = s.Hub.Publish(s.T.Context(), "c", hubtest.Msg(header, string(b)))
	require.NoError(s.T, err)
}

// wsProcess is a running js/client.mjs.
type wsProcess struct {
	t      *testing.T
	in     io.WriteCloser
	events chan wsEvent
}

type wsEvent struct {
	Type string
	Code int
	Data string
}

// connect starts a client that connects to the channel c.
func (way transport) connect(s *hubtest.Server, query string) *wsProcess {
	s.T.Helper()
	if _, err := os.Stat("../js/node_modules/ws"); err != nil {
		require.FailNow(s.T, "these tests need the package ws for Node.js, which is not installed: `make test` installs it")
	}
	var ca string
	if cert := s.HTTP.Certificate(); cert != nil {
		ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	}
	options, err := json.Marshal(map[string]any{"url": "ws" + strings.TrimPrefix(s.HTTP.URL, "http") + "/channel/c/" + query, "ca": ca, "deflate": way.deflate})
	require.NoError(s.T, err)
	cmd := exec.Command("node", "../js/client.mjs", string(options))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	require.NoError(s.T, err)
	out, err := cmd.StdoutPipe()
	require.NoError(s.T, err)
	require.NoError(s.T, proctest.Start(cmd))
	p := &wsProcess{s.T, in, make(chan wsEvent, 10_000)} // more than a test has
	var reading sync.WaitGroup
	reading.Go(func() { // ends with the process
		defer close(p.events)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var e wsEvent
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				e = wsEvent{Type: "error", Data: lines.Text()}
			}
			p.events <- e
		}
	})
	s.T.Cleanup(func() {
		cmd.Process.Kill()
		reading.Wait()
		cmd.Wait()
		if s.T.Failed() {
			s.T.Logf("node wrote:\n%s", &stderr)
		}
	})
	return p
}

// do sends a command to the client.
func (p *wsProcess) do(command string, argument any) {
	p.t.Helper()
	require.NoError(p.t, json.NewEncoder(p.in).Encode(map[string]any{command: argument}))
}

// want returns the next event other than a ping, which must be of the given
// type.
func (p *wsProcess) want(typ string) wsEvent {
	p.t.Helper()
	for {
		select {
		case e, ok := <-p.events:
			require.True(p.t, ok, "the client has ended")
			if e.Type == "ping" && typ != "ping" {
				continue
			}
			require.Equal(p.t, typ, e.Type, "%+v", e)
			return e
		case <-time.After(basetest.Patience):
			require.FailNow(p.t, "nothing comes")
		}
	}
}

func (p *wsProcess) text(header string) hubtest.Message {
	p.t.Helper()
	e := p.want("message")
	var m hubtest.Message
	require.NoError(p.t, json.Unmarshal([]byte(e.Data), &m), e.Data)
	require.Equal(p.t, header, m.Header, e.Data)
	return m
}

func TestNodeClient(t *testing.T) {
	eachTransport(t, func(t *testing.T, way transport) {
		ids, reasons := make(chan string, 10), make(chan error, 10)
		s := way.serve(t, channels.Options{
			PingPeriod:   5 * time.Second, // on a busy machine, node may be silent for some seconds
			QueueBytes:   16 << 20,        // the client gets many messages at once
			OnConnect:    func(_ context.Context, c channels.Client) error { ids <- c.ID; return nil },
			OnDisconnect: func(_ channels.Client, reason error) { reasons <- reason },
		})
		p := way.connect(s, "")
		require.Equal(t, way.deflate, strings.Contains(p.want("open").Data, "permessage-deflate"))
		id := <-ids

		// It publishes: a whole message, one in parts, and one that is
		// refused.
		p.do("send", `{"header":"say","body":{"text":"안녕 🙂"},"id":1}`)
		m := p.text("say")
		require.Equal(t, `{"text":"안녕 🙂"}`, string(m.Body))
		require.EqualValues(t, 1, m.Offset)
		require.Equal(t, "1", string(p.text("exchange").ID))
		var so strings.Builder // compressible by less than a factor of a hundred
		for i := range 10_000 {
			fmt.Fprint(&so, "so it goes ", i, ", ")
		}
		long := so.String()
		p.do("parts", []string{`{"header":"say",`, `"body":"`, long, `"}`})
		require.Equal(t, `"`+long+`"`, string(p.text("say").Body))
		p.text("exchange")
		p.do("binary", `{"header":"say","body":1}`)
		require.Contains(t, string(p.text("error").Body), `"binary"`)
		p.do("ping", "are you there?")
		require.Equal(t, "are you there?", p.want("pong").Data)

		// It is pinged, and its pongs keep it alive: a silent client would
		// be closed after two periods.
		for range 3 {
			p.want("ping")
		}

		// It receives short and long messages, as fast as they come.
		const n = 1000
		for i := range n {
			publish(s, "n", fmt.Sprint(i, strings.Repeat(" and so on", i%300)))
		}
		for i := range n {
			m = p.text("n")
			require.Equal(t, fmt.Sprintf("%q", fmt.Sprint(i, strings.Repeat(" and so on", i%300))), string(m.Body))
			require.EqualValues(t, 3+i, m.Offset)
		}

		// It is closed with a code, and resumes.
		ended, err := s.Hub.DisconnectClient(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, 1, ended)
		require.Contains(t, string(p.text("error").Body), `"disconnected"`)
		require.Equal(t, wsEvent{"close", 3003, "disconnected"}, p.want("close"))
		require.Error(t, <-reasons)
		for i := range 10 {
			publish(s, "missed", i)
		}
		p = way.connect(s, fmt.Sprintf("?since=%s:%d", m.Epoch, m.Offset))
		p.want("open")
		for i := range 10 {
			missed := p.text("missed")
			require.Equal(t, fmt.Sprint(i), string(missed.Body))
			require.EqualValues(t, m.Offset+1+uint64(i), missed.Offset)
		}
		publish(s, "live", 0)
		require.Equal(t, m.Offset+11, p.text("live").Offset)

		// It closes by itself, and gets its code back.
		p.do("close", []any{4000, "bye"})
		require.Equal(t, wsEvent{"close", 4000, "bye"}, p.want("close"))
		require.NoError(t, <-reasons)
	})
}

func TestNodeClientWhileTheReplicaShutsDown(t *testing.T) {
	eachTransport(t, func(t *testing.T, way transport) {
		s := way.serve(t, channels.Options{})
		p := way.connect(s, "")
		p.want("open")
		publish(s, "last", 1)
		ctx, cancel := context.WithTimeout(t.Context(), basetest.Patience)
		defer cancel()
		require.NoError(t, s.Hub.Drain(ctx))
		p.text("last")
		p.text("reconnect")
		require.Equal(t, wsEvent{"close", 1001, "draining"}, p.want("close"))
		p = way.connect(s, "")
		require.Equal(t, wsEvent{"refused", 503, ""}, p.want("refused"))
	})
}

func TestNodeClientThatSendsTooMuch(t *testing.T) {
	eachTransport(t, func(t *testing.T, way transport) {
		s := way.serve(t, channels.Options{MaxMessageBytes: 4096})
		p := way.connect(s, "")
		p.want("open")
		p.do("send", `{"header":"say","body":"`+strings.Repeat("x", 5000)+`"}`)
		require.Contains(t, string(p.text("error").Body), `"too_large"`)
		p.do("send", `{"header":"say","body":"`+strings.Repeat("x", 50_000)+`"}`)
		require.Equal(t, 1009, p.want("close").Code)
	})
}
