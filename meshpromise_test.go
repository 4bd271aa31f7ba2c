package channels_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh/meshtest"
)

// TestPromiseDeliveryThroughPartitions cuts replicas apart, two from one and
// all from all, again and again, under load and with packets lost, repeated
// and late, while a fourth replica is killed.
func TestPromiseDeliveryThroughPartitions(t *testing.T) {
	var meshes []*brittle
	inBubble(t, 4, history, func(r *replicas) {
		r.net.SetFaults(meshtest.Faults{Drop: 0.1, Duplicate: 0.1, Delay: 40 * time.Millisecond})
		var subs []*subscriber
		for i := range 6 {
			subs = append(subs, r.subscribe(i%3, "c", nil))
		}
		var wg sync.WaitGroup
		const each = 500
		for i := range 3 {
			wg.Go(func() {
				for n := range each {
					r.publish(i, "c", n)
					time.Sleep(20 * time.Millisecond)
				}
			})
		}
		r.publish(3, "c", 0) // acknowledged by one that is killed right after
		meshes[3].mute.Store(true)
		r.store.mute.Store("r3")
		for range 4 {
			r.net.Cut("r0", "r2")
			r.net.Cut("r1", "r2")
			time.Sleep(time.Second)
			r.net.Cut("r0", "r1")
			time.Sleep(time.Second)
			r.net.Heal()
			time.Sleep(500 * time.Millisecond)
		}
		wg.Wait()
		r.net.Cut("r0", "r1") // the last one is lost as well
		r.net.Cut("r0", "r2")
		r.publish(0, "c", each)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		for _, s := range subs {
			require.Empty(t, s.resets)
			wantAll(t, s.close(), 1, 3*each+2)
		}
	}, breakable(&meshes))
}

// TestPromiseShutdownDeliversToTheLast drains a replica while another one
// publishes: who is told to go last misses nothing up to then.
func TestPromiseShutdownDeliversToTheLast(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		const clients = 200 // 5 ms for each
		bodies := make([]*httptest.ResponseRecorder, clients)
		for i := range bodies {
			var leave func()
			bodies[i], leave = r.stream(0, "c")
			defer leave()
		}
		inGo := r.subscribe(0, "c", nil)
		synctest.Wait()
		drained := make(chan error, 1)
		go func() { drained <- r.hubs[0].Drain(context.Background()) }()
		published := 0
		for len(drained) == 0 {
			r.publish(1, "c", published)
			published++
			time.Sleep(10 * time.Millisecond)
		}
		require.NoError(t, <-drained)
		require.Greater(t, published, 90)
		most := 0
		for _, b := range bodies {
			most = max(most, strings.Count(b.Body.String(), `"header":"n"`))
		}
		require.GreaterOrEqual(t, most, published-2)
		synctest.Wait()
		require.Len(t, inGo.messages(), published, "Go subscribers stay until Shutdown")
		inGo.close()
	})
}

// TestPromiseShutdownHandsOverWhatWasAcknowledged shuts a replica down under
// load: what it has acknowledged reaches the other one's subscribers.
func TestPromiseShutdownHandsOverWhatWasAcknowledged(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		s := r.subscribe(1, "c", nil)
		var mu sync.Mutex
		acked := 0
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for {
					_, err := r.hubs[0].Publish(context.Background(), "c", msg("n", "1"))
					if errors.Is(err, channels.ErrClosed) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					acked++
					mu.Unlock()
					time.Sleep(time.Millisecond)
				}
			})
		}
		time.Sleep(100 * time.Millisecond)
		require.NoError(t, r.hubs[0].Shutdown(context.Background()))
		wg.Wait()
		synctest.Wait()
		require.Greater(t, acked, 500)
		require.Len(t, s.close(), acked)
	})
}
