package zmqmesh_test

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/zmqmesh"
)

// TestStoppedReader: a replica that stops reading is given up. What waits for it
// is bounded and counted, and other replicas get everything. Not parallel,
// because it measures memory.
func TestStoppedReader(t *testing.T) {
	const bodies, size = 4_000, 32 << 10 // 125 MiB
	const queue = 8 << 20
	a := newMesh(t, "a", func(o *zmqmesh.Options) { o.QueueBytes, o.MaxPacketBytes = queue, 1<<20 })
	friend := newMesh(t, "friend")
	var got int64
	counted := make(chan int64, bodies)
	in := receiveWith(t, friend, func(p mesh.Packet) {
		if p.Header == "big" {
			got++
			counted <- got
		}
	})
	friend.SetPeers(map[string]string{"a": a.Address()})
	require.NoError(t, friend.Subscribe("x"))
	in.await(t, lostOf("a"))
	c, _ := join(t, a, "stopped")
	write(t, c, frame(0, "\x01x\x00"))
	beats(t, c)
	peerOf := func(id string) (found mesh.Peer) {
		for _, p := range a.Status().Peers {
			if p.ID == id {
				found = p
			}
		}
		return found
	}
	body := make([]byte, size)
	before := heap()
	most := int64(0)
	for i := range bodies {
		require.NoError(t, a.Publish(t.Context(), mesh.Packet{Channel: "x", Header: "big", Body: body}))
		if i%50 == 49 {
			eventually(t, "the healthy one gets all", func() bool { return int64(len(counted)) >= int64(i-50) })
			require.LessOrEqual(t, peerOf("stopped").Queued, queue)
		}
		if i%1000 == 999 {
			most = max(most, heap()-before)
		}
	}
	eventually(t, "the healthy one gets all", func() bool { return len(counted) == bodies })
	require.Less(t, most, int64(48<<20))
	require.Positive(t, a.Status().Dropped)
	eventually(t, "the stopped one is given up", func() bool { return peerOf("stopped").ID == "" })
	require.Zero(t, peerOf("friend").Dropped)
}

func withLongQueue(o *zmqmesh.Options) { o.QueueBytes, o.QueuePackets = 1<<30, 1<<30 }

// TestRestartIsNoDrop: packets for a replica that dies or leaves do not count as
// dropped, neither those that waited nor those that came before all its channels
// were forgotten.
func TestRestartIsNoDrop(t *testing.T) {
	t.Parallel()
	for name, kill := range map[string]bool{"killed": true, "left": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newMesh(t, "a", withLongQueue)
			c, conn := join(t, a, "b")
			require.NoError(t, c.SetReadBuffer(16<<10))
			var topics []byte
			for i := range 20_000 { // forgetting them takes a while
				topics = append(topics, frame(0, fmt.Sprintf("\x01%d\x00", i))...)
			}
			write(t, c, topics, question(1))
			_, err := conn.RecvMsg()
			require.NoError(t, err)
			for range 400 { // more than the system takes
				require.NoError(t, a.Publish(t.Context(), mesh.Packet{Body: make([]byte, 32<<10)}))
			}
			require.Positive(t, a.Status().Peers[0].Queued)
			if kill {
				require.NoError(t, c.SetLinger(0))
				require.NoError(t, c.Close())
			} else {
				require.NoError(t, c.CloseWrite())
			}
			eventually(t, "it has gone", func() bool {
				require.NoError(t, a.Publish(t.Context(), mesh.Packet{Header: "h"}))
				return len(a.Status().Peers) == 0
			})
			require.Zero(t, a.Status().Dropped)
		})
	}
}

// TestSilentIsNoDrop: packets for a replica that dies without hanging up, as in a
// power cut, do not count as dropped either, whether its silence is noticed first
// or that it takes nothing.
func TestSilentIsNoDrop(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		takes bool
		err   string // that its reader ends with
	}{
		"silence": {true, "i/o timeout"},
		"stall":   {false, "use of closed network connection"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log logbook
			a := newMesh(t, "a", withLongQueue, withLog(&log))
			c, _ := join(t, a, "b")
			require.NoError(t, c.SetReadBuffer(16<<10))
			awaitPeers(t, a, 1)
			const size = 32 << 10
			if test.takes { // all the time, but no more than some MiB a second
				var reading sync.WaitGroup
				defer reading.Wait()
				defer c.Close()
				reading.Go(func() {
					pace := time.NewTicker(5 * time.Millisecond)
					defer pace.Stop()
					buf := make([]byte, size)
					for {
						if _, err := c.Read(buf); err != nil {
							return
						}
						<-pace.C
					}
				})
			}
			eventually(t, "it is given up", func() bool {
				peers := a.Status().Peers
				if len(peers) == 0 {
					return true
				}
				for range (16<<20 - peers[0].Queued) / size { // more than the system takes: some always wait
					require.NoError(t, a.Publish(t.Context(), mesh.Packet{Body: make([]byte, size)}))
				}
				return false
			})
			eventually(t, "it is said why", func() bool { return log.Has("a replica has disconnected") })
			require.Contains(t, log.Line("a replica has disconnected"), test.err)
			require.Zero(t, a.Status().Dropped)
		})
	}
}

// queueMore publishes 400 packets of 32 KiB, more than the system takes, and has a
// little of them read meanwhile: a replica that takes nothing is given up after
// zmtp.StallTimeout, and a busy machine may need longer to publish them.
func queueMore(t *testing.T, a *zmqmesh.Mesh, c net.Conn) {
	t.Helper()
	for i := range 400 {
		require.NoError(t, a.Publish(t.Context(), mesh.Packet{Body: make([]byte, 32<<10)}))
		if i%10 == 9 {
			require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
			_, err := io.CopyN(io.Discard, c, 32<<10)
			require.NoError(t, err)
		}
	}
}

// TestStalledIsDropped: if a replica takes nothing although its heartbeats come,
// it is given up, and each packet that waited for it counts as dropped once.
func TestStalledIsDropped(t *testing.T) {
	t.Parallel()
	a := newMesh(t, "a")
	c, _ := join(t, a, "b")
	require.NoError(t, c.SetReadBuffer(16<<10))
	awaitPeers(t, a, 1)
	beats(t, c)
	queueMore(t, a, c)
	var queued int
	require.Zero(t, a.Status().Dropped)
	eventually(t, "it is given up", func() bool {
		peers := a.Status().Peers
		if len(peers) == 1 && peers[0].Dropped == 0 {
			queued = peers[0].Queued
		}
		return len(peers) == 0
	})
	waited := int64(queued / (32 << 10))
	require.Positive(t, waited)
	require.Equal(t, waited, a.Status().Dropped)
}

// TestCloseLogsWhatItDrops: if a replica takes nothing, Close gives up and logs it.
func TestCloseLogsWhatItDrops(t *testing.T) {
	t.Parallel()
	var log logbook
	a := newMesh(t, "a", withLog(&log), func(o *zmqmesh.Options) { o.Linger = time.Millisecond })
	c, _ := join(t, a, "b")
	require.NoError(t, c.SetReadBuffer(16<<10))
	awaitPeers(t, a, 1)
	queueMore(t, a, c)
	require.NoError(t, a.Close())
	require.Contains(t, log.Line("closed before a replica had taken all"), "peer=b")
}
