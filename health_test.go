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
)

func TestHTTPHealth(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps})
	s.get("/healthz").wantOK(t, `{"status":"ok"}`)
	s.get("/readyz").wantOK(t, `{"status":"ok"}`)

	// A client that does not answer the close frame keeps Drain waiting.
	c := s.upgrade("/channel/a/")
	ctx, cancel := context.WithCancel(t.Context())
	drained := background(func() error { return s.hub.Drain(ctx) })
	until(t, "new clients are refused", func() bool { return channels.Refusing(s.hub) })

	check := func(t *testing.T) {
		a := s.get("/readyz")
		a.wantFail(t, 503, "draining")
		require.NotEmpty(t, a.header.Get("Retry-After"))
		s.get("/healthz").wantOK(t, `{"status":"ok"}`)
		require.Equal(t, 503, s.do("HEAD", "/readyz", "").status)
		s.getStream("/channel/a/").wantEnded(t, "draining")
		a = s.handshake("/channel/a/")
		a.wantFail(t, 503, "draining")
		require.Equal(t, "close", a.header.Get("Connection"), "the client would come back to this replica")
		s.publish("a", "x", `1`).wantOK(t, `{"status":"ok"}`)
		require.Equal(t, 200, s.get("/v1/channel/h/history").status)
	}
	t.Run("while draining", check)
	cancel()
	require.ErrorIs(t, <-drained, context.Canceled)
	t.Run("after a drain that was cut short", check)
	c.Close()
	require.NoError(t, s.hub.Drain(t.Context()))
	t.Run("drained", check)

	require.NoError(t, s.hub.Shutdown(t.Context()))
	t.Run("shut down", func(t *testing.T) {
		s.get("/healthz").wantOK(t, `{"status":"ok"}`)
		s.get("/readyz").wantFail(t, 503, "closed")
		s.getStream("/channel/a/").wantEnded(t, "closed")
		s.handshake("/channel/a/").wantFail(t, 503, "closed")
		s.post("/v1/channel/a/publish", `{"header":"x","body":1}`).wantFail(t, 503, "closed")
		for _, path := range []string{"/v1/channel", "/v1/channel/a", "/v1/channel/h/history", "/v1/channel/p/presence", "/v1/nodes"} {
			s.get(path).wantFail(t, 503, "closed")
		}
		a := s.post("/v1/publish", `{"channels":["a","b"],"header":"x","body":1}`)
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
		during(40*time.Second, r.wantReady)
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
		during(10*time.Second, func() { require.Equal(t, "ok", r.ready(0)) })
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

// A replica that was started while the Store is down has not noticed yet that it
// fails. That does not make the other replicas unready.
func TestReadyWhereANewcomerHasNotFoundTheStore(t *testing.T) {
	inBubble(t, 3, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		r.store.down.Store(true)
		time.Sleep(20 * time.Second)
		var late atomic.Bool
		late.Store(true)
		r.join("r3", func(o *channels.Options) { o.Store = hanging(r.store, &late, "Append", "Report") })
		during(20*time.Second, func() {
			for i := range 3 {
				require.Equal(t, "ok", r.ready(i))
			}
		})
		r.store.down.Store(false)
		late.Store(false)
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
			own = newFaultyStore(o.Store.(*faultyStore).log.Load())
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
		for phase := range 7 {
			during(20*time.Second, r.wantReady)
			time.Sleep(time.Duration(phase) * 500 * time.Millisecond)
			apart()
			during(20*time.Second, r.wantReady)
			for i := range r.hubs {
				require.Contains(t, r.status(0, "r"+strconv.Itoa(i)), "red: canary lost: mesh")
			}
			r.net.Heal()
			during(5*time.Second, func() { // each finds out at its own moment
				require.True(t, r.ready(0) == "ok" || r.ready(1) == "ok" || r.ready(2) == "ok", "nobody is ready")
			})
		}
		apart()
		during(20*time.Second, r.wantReady)
		r.join("r3", func(*channels.Options) { apart() })
		during(30*time.Second, r.wantReady)
		require.Contains(t, r.status(0, "r3"), "red: canary lost: mesh")
	})
}
