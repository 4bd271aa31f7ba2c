package channels_test

import (
	"bytes"
	"compress/flate"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

func TestAnIdleConnectionHasOneGoroutine(t *testing.T) {
	s := serve(t, channels.Options{})
	s.do("GET", "/healthz", "")
	s.raw("c", "") // what the first one starts
	before := runtime.NumGoroutine()
	const n = 200
	for range n {
		s.raw("c", "")
	}
	// Goroutines from before may end meanwhile, so there may be fewer, but never more
	// than one for each connection once the handlers have returned.
	until(t, "one goroutine a connection", func() bool { return runtime.NumGoroutine() <= before+n })
	require.EqualValues(t, n+1, s.hub.Stats().Connections)
}

func TestClientsCloseIsAnswered(t *testing.T) {
	reasons := make(chan error, 1)
	s := serve(t, channels.Options{OnDisconnect: func(c channels.Client, reason error) { reasons <- reason }})
	w := s.join("c", "")
	require.NoError(t, w.c.Close(websocket.StatusNormalClosure, "bye"))
	require.NoError(t, <-reasons)
	require.Zero(t, s.hub.Stats().Connections)
}

func TestPings(t *testing.T) {
	t.Run("a flood is answered, the newest for sure", func(t *testing.T) {
		s := serve(t, channels.Options{})
		r := s.raw("c", "")
		const n = 20_000
		go func() {
			var b []byte
			for i := range n {
				b = append(b, masked(rawPing, []byte(strconv.Itoa(i)))...)
			}
			r.c.Write(b)
		}()
		for got := 0; ; got++ {
			f := r.read()
			if f.First == rawPing { // its turn came in the first second
				continue
			}
			require.Equal(t, byte(rawPong), f.First)
			if string(f.Payload) == strconv.Itoa(n-1) {
				return
			}
			require.Less(t, got, n)
		}
	})
	t.Run("a silent client is cut", func(t *testing.T) {
		gone := make(chan error, 1)
		s := serve(t, channels.Options{PingPeriod: time.Second, OnDisconnect: func(_ channels.Client, reason error) { gone <- reason }})
		r := s.raw("c", "")
		require.Equal(t, byte(rawPing), r.read().First)
		select {
		case err := <-gone:
			require.ErrorContains(t, err, "no sign of life")
		case <-time.After(patience):
			t.Fatal("still there")
		}
	})
	t.Run("one that answers stays", func(t *testing.T) {
		s := serve(t, channels.Options{PingPeriod: time.Second})
		r := s.raw("c", "")
		for range 4 {
			f := r.read()
			require.Equal(t, byte(rawPing), f.First)
			r.write(masked(rawPong, f.Payload))
		}
		s.publish("c", "still", "1")
		r.wantText("still")
	})
}

// TestNothingLandsInsideOfAFrame has receivers that read in fits and starts,
// so that writes are cut short, while messages, answers and pongs go out.
func TestNothingLandsInsideOfAFrame(t *testing.T) {
	for _, c := range []struct {
		name string
		tls  bool
	}{{"plain", false}, {"TLS", true}} {
		t.Run(c.name, func(t *testing.T) {
			o := channels.Options{QueueBytes: 512 << 20, MaxMessageBytes: 1 << 20, CompressBytes: -1, WriteTimeout: patience} // what is slow here is the machine
			var s *server
			if c.tls {
				s = serveTLS(t, o)
			} else {
				s = serve(t, o)
			}
			const messages, clients = 60, 4
			sizes := rand.New(rand.NewPCG(1, 2))
			var bodies []string
			for n := range messages {
				bodies = append(bodies, fmt.Sprintf(`{"n":%d,"pad":"%s"}`, n, strings.Repeat("x", sizes.IntN(200_000))))
			}
			ctx := ctxT(t)
			var wg sync.WaitGroup
			for range clients {
				w := s.join("c", "")
				wg.Go(func() {
					next, answers := 0, 0
					for next < messages || answers < messages/10 {
						if next%7 == 3 {
							time.Sleep(time.Millisecond) // lets the socket fill: not a synchronisation
						}
						// Compared as text: the race detector takes seconds to parse them.
						_, b, err := w.c.Read(ctx)
						if err != nil {
							t.Error(err)
							return
						}
						if bytes.HasPrefix(b, []byte(`{"header":"error"`)) {
							answers++
							continue
						}
						if next == messages || string(b) != `{"header":"m","body":`+bodies[next]+`}` {
							t.Errorf("message %d of %d bytes is not as it was published: %.100q", next, len(b), b)
							return
						}
						next++
						if next%10 == 0 { // refused, so that it comes as an answer and not to all
							w.send(`{"header":"error","body":1}`)
						}
					}
				})
			}
			for _, body := range bodies {
				_, err := s.hub.Publish(ctx, "c", msg("m", body))
				require.NoError(t, err)
			}
			wg.Wait()
		})
	}
}

func TestCompression(t *testing.T) {
	body := `{"text":"` + strings.Repeat("so it goes ", 500) + `"}`
	offer := "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
	t.Run("long messages are deflated, short ones are not", func(t *testing.T) {
		s := serve(t, channels.Options{})
		r, plain := s.raw("c", offer), s.raw("c", "")
		s.publish("c", "long", body)
		f := r.readNext()
		require.Equal(t, byte(rawText|0x40), f.First)
		require.Less(t, len(f.Payload), 500)
		text, err := io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(f.Payload), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))))
		require.NoError(t, err)
		require.Equal(t, `{"header":"long","body":`+body+`}`, string(text))
		require.Equal(t, text, plain.wantText("long").Payload)
		s.publish("c", "short", `1`)
		require.Equal(t, byte(rawText), r.readNext().First)
	})
	t.Run("what does not shrink is sent as it is", func(t *testing.T) {
		s := serve(t, channels.Options{CompressBytes: 1})
		r := s.raw("c", offer)
		s.publish("c", "x", `1`)
		require.Equal(t, byte(rawText), r.readNext().First)
	})
	t.Run("off", func(t *testing.T) {
		s := serve(t, channels.Options{CompressBytes: -1})
		r := s.raw("c", offer)
		s.publish("c", "long", body)
		require.Equal(t, byte(rawText), r.readNext().First)
	})
	t.Run("a real client, in both directions", func(t *testing.T) {
		s := serve(t, channels.Options{})
		w, resp, err := s.tryDial("/channel/c/", &websocket.DialOptions{CompressionMode: websocket.CompressionNoContextTakeover, CompressionThreshold: 1})
		require.NoError(t, err)
		require.Contains(t, resp.Header.Get("Sec-WebSocket-Extensions"), "permessage-deflate")
		w.send(`{"header":"long","body":` + body + `}`)
		w.want("long", body)
		w.want("exchange", `{"msg":"ok"}`)
	})
}

func TestTLS(t *testing.T) {
	var ids sync.Map
	s := serveTLS(t, channels.Options{OnConnect: connected(&ids)})
	a, b := s.join("c", ""), s.join("c", "")
	for n := range 100 {
		a.send(fmt.Sprintf(`{"header":"n","body":%d}`, n))
	}
	for n := range 100 {
		b.want("n", strconv.Itoa(n))
	}
	ids.Range(func(id, _ any) bool {
		require.Equal(t, 1, disconnect(s.hub, id.(string)))
		return true
	})
	_, ce := b.wantClose(3003)
	require.Equal(t, "disconnected", ce.Reason)
}

// connected is an OnConnect hook that notes the connections' ids.
func connected(ids *sync.Map) func(context.Context, channels.Client) error {
	return func(_ context.Context, c channels.Client) error {
		ids.Store(c.ID, c)
		return nil
	}
}

func TestNoDataFollowsACloseFrame(t *testing.T) {
	var ids sync.Map
	s := serve(t, channels.Options{OnConnect: connected(&ids)})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	ctx := ctxT(t)
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					s.hub.Publish(ctx, "c", msg("m", "1"))
				}
			}
		})
	}
	for range 50 {
		r := s.raw("c", "")
		ids.Range(func(id, _ any) bool {
			disconnect(s.hub, id.(string))
			return true
		})
		code, reason := r.wantClose()
		require.Equal(t, 3003, code)
		require.Equal(t, "disconnected", reason)
		ids.Clear()
	}
	close(stop)
	wg.Wait()
}

func TestHTTPServerTimeoutsDoNotEndAConnection(t *testing.T) {
	s := newServer(t, channels.Options{PingPeriod: time.Second})
	// Both begin with the request, and are long enough for a handshake on a busy machine.
	const timeout = 2 * time.Second
	s.http.Config.ReadTimeout = timeout
	s.http.Config.WriteTimeout = timeout
	s.http.Start()
	w := s.join("c", "")
	ctx := ctxT(t)
	time.AfterFunc(timeout+500*time.Millisecond, func() { s.hub.Publish(ctx, "c", msg("late", "1")) }) // when both have passed
	w.want("late", "1")
	w.send(`{"header":"x","body":2}`)
	w.want("x", "2")
}

// A connection that vanishes while messages are published to it is noticed.
func TestALostConnection(t *testing.T) {
	s := serve(t, channels.Options{})
	keep := s.join("c", "")
	for range 50 {
		r := s.raw("c", "")
		r.c.(*net.TCPConn).SetLinger(0) // close sends a reset
		r.c.Close()
		s.publish("c", "m", "1")
		keep.want("m", "1")
	}
	until(t, "only one is left", func() bool { return s.hub.Stats().Connections == 1 })
}

// A client that the app has disconnected may go on sending until it has answered
// the close frame. The hub drops what it sends.
func TestADisconnectedClientDoesNotPublish(t *testing.T) {
	s := serve(t, channels.Options{ReplicaID: "n", Channel: keeps})
	r := s.raw("h", "")
	require.Equal(t, 1, disconnect(s.hub, s.id(1)))
	for r.read().First != rawClose {
	}
	r.write(masked(rawText, []byte(`{"header":"banned","body":1}`)))
	r.write(masked(rawClose, []byte{0x0b, 0xbb}))
	until(t, "it has left", func() bool { return s.hub.Stats().Connections == 0 })
	past, err := s.hub.History(t.Context(), "h", channels.HistoryQuery{})
	require.NoError(t, err)
	require.Empty(t, past.Messages)
}

// A message is deflated once, however many connections there are.
func TestAMessageIsDeflatedOnce(t *testing.T) {
	s := serve(t, channels.Options{PingPeriod: 10 * time.Minute}) // the first frame to come is the message
	const n = 50
	conns := make([]*rawClient, n)
	for i := range conns {
		conns[i] = s.raw("c", "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover\r\n")
	}
	before := s.hub.Stats().Deflated
	for i := range 20 {
		_, err := s.hub.Publish(t.Context(), "c", msg("x", `"`+strings.Repeat(fmt.Sprint(i), 50_000)+`"`))
		require.NoError(t, err)
		for _, c := range conns {
			require.NotZero(t, c.readNext().First&0x40, "it is deflated")
		}
	}
	require.EqualValues(t, 20, s.hub.Stats().Deflated-before)
}

// The hub keeps nothing of a client's handshake while the client is connected.
func TestAnIdleConnectionKeepsNothingOfItsHandshake(t *testing.T) {
	s := serve(t, channels.Options{})
	s.raw("c", "Sec-WebSocket-Protocol: channels\r\n") // what the first one starts
	before := heap()
	const n = 20
	for range n {
		s.raw("c", "Sec-WebSocket-Protocol: Channels, "+strings.Repeat("x", 900_000)+"\r\nX-More: "+strings.Repeat("y", 50_000)+"\r\n")
	}
	until(t, "a connection has little memory", func() bool { return int(int64(heap())-int64(before))/n < 50_000 })
}
