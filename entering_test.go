package channels_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// stuckStore does not answer what its hangs says, until it is released: a deaf
// one not even where the caller's context has ended.
type stuckStore struct {
	guardedStore
	hangs string // the name of a method, or of a hook that calls hang
	deaf  bool

	asked    chan struct{} // gets one for each call that hangs
	released chan struct{}
	release  func()
}

func newStuckStore(t *testing.T, hangs string, deaf bool) *stuckStore {
	s := &stuckStore{hangs: hangs, deaf: deaf, asked: make(chan struct{}, 1000), released: make(chan struct{})}
	s.guardedStore = guardedStore{newMemory(t), s.hang}
	s.release = sync.OnceFunc(func() { close(s.released) })
	t.Cleanup(s.release)
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

// Who is ended while being let in does not get in, wherever it waits: it has been
// allowed to, but the ban came after that.
func TestWhoIsEndedWhileBeingLetInStaysOut(t *testing.T) {
	type end struct {
		code string
		n    int // how many do ends
		do   func(h *channels.Hub, id string) (n int)
	}
	ends := map[string]end{
		"by user": {"disconnected", 1, func(h *channels.Hub, _ string) int { return disconnect(h, "eve") }},
		"by id":   {"disconnected", 1, disconnect},
		"unsubscribed": {"unsubscribed", 1, func(h *channels.Hub, _ string) int {
			return unsubscribe(h, "eve", "h") + unsubscribe(h, "eve", "other")
		}},
		"expired":  {"expired", 0, func(*channels.Hub, string) int { return 0 }},
		"drain":    {"draining", 0, func(h *channels.Hub, _ string) int { h.Drain(context.Background()); return 0 }},
		"shutdown": {"closed", 0, func(h *channels.Hub, _ string) int { h.Shutdown(context.Background()); return 0 }},
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
							got <- s.getStream("/channel/h/")
						} else {
							got <- s.handshake("/channel/h/")
						}
					}()
					<-st.asked
					require.Equal(t, e.n, e.do(s.hub, s.id(1)))
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

// The same from another replica, and for a subscriber in Go.
func TestWhoIsEndedElsewhereWhileBeingLetInStaysOut(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		ctx := channels.WithIdentity(context.Background(), channels.Identity{ID: "eve"})
		for what, tell := range map[string]func() int{
			"disconnected": func() int { return disconnected(t, r.hubs[1].DisconnectUser, "eve") },
			"unsubscribed": func() int { return unsubscribed(t, r.hubs[1].UnsubscribeUser, "eve", "c") },
		} {
			ended := background(func() error {
				_, err := r.hubs[0].Subscribe(ctx, "c", nil)
				return err
			})
			synctest.Wait() // it waits for the Store
			require.Zero(t, tell(), "it is on the other one")
			begin := time.Now()
			require.Equal(t, what, reasonCode(<-ended))
			require.Less(t, time.Since(begin), time.Second)
		}
	}, func(i int, o *channels.Options) {
		if i == 0 {
			var hangs atomic.Bool
			hangs.Store(true)
			o.Store = hanging(o.Store, &hangs, "Tops")
		}
	})
}

// An id names one connection of one life of a replica.
func TestIdsDoNotComeAgain(t *testing.T) {
	ids := map[string]bool{}
	for range 3 {
		hub := newHub(t, channels.Options{ReplicaID: "web-1"})
		sub := subscription(t, hub, "c", nil)
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
				hub := newHub(t, channels.Options{
					WriteTimeout: time.Second,
					OnConnect: func(_ context.Context, c channels.Client) error { // it minds no context
						entered <- c.ID
						time.Sleep(time.Minute)
						return nil
					},
				})
				w := httptest.NewRecorder()
				served := serveStream(t.Context(), hub, w, "/channel/a/")
				id := <-entered
				code := "disconnected"
				if end == "disconnect" {
					require.Equal(t, 1, disconnected(t, hub.DisconnectClient, id))
				} else {
					code = "closed"
					go hub.Shutdown(context.Background())
				}
				<-served
				require.Contains(t, w.Body.String(), `"`+code+`"`)
			})
		})
	}
}
