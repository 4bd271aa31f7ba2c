package channels_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// whoIs puts the Identity that f returns for a request into the request's context.
func whoIs(f func(r *http.Request) channels.Identity) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r.WithContext(channels.WithIdentity(r.Context(), f(r))))
		})
	}
}

// forbids is an Authorize hook that refuses everything on one channel.
func forbids(channel string) func(context.Context, channels.Request) error {
	return func(_ context.Context, r channels.Request) error {
		if r.Channel == channel {
			return channels.ErrForbidden
		}
		return nil
	}
}

// departures gets why each client has left, from its hook as Options.OnDisconnect.
type departures chan error

func (d departures) hook(_ channels.Client, reason error) { d <- reason }

// lines collects what hooks see, and what comes to several goroutines.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) add(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, fmt.Sprintf(format, args...))
}

// take returns what was added since the last take.
func (l *lines) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.all
	l.all = nil
	return all
}

// list returns what was added since the last take, and keeps it.
func (l *lines) list() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}

// wait waits for n lines, which come from another goroutine, and takes them.
func (l *lines) wait(t *testing.T, n int) []string {
	t.Helper()
	until(t, "the hooks are called", func() bool { return len(l.list()) >= n })
	return l.take()
}

// wantExchange wants the answer to a publish of this message.
func (w *wsClient) wantExchange(m message) message {
	w.t.Helper()
	want := `{"msg":"ok"}`
	if m.Offset > 0 {
		want = fmt.Sprintf(`{"msg":"ok","offset":%d,"epoch":%q}`, m.Offset, m.Epoch)
	}
	return w.want("exchange", want)
}

// wantRepeat wants the answer to a message whose key this one had.
func (w *wsClient) wantRepeat(m message) message {
	w.t.Helper()
	return w.want("exchange", fmt.Sprintf(`{"msg":"ok","offset":%d,"epoch":%q,"duplicate":true}`, m.Offset, m.Epoch))
}

// Authorize is asked once for each action of a client, and never for what the app's own
// code does.
func TestAuthorizePerAction(t *testing.T) {
	var asked lines
	var reply atomic.Pointer[error]
	s := serve(t, channels.Options{
		Channel: every(channels.ChannelOptions{HistorySize: 10, Presence: channels.PresenceList}),
		Authorize: func(_ context.Context, r channels.Request) error {
			asked.add("%s %s", r.Action, r.Channel)
			if err := reply.Load(); err != nil {
				return *err
			}
			return nil
		},
	})
	sse := []string{"Accept", "text/event-stream"}
	requests := []struct {
		asks string
		do   func() answer
	}{
		{"publish a", func() answer { return s.post("/v1/channel/a/publish", `{"header":"x","body":1}`) }},
		{"list ", func() answer { return s.get("/v1/channel") }},
		{"list ", func() answer { return s.get("/v1/nodes") }},
		{"list a", func() answer { return s.get("/v1/channel/a") }},
		{"history a", func() answer { return s.get("/v1/channel/a/history") }},
		{"presence a", func() answer { return s.get("/v1/channel/a/presence") }},
		{"subscribe a", func() answer { return s.handshake("/channel/a/") }},
		{"subscribe a", func() answer {
			e := s.openStream("a", "")
			defer e.close()
			if e.resp.StatusCode == 200 {
				return answer{status: 200}
			}
			return s.get("/channel/a/", sse...)
		}},
	}
	for i, r := range requests {
		t.Run(fmt.Sprint(i, " ", r.asks), func(t *testing.T) {
			reply.Store(nil)
			asked.take()
			require.Contains(t, []int{200, 101}, r.do().status)
			require.Equal(t, []string{r.asks}, asked.take())
			connects := s.hub.Stats().Connects

			for name, c := range map[string]struct {
				err     error
				status  int
				code    string
				message string
			}{
				"plain":             {errors.New("secret: table users, row 5"), 403, "forbidden", ""},
				"the package's own": {channels.ErrForbidden, 403, "forbidden", ""},
				"the app's":         {&channels.Error{Code: "no_money", Message: "pay first", Status: 402}, 402, "no_money", "pay first"},
				"without a status":  {&channels.Error{Code: "no", Message: "just no"}, 403, "no", "just no"},
				"wrapped":           {fmt.Errorf("secret: %w", &channels.Error{Code: "no", Message: "just no", Status: 409}), 409, "no", "just no"},
				"a context's":       {fmt.Errorf("secret: %w", context.Canceled), 403, "forbidden", ""},
			} {
				t.Run(name, func(t *testing.T) {
					reply.Store(&c.err)
					a := r.do()
					a.wantFail(t, c.status, c.code)
					require.NotContains(t, a.body, "secret")
					if c.message != "" {
						require.Equal(t, c.message, a.message())
					}
				})
			}
			require.Equal(t, connects, s.hub.Stats().Connects, "who is refused never connects")
		})
	}
	require.Contains(t, s.log.String(), "table users, row 5", "the log has what the client does not get")

	t.Run("over a WebSocket", func(t *testing.T) {
		reply.Store(nil)
		w := s.join("a", "")
		asked.take()
		plain := errors.New("secret")
		reply.Store(&plain)
		w.send(`{"header":"x","body":1,"id":1}`)
		m := w.next()
		require.Equal(t, "forbidden", m.ErrorCode())
		require.Equal(t, "1", string(m.ID))
		require.NotContains(t, string(m.Body), "secret")
		require.Equal(t, []string{"publish a"}, asked.take())
		var own error = &channels.Error{Code: "no_money", Message: "pay first"}
		reply.Store(&own)
		w.send(`{"header":"x","body":1}`)
		w.want("error", `{"code":"no_money","msg":"pay first"}`)
		reply.Store(nil)
		w.send(`{"header":"x","body":1}`) // the connection has stayed
		w.want("x", `1`)
	})
	t.Run("a batch asks for each", func(t *testing.T) {
		reply.Store(nil)
		asked.take()
		s.post("/v1/publish", `{"channels":["a","b","a/b"],"header":"x","body":1}`)
		require.Equal(t, []string{"publish a", "publish b"}, asked.take())
	})
	t.Run("not asked for what is wrong anyway, or for the app's own code", func(t *testing.T) {
		asked.take()
		s.post("/v1/channel/a%2Fb/publish", `{"header":"x","body":1}`)
		s.post("/v1/publish", `{`)
		s.get("/v1/channel/a%2Fb")
		s.get("/healthz")
		s.do("OPTIONS", "/v1/channel", "")
		publish(t, s.hub, "a", "x", "1")
		for method, err := range reads(t.Context(), s.hub, "a", "a", "a") {
			require.NoError(t, err, method)
		}
		subscription(t, s.hub, "a", nil)
		require.Empty(t, asked.take())
	})
}

func TestOnConnectRefuses(t *testing.T) {
	var refusal atomic.Pointer[error]
	var calls lines
	s := serve(t, channels.Options{
		Channel: keeps,
		OnConnect: func(context.Context, channels.Client) error {
			return *refusal.Load()
		},
		OnSubscribe:  func(context.Context, channels.Client, string) { calls.add("subscribe") },
		OnDisconnect: func(channels.Client, error) { calls.add("disconnect") },
	})
	for name, c := range map[string]struct {
		err    error
		status int
		code   string
	}{
		"plain":     {errors.New("secret"), 403, "forbidden"},
		"the app's": {&channels.Error{Code: "full", Message: "too many of you", Status: 429}, 429, "full"},
	} {
		t.Run(name, func(t *testing.T) {
			refusal.Store(&c.err)
			socket, stream := s.handshake("/channel/p/"), s.getStream("/channel/p/")
			socket.wantFail(t, c.status, c.code)
			if c.status == 429 {
				stream.wantEnded(t, c.code)
			} else {
				stream.wantFail(t, c.status, c.code)
			}
			require.NotContains(t, socket.body+stream.body, "secret")
		})
	}
	s.get("/v1/channel/p/presence").wantOK(t, `{"data":[],"cnt":0}`)
	s.get("/v1/channel").wantOK(t, `{"data":[],"next":""}`)
	require.Empty(t, calls.take(), "who was not let in does not leave")
	require.Zero(t, s.hub.Stats().Connects)
}

// However a connection ends, OnDisconnect is called once, with the reason.
func TestOnDisconnectOnceWithItsReason(t *testing.T) {
	for name, c := range map[string]struct {
		end    func(s *server, w *wsClient)
		reason error
	}{
		"the client closes":   {func(_ *server, w *wsClient) { w.c.Close(websocket.StatusNormalClosure, "bye") }, nil},
		"the client vanishes": {func(_ *server, w *wsClient) { w.c.CloseNow() }, nil},
		"disconnected":        {func(s *server, _ *wsClient) { disconnect(s.hub, "ann") }, channels.ErrDisconnected},
		"disconnected twice":  {func(s *server, _ *wsClient) { disconnect(s.hub, "ann"); disconnect(s.hub, s.id(1)) }, channels.ErrDisconnected},
		"disconnected while it closes": {func(s *server, w *wsClient) {
			disconnect(s.hub, "ann")
			w.c.CloseNow()
		}, channels.ErrDisconnected},
		"unsubscribed": {func(s *server, _ *wsClient) { unsubscribe(s.hub, s.id(1), "a") }, channels.ErrUnsubscribed},
		"drain":        {func(s *server, _ *wsClient) { go s.hub.Drain(context.Background()) }, channels.ErrDraining},
		"shutdown":     {func(s *server, _ *wsClient) { go s.hub.Shutdown(context.Background()) }, channels.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			type call struct {
				client channels.Client
				reason error
			}
			calls := make(chan call, 10)
			s := serve(t, channels.Options{ReplicaID: "n", OnDisconnect: func(c channels.Client, reason error) { calls <- call{c, reason} }}, asUser)
			w := s.joinAs("a", "X-User", "ann")
			c.end(s, w)
			for { // answers the close frame
				if _, err := w.read(); err != nil {
					break
				}
			}
			got := <-calls
			require.Equal(t, s.id(1), got.client.ID)
			require.Equal(t, "ann", got.client.Identity.ID)
			if c.reason == nil {
				require.NoError(t, got.reason)
			} else {
				require.ErrorIs(t, got.reason, c.reason)
			}
			require.NoError(t, s.hub.Shutdown(t.Context())) // waits for all that could call it
			require.Empty(t, calls)
		})
	}
}

// Neither OnConnect nor OnDisconnect is called for subscribers in Go: if one of them
// were, an app that counts connections with them would end below zero.
func TestHooksAreNotCalledForGoSubscribers(t *testing.T) {
	var calls lines
	s := serve(t, channels.Options{
		OnConnect:    func(_ context.Context, c channels.Client) error { calls.add("connect %s", c.Transport); return nil },
		OnSubscribe:  func(_ context.Context, c channels.Client, _ string) { calls.add("subscribe %s", c.Transport) },
		OnDisconnect: func(c channels.Client, _ error) { calls.add("disconnect %s", c.Transport) },
	})
	subscription(t, s.hub, "a", nil).Close()
	require.NoError(t, s.hub.Shutdown(t.Context()))
	require.Empty(t, calls.take())
}

// A client is ended like any other if Shutdown comes between its OnConnect and the
// answer to its handshake.
func TestShutdownDuringAHandshake(t *testing.T) {
	for _, transport := range []string{"websocket", "sse"} {
		t.Run(transport, func(t *testing.T) {
			inside, goOn := make(chan struct{}), make(chan struct{})
			left := make(departures, 2)
			s := serve(t, channels.Options{
				OnConnect:    func(context.Context, channels.Client) error { close(inside); <-goOn; return nil },
				OnDisconnect: left.hook,
			})
			c := s.dialRaw()
			c.Send(map[string]string{"websocket": upgradeRequest("/channel/a/"), "sse": streamRequest("/channel/a/")}[transport])
			<-inside
			down := background(func() error { return s.hub.Shutdown(context.Background()) })
			until(t, "the hub waits only for who is inside", func() bool {
				return s.getStream("/channel/b/").code() == "closed"
			})
			close(goOn)
			require.NoError(t, <-down)
			require.Zero(t, s.hub.Stats().Connections)
			require.Len(t, left, 1)
			require.Error(t, <-left)
			_, err := io.Copy(io.Discard, c.BR)
			require.False(t, isTimeout(err), "the connection is still open")
		})
	}
}

func TestOnSubscribePublishesToTheNewSubscriber(t *testing.T) {
	var hub *channels.Hub
	s := serve(t, channels.Options{Channel: keeps, OnSubscribe: func(ctx context.Context, c channels.Client, channel string) {
		_, err := hub.Publish(ctx, channel, msg("welcome", `"`+c.ID+`"`))
		assert.NoError(t, err)
	}, ReplicaID: "n"})
	hub = s.hub
	for _, name := range []string{"plain-a", "a", "h"} {
		t.Run(name, func(t *testing.T) {
			first := s.join(name, "")
			require.Equal(t, "welcome", first.next().Header)
			e := s.stream(name, "")
			require.Equal(t, "welcome", e.next().header())
			require.Equal(t, "welcome", first.next().Header)
			e.close()
		})
	}
	t.Run("after what was missed", func(t *testing.T) {
		w := s.join("h-missed", "")
		m := w.next()
		w.c.CloseNow()
		s.publish("h-missed", "x", `1`)
		s.publish("h-missed", "x", `2`)
		w = s.join("h-missed", m.Since())
		w.want("x", `1`)
		w.want("x", `2`)
		require.Equal(t, "welcome", w.next().Header)
	})
}

// Hooks run without a lock, so they may call every method of the hub.
func TestHooksMayCallTheHub(t *testing.T) {
	var hub *channels.Hub
	ask := func(ctx context.Context) {
		for method, err := range reads(ctx, hub, "h", "h", "p") {
			if err != nil && !errors.Is(err, channels.ErrClosed) {
				t.Error(method, err)
			}
		}
		hub.Stats()
		disconnect(hub, "nobody")
		unsubscribe(hub, "nobody", "h")
	}
	s := serve(t, channels.Options{
		Channel:   keeps,
		Authorize: func(ctx context.Context, _ channels.Request) error { ask(ctx); return nil },
		OnConnect: func(ctx context.Context, _ channels.Client) error { ask(ctx); return nil },
		OnSubscribe: func(ctx context.Context, c channels.Client, channel string) {
			ask(ctx)
			sub, err := hub.Subscribe(ctx, channel, nil)
			if assert.NoError(t, err) {
				sub.Close()
			}
		},
		OnPublish: func(ctx context.Context, p *channels.Publication) error {
			ask(ctx)
			switch p.Message.Header {
			case "forward":
				_, err := hub.Publish(ctx, "h-log", channels.Message{Header: "forwarded", Body: p.Message.Body})
				return err
			case "to the same":
				_, err := hub.Publish(ctx, p.Channel, msg("first", "0"))
				return err
			case "leave":
				disconnect(hub, p.Client)
			}
			return nil
		},
		OnDisconnect: func(channels.Client, error) {
			ask(context.Background())
			hub.Publish(context.Background(), "a", msg("left", "0"))
		},
	})
	hub = s.hub
	log := s.join("h-log", "")
	w := s.join("h", "")
	w.send(`{"header":"forward","body":1}`)
	log.want("forwarded", `1`)
	w.wantExchange(w.want("forward", `1`))
	w.send(`{"header":"to the same","body":1}`)
	first := w.want("first", `0`)
	m := w.want("to the same", `1`)
	require.Equal(t, first.Offset+1, m.Offset)
	w.wantExchange(m)

	var wg sync.WaitGroup
	for range 10 {
		c := s.join("h", "")
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			for range 5 {
				c.c.Write(ctx, websocket.MessageText, []byte(`{"header":"forward","body":1}`))
			}
			c.c.Write(ctx, websocket.MessageText, []byte(`{"header":"leave","body":1}`))
			for {
				if _, err := c.read(); err != nil {
					var ce websocket.CloseError
					if !errors.As(err, &ce) || ce.Code != 3003 {
						t.Errorf("ended with %v", err)
					}
					return
				}
			}
		})
	}
	wg.Wait()
	until(t, "all have left", func() bool { return hub.Stats().Connections == 2 })
}

// A panic in a hook is logged with its stack, and ends only the request or connection
// that the hook was called for.
func TestPanicsInHooks(t *testing.T) {
	const text = "the panic's own words"
	const sse = "text/event-stream"
	wantInternal := func(t *testing.T, a answer) {
		t.Helper()
		a.wantFail(t, 500, "internal")
		require.NotContains(t, a.body, text)
	}
	ends := func(t *testing.T, w *wsClient) {
		t.Helper()
		before, _ := w.wantClose(1011)
		require.Len(t, before, 1)
		require.Equal(t, "internal", before[0].ErrorCode())
		require.NotContains(t, string(before[0].Body), text)
	}
	publish := `{"header":"x","body":1}`
	type do func(t *testing.T, s *server, w *wsClient)
	overWebSocket := do(func(t *testing.T, s *server, w *wsClient) { w.send(publish); ends(t, w) })
	overHTTP := do(func(t *testing.T, s *server, _ *wsClient) {
		wantInternal(t, s.post("/v1/channel/a/publish", publish))
	})
	newClient := do(func(t *testing.T, s *server, _ *wsClient) {
		wantInternal(t, s.handshake("/channel/new/"))
		wantInternal(t, s.get("/channel/new/", "Accept", sse))
	})
	for _, c := range []struct {
		hook string
		does string
		do   do
	}{
		{"OnPublish", "over a WebSocket", overWebSocket},
		{"OnPublish", "over HTTP", overHTTP},
		{"OnPublish", "in a batch", func(t *testing.T, s *server, _ *wsClient) {
			a := s.post("/v1/publish", `{"channels":["a","a"],"header":"x","body":1}`)
			require.Equal(t, []string{"a internal", "a internal"}, outcomes(t, a))
		}},
		{"OnPublish", "by the app", func(t *testing.T, s *server, _ *wsClient) {
			_, err := s.hub.Publish(t.Context(), "a", msg("x", "1"))
			require.ErrorIs(t, err, channels.ErrInternal)
		}},
		{"Authorize", "publishing over a WebSocket", overWebSocket},
		{"Authorize", "publishing over HTTP", overHTTP},
		{"Authorize", "subscribing", newClient},
		{"Authorize", "reading", func(t *testing.T, s *server, _ *wsClient) {
			for _, path := range []string{"/v1/channel", "/v1/channel/a", "/v1/channel/a/history", "/v1/channel/a/presence"} {
				wantInternal(t, s.get(path))
			}
		}},
		{"OnConnect", "", newClient},
		{"OnSubscribe", "a WebSocket", func(t *testing.T, s *server, _ *wsClient) { ends(t, s.join("a", "")) }},
		{"OnSubscribe", "a stream", func(t *testing.T, s *server, _ *wsClient) {
			e := s.stream("a", "")
			e.wantEnd("internal")
		}},
		{"OnDisconnect", "", func(t *testing.T, s *server, w *wsClient) {
			w.c.CloseNow()
			until(t, "it is logged", func() bool { return strings.Contains(s.log.String(), text) })
		}},
		{"Options.Channel", "subscribing", newClient},
		{"Options.Channel", "publishing", func(t *testing.T, s *server, _ *wsClient) {
			wantInternal(t, s.post("/v1/channel/new/publish", publish))
			_, err := s.hub.Publish(t.Context(), "new", msg("x", "1"))
			require.ErrorIs(t, err, channels.ErrInternal)
			_, err = s.hub.Subscribe(t.Context(), "new", nil)
			require.ErrorIs(t, err, channels.ErrInternal)
		}},
	} {
		t.Run(c.hook+" "+c.does, func(t *testing.T) {
			var armed atomic.Bool
			hook := func(name string) {
				if name == c.hook && armed.Load() {
					panic(text)
				}
			}
			var left, subscribed atomic.Int32
			s := serve(t, channels.Options{
				Channel: func(string) channels.ChannelOptions {
					hook("Options.Channel")
					return channels.ChannelOptions{HistorySize: 10, Presence: channels.PresenceList}
				},
				Authorize:    func(context.Context, channels.Request) error { hook("Authorize"); return nil },
				OnConnect:    func(context.Context, channels.Client) error { hook("OnConnect"); return nil },
				OnSubscribe:  func(context.Context, channels.Client, string) { subscribed.Add(1); hook("OnSubscribe") },
				OnPublish:    func(context.Context, *channels.Publication) error { hook("OnPublish"); return nil },
				OnDisconnect: func(channels.Client, error) { left.Add(1); hook("OnDisconnect") },
			})
			other, w := s.join("a", ""), s.join("a", "")
			until(t, "the hook is called", func() bool { return subscribed.Load() == 2 }) // the client does not wait for it
			armed.Store(true)
			c.do(t, s, w)
			require.Contains(t, s.log.String(), "panic in "+c.hook)
			require.Contains(t, s.log.String(), text)
			require.Contains(t, s.log.String(), "hooks_test.go", "the stack")

			// The hub lives on: for others, and for newcomers.
			armed.Store(false)
			s.publish("a", "after", `1`)
			other.want("after", `1`)
			n := s.join("new", "")
			n.send(publish)
			n.want("x", `1`)
			other.c.CloseNow()
			n.c.CloseNow()
			w.c.CloseNow()
			until(t, "all have left", func() bool { return s.hub.Stats().Connections == 0 })
			until(t, "and nobody is left in the list", func() bool { cnt, _ := s.numbers("a"); return cnt == 0 })
		})
	}
}
