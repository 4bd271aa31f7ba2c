package meshtest

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/mesh"
)

var orderCases = []Case{
	{Name: "OrderOfManyGoroutines", Check: orderOfManyGoroutines,
		Explain: "The packets of many goroutines of one replica arrive once on each channel, in the order of Seq and in the order of each goroutine."},
	{Name: "FullMesh", Check: fullMesh,
		Explain: "Five replicas that all publish to each other under load lose nothing while none is slow."},
}

// pipe lets n goroutines of each member publish on the channels in turn. Each
// stays at most window ahead of the slowest receiver.
func pipe(t *testing.T, members []*member, channels []string, goroutines, each, window int) {
	t.Helper()
	var all sync.WaitGroup
	for _, from := range members {
		for g := range goroutines {
			all.Go(func() {
				for i := 1; i <= each; i++ {
					p := mesh.Packet{Channel: channels[(i+g)%len(channels)], Header: fmt.Sprint(i), Sender: fmt.Sprint(g)}
					if !assert.NoError(t, from.Publish(t.Context(), p)) {
						return
					}
					for deadline := time.Now().Add(patience); i%window == 0 && slowest(members, from) < goroutines*(i-window); time.Sleep(time.Millisecond) {
						if !assert.True(t, time.Now().Before(deadline), "the packets of %s do not arrive", from.id) {
							return
						}
					}
				}
			})
		}
	}
	all.Wait()
	for _, from := range members {
		eventually(t, "all packets of "+from.id+" arrive", func() bool { return slowest(members, from) >= goroutines*each })
	}
}

// slowest returns how many packets from from have arrived at the member that
// has the fewest.
func slowest(members []*member, from *member) int {
	least := -1
	for _, to := range members {
		if to != from && (least < 0 || to.heard(from.id) < least) {
			least = to.heard(from.id)
		}
	}
	return least
}

// requireOrder checks that a member got its packets in order, and none twice.
func requireOrder(t *testing.T, m *member, channels []string) {
	t.Helper()
	seqs := map[string]map[uint64]bool{}
	for _, ch := range channels {
		last, lastOf := map[string]uint64{}, map[[2]string]int{}
		for _, p := range m.all(ch) {
			if seqs[p.Origin] == nil {
				seqs[p.Origin] = map[uint64]bool{}
			}
			who := [2]string{p.Origin, p.Sender}
			i, err := strconv.Atoi(p.Header)
			if err != nil || seqs[p.Origin][p.Seq] || p.Seq <= last[p.Origin] || i <= lastOf[who] { // assertions for each of 60,000 would take seconds
				require.NoError(t, err)
				require.False(t, seqs[p.Origin][p.Seq], "%s got Seq %d of %s twice", m.id, p.Seq, p.Origin)
				require.Greater(t, p.Seq, last[p.Origin], "Seq rises on each channel")
				require.Greater(t, i, lastOf[who], "%s got the packets of a goroutine of %s out of order on %q", m.id, p.Origin, ch)
			}
			seqs[p.Origin][p.Seq], last[p.Origin], lastOf[who] = true, p.Seq, i
		}
	}
}

func orderOfManyGoroutines(t *testing.T, f Fabric) {
	m := joinAll(t, f, 3)
	channels := []string{"a", "b", "c", "d", "e"}
	subscribeAll(t, m, channels)
	pipe(t, m, channels, 8, 250, 50)
	for _, to := range m {
		requireOrder(t, to, channels)
		require.Equal(t, 2*8*250, to.total())
	}
}

func fullMesh(t *testing.T, f Fabric) {
	m := joinAll(t, f, 5)
	channels := []string{""}
	for i := range 10 {
		channels = append(channels, fmt.Sprint("c", i))
	}
	subscribeAll(t, m, channels[1:])
	pipe(t, m, channels, 2, 500, 100)
	for _, to := range m {
		requireOrder(t, to, channels)
		require.Equal(t, 4*2*500, to.total())
		require.Zero(t, to.Status().Dropped)
	}
}

// subscribeAll subscribes all members to all channels, and waits until the
// subscriptions are active.
func subscribeAll(t *testing.T, members []*member, channels []string) {
	t.Helper()
	for _, to := range members {
		to.subscribe(t, channels...)
	}
	for _, to := range members {
		for _, from := range members {
			if to != from {
				to.awaitFrom(t, from, channels...)
			}
		}
	}
}
