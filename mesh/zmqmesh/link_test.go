package zmqmesh_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/internal/packet"
	"github.com/channels-go/channels/mesh/zmqmesh"
)

// upTo tells whether m's only peers are these, and are up.
func upTo(m *zmqmesh.Mesh, ids ...string) bool {
	peers := m.Status().Peers
	for i, p := range peers {
		if i >= len(ids) || p.ID != ids[i] || !p.Up {
			return false
		}
	}
	return len(peers) == len(ids)
}

func awaitUp(t testing.TB, m *zmqmesh.Mesh, ids ...string) {
	t.Helper()
	eventually(t, fmt.Sprint("links to ", ids), func() bool { return upTo(m, ids...) })
}

// TestSelfAndDuplicate: a replica that is told its own address, and those of a
// peer twice, has one link to that one, which the other address takes over.
func TestSelfAndDuplicate(t *testing.T) {
	t.Parallel()
	b := open(t, options(t, "b"))
	one, two := newProxy(t, tcp(b)), newProxy(t, tcp(b))
	a := open(t, options(t, "a"))
	in := receive(t, a)
	self := newProxy(t, tcp(a))
	a.SetPeers(map[string]string{"x": a.Address(), "y": self.address(), "b": one.address(), "z": two.address()})
	awaitUp(t, a, "b")
	eventually(t, "all addresses were tried", func() bool { return self.count()+one.count()+two.count() >= 3 })
	eventually(t, "and set aside", func() bool { return upTo(a, "b") && one.open()+two.open()+self.open() == 1 })
	require.Zero(t, a.Status().Refused+b.Status().Refused)
	var since time.Time
	rtts := map[time.Duration]bool{}
	eventually(t, "one link stays for some heartbeats: the addresses do not compete", func() bool {
		b := a.Status().Peers[0]
		if b.Since != since {
			since = b.Since
			clear(rtts)
		}
		rtts[b.RTT] = true
		return len(rtts) >= 4
	})
	for range 3 {
		linked, other := one, two
		if a.Status().Peers[0].Address == two.address() {
			linked, other = two, one
		}
		linked.set(false, true)
		linked.cut()
		eventually(t, "the other address takes over", func() bool {
			return upTo(a, "b") && a.Status().Peers[0].Address == other.address()
		})
		in.clear()
		eventually(t, "packets arrive once", func() bool {
			require.NoError(t, b.Publish(t.Context(), mesh.Packet{Header: "h"}))
			return in.count(message("h")) > 0
		})
		linked.set(false, false)
	}
	require.Less(t, self.count(), 5, "it dials itself again and again")
}

// TestNameWithoutProof: a process that says it is a replica, and does not prove
// it, does not keep out that replica, which is found at another address.
func TestNameWithoutProof(t *testing.T) {
	t.Parallel()
	key := []byte("the key of the mesh")
	with := func(id string) zmqmesh.Options {
		o := options(t, id)
		o.Key = key
		return o
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	a, b := open(t, with("a")), open(t, with("b"))
	a.SetPeers(map[string]string{"b": "tcp://" + ln.Addr().String()})
	c, err := ln.Accept()
	require.NoError(t, err)
	defer c.Close()
	named := make(chan struct{})
	var over atomic.Bool
	var running sync.WaitGroup
	defer running.Wait()
	defer c.Close()
	running.Go(func() {
		_ = zmqmesh.Stall(c, "b", true, func() { close(named) }) // until it is given up
		over.Store(true)
	})
	<-named
	a.SetPeers(map[string]string{"b": b.Address(), "x": "tcp://" + ln.Addr().String()})
	eventually(t, "the link to the real one", func() bool {
		for _, p := range a.Status().Peers {
			if p.Up && p.Address == b.Address() {
				return true
			}
		}
		return false
	})
	require.False(t, over.Load(), "the link had to wait for the end of the other handshake")
}

// TestSameID: two replicas with one id do not link, and both know, whichever of
// them dials. It is logged with the id, and not each time.
func TestSameID(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"", "the key of the mesh"} {
		var log logbook
		o := options(t, "a")
		o.Logger, o.Key = log.logger(), []byte(key)
		a, other := open(t, o), open(t, o)
		a.SetPeers(map[string]string{"x": other.Address()})
		for _, m := range []*zmqmesh.Mesh{a, other} {
			eventually(t, "it knows", func() bool { return errors.Is(m.Status().Err, mesh.ErrTwin) })
		}
		eventually(t, "they meet again and again", func() bool { return other.Status().Refused > 3 })
		require.Equal(t, 2, log.count("level=ERROR"), "one of each")
		require.Contains(t, log.line("level=ERROR"), "id=a")
		require.False(t, log.has("refused a connection"))
		require.False(t, upTo(a, "a"))
	}
}

// TestSameIDWithoutProof: who only says that it is this replica, and does not
// know the key, makes nobody look wrong, dialling or dialled.
func TestSameIDWithoutProof(t *testing.T) {
	t.Parallel()
	o := options(t, "a")
	o.Key = []byte("the key of the mesh")
	a := open(t, o)
	_, err := zmqmesh.Shake(dial(t, a), "a", 7, []byte("another key of no mesh"), false)
	require.Error(t, err)
	eventually(t, "it is refused", func() bool { return a.Status().Refused == 1 })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	a.SetPeers(map[string]string{"x": "tcp://" + ln.Addr().String()})
	for range 2 {
		c, err := ln.Accept()
		require.NoError(t, err)
		_, err = zmqmesh.Shake(c, "a", 7, []byte("another key of no mesh"), true)
		require.Error(t, err)
	}
	require.NoError(t, a.Status().Err)
}

// TestTwinHubs: two replicas of one name with no common Store, which nobody but
// the mesh can see, are not green.
func TestTwinHubs(t *testing.T) {
	t.Parallel()
	key := []byte("the key of the mesh")
	one, two := options(t, "a"), options(t, "a")
	one.Key, two.Key = key, key
	m := open(t, one)
	two.Peers = []string{m.Address()}
	for _, m := range []*zmqmesh.Mesh{m, open(t, two)} {
		hub := newHub(t, channels.Options{ReplicaID: "a", Mesh: m, Store: memory(t), Logger: slog.New(slog.DiscardHandler)})
		eventually(t, "it is yellow", func() bool {
			nodes, err := hub.Replicas(t.Context())
			return err == nil && len(nodes) == 1 && nodes[0].Status == channels.ReplicaYellow && slices.Contains(nodes[0].Reasons, "same name")
		})
	}
}

// TestAnnouncedHere: replicas on two machines that both announce a loopback
// address dial themselves, and somebody has to learn why they are alone.
func TestAnnouncedHere(t *testing.T) {
	t.Parallel()
	var log logbook
	o := options(t, "a")
	o.Logger = log.logger()
	a := open(t, o)
	a.SetPeers(map[string]string{"b": a.Address()})
	eventually(t, "it is logged", func() bool { return log.has("an address that leads here") })
}

// TestLoggedOncePerCause: a peer that is away is logged once for each way in
// which it is, not with each attempt, though each comes from another port.
func TestLoggedOncePerCause(t *testing.T) {
	t.Parallel()
	var log logbook
	o := options(t, "a")
	o.Logger = log.logger()
	a := open(t, o)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	a.SetPeers(map[string]string{"b": "tcp://" + ln.Addr().String()})
	resets := map[string]bool{}
	for i := range 6 {
		c, err := ln.Accept()
		require.NoError(t, err)
		_, err = io.ReadFull(c, make([]byte, 64)) // the greeting
		require.NoError(t, err)
		reset := i%2 == 0
		if reset {
			require.NoError(t, c.(*net.TCPConn).SetLinger(0))
		}
		require.NoError(t, c.Close())
		eventually(t, "it is told", func() bool {
			err := a.Status().Peers[0].Err
			if !reset {
				return strings.HasSuffix(err, "EOF")
			}
			if !strings.Contains(err, "reset by peer") || resets[err] {
				return false
			}
			resets[err] = true
			return true
		})
	}
	require.Equal(t, 2, log.count("link down"))
}

// TestSilenceIsLoggedOnce: nor is a peer that is a black hole, though each
// attempt lasts as long as a link that has held.
func TestSilenceIsLoggedOnce(t *testing.T) {
	t.Parallel()
	for name, accept := range map[string]func(c net.Conn) error{
		"says nothing": func(net.Conn) error { return nil },
		"answers nothing": func(c net.Conn) error { // once hands are shaken
			_, err := zmqmesh.Shake(c, "b", 1, nil, true)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log logbook
			o := options(t, "a")
			o.Logger = log.logger()
			a := open(t, o)
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer ln.Close()
			a.SetPeers(map[string]string{"b": "tcp://" + ln.Addr().String()})
			for range 3 { // the third attempt comes after two were logged, or not
				c, err := ln.Accept()
				require.NoError(t, err)
				defer c.Close()
				require.NoError(t, accept(c))
			}
			require.Equal(t, 1, log.count("link down"))
		})
	}
}

// TestAnotherLife: a replica that comes back under the same id is linked at
// once, while the link to its earlier life is a black hole.
func TestAnotherLife(t *testing.T) {
	t.Parallel()
	var log logbook
	o := options(t, "a")
	o.Logger = log.logger()
	a := open(t, o)
	in := receive(t, a)
	first := open(t, options(t, "b"))
	hole := newProxy(t, tcp(first))
	a.SetPeers(map[string]string{"b": hole.address()})
	in.await(t, lostOf("b"))
	hole.set(true, false)
	in.clear()
	second := open(t, options(t, "b"))
	a.SetPeers(map[string]string{"b": second.Address()})
	in.await(t, lostOf("b"))
	require.Equal(t, second.Address(), a.Status().Peers[0].Address)
	require.NoError(t, second.Publish(t.Context(), mesh.Packet{Header: "second"}))
	in.await(t, message("second"))
	require.False(t, log.has("the same id"))
}

// TestTwins: two living replicas with one id are logged, once, with both
// addresses, by those that they connect to as by those that connect to them.
func TestTwins(t *testing.T) {
	t.Parallel()
	const twins = "two replicas have the same id"
	logged := func(id string) (*zmqmesh.Mesh, *logbook) {
		var log logbook
		o := options(t, id)
		o.Logger = log.logger()
		return open(t, o), &log
	}
	one, other := open(t, options(t, "twin")), open(t, options(t, "twin"))
	dialler, dials := logged("dialler")
	listener, listens := logged("listener")
	dialler.SetPeers(map[string]string{"x": one.Address(), "y": other.Address()})
	one.SetPeers(map[string]string{"listener": listener.Address()})
	other.SetPeers(map[string]string{"listener": listener.Address()})
	for _, log := range []*logbook{dials, listens} {
		eventually(t, "it is logged", func() bool { return log.has(twins) })
	}
	line := dials.line(twins)
	require.Contains(t, line, one.Address())
	require.Contains(t, line, other.Address())
	for _, line := range []string{line, listens.line(twins)} {
		require.Contains(t, line, "level=ERROR")
		require.Regexp(t, `peer=twin address=\S+ other=\S+`, line)
	}
	before := listens.count("has connected again")
	eventually(t, "they go on", func() bool { return listens.count("has connected again") >= before+4 })
	require.Equal(t, 1, dials.count(twins))
	require.Equal(t, 1, listens.count(twins))
}

// TestBlackHole: a link on which nothing arrives any more is noticed, and made
// again when it can be, with a KindLost. Others do not suffer.
func TestBlackHole(t *testing.T) {
	t.Parallel()
	a, b, c := open(t, options(t, "a")), open(t, options(t, "b")), open(t, options(t, "c"))
	hole := newProxy(t, tcp(b))
	in := receive(t, a)
	a.SetPeers(map[string]string{"b": hole.address(), "c": c.Address()})
	awaitUp(t, a, "b", "c")
	in.await(t, lostOf("b"))
	in.clear()
	hole.set(true, true)
	require.NoError(t, b.Publish(t.Context(), mesh.Packet{Header: "lost"}))
	eventually(t, "the link is given up", func() bool { return !a.Status().Peers[0].Up })
	eventually(t, "by the other side too", func() bool { return len(b.Status().Peers) == 0 })
	require.NoError(t, c.Publish(t.Context(), mesh.Packet{Header: "from c"}))
	in.await(t, message("from c"))
	in.clear() // it is told while the link is down, too
	hole.set(false, false)
	awaitUp(t, a, "b", "c")
	in.await(t, lostOf("b"))
	require.NoError(t, b.Publish(t.Context(), mesh.Packet{Header: "after"}))
	in.await(t, message("after"))
	require.Zero(t, in.count(message("lost")))
}

// TestStoppedReader: a peer that stops reading is given up; what waited for it
// is bounded and counted, and others get all. Not parallel: it measures memory.
func TestStoppedReader(t *testing.T) {
	const bodies, size = 4_000, 32 << 10 // 125 MiB
	o := options(t, "a")
	o.QueueBytes, o.MaxPacketBytes = 8<<20, 1<<20
	a := open(t, o)
	friend := open(t, options(t, "friend"))
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
	c := dial(t, a)
	_, err := zmqmesh.Shake(c, "stopped", 7, nil, false)
	require.NoError(t, err)
	_, err = c.Write(frame(0, "\x01x\x00"))
	require.NoError(t, err)
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
			require.LessOrEqual(t, peerOf("stopped").Queued, o.QueueBytes)
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

// TestRestartIsNoDrop: packets for a peer that has died, or leaves, are not
// counted as dropped, neither those that waited nor those that came before all
// of its channels were forgotten.
func TestRestartIsNoDrop(t *testing.T) {
	t.Parallel()
	for name, kill := range map[string]bool{"killed": true, "left": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t, "a")
			o.QueueBytes, o.QueuePackets = 1<<30, 1<<30
			a := open(t, o)
			c := dial(t, a).(*net.TCPConn)
			require.NoError(t, c.SetReadBuffer(16<<10))
			conn, err := zmqmesh.Shake(c, "b", 1, nil, false)
			require.NoError(t, err)
			var topics []byte
			for i := range 20_000 { // which take a while to be forgotten
				topics = append(topics, frame(0, fmt.Sprintf("\x01%d\x00", i))...)
			}
			_, err = c.Write(append(topics, frame(0, "\x02\x00\x00\x00\x00\x00\x00\x00\x01")...))
			require.NoError(t, err)
			_, err = conn.RecvMsg()
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

// beats is a peer's heartbeat, until the test ends.
func beats(t *testing.T, c net.Conn) {
	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Millisecond):
				_, _ = c.Write(frame(0, "\x02\x00\x00\x00\x00\x00\x00\x00\x00"))
			}
		}
	})
	t.Cleanup(func() { close(stop); running.Wait() })
}

// TestSilentIsNoDrop: nor is what waits for a peer that has died without
// hanging up, as in a power cut, whether its silence is noticed first or that
// it takes nothing.
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
			o := options(t, "a")
			o.QueueBytes, o.QueuePackets, o.Logger = 1<<30, 1<<30, log.logger()
			a := open(t, o)
			c := dial(t, a).(*net.TCPConn)
			require.NoError(t, c.SetReadBuffer(16<<10))
			_, err := zmqmesh.Shake(c, "b", 1, nil, false)
			require.NoError(t, err)
			eventually(t, "it is a peer", func() bool { return len(a.Status().Peers) == 1 })
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
			eventually(t, "it is said why", func() bool { return log.has("a peer has gone") })
			require.Contains(t, log.line("a peer has gone"), test.err)
			require.Zero(t, a.Status().Dropped)
		})
	}
}

// TestStalledIsDropped: what waits for a peer that is given up because it takes
// nothing, while its heartbeats come, is counted, each packet once.
func TestStalledIsDropped(t *testing.T) {
	t.Parallel()
	a := open(t, options(t, "a"))
	c := dial(t, a).(*net.TCPConn)
	require.NoError(t, c.SetReadBuffer(16<<10))
	_, err := zmqmesh.Shake(c, "b", 1, nil, false)
	require.NoError(t, err)
	eventually(t, "it is a peer", func() bool { return len(a.Status().Peers) == 1 })
	beats(t, c)
	const size = 32 << 10
	var queued int
	for range 400 {
		require.NoError(t, a.Publish(t.Context(), mesh.Packet{Body: make([]byte, size)}))
		queued = a.Status().Peers[0].Queued
	}
	require.Zero(t, a.Status().Dropped)
	eventually(t, "it is given up", func() bool {
		peers := a.Status().Peers
		if len(peers) == 1 && peers[0].Dropped == 0 {
			queued = peers[0].Queued
		}
		return len(peers) == 0
	})
	waited := int64(queued / size)
	require.Positive(t, waited)
	require.Equal(t, waited, a.Status().Dropped)
}

func heap() int64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// A replica that a test plays: it takes connections of m.
type stage struct {
	t    *testing.T
	ln   net.Listener
	life uint64
}

func newStage(t *testing.T) *stage {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	return &stage{t, ln, 7}
}

func (s *stage) address() string { return "tcp://" + s.ln.Addr().String() }

// accept takes a connection, and answers its first question.
func (s *stage) accept() net.Conn {
	s.t.Helper()
	c, err := s.ln.Accept()
	require.NoError(s.t, err)
	conn, err := zmqmesh.Shake(c, "stage", s.life, nil, true)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { c.Close() })
	for {
		msg, err := conn.RecvMsg()
		require.NoError(s.t, err)
		if b := msg.Frames[0]; b[0] == 2 {
			_, err = c.Write(frame(0, "E"+string(b[1:])))
			require.NoError(s.t, err)
			return c
		}
	}
}

func (s *stage) send(c net.Conn, seqs ...uint64) {
	s.t.Helper()
	b := []byte{'P'}
	for _, seq := range seqs {
		b = packet.Append(b, &mesh.Packet{Seq: seq, Header: fmt.Sprint(seq)})
	}
	_, err := c.Write(frame(0, string(b)))
	require.NoError(s.t, err)
}

// TestStalePackets: what a peer has sent over one link is not delivered again
// over another one, unless it has another life.
func TestStalePackets(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	m := open(t, options(t, "m"))
	in := receive(t, m)
	m.SetPeers(map[string]string{"stage": s.address()})
	c := s.accept()
	s.send(c, 1, 2, 3)
	in.await(t, message("3"))
	c.Close()
	c = s.accept()
	s.send(c, 2, 3, 4)
	in.await(t, message("4"))
	for _, h := range []string{"1", "2", "3", "4"} {
		require.Equal(t, 1, in.count(message(h)), h)
	}
	c.Close()
	s.life++
	c = s.accept()
	s.send(c, 1, 5)
	in.await(t, message("5"))
	require.Equal(t, 2, in.count(message("1")))
	c.Close()
}

// TestSubscriptionIsTold: a channel that is subscribed to on a live link gets
// a KindLost of its own, one that was left a moment ago gets none.
func TestSubscriptionIsTold(t *testing.T) {
	t.Parallel()
	a, b := open(t, options(t, "a")), open(t, options(t, "b"))
	in := receive(t, b)
	b.SetPeers(map[string]string{"a": a.Address()})
	in.await(t, lostOf("a"))
	lost := func(ch string) func(mesh.Packet) bool {
		return func(p mesh.Packet) bool {
			return p.Kind == mesh.KindLost && p.Channel == ch && p.Origin == "a"
		}
	}
	require.NoError(t, b.Subscribe("x"))
	in.await(t, lost("x"))
	require.NoError(t, b.Unsubscribe("x"))
	require.NoError(t, b.Subscribe("x"))
	require.NoError(t, b.Subscribe("y")) // behind it
	in.await(t, lost("y"))
	require.NoError(t, a.Publish(t.Context(), mesh.Packet{Channel: "x", Header: "h"}))
	in.await(t, message("h"))
	require.Equal(t, 1, in.count(lost("x")))
	require.Equal(t, int64(in.count(func(p mesh.Packet) bool { return p.Kind == mesh.KindLost })), b.Status().Lost)
}

// TestPeersLeftOut: a peer that is left out keeps its link, and is not dialled
// again when that ends.
func TestPeersLeftOut(t *testing.T) {
	t.Parallel()
	a, b := open(t, options(t, "a")), open(t, options(t, "b"))
	p := newProxy(t, tcp(b))
	in := receive(t, a)
	a.SetPeers(map[string]string{"b": p.address(), "a": "tcp://127.0.0.1:1", "bad": "127.0.0.1:1"})
	in.await(t, lostOf("b"))
	a.SetPeers(nil)
	require.NoError(t, b.Publish(t.Context(), mesh.Packet{Header: "still"}))
	in.await(t, message("still"))
	dialled := p.count()
	p.cut()
	eventually(t, "it is forgotten", func() bool { return len(a.Status().Peers) == 0 })
	require.Equal(t, dialled, p.count())
}

// TestPeersOfOptionsAndDNS: the peers of Options and those of the DNS are linked.
func TestPeersOfOptionsAndDNS(t *testing.T) {
	t.Parallel()
	b, c := open(t, options(t, "b")), open(t, options(t, "c"))
	_, port, err := net.SplitHostPort(tcp(c))
	require.NoError(t, err)
	o := options(t, "a")
	o.Peers, o.DNS = []string{b.Address()}, "localhost:"+port
	a := open(t, o)
	has := func(id string) bool {
		for _, p := range a.Status().Peers {
			if p.ID == id && p.Up && p.RTT > 0 {
				return true
			}
		}
		return false
	}
	eventually(t, "both are linked", func() bool { return has("b") && has("c") })
	a.SetPeers(nil)
	require.True(t, has("b") && has("c"))
}

// TestMissed: what came while no Receive ran is told when one begins.
func TestMissed(t *testing.T) {
	t.Parallel()
	b := open(t, options(t, "b"))
	require.NoError(t, zmqmesh.Packets(b, packet.Append(nil, &mesh.Packet{Seq: 1, Header: "missed"})))
	in := receive(t, b)
	in.await(t, lostOf(""))
	require.Zero(t, in.count(message("missed")))
	require.ErrorContains(t, b.Receive(t.Context(), func(mesh.Packet) {}), "only one may")
}

// TestPublishErrors: a packet that cannot be sent is refused with its size.
func TestPublishErrors(t *testing.T) {
	t.Parallel()
	o := options(t, "a")
	o.MaxPacketBytes = 1 << 10
	a := open(t, o)
	require.ErrorContains(t, a.Publish(t.Context(), mesh.Packet{Body: make([]byte, 1024)}), "at most 1024 are allowed")
	require.ErrorContains(t, a.Publish(t.Context(), mesh.Packet{Kind: mesh.KindLost}), "none that is sent")
	require.ErrorContains(t, a.Subscribe(""), "must be 1 to 512")
	require.ErrorContains(t, a.Unsubscribe(string(make([]byte, 513))), "must be 1 to 512")
	require.NoError(t, a.Subscribe(string(bytes.Repeat([]byte("x"), 512))))
}

// TestSmallerPeer: a peer that takes smaller packets loses the larger ones,
// and is told; the link stays.
func TestSmallerPeer(t *testing.T) {
	t.Parallel()
	o := options(t, "b")
	o.MaxPacketBytes = 1 << 10
	a, b := open(t, options(t, "a")), open(t, o)
	in := receive(t, b)
	b.SetPeers(map[string]string{"a": a.Address()})
	in.await(t, lostOf("a"))
	for i := range 3 {
		in.clear()
		require.NoError(t, a.Publish(t.Context(), mesh.Packet{Body: make([]byte, 2048<<(4*i))}))
		in.await(t, lostOf("a"))
	}
	require.NoError(t, a.Publish(t.Context(), mesh.Packet{Header: "small"}))
	in.await(t, message("small"))
	require.Equal(t, int64(3), a.Status().Dropped)
	require.Zero(t, in.count(func(p mesh.Packet) bool { return p.Body != nil }))
}

// TestConnectsAgain: a peer has one connection, the last one, and the number of
// its packets that were dropped goes on.
func TestConnectsAgain(t *testing.T) {
	t.Parallel()
	m := open(t, options(t, "m"))
	first, second := dial(t, m), dial(t, m)
	_, err := zmqmesh.Shake(first, "x", 1, nil, false)
	require.NoError(t, err)
	eventually(t, "the first one is in", func() bool { return len(m.Status().Peers) == 1 })
	require.NoError(t, m.Publish(t.Context(), mesh.Packet{Body: make([]byte, 2<<20)})) // too large for it
	_, err = zmqmesh.Shake(second, "x", 1, nil, false)
	require.NoError(t, err)
	require.NoError(t, first.SetDeadline(time.Now().Add(zmqmesh.IdleTimeout/2))) // before it is idle
	requireHungUp(t, first)
	require.Len(t, m.Status().Peers, 1)
	eventually(t, "the number goes on", func() bool { return m.Status().Peers[0].Dropped == 1 })
	require.Equal(t, int64(1), m.Status().Dropped)
}

// TestLeave: a peer that leaves a channel is sent no more of it.
func TestLeave(t *testing.T) {
	t.Parallel()
	m := open(t, options(t, "m"))
	c := dial(t, m)
	conn, err := zmqmesh.Shake(c, "x", 1, nil, false)
	require.NoError(t, err)
	echo := frame(0, "\x02\x00\x00\x00\x00\x00\x00\x00\x01")
	next := func() string {
		msg, err := conn.RecvMsg()
		require.NoError(t, err)
		return string(msg.Frames[0])
	}
	for _, ask := range []string{"\x01", "\x00"} {
		_, err = c.Write(append(frame(0, ask+"channel\x00"), echo...))
		require.NoError(t, err)
		require.Equal(t, "E", next()[:1])
		require.NoError(t, m.Publish(t.Context(), mesh.Packet{Channel: "channel", Header: "one"}))
		if ask == "\x01" {
			require.Contains(t, next(), "one")
		}
	}
	require.NoError(t, m.Publish(t.Context(), mesh.Packet{Header: "all"}))
	got := next()
	require.Contains(t, got, "all")
	require.NotContains(t, got, "one")
}

// TestCloseDoesNotLinger: Close waits only for what is not taken.
func TestCloseDoesNotLinger(t *testing.T) {
	t.Parallel()
	o := options(t, "a")
	o.Linger = time.Hour
	a, b := open(t, o), open(t, options(t, "b"))
	b.SetPeers(map[string]string{"a": a.Address()})
	awaitUp(t, b, "a")
	closed := make(chan error)
	go func() { closed <- a.Close() }() // ends with Close
	select {
	case err := <-closed:
		require.NoError(t, err)
	case <-time.After(patience):
		require.Fail(t, "Close waits for nothing")
	}
}

// TestReceiveWaits: Receive returns after the deliver that is under way.
func TestReceiveWaits(t *testing.T) {
	t.Parallel()
	m := open(t, options(t, "m"))
	ctx, cancel := context.WithCancel(t.Context())
	gate, inside := make(chan struct{}), make(chan struct{})
	var ended, early atomic.Bool
	var running sync.WaitGroup
	running.Go(func() {
		_ = m.Receive(ctx, func(mesh.Packet) {
			close(inside)
			<-gate
			early.Store(ended.Load())
		})
		ended.Store(true)
	})
	eventually(t, "Receive runs", func() bool { return zmqmesh.Receiving(m) })
	running.Go(func() { _ = zmqmesh.Packets(m, packet.Append(nil, &mesh.Packet{Seq: 1, Channel: "", Header: "h"})) })
	<-inside
	cancel()
	eventually(t, "Receive is about to end", func() bool { return !zmqmesh.Receiving(m) })
	for range 10_000 {
		runtime.Gosched()
	}
	close(gate)
	running.Wait()
	require.False(t, early.Load(), "Receive had returned")
}
