package zmqmesh_test

import (
	"context"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/zmtp/zmtptest"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/internal/packet"
	"github.com/channels-go/channels/mesh/zmqmesh"
)

// TestSelfAndDuplicate: a replica that is given its own address, and two
// addresses of another replica, has one link. The other address takes over when
// that ends.
func TestSelfAndDuplicate(t *testing.T) {
	t.Parallel()
	b := newMesh(t, "b")
	one, two := basetest.NewRelay(t, tcp(b)), basetest.NewRelay(t, tcp(b))
	a := newMesh(t, "a")
	in := receive(t, a)
	self := basetest.NewRelay(t, tcp(a))
	a.SetPeers(map[string]string{"x": a.Address(), "y": "tcp://" + self.Addr, "b": "tcp://" + one.Addr, "z": "tcp://" + two.Addr})
	awaitUp(t, a, "b")
	eventually(t, "all addresses were tried", func() bool { return self.Taken()+one.Taken()+two.Taken() >= 3 })
	eventually(t, "and set aside", func() bool { return upTo(a, "b") && one.Open()+two.Open()+self.Open() == 1 })
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
		if a.Status().Peers[0].Address == "tcp://"+two.Addr {
			linked, other = two, one
		}
		linked.Part()
		eventually(t, "the other address takes over", func() bool {
			return upTo(a, "b") && a.Status().Peers[0].Address == "tcp://"+other.Addr
		})
		in.clear()
		eventually(t, "packets arrive once", func() bool {
			require.NoError(t, b.Publish(t.Context(), mesh.Packet{Header: "h"}))
			return in.count(message("h")) > 0
		})
		linked.Lead(tcp(b))
	}
	require.Less(t, self.Taken(), 5, "it dials itself again and again")
}

// TestNameWithoutProof: a process that claims to be a replica, without proof,
// does not keep that replica out, which is found at another address.
func TestNameWithoutProof(t *testing.T) {
	t.Parallel()
	key := withKey("the key of the mesh")
	a, b, claims := newMesh(t, "a", key), newMesh(t, "b", key), newStage(t)
	a.SetPeers(map[string]string{"b": claims.address()})
	c := accept(t, claims.ln)
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
	a.SetPeers(map[string]string{"b": b.Address(), "x": claims.address()})
	eventually(t, "the link to the real one", func() bool { return linkedTo(a, "b", b.Address()) })
	require.False(t, over.Load(), "the link had to wait for the end of the other handshake")
}

// TestBlackHole: a link on which nothing arrives any more is noticed, and made
// again as soon as possible, with a KindLost. Other links do not suffer.
func TestBlackHole(t *testing.T) {
	t.Parallel()
	a, b, c := newMesh(t, "a"), newMesh(t, "b"), newMesh(t, "c")
	hole := basetest.NewRelay(t, tcp(b))
	in := receive(t, a)
	a.SetPeers(map[string]string{"b": "tcp://" + hole.Addr, "c": c.Address()})
	awaitUp(t, a, "b", "c")
	in.await(t, lostOf("b"))
	in.clear()
	hole.Freeze()
	require.NoError(t, b.Publish(t.Context(), mesh.Packet{Header: "lost"}))
	eventually(t, "the link is given up", func() bool { return !a.Status().Peers[0].Up })
	eventually(t, "by the other side too", func() bool { return len(b.Status().Peers) == 0 })
	require.NoError(t, c.Publish(t.Context(), mesh.Packet{Header: "from c"}))
	in.await(t, message("from c"))
	in.clear() // there is a KindLost while the link is down, too
	hole.Lead(tcp(b))
	awaitUp(t, a, "b", "c")
	in.await(t, lostOf("b"))
	require.NoError(t, b.Publish(t.Context(), mesh.Packet{Header: "after"}))
	in.await(t, message("after"))
	require.Zero(t, in.count(message("lost")))
}

// TestStalePackets: packets that came over one link are not delivered again over
// another one, unless the replica has another life.
func TestStalePackets(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	m := newMesh(t, "m")
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

// TestSubscriptionIsTold: subscribing on a live link brings a KindLost of that
// channel; doing so again soon after leaving brings none.
func TestSubscriptionIsTold(t *testing.T) {
	t.Parallel()
	a, b := newMesh(t, "a"), newMesh(t, "b")
	in := link(t, b, "a", a.Address())
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

// TestPeersLeftOut: a replica that SetPeers leaves out keeps its link, and is not
// dialled again when that ends.
func TestPeersLeftOut(t *testing.T) {
	t.Parallel()
	a, b := newMesh(t, "a"), newMesh(t, "b")
	p := basetest.NewRelay(t, tcp(b))
	in := receive(t, a)
	a.SetPeers(map[string]string{"b": "tcp://" + p.Addr, "a": "tcp://127.0.0.1:1", "bad": "127.0.0.1:1"})
	in.await(t, lostOf("b"))
	a.SetPeers(nil)
	require.NoError(t, b.Publish(t.Context(), mesh.Packet{Header: "still"}))
	in.await(t, message("still"))
	dialled := p.Taken()
	p.Cut()
	awaitPeers(t, a, 0)
	require.Equal(t, dialled, p.Taken())
}

// TestPeersOfOptionsAndDNS: replicas of Options.Peers and of Options.DNS are
// linked.
func TestPeersOfOptionsAndDNS(t *testing.T) {
	t.Parallel()
	b, c := newMesh(t, "b"), newMesh(t, "c")
	_, port, err := net.SplitHostPort(tcp(c))
	require.NoError(t, err)
	a := newMesh(t, "a", func(o *zmqmesh.Options) { o.Peers, o.DNS = []string{b.Address()}, "localhost:"+port })
	linked := func() bool { return linkedTo(a, "b", "") && linkedTo(a, "c", "") }
	eventually(t, "both are linked", linked)
	for _, p := range a.Status().Peers {
		require.True(t, !p.Up || p.RTT > 0)
	}
	a.SetPeers(nil)
	require.True(t, linked())
}

// TestMissed: a Receive begins with a KindLost if packets came while none ran.
func TestMissed(t *testing.T) {
	t.Parallel()
	b := newMesh(t, "b")
	require.NoError(t, zmqmesh.Packets(b, packet.Append(nil, &mesh.Packet{Seq: 1, Header: "missed"})))
	in := receive(t, b)
	in.await(t, lostOf(""))
	require.Zero(t, in.count(message("missed")))
	require.ErrorContains(t, b.Receive(t.Context(), func(mesh.Packet) {}), "only one may")
}

// TestTrailer: what a version before traces takes for a packet of its own, behind one with
// a trace, is for nobody.
func TestTrailer(t *testing.T) {
	t.Parallel()
	b := newMesh(t, "b")
	in := receive(t, b)
	eventually(t, "packets arrive", func() bool {
		require.NoError(t, zmqmesh.Packets(b, packet.Append(nil, &mesh.Packet{Seq: 1, Header: "probe"})))
		return in.count(message("probe")) > 0
	})
	trailer := mesh.Packet{Kind: mesh.KindControl, To: "\x00", Info: []byte("00-1-2-01")}
	some := packet.Append(nil, &trailer)
	trailer.Seq = 2 // without a Seq it would be dropped as one that has come before
	some = packet.Append(some, &trailer)
	require.NoError(t, zmqmesh.Packets(b, packet.Append(some, &mesh.Packet{Seq: 3, Header: "behind"})))
	in.await(t, message("behind"))
	require.Zero(t, in.count(func(p mesh.Packet) bool { return p.Kind == mesh.KindControl }))
}

// TestLeave: a replica that leaves a channel is sent no more of it.
func TestLeave(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "m")
	c, conn := join(t, m, "x")
	next := func() string {
		msg, err := conn.RecvMsg()
		require.NoError(t, err)
		return string(msg.Frames[0])
	}
	for _, ask := range []string{"\x01", "\x00"} {
		write(t, c, frame(0, ask+"channel\x00"), question(1))
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

// TestCloseDoesNotLinger: Close waits only while something is queued.
func TestCloseDoesNotLinger(t *testing.T) {
	t.Parallel()
	a, b := newMesh(t, "a", func(o *zmqmesh.Options) { o.Linger = time.Hour }), newMesh(t, "b")
	b.SetPeers(map[string]string{"a": a.Address()})
	awaitUp(t, b, "a")
	zmtptest.RequireCloses(t, a)
}

// TestReceiveWaits: Receive returns only after a deliver that is under way.
func TestReceiveWaits(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "m")
	ctx, cancel := context.WithCancel(t.Context())
	one := packet.Append(nil, &mesh.Packet{Seq: 1, Channel: "", Header: "h"})
	_ = zmqmesh.Packets(m, one) // it is lost, of which Receive tells once it has begun
	begun, gate, inside := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var ended, early atomic.Bool
	var running sync.WaitGroup
	running.Go(func() {
		_ = m.Receive(ctx, func(p mesh.Packet) {
			if p.Kind == mesh.KindLost {
				close(begun)
				return
			}
			close(inside)
			<-gate
			early.Store(ended.Load())
		})
		ended.Store(true)
	})
	<-begun
	running.Go(func() { _ = zmqmesh.Packets(m, one) })
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
