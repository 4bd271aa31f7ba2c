package channels_test

import (
	"bytes"
	"compress/flate"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
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
	// What was running before may end meanwhile, so it may be fewer: not one
	// more than the connections, once their handlers have returned.
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
			if f.first == rawPing { // its turn came in the first second
				continue
			}
			require.Equal(t, byte(rawPong), f.first)
			if string(f.payload) == strconv.Itoa(n-1) {
				return
			}
			require.Less(t, got, n)
		}
	})
	t.Run("a silent client is cut", func(t *testing.T) {
		gone := make(chan error, 1)
		s := serve(t, channels.Options{PingPeriod: time.Second, OnDisconnect: func(_ channels.Client, reason error) { gone <- reason }})
		r := s.raw("c", "")
		require.Equal(t, byte(rawPing), r.read().first)
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
			require.Equal(t, byte(rawPing), f.first)
			r.write(masked(rawPong, f.payload))
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
		require.Equal(t, byte(rawText|0x40), f.first)
		require.Less(t, len(f.payload), 500)
		text, err := io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(f.payload), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))))
		require.NoError(t, err)
		require.Equal(t, `{"header":"long","body":`+body+`}`, string(text))
		require.Equal(t, text, plain.wantText("long").payload)
		s.publish("c", "short", `1`)
		require.Equal(t, byte(rawText), r.readNext().first)
	})
	t.Run("what does not shrink is sent as it is", func(t *testing.T) {
		s := serve(t, channels.Options{CompressBytes: 1})
		r := s.raw("c", offer)
		s.publish("c", "x", `1`)
		require.Equal(t, byte(rawText), r.readNext().first)
	})
	t.Run("off", func(t *testing.T) {
		s := serve(t, channels.Options{CompressBytes: -1})
		r := s.raw("c", offer)
		s.publish("c", "long", body)
		require.Equal(t, byte(rawText), r.readNext().first)
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

// TestALostConnection vanishes without a word while it is published to.
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

// Subscribers come to channels, and leave them, while messages are published:
// each time the channel may be on its way out. Nothing breaks, and whoever is
// there afterwards gets what is published.
func TestPublishingWhileTheLastSubscriberLeaves(t *testing.T) {
	for _, hist := range []int{0, 1000} {
		t.Run(fmt.Sprintf("history %d", hist), func(t *testing.T) {
			s := serve(t, channels.Options{Channel: func(string) channels.ChannelOptions { return channels.ChannelOptions{HistorySize: hist} }})
			for n := range 100 {
				name := fmt.Sprintf("c%d", n%10)
				r := s.raw(name, "")
				var wg sync.WaitGroup
				for range 3 {
					wg.Go(func() {
						for range 5 {
							if _, err := s.hub.Publish(context.Background(), name, msg("m", "1")); err != nil {
								t.Error(err)
							}
						}
					})
				}
				r.c.Close() // while they publish
				wg.Wait()
			}
			until(t, "nobody is left", func() bool { return s.hub.Stats().Connections == 0 })
			w := s.join("c0", "")
			s.publish("c0", "after", "1")
			w.want("after", "1")
		})
	}
}

func TestUnusedChannelsAreFreed(t *testing.T) {
	s := serve(t, channels.Options{})
	for n := range 1000 {
		require.Equal(t, 200, s.do("GET", "/v1/channel/c"+strconv.Itoa(n), "").status)
	}
	w := s.join("stays", "")
	until(t, "one channel is left", func() bool { return s.hub.Stats().Channels == 1 })
	s.publish("stays", "m", "1")
	w.want("m", "1")
}

func TestMaxChannels(t *testing.T) {
	s := serve(t, channels.Options{MaxChannels: 2})
	s.join("a", "")
	s.join("b", "")
	a := s.handshake("/channel/c/")
	a.wantFail(t, http.StatusServiceUnavailable, "too_many_channels")
	require.NotEmpty(t, a.header.Get("Retry-After"))
	s.publish("b", "x", "1")
	s.publish("c", "x", "1") // it needs no place
	require.Equal(t, 2, s.hub.Stats().Channels)
	sub, err := s.hub.Subscribe(t.Context(), "c", nil)
	require.NoError(t, err, "the app's own code is never refused")
	defer sub.Close()
	s.publish("c", "x", "2")
	for m, err := range sub.Messages() {
		require.NoError(t, err)
		require.Equal(t, "2", string(m.Body))
		break
	}
	require.ErrorIs(t, s.hub.Bridge(channels.Identity{}).Subscribe(canceled(t), "d", nil), nil)
	s.handshake("/channel/d/").wantFail(t, 503, "too_many_channels")
}

// Names that nobody listens to make way, the one published on longest ago first.
func TestIdleChannelsMakeWay(t *testing.T) {
	s := serve(t, channels.Options{MaxChannels: 100, Channel: keeps})
	w := s.join("real", "")
	for i := range 1000 {
		s.publish(fmt.Sprint("x", i), "m", "1")
		if i%10 == 0 { // it is used all the time
			s.publish("used", "m", "1")
		}
	}
	require.Equal(t, 100, s.hub.Stats().Channels)
	for i := range 98 { // all but one who listen, and stay
		s.join(fmt.Sprint("new", i), "")
	}
	require.Equal(t, 100, s.hub.Stats().Channels)
	s.publish("real", "m", "2")
	w.want("m", "2")
	last := s.join("h99", "") // in the place of the last idle one
	s.handshake("/channel/other/").wantFail(t, 503, "too_many_channels")
	last.c.CloseNow()
	until(t, "who has gone makes way", func() bool {
		c, _, err := s.tryDial("/channel/other/", nil)
		if err == nil {
			c.c.CloseNow()
		}
		return err == nil
	})
}

// The one that makes way is the one that was published on longest ago, and the
// list of channels forgets it.
func TestTheLongestIdleChannelMakesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, err := channels.New(channels.Options{MaxChannels: 4})
		require.NoError(t, err)
		defer hub.Shutdown(context.Background())
		publish := func(name string) {
			_, err := hub.Publish(t.Context(), name, msg("x", "1"))
			require.NoError(t, err)
			time.Sleep(2 * time.Second) // in the bubble
		}
		list := func() (names []string) {
			page, err := hub.Channels(t.Context(), channels.ChannelsQuery{})
			require.NoError(t, err)
			for _, c := range page.Channels {
				names = append(names, c.Name)
			}
			return names
		}
		for _, name := range []string{"a", "b", "c", "d", "a"} {
			publish(name)
		}
		require.Equal(t, []string{"a", "b", "c", "d"}, list())
		publish("e")
		require.Equal(t, []string{"a", "c", "d", "e"}, list())
		sub, err := hub.Subscribe(t.Context(), "c", nil)
		require.NoError(t, err)
		publish("f")
		require.Equal(t, []string{"a", "c", "e", "f"}, list())
		publish("b")
		sub.Close()
		require.Equal(t, []string{"b", "c", "e", "f"}, list())
		publish("g")
		require.Equal(t, []string{"b", "e", "f", "g"}, list(), "c is idle, and was published on longest ago")
		require.Equal(t, 4, hub.Stats().Channels)
	})
}

// canceled is a context that has ended.
func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
