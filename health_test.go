package channels_test

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/store"
)

func TestHTTPHealth(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps})
	s.do("GET", "/healthz", "").wantOK(t, `{"status":"ok"}`)
	s.do("GET", "/readyz", "").wantOK(t, `{"status":"ok"}`)

	// A client that does not answer the close frame keeps Drain waiting.
	c := s.dialRaw()
	c.upgrade("/channel/a/")
	ctx, cancel := context.WithCancel(t.Context())
	drained := make(chan error, 1)
	go func() { drained <- s.hub.Drain(ctx) }()
	until(t, "not ready", func() bool { return s.do("GET", "/readyz", "").status != 200 })

	check := func(t *testing.T) {
		a := s.do("GET", "/readyz", "")
		a.wantFail(t, 503, "draining")
		require.NotEmpty(t, a.header.Get("Retry-After"))
		s.do("GET", "/healthz", "").wantOK(t, `{"status":"ok"}`)
		require.Equal(t, 503, s.do("HEAD", "/readyz", "").status)
		s.do("GET", "/channel/a/", "", "Accept", "text/event-stream").wantEnded(t, "draining")
		s.handshake("/channel/a/").wantFail(t, 503, "draining")
		s.publish("a", "x", `1`).wantOK(t, `{"status":"ok"}`)
		require.Equal(t, 200, s.do("GET", "/v1/channel/h/history", "").status)
	}
	t.Run("while draining", check)
	cancel()
	require.ErrorIs(t, <-drained, context.Canceled)
	t.Run("after a drain that was cut short", check)
	c.close()
	require.NoError(t, s.hub.Drain(t.Context()))
	t.Run("drained", check)

	require.NoError(t, s.hub.Shutdown(t.Context()))
	t.Run("shut down", func(t *testing.T) {
		s.do("GET", "/healthz", "").wantOK(t, `{"status":"ok"}`)
		s.do("GET", "/readyz", "").wantFail(t, 503, "closed")
		s.do("GET", "/channel/a/", "", "Accept", "text/event-stream").wantEnded(t, "closed")
		s.handshake("/channel/a/").wantFail(t, 503, "closed")
		s.do("POST", "/v1/channel/a/publish", `{"header":"x","body":1}`).wantFail(t, 503, "closed")
		s.do("GET", "/v1/channel", "").wantFail(t, 503, "closed")
		s.do("GET", "/v1/channel/a", "").wantFail(t, 503, "closed")
		s.do("GET", "/v1/channel/h/history", "").wantFail(t, 503, "closed")
		s.do("GET", "/v1/channel/p/presence", "").wantFail(t, 503, "closed")
		a := s.do("POST", "/v1/publish", `{"channels":["a","b"],"header":"x","body":1}`)
		require.Equal(t, []string{"a closed", "b closed"}, outcomes(t, a))
	})
}

// If the Store fails all replicas, they stay ready: channels without history go on,
// and a balancer must not be left without any replica.
func TestReadyWhileTheStoreFailsAll(t *testing.T) {
	inBubble(t, 3, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		r.store.down.Store(true)
		s := r.subscribe(1, "c", nil)
		for range 400 {
			time.Sleep(100 * time.Millisecond)
			for i := range r.hubs {
				require.Equal(t, "ok", r.ready(i))
			}
		}
		r.publish(0, "c", 1)
		synctest.Wait()
		require.Len(t, s.close(), 1)
		for i := range r.hubs { // one that hears of no other cannot know whose fault it is
			r.net.Cut("r2", "r"+strconv.Itoa(i))
		}
		time.Sleep(8 * time.Second)
		require.Equal(t, "store_unavailable", r.ready(2))
		require.Equal(t, "ok", r.ready(0))
		r.net.Heal()
		r.store.down.Store(false)
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			require.Equal(t, "ok", r.ready(0))
		}
	})
	t.Run("one", func(t *testing.T) {
		inBubble(t, 1, nil, func(r *replicas) {
			time.Sleep(4500 * time.Millisecond)
			r.store.down.Store(true)
			time.Sleep(2 * time.Second)
			require.Equal(t, "store_unavailable", r.ready(0))
		})
	})
}

// silent is a Store whose Append and Report can be made to hang.
type silent struct {
	store.Store
	on atomic.Bool
}

func (s *silent) Append(ctx context.Context, ch string, e store.Entry, o store.AppendOptions) (store.Position, bool, error) {
	if s.on.Load() {
		<-ctx.Done()
		return store.Position{}, false, ctx.Err()
	}
	return s.Store.Append(ctx, ch, e, o)
}

func (s *silent) Report(ctx context.Context, r store.Report) (bool, error) {
	if s.on.Load() {
		<-ctx.Done()
		return false, ctx.Err()
	}
	return s.Store.Report(ctx, r)
}

// A replica that was started while the Store is down has not noticed yet that it
// fails. That does not make the other replicas unready.
func TestReadyWhereANewcomerHasNotFoundTheStore(t *testing.T) {
	inBubble(t, 3, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		r.store.down.Store(true)
		time.Sleep(20 * time.Second)
		node := r.net.Join("r3")
		defer node.Close()
		late := &silent{Store: r.store}
		late.on.Store(true)
		hub, err := channels.New(channels.Options{ReplicaID: "r3", Store: late, Mesh: node, Logger: quiet})
		require.NoError(t, err)
		r.hubs = append(r.hubs, hub)
		for range 200 {
			time.Sleep(100 * time.Millisecond)
			for i := range 3 {
				require.Equal(t, "ok", r.ready(i))
			}
		}
		r.store.down.Store(false)
		late.on.Store(false)
		time.Sleep(15 * time.Second)
		for i := range r.hubs {
			require.Equal(t, "ok", r.ready(i))
			require.Equal(t, "green", r.status(i, "r3"))
		}
	})
}

// If only one replica has lost the Store, it is not ready, so clients go to the others.
func TestNotReadyWhereOthersHaveTheStore(t *testing.T) {
	var own *faultyStore
	inBubble(t, 2, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		own.down.Store(true)
		time.Sleep(11 * time.Second)
		require.Equal(t, "store_unavailable", r.ready(0))
		require.Equal(t, "ok", r.ready(1))
		own.down.Store(false)
		time.Sleep(4 * time.Second)
		require.Equal(t, "ok", r.ready(0))
	}, func(i int, o *channels.Options) {
		if i == 0 {
			shared := o.Store.(*faultyStore)
			own = &faultyStore{Store: shared.Store}
			own.log.Store(shared.log.Load())
			o.Store = own
		}
	})
}

// If every replica is cut off from every other, all stay ready, as clients are no
// better off elsewhere. That holds at each moment, in whatever order they notice, and
// for a replica that is started later and reaches no other either.
func TestReadyWhereAllAreCutOffFromEachOther(t *testing.T) {
	inBubble(t, 4, nil, func(r *replicas) {
		last := r.hubs[3]
		require.NoError(t, last.Shutdown(context.Background()))
		r.hubs = r.hubs[:3]
		apart := func() {
			for _, pair := range [][2]string{{"r0", "r1"}, {"r0", "r2"}, {"r1", "r2"}, {"r3", "r0"}, {"r3", "r1"}, {"r3", "r2"}} {
				r.net.Cut(pair[0], pair[1])
			}
		}
		ready := func(seconds int) {
			for range 10 * seconds {
				time.Sleep(100 * time.Millisecond)
				for i := range r.hubs {
					require.Equal(t, "ok", r.ready(i), "r%d", i)
				}
			}
		}
		for phase := range 7 {
			ready(20)
			time.Sleep(time.Duration(phase) * 500 * time.Millisecond)
			apart()
			ready(20)
			for i := range r.hubs {
				require.Contains(t, r.status(0, "r"+strconv.Itoa(i)), "red: canary lost: mesh")
			}
			r.net.Heal()
			for range 50 { // each finds out at its own moment
				time.Sleep(100 * time.Millisecond)
				require.True(t, r.ready(0) == "ok" || r.ready(1) == "ok" || r.ready(2) == "ok", "nobody is ready")
			}
		}
		apart()
		ready(20)
		node := r.net.Join("r3")
		defer node.Close()
		apart()
		hub, err := channels.New(channels.Options{ReplicaID: "r3", Store: r.store, Mesh: node, Logger: quiet})
		require.NoError(t, err)
		r.hubs = append(r.hubs, hub)
		ready(30)
		require.Contains(t, r.status(0, "r3"), "red: canary lost: mesh")
	})
}
