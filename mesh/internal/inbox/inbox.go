// Package inbox hands what a mesh receives to the Receive that runs.
package inbox

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/channels-go/channels/mesh"
)

// An Inbox delivers the packets of a channel one at a time. All its methods may be
// called concurrently. The zero value is ready.
type Inbox struct {
	turns   [64]Turn                          // first, so that the last one's room is before what each packet reads
	deliver atomic.Pointer[func(mesh.Packet)] // of the Receive that runs, or nil; read with a turn held
	missed  atomic.Bool                       // something came while no Receive ran

	Told atomic.Int64 // how many KindLost were delivered
}

// A Turn is held while packets are delivered, by channel.
type Turn struct {
	sync.Mutex
	_ [56]byte // so that two of them share no cache line
}

var seed = maphash.MakeSeed()

// Receive implements that of [mesh.Mesh], for a mesh that closes closing.
func (i *Inbox) Receive(ctx context.Context, closing <-chan struct{}, deliver func(mesh.Packet)) error {
	select {
	case <-closing:
		return mesh.ErrClosed
	default:
	}
	if !i.deliver.CompareAndSwap(nil, &deliver) {
		return errors.New("mesh: another Receive is running; only one may run at a time")
	}
	i.settle() // whoever found that none ran has set missed
	if i.missed.Swap(false) {
		i.Lost("", "")
	}
	var err error
	select {
	case <-ctx.Done():
		err = ctx.Err()
	case <-closing:
		err = mesh.ErrClosed
	}
	i.deliver.Store(nil)
	i.settle() // for what is being delivered
	return err
}

// Receiving reports whether a Receive runs.
func (i *Inbox) Receiving() bool { return i.deliver.Load() != nil }

// settle waits until those who hold a turn have left it.
func (i *Inbox) settle() {
	for n := range i.turns {
		i.turns[n].Lock()
		//lint:ignore SA2001 whoever held it has left it, which is all that is needed
		i.turns[n].Unlock()
	}
}

// Begin takes the channel's turn, which the caller unlocks, and returns what takes
// its packets. If no Receive runs, deliver is nil, and the packets are lost.
func (i *Inbox) Begin(channel string) (turn *Turn, deliver func(mesh.Packet)) {
	turn = &i.turns[maphash.String(seed, channel)%uint64(len(i.turns))]
	turn.Lock()
	if d := i.deliver.Load(); d != nil {
		return turn, *d
	}
	i.missed.Store(true)
	return turn, nil
}

// Deliver delivers one packet.
func (i *Inbox) Deliver(p *mesh.Packet) {
	turn, deliver := i.Begin(p.Channel)
	defer turn.Unlock()
	if deliver != nil {
		deliver(*p)
	}
}

// Lost delivers a KindLost.
func (i *Inbox) Lost(channel, origin string) {
	turn, deliver := i.Begin(channel)
	defer turn.Unlock()
	if deliver != nil {
		i.Told.Add(1)
		deliver(mesh.Packet{Kind: mesh.KindLost, Channel: channel, Origin: origin})
	}
}
