package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/proctest"
)

// In the tests of this file, the client that most JavaScript programs use,
// npm's ws, talks to a hub. Its authors are not those of the hub's library, and
// it implements the protocol in its own way.

// transports are the ways in which the client connects.
var transports = []struct {
	name         string
	tls, deflate bool
}{
	{"ws", false, false}, {"ws, compressed", false, true}, {"wss", true, false}, {"wss, compressed", true, true},
}

// hubServer is a hub behind a server in this process.
type hubServer struct {
	t    *testing.T
	hub  *channels.Hub
	http *httptest.Server
}

func serveHub(t *testing.T, withTLS bool, o channels.Options) *hubServer {
	t.Helper()
	o.Channel = func(string) channels.ChannelOptions { return channels.ChannelOptions{HistorySize: 5000} }
	hub, err := channels.New(o)
	require.NoError(t, err)
	s := &hubServer{t, hub, httptest.NewUnstartedServer(hub.Handler())}
	if withTLS {
		s.http.EnableHTTP2 = true // it must not interfere
		s.http.StartTLS()
	} else {
		s.http.Start()
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		assert.NoError(t, hub.Shutdown(ctx))
		s.http.Close()
	})
	return s
}

func (s *hubServer) publish(header string, body any) {
	s.t.Helper()
	b, err := json.Marshal(body)
	require.NoError(s.t, err)
	_, err = s.hub.Publish(s.t.Context(), "c", channels.Message{Header: header, Body: b})
	require.NoError(s.t, err)
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

// wsText is a message from the hub.
type wsText struct {
	Header string
	Body   json.RawMessage
	Offset uint64
	Epoch  string
	ID     json.RawMessage
}

// connect starts a client that connects to the channel c.
func (s *hubServer) connect(query string, deflate bool) *wsProcess {
	s.t.Helper()
	if _, err := os.Stat("js/node_modules/ws"); err != nil {
		require.FailNow(s.t, "these tests need the package ws for Node.js, which is not installed: `make test` installs it")
	}
	var ca string
	if cert := s.http.Certificate(); cert != nil {
		ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	}
	options, err := json.Marshal(map[string]any{"url": "ws" + strings.TrimPrefix(s.http.URL, "http") + "/channel/c/" + query, "ca": ca, "deflate": deflate})
	require.NoError(s.t, err)
	cmd := exec.Command("node", "js/client.mjs", string(options))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	require.NoError(s.t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(s.t, err)
	require.NoError(s.t, proctest.Start(cmd))
	p := &wsProcess{s.t, in, make(chan wsEvent, 10_000)} // more than a test has
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
	s.t.Cleanup(func() {
		cmd.Process.Kill()
		reading.Wait()
		cmd.Wait()
		if s.t.Failed() {
			s.t.Logf("node wrote:\n%s", &stderr)
		}
	})
	return p
}

// do sends a command to the client.
func (p *wsProcess) do(command string, argument any) {
	p.t.Helper()
	require.NoError(p.t, json.NewEncoder(p.in).Encode(map[string]any{command: argument}))
}

func (p *wsProcess) next() wsEvent {
	p.t.Helper()
	select {
	case e, ok := <-p.events:
		require.True(p.t, ok, "the client has ended")
		return e
	case <-time.After(deadline):
		require.FailNow(p.t, "nothing comes")
		return wsEvent{}
	}
}

// want returns the next event other than a ping, which must be of the given
// type.
func (p *wsProcess) want(typ string) wsEvent {
	p.t.Helper()
	for {
		e := p.next()
		if e.Type == "ping" && typ != "ping" {
			continue
		}
		require.Equal(p.t, typ, e.Type, "%+v", e)
		return e
	}
}

func (p *wsProcess) text(header string) wsText {
	p.t.Helper()
	e := p.want("message")
	var m wsText
	require.NoError(p.t, json.Unmarshal([]byte(e.Data), &m), e.Data)
	require.Equal(p.t, header, m.Header, e.Data)
	return m
}

func TestNodeClient(t *testing.T) {
	t.Parallel()
	for _, way := range transports {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			ids, reasons := make(chan string, 10), make(chan error, 10)
			s := serveHub(t, way.tls, channels.Options{
				PingPeriod:   3 * time.Second, // on a busy machine, node may be silent for more than one period
				QueueBytes:   16 << 20,        // the client gets many messages at once
				OnConnect:    func(_ context.Context, c channels.Client) error { ids <- c.ID; return nil },
				OnDisconnect: func(_ channels.Client, reason error) { reasons <- reason },
			})
			p := s.connect("", way.deflate)
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
				s.publish("n", fmt.Sprint(i, strings.Repeat(" and so on", i%300)))
			}
			for i := range n {
				m = p.text("n")
				require.Equal(t, fmt.Sprintf("%q", fmt.Sprint(i, strings.Repeat(" and so on", i%300))), string(m.Body))
				require.EqualValues(t, 3+i, m.Offset)
			}

			// It is closed with a code, and resumes.
			ended, err := s.hub.DisconnectClient(t.Context(), id)
			require.NoError(t, err)
			require.Equal(t, 1, ended)
			require.Contains(t, string(p.text("error").Body), `"disconnected"`)
			require.Equal(t, wsEvent{"close", 3003, "disconnected"}, p.want("close"))
			require.Error(t, <-reasons)
			for i := range 10 {
				s.publish("missed", i)
			}
			p = s.connect(fmt.Sprintf("?since=%s:%d", m.Epoch, m.Offset), way.deflate)
			p.want("open")
			for i := range 10 {
				missed := p.text("missed")
				require.Equal(t, fmt.Sprint(i), string(missed.Body))
				require.EqualValues(t, m.Offset+1+uint64(i), missed.Offset)
			}
			s.publish("live", 0)
			require.Equal(t, m.Offset+11, p.text("live").Offset)

			// It closes by itself, and gets its code back.
			p.do("close", []any{4000, "bye"})
			require.Equal(t, wsEvent{"close", 4000, "bye"}, p.want("close"))
			require.NoError(t, <-reasons)
		})
	}
}

func TestNodeClientWhileTheReplicaShutsDown(t *testing.T) {
	t.Parallel()
	for _, way := range transports {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			s := serveHub(t, way.tls, channels.Options{})
			p := s.connect("", way.deflate)
			p.want("open")
			s.publish("last", 1)
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			require.NoError(t, s.hub.Drain(ctx))
			p.text("last")
			p.text("reconnect")
			require.Equal(t, wsEvent{"close", 1001, "draining"}, p.want("close"))
			p = s.connect("", way.deflate)
			require.Equal(t, wsEvent{"refused", 503, ""}, p.want("refused"))
		})
	}
}

func TestNodeClientThatSendsTooMuch(t *testing.T) {
	t.Parallel()
	for _, way := range transports {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			s := serveHub(t, way.tls, channels.Options{MaxMessageBytes: 4096})
			p := s.connect("", way.deflate)
			p.want("open")
			p.do("send", `{"header":"say","body":"`+strings.Repeat("x", 5000)+`"}`)
			require.Contains(t, string(p.text("error").Body), `"too_large"`)
			p.do("send", `{"header":"say","body":"`+strings.Repeat("x", 50_000)+`"}`)
			require.Equal(t, 1009, p.want("close").Code)
		})
	}
}
