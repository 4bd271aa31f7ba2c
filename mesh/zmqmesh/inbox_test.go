package zmqmesh_test

import (
	"bytes"
	"sync"
	"testing"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/zmqmesh"
)

// An inbox is what a replica has received.
type inbox struct {
	hook func(mesh.Packet) // or nil

	mu  sync.Mutex // guards the field below
	all []mesh.Packet
}

// receive records until the test ends, and with it the mesh.
func receive(t testing.TB, m *zmqmesh.Mesh) *inbox { return receiveWith(t, m, nil) }

// receiveWith gives packets to hook first, and does not keep their bodies.
func receiveWith(t testing.TB, m *zmqmesh.Mesh, hook func(mesh.Packet)) *inbox {
	in := &inbox{hook: hook}
	deliver(t, m, in.take)
	eventually(t, "Receive runs", func() bool { return zmqmesh.Receiving(m) })
	return in
}

// deliver runs Receive until the test ends.
func deliver(t testing.TB, m *zmqmesh.Mesh, to func(mesh.Packet)) {
	var running sync.WaitGroup
	running.Go(func() { _ = m.Receive(t.Context(), to) })
	t.Cleanup(running.Wait)
}

func (in *inbox) take(p mesh.Packet) {
	if in.hook != nil {
		in.hook(p)
		p.Body = nil
	}
	p.Body, p.Info, p.Trace = bytes.Clone(p.Body), bytes.Clone(p.Info), bytes.Clone(p.Trace)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.all = append(in.all, p)
}

// count is how many packets have arrived of which ask says yes.
func (in *inbox) count(ask func(mesh.Packet) bool) (n int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, p := range in.all {
		if ask(p) {
			n++
		}
	}
	return n
}

// await waits until a packet has arrived of which ask says yes.
func (in *inbox) await(t testing.TB, ask func(mesh.Packet) bool) {
	t.Helper()
	eventually(t, "a packet arrives", func() bool { return in.count(ask) > 0 })
}

// lostOf is a packet that tells of an origin's losses on all channels.
func lostOf(origin string) func(mesh.Packet) bool {
	return func(p mesh.Packet) bool { return p.Kind == mesh.KindLost && p.Channel == "" && p.Origin == origin }
}

// message is a message with a header.
func message(header string) func(mesh.Packet) bool {
	return func(p mesh.Packet) bool { return p.Kind == mesh.KindMessage && p.Header == header }
}

// clear forgets all, and returns it.
func (in *inbox) clear() []mesh.Packet {
	in.mu.Lock()
	defer in.mu.Unlock()
	all := in.all
	in.all = nil
	return all
}
