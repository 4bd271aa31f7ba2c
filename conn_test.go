package channels_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/hubtest"
)

// What queueing touches fits into one cache line of the outbox (TestOutboxIsNear), and is
// not spread over two. Go's heap has 8 bytes before each object of more than 512.
func TestOutboxBeginsACacheLine(t *testing.T) {
	for range 100 {
		require.Zero(t, channels.OutboxAddress()%64)
		at, size := channels.FanOutTouches()
		require.LessOrEqual(t, at%64+size, uintptr(64))
	}
}

// An idle connection has no goroutine where there is a poller, and one elsewhere.
func TestAnIdleConnectionHasNoGoroutine(t *testing.T) {
	for poller, each := range map[string]int{"on": 0, "off": 1} {
		t.Run(poller, func(t *testing.T) {
			if runtime.GOOS != "linux" {
				each = 1
			}
			t.Setenv("CHANNELS_POLLER", poller)
			s := serve(t, channels.Options{})
			s.get("/healthz")
			s.upgrade("/channel/c/") // what the first one starts
			before := runtime.NumGoroutine()
			const n = 200
			rs := make([]rawClient, n)
			for i := range rs {
				rs[i] = s.upgrade("/channel/c/")
			}
			// Goroutines from before may end meanwhile, so there may be fewer, but never
			// more once the handlers have returned.
			few := func() bool { return runtime.NumGoroutine() <= before+each*n }
			until(t, "they are few", few)
			for _, r := range rs {
				r.Send(wsFrame(rawPing, "are you there"))
			}
			for _, r := range rs {
				for r.read().First != rawPong {
				}
			}
			until(t, "they are as few as before", few)
			for range 2 { // a client that talks has a goroutine, until it is silent for a moment
				for _, r := range rs[:20] {
					r.Send(wsFrame(rawText, `{"header":"ping","body":1}`))
				}
				for _, r := range rs[:20] {
					for !strings.Contains(string(r.read().Payload), "exchange") {
					}
				}
				until(t, "they are as few as before", few)
			}
			require.EqualValues(t, n+1, s.hub.Stats().Connections)
		})
	}
}

func TestPings(t *testing.T) {
	t.Run("a flood is answered, the newest for sure", func(t *testing.T) {
		s := serve(t, channels.Options{})
		r := s.upgrade("/channel/c/")
		const n = 20_000
		go func() {
			var b []byte
			for i := range n {
				b = append(b, hubtest.Masked(rawPing, []byte(strconv.Itoa(i)))...)
			}
			r.C.Write(b)
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
		gone := make(departures, 1)
		s := serve(t, channels.Options{PingPeriod: time.Second, OnDisconnect: gone.hook})
		require.Equal(t, byte(rawPing), s.upgrade("/channel/c/").read().First)
		require.ErrorContains(t, <-gone, "no sign of life")
	})
	t.Run("only a whole pong is taken without the library", func(t *testing.T) {
		s := serve(t, channels.Options{})
		whole, text := wsFrame(rawPong, "pong"), wsFrame(rawText, `{"header":"x","body":1}`)
		unmasked := string(frameHeader(rawPong, 0, 0))
		for sent, code := range map[string]int{
			whole:                            0,
			wsFrame(rawPong, ""):             0,
			whole + whole:                    0,
			wsFrame(rawPong, long(125)):      0,
			wsFrame(rawPong, long(126)):      1002,
			unmasked:                         1002,
			wsFrame(rsv1Bit|rawPong, ""):     1002,
			wsFrame(rawPong&^finBit, "pong"): 1002,
		} {
			for at := range min(len(sent), 8) { // after which it goes on to rest
				r := s.upgrade("/channel/c/")
				r.Send(sent[:at])
				r.Send(sent[at:])
				if code != 0 {
					r.WantClosed(code)
					continue
				}
				r.Send(text)
				r.wantText("x")
			}
		}
	})
	t.Run("of many, each is asked", func(t *testing.T) {
		gone := make(departures, 150)
		s := serve(t, channels.Options{PingPeriod: 2 * time.Second, OnDisconnect: gone.hook})
		var rs []rawClient
		for range cap(gone) {
			rs = append(rs, s.upgrade("/channel/c/"))
		}
		for _, r := range rs {
			require.Equal(t, byte(rawPing), r.read().First)
		}
		for range rs {
			require.ErrorContains(t, <-gone, "no sign of life")
		}
	})
	t.Run("one that answers stays", func(t *testing.T) {
		s := serve(t, channels.Options{PingPeriod: time.Second})
		r := s.upgrade("/channel/c/")
		for range 4 {
			f := r.read()
			require.Equal(t, byte(rawPing), f.First)
			r.Send(wsFrame(rawPong, string(f.Payload)))
		}
		s.publish("c", "still", "1")
		r.wantText("still")
	})
}

// A ping goes with a message that comes in the next two seconds, or else alone. Only a
// client that was pinged is cut.
func TestPingsGoWithMessages(t *testing.T) {
	const period = 30 * 10 // turns
	p := channels.NewPings(30 * time.Second)
	turn := 0
	until := func(end int) (story string) {
		t.Helper()
		for turn < end {
			turn++
			written, cut := p.Turn()
			if len(written) > 0 {
				story += fmt.Sprintf("%x at %d", written, turn%period)
			}
			if cut {
				return story + "cut"
			}
		}
		return story
	}
	require.Equal(t, "89 at 20", until(period+100), "alone")
	p.Message()
	require.Equal(t, "81 at 101", until(2*period-1))
	p.Answers()
	require.Empty(t, until(2*period+10))
	p.Message()
	require.Equal(t, "8981 at 11", until(2*period+100), "with a message")
	p.Answers()
	require.Empty(t, until(3*period+10))
	p.Pinged()
	require.Equal(t, "8a89 at 11", until(3*period+100), "with a pong")
	p.Answers()
	p.Stuck = true
	p.Message()
	require.Empty(t, until(5*period-1), "behind what waits, it would come too late")
	p.Stuck = false
	require.Equal(t, "81 at 0", until(6*period-1), "so it is not cut")
	require.Equal(t, "89 at 20", until(7*period-1))
	require.Equal(t, "cut", until(7*period))
}

// TestNothingLandsInsideOfAFrame has receivers that read in fits and starts,
// so that writes are cut short, while messages, answers and pongs go out.
func TestNothingLandsInsideOfAFrame(t *testing.T) {
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			o := channels.Options{QueueBytes: 512 << 20, MaxMessageBytes: 1 << 20, CompressBytes: -1, WriteTimeout: patience} // what is slow here is the machine
			s := start(t, o)
			const messages, clients = 60, 4
			sizes := rand.New(rand.NewPCG(1, 2))
			var bodies, texts []string
			for n := range messages {
				bodies = append(bodies, fmt.Sprintf(`{"n":%d,"pad":"%s"}`, n, strings.Repeat("x", sizes.IntN(200_000))))
				texts = append(texts, `{"header":"m","body":`+bodies[n]+`}`)
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
						if !assert.NoError(t, err) {
							return
						}
						if bytes.HasPrefix(b, []byte(`{"header":"error"`)) {
							answers++
							continue
						}
						if next == messages || string(b) != texts[next] {
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
				publish(t, s.hub, "c", "m", body)
			}
			wg.Wait()
		})
	}
}

func TestCompression(t *testing.T) {
	body := `{"text":"` + strings.Repeat("so it goes ", 500) + `"}`
	t.Run("long messages are deflated, short ones are not", func(t *testing.T) {
		s := serve(t, channels.Options{})
		r, plain := s.upgrade("/channel/c/", hubtest.DeflateOffer), s.upgrade("/channel/c/")
		s.publish("c", "long", body)
		f := r.readNext()
		require.Equal(t, byte(rawText|0x40), f.First)
		require.Less(t, len(f.Payload), 500)
		text := hubtest.Inflate(t, f.Payload)
		require.Equal(t, `{"header":"long","body":`+body+`}`, string(text))
		require.Equal(t, text, plain.wantText("long").Payload)
		s.publish("c", "short", `1`)
		require.Equal(t, byte(rawText), r.readNext().First)
	})
	for name, c := range map[string]struct {
		bytes int
		body  string
	}{"what does not shrink is sent as it is": {1, `1`}, "off": {-1, body}} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, channels.Options{CompressBytes: c.bytes})
			r := s.upgrade("/channel/c/", hubtest.DeflateOffer)
			s.publish("c", "x", c.body)
			require.Equal(t, byte(rawText), r.readNext().First)
		})
	}
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
	s := serveTLS(t, channels.Options{})
	a, b := s.join("c", ""), s.join("c", "")
	for n := range 100 {
		a.send(fmt.Sprintf(`{"header":"n","body":%d}`, n))
	}
	for n := range 100 {
		b.want("n", strconv.Itoa(n))
	}
	require.Equal(t, 1, disconnect(s.hub, s.id(1)))
	require.Equal(t, 1, disconnect(s.hub, s.id(2)))
	_, ce := b.wantClose(3003)
	require.Equal(t, "disconnected", ce.Reason)
}

func TestNoDataFollowsACloseFrame(t *testing.T) {
	s := serve(t, channels.Options{})
	for range 2 {
		defer repeatedlyTo(s.hub, func(int) { s.hub.Publish(context.Background(), "c", msg("m", "1")) })()
	}
	for n := range 50 {
		r := s.upgrade("/channel/c/")
		require.Equal(t, 1, disconnect(s.hub, s.id(n+1)))
		require.Equal(t, "disconnected", r.WantClosed(3003))
	}
}

// A connection that vanishes while messages are published to it is noticed.
func TestALostConnection(t *testing.T) {
	s := serve(t, channels.Options{})
	keep := s.join("c", "")
	for range 50 {
		r := s.upgrade("/channel/c/")
		r.C.(*net.TCPConn).SetLinger(0) // close sends a reset
		r.Close()
		s.publish("c", "m", "1")
		keep.want("m", "1")
	}
	until(t, "only one is left", func() bool { return s.hub.Stats().Connections == 1 })
}

// A client that the app has disconnected may go on sending until it has answered
// the close frame. The hub drops what it sends.
func TestADisconnectedClientDoesNotPublish(t *testing.T) {
	s := serve(t, channels.Options{ReplicaID: "n", Channel: keeps})
	r := s.upgrade("/channel/h/")
	require.Equal(t, 1, disconnect(s.hub, s.id(1)))
	for r.read().First != rawClose {
	}
	r.Send(wsFrame(rawText, `{"header":"banned","body":1}`))
	r.Send(wsFrame(rawClose, "\x0b\xbb"))
	until(t, "it has left", func() bool { return s.hub.Stats().Connections == 0 })
	past := historyOf(t, s.hub, "h", channels.HistoryQuery{})
	require.Empty(t, past.Messages)
}

// A message is deflated once, however many connections there are.
func TestAMessageIsDeflatedOnce(t *testing.T) {
	s := serve(t, channels.Options{PingPeriod: 10 * time.Minute}) // the first frame to come is the message
	const n = 50
	conns := make([]rawClient, n)
	for i := range conns {
		conns[i] = s.upgrade("/channel/c/", "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover")
	}
	before := s.hub.Stats().Deflated
	for i := range 20 {
		publish(t, s.hub, "c", "x", `"`+strings.Repeat(fmt.Sprint(i), 50_000)+`"`)
		for _, c := range conns {
			require.NotZero(t, c.readNext().First&0x40, "it is deflated")
		}
	}
	require.EqualValues(t, 20, s.hub.Stats().Deflated-before)
}

// The hub keeps nothing of a client's handshake while the client is connected.
func TestAnIdleConnectionKeepsNothingOfItsHandshake(t *testing.T) {
	s := serve(t, channels.Options{})
	s.upgrade("/channel/c/", "Sec-WebSocket-Protocol: channels") // what the first one starts
	before := heap()
	const n = 8
	for range n {
		s.upgrade("/channel/c/", "Sec-WebSocket-Protocol: Channels, "+long(900_000), "X-More: "+long(50_000))
	}
	until(t, "a connection has little memory", func() bool { return int(heap()-before)/n < 50_000 })
}
