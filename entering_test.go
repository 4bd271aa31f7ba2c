package channels_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/store"
)

// stuckStore does not answer what its hangs says, until it is released: a deaf
// one not even where the caller's context has ended.
type stuckStore struct {
	store.Store
	hangs string // the name of a method
	deaf  bool

	asked    chan struct{} // gets one for each call that hangs
	released chan struct{}
	release  func()
}

func newStuckStore(t *testing.T, hangs string, deaf bool) *stuckStore {
	m, err := store.NewMemory(store.MemoryOptions{})
	require.NoError(t, err)
	s := &stuckStore{Store: m, hangs: hangs, deaf: deaf, asked: make(chan struct{}, 1000), released: make(chan struct{})}
	s.release = sync.OnceFunc(func() { close(s.released) })
	t.Cleanup(func() {
		s.release()
		m.Close()
	})
	return s
}

func (s *stuckStore) hang(ctx context.Context, method string) error {
	if s.hangs != method {
		return nil
	}
	select {
	case s.asked <- struct{}{}:
	default:
	}
	if s.deaf {
		<-s.released
		return nil
	}
	select {
	case <-s.released:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *stuckStore) Tops(ctx context.Context, names []string) ([]store.Position, error) {
	if err := s.hang(ctx, "Tops"); err != nil {
		return nil, err
	}
	return s.Store.Tops(ctx, names)
}

func (s *stuckStore) Report(ctx context.Context, r store.Report) (bool, error) {
	if err := s.hang(ctx, "Report"); err != nil {
		return false, err
	}
	return s.Store.Report(ctx, r)
}

func (s *stuckStore) Forget(ctx context.Context, node string) error {
	if err := s.hang(ctx, "Forget"); err != nil {
		return err
	}
	return s.Store.Forget(ctx, node)
}

// Who is ended while being let in does not get in, wherever it waits: it has been
// allowed to, but the ban came after that.
func TestWhoIsEndedWhileBeingLetInStaysOut(t *testing.T) {
	type end struct {
		code string
		do   func(h *channels.Hub, id string)
	}
	ends := map[string]end{
		"by user": {"disconnected", func(h *channels.Hub, _ string) {
			if n := disconnect(h, "eve"); n != 1 {
				panic(n)
			}
		}},
		"by id": {"disconnected", func(h *channels.Hub, id string) {
			if n := disconnect(h, id); n != 1 {
				panic(n)
			}
		}},
		"unsubscribed": {"unsubscribed", func(h *channels.Hub, _ string) {
			if n := unsubscribe(h, "eve", "h") + unsubscribe(h, "eve", "other"); n != 1 {
				panic(n)
			}
		}},
		"expired":  {"expired", func(*channels.Hub, string) {}},
		"drain":    {"draining", func(h *channels.Hub, _ string) { h.Drain(context.Background()) }},
		"shutdown": {"closed", func(h *channels.Hub, _ string) { h.Shutdown(context.Background()) }},
	}
	for _, where := range []string{"Authorize", "OnConnect", "Tops"} {
		for _, transport := range []string{"websocket", "sse"} {
			for how, e := range ends {
				t.Run(where+"/"+transport+"/"+how, func(t *testing.T) {
					st := newStuckStore(t, where, false)
					var calls lines
					s := serve(t, channels.Options{
						Store: st, StoreTimeout: time.Minute, Channel: history,
						Authorize: func(ctx context.Context, _ channels.Request) error { st.hang(ctx, "Authorize"); return nil },
						OnConnect: func(ctx context.Context, _ channels.Client) error {
							calls.add("connect")
							st.hang(ctx, "OnConnect")
							return nil
						},
						OnSubscribe:  func(context.Context, channels.Client, string) { calls.add("subscribe") },
						OnDisconnect: func(_ channels.Client, reason error) { calls.add("%s", reasonCode(reason)) },
					}, whoIs(func(*http.Request) channels.Identity {
						id := channels.Identity{ID: "eve"}
						if how == "expired" {
							id.Expires = time.Now().Add(200 * time.Millisecond)
						}
						return id
					}))
					got := make(chan answer, 1)
					go func() {
						if transport == "sse" {
							got <- s.do("GET", "/channel/h/", "", "Accept", "text/event-stream")
						} else {
							got <- s.handshake("/channel/h/")
						}
					}()
					<-st.asked
					e.do(s.hub, s.id(1))
					a := <-got
					require.Equal(t, e.code, a.code(), a.body)
					require.Zero(t, s.hub.Stats().Connections)
					require.Zero(t, s.hub.Stats().Queued)
					want := []string{"connect", e.code}
					if where == "Authorize" {
						want = nil
					}
					require.Equal(t, want, calls.take(), "OnDisconnect follows OnConnect")
					require.Zero(t, disconnect(s.hub, "eve"), "nothing is left of it")
				})
			}
		}
	}
}

func reasonCode(err error) string {
	var e *channels.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return "none"
}

// The same from another replica, and for a subscriber in Go.
func TestWhoIsEndedElsewhereWhileBeingLetInStaysOut(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		ctx := channels.WithIdentity(context.Background(), channels.Identity{ID: "eve"})
		for what, tell := range map[string]func() (int, error){
			"disconnected": func() (int, error) { return r.hubs[1].DisconnectUser(ctx, "eve") },
			"unsubscribed": func() (int, error) { return r.hubs[1].UnsubscribeUser(ctx, "eve", "c") },
		} {
			ended := make(chan error, 1)
			go func() {
				_, err := r.hubs[0].Subscribe(ctx, "c", nil)
				ended <- err
			}()
			synctest.Wait() // it waits for the Store
			n, err := tell()
			require.NoError(t, err)
			require.Zero(t, n, "it is on the other one")
			begin := time.Now()
			require.Equal(t, what, reasonCode(<-ended))
			require.Less(t, time.Since(begin), time.Second)
		}
	}, func(i int, o *channels.Options) {
		if i == 0 {
			o.Store = &deafTops{o.Store}
		}
	})
}

// deafTops is a Store whose Tops hangs.
type deafTops struct{ store.Store }

func (deafTops) Tops(ctx context.Context, _ []string) ([]store.Position, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// An id names one connection of one life of a replica.
func TestIdsDoNotComeAgain(t *testing.T) {
	ids := map[string]bool{}
	for range 3 {
		hub := newHub(t, channels.Options{ReplicaID: "web-1"})
		sub, err := hub.Subscribe(t.Context(), "c", nil)
		require.NoError(t, err)
		defer sub.Close()
		require.True(t, strings.HasPrefix(sub.ID(), "web-1-"))
		require.LessOrEqual(t, len(sub.ID()), len("web-1-")+8)
		ids[sub.ID()] = true
	}
	require.Len(t, ids, 3)
}

// A stream that is ended while a hook holds it up, for longer than its cut takes,
// is refused once the hook returns.
func TestAStreamIsEndedWhileAHookHangs(t *testing.T) {
	for _, end := range []string{"disconnect", "shutdown"} {
		t.Run(end, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				entered := make(chan string, 1)
				hub, err := channels.New(channels.Options{
					WriteTimeout: time.Second,
					Logger:       slog.New(slog.DiscardHandler),
					OnConnect: func(_ context.Context, c channels.Client) error { // it minds no context
						entered <- c.ID
						time.Sleep(time.Minute)
						return nil
					},
				})
				require.NoError(t, err)
				w := httptest.NewRecorder()
				served := make(chan struct{})
				go func() {
					defer close(served)
					r := httptest.NewRequest("GET", "/channel/a/", nil)
					r.Header.Set("Accept", "text/event-stream")
					hub.Handler().ServeHTTP(w, r)
				}()
				id := <-entered
				code := "disconnected"
				if end == "disconnect" {
					n, err := hub.DisconnectClient(t.Context(), id)
					require.NoError(t, err)
					require.Equal(t, 1, n)
				} else {
					code = "closed"
					go hub.Shutdown(context.Background())
				}
				<-served
				require.Contains(t, w.Body.String(), `"`+code+`"`)
				require.NoError(t, hub.Shutdown(context.Background()))
			})
		})
	}
}
