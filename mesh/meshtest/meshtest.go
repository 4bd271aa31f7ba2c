// Package meshtest checks that a [mesh.Mesh] keeps the promises of its
// interface:
//
//	func TestMesh(t *testing.T) {
//		meshtest.Run(t, func(t *testing.T) meshtest.Fabric { return newFabric(t) })
//	}
//
// It also has an in-memory network, [Network], that can lose, duplicate, delay
// and reorder packets and cut replicas off from each other, for tests of code
// that uses a mesh.
package meshtest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/internal/streamtest"
)

// A Fabric is what the replicas of one case share: a broker with names of its
// own, or the addresses of each other.
type Fabric interface {
	// Join opens the mesh of a replica. It reaches all other replicas of the
	// fabric, including later ones. The case closes it.
	Join(t *testing.T, id string) mesh.Mesh
	// Cut keeps all packets between two replicas from arriving until Heal.
	// Other replicas must still reach a. If the mesh has no direct links, Cut
	// cuts b off from the broker.
	Cut(a, b string)
	// Heal ends all cuts.
	Heal()
}

// Case is one promise of a Mesh.
type Case struct {
	Name    string
	Explain string // what is promised, and why; logged if the case fails
	Check   func(t *testing.T, f Fabric)
	alone   bool // it measures memory or needs the processors, so no other case may run
}

// Run checks all [Cases] in subtests, most of them parallel. Each gets a Fabric
// from open, which must allow concurrent calls. A case that hangs for eight
// minutes ends the test binary with a dump of all goroutines.
func Run(t *testing.T, open func(t *testing.T) Fabric) {
	for _, c := range Cases() {
		t.Run(c.Name, func(t *testing.T) {
			if !c.alone {
				t.Parallel()
			}
			c.Run(t, open)
		})
	}
}

// Run checks one case in t itself.
func (c Case) Run(t *testing.T, open func(t *testing.T) Fabric) {
	basetest.Promise(t, c.Explain, 8*time.Minute)
	c.Check(t, open(t))
}

// Cases returns all cases of [Run].
func Cases() []Case {
	return slices.Concat(deliveryCases, orderCases, subscribeCases, prefixCases, faultCases, lifeCases, reconnectCases, capacityCases)
}

// Short names for what nearly all cases use.
var eventually = basetest.Eventually

const patience = basetest.Patience

// ready is the header of packets that only test whether a subscription is
// active. They are not recorded.
const ready = "meshtest: ready?"

// big is a channel whose bodies are not recorded.
const big = "big"

// A member is a replica and all that has arrived at it.
type member struct {
	mesh.Mesh
	id   string
	hook func(mesh.Packet) // if not nil, called first; set before the replica joins

	mu     sync.Mutex // guards the fields below
	got    map[string][]mesh.Packet
	from   map[string]int // packets by origin
	probes map[[2]string]bool
	views  []*streamtest.View

	received sync.WaitGroup
	stop     context.CancelFunc
}

// join opens a replica that records what arrives until the test ends.
func join(t *testing.T, f Fabric, id string) *member { return joinWith(t, f, id, nil) }

func joinWith(t *testing.T, f Fabric, id string, hook func(mesh.Packet)) *member {
	t.Helper()
	m := &member{id: id, hook: hook, got: map[string][]mesh.Packet{}, from: map[string]int{}, probes: map[[2]string]bool{}}
	m.Mesh = f.Join(t, id)
	m.receive()
	t.Cleanup(func() { m.close(t) })
	return m
}

// receive starts to record, in a goroutine that ends with pause or close.
func (m *member) receive() {
	ctx, cancel := context.WithCancel(context.Background())
	m.stop = cancel
	m.received.Go(func() { _ = m.Receive(ctx, m.take) })
}

// pause ends Receive.
func (m *member) pause() {
	m.stop()
	m.received.Wait()
}

func (m *member) close(t *testing.T) {
	t.Helper()
	require.NoError(t, m.Close())
	m.pause()
}

func (m *member) take(p mesh.Packet) {
	if m.hook != nil {
		m.hook(p)
	}
	if p.Channel == big {
		p.Body = nil
	}
	p.Body, p.Info, p.Trace = bytes.Clone(p.Body), bytes.Clone(p.Info), bytes.Clone(p.Trace)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range m.views {
		if p.Header != ready {
			v.Take(p)
		}
	}
	switch {
	case p.Kind == mesh.KindLost:
	case p.Header == ready:
		m.probes[[2]string{p.Origin, p.Channel}] = true
	default:
		m.got[p.Channel] = append(m.got[p.Channel], p)
		m.from[p.Origin]++
	}
}

// all returns what has arrived on a channel so far.
func (m *member) all(channel string) []mesh.Packet {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.got[channel][:len(m.got[channel]):len(m.got[channel])]
}

// heard returns how many packets from an origin have arrived.
func (m *member) heard(origin string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.from[origin]
}

// total returns how many packets have arrived.
func (m *member) total() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.from {
		n += k
	}
	return n
}

// send publishes a packet. It retries if Status reports that the mesh is down,
// since a broker may be slow to answer on a busy machine.
func (m *member) send(t *testing.T, p mesh.Packet) {
	t.Helper()
	eventually(t, "publishing works", func() bool {
		err := m.Publish(context.Background(), p)
		if err != nil && m.Status().Err == nil {
			require.NoError(t, m.Publish(context.Background(), p), "Publish failed although the mesh is up: %v", err)
		}
		return err == nil || m.Status().Err == nil
	})
}

// say publishes a message with a number.
func (m *member) say(t *testing.T, channel string, i int) {
	t.Helper()
	m.send(t, mesh.Packet{Channel: channel, Header: fmt.Sprint(i)})
}

func (m *member) subscribe(t *testing.T, channels ...string) {
	t.Helper()
	for _, ch := range channels {
		require.NoError(t, m.Subscribe(ch))
	}
}

// subscribeTo subscribes, and waits until packets from from arrive.
func (m *member) subscribeTo(t *testing.T, from *member, channels ...string) {
	t.Helper()
	m.subscribe(t, channels...)
	m.awaitFrom(t, from, channels...)
}

// awaitFrom waits until packets from from arrive on the channels: the
// subscriptions are active, or for the channel "" the two are linked.
func (m *member) awaitFrom(t *testing.T, from *member, channels ...string) {
	t.Helper()
	for _, ch := range channels {
		m.await(t, from, mesh.Packet{Channel: ch, Header: ready})
	}
}

// awaitTo waits until packets from from to this member alone arrive, since a
// mesh may send each channel's packets over another link.
func (m *member) awaitTo(t *testing.T, from *member, channel string) {
	t.Helper()
	m.await(t, from, mesh.Packet{Channel: channel, To: m.id, Header: ready})
}

func (m *member) await(t *testing.T, from *member, probe mesh.Packet) {
	t.Helper()
	next := time.Time{}
	eventually(t, fmt.Sprintf("%q gets what %q publishes on %q", m.id, from.id, probe.Channel), func() bool {
		if now := time.Now(); now.After(next) {
			next = now.Add(20 * time.Millisecond)
			_ = from.Publish(context.Background(), probe) // they may not be linked yet
		}
		return m.probed(from.id, probe.Channel)
	})
}

// probed reports whether a packet that tests a subscription has arrived.
func (m *member) probed(from, channel string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.probes[[2]string{from, channel}]
}

// link waits until each member gets packets from all others.
func link(t *testing.T, members ...*member) {
	t.Helper()
	for _, to := range members {
		for _, from := range members {
			if to != from {
				to.awaitFrom(t, from, "")
			}
		}
	}
}

// joinAll opens the replicas n0, n1 and so on, and waits until they are linked.
func joinAll(t *testing.T, f Fabric, n int) []*member {
	t.Helper()
	var all []*member
	for i := range n {
		all = append(all, join(t, f, fmt.Sprint("n", i)))
	}
	link(t, all...)
	return all
}

// headers returns the headers of the packets, in order.
func headers(ps []mesh.Packet) []string {
	all := []string{}
	for _, p := range ps {
		all = append(all, p.Header)
	}
	return all
}

// numbers returns the numbers from … to as strings.
func numbers(from, to int) []string {
	all := []string{}
	for i := from; i <= to; i++ {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

// awaitNumber waits until n packets have arrived on a channel.
func (m *member) awaitNumber(t *testing.T, channel string, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d packets arrive on %q at %s", n, channel, m.id), func() bool { return len(m.all(channel)) >= n })
}

// requireNumbers waits until n packets have arrived on a channel, and checks
// that they are 1 … n in order.
func (m *member) requireNumbers(t *testing.T, channel string, n int) {
	t.Helper()
	m.awaitNumber(t, channel, n)
	require.Equal(t, numbers(1, n), headers(m.all(channel)))
}
