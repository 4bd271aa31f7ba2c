package fanout

import (
	"fmt"
	"sync/atomic"
)

// A Policy says what happens when a frame comes to a full queue. A smaller constant
// drops less. For the hub's own frames, the smallest policy among the client's channels
// applies (client_subscriptions.go in package channels).
//
// A new policy needs
//   - its constant, above `policies`, placed by how much it drops; a case in
//     makeRoomLocked, which panics without one; and, unless Dropped is the right counter,
//     a case in droppedBy, which says Dropped for whatever it does not know. If it drops
//     the new message itself, also a case in putLocked (outbox.go), which otherwise ends
//     the receiver
//   - if it counts by itself: its counter in Counters (engine.go) and, in package
//     channels, in Stats (stats.go) and Metrics (metrics.go); its test in
//     metrics/moves_test.go; replica_vitals.go adds up what makes a replica yellow, and
//     replica.go and the row "dropping" of docs/replicas.md say so. If it uses an existing
//     counter: the comments on that in engine.go, stats.go and metrics.go
//   - its label in metrics/families.go, which calls Dropped drop_oldest and Superseded
//     keep_latest, and docs/metrics.md; if operators should hear of it, deploy/alerts.yaml
//     and alerts_test.yaml, and the alert's row in docs/operations.md
//   - its constant in options.go, and the text of check there
//   - its word in example/server: rules.go, and the error that config_test.go expects
//   - its rows in docs/protocol.md and docs/operations.md, which TestChoices compares
//     (docs/tables_test.go)
//   - tests of what it does: outbox_test.go here, slow_test.go, verdict_test.go,
//     options_test.go, patterns_test.go, connect_pattern_test.go and
//     connect_subscribe_test.go in package channels, e2e/soak
//
// What only passes a policy on (channel.go, feeds.go, client_subscriptions.go) needs
// nothing.
type Policy uint8

const (
	Close      Policy = iota // the receiver is sent Config.Slow, and its outbox ends
	DropOldest               // the Group's oldest messages are dropped until a quarter of the queue is free
	KeepLatest               // all of the Group that waits is dropped for its newest message

	policies // how many there are
)

// Policies is how many there are.
const Policies = int(policies)

// Known reports whether there is such a policy.
func (p Policy) Known() bool { return p < policies }

// makeRoomLocked drops what the policy allows to be dropped for f, and reports whether
// f now fits. If not, putLocked drops f itself if it is an Event, and otherwise ends the
// receiver.
//
// A message pushes out older ones of its group. Anything else (an event, or an answer
// of the server's) pushes out events first, then messages, except the newest of each
// group.
func (o *Outbox) makeRoomLocked(f *Frame, policy Policy) bool {
	size := f.Size()
	// A quarter at a time, so that the work per message stays small if each
	// message pushes another one out.
	target := min(o.limit-size, o.limit*3/4)
	count := o.engine.droppedBy(policy)
	ofGroup := func(g *Frame) bool { return g.Group == f.Group }
	switch {
	case policy == Close:
		return false
	case f.Kind != Message:
		o.makeRoomForOthersLocked(f, target, count)
	case policy == DropOldest:
		o.dropLocked(target, count, ofGroup)
	case policy == KeepLatest:
		o.dropLocked(0, count, ofGroup)
	default:
		panic(fmt.Sprintf("fanout: the policy %d is unknown", policy))
	}
	return o.bytes == 0 || o.bytes+size <= o.limit
}

// makeRoomForOthersLocked is makeRoomLocked for what is no message.
func (o *Outbox) makeRoomForOthersLocked(f *Frame, target int, count *atomic.Int64) {
	newest := make(map[*Group]*Frame)
	for _, g := range o.q[o.head:] {
		if g.Kind == Message {
			newest[g.Group] = g
		}
	}
	concerned := func(g *Frame) bool { return g.Group != nil && (f.Group == nil || f.Group == g.Group) }
	o.dropLocked(target, count, func(g *Frame) bool { return concerned(g) && g.Kind == Event })
	o.dropLocked(target, count, func(g *Frame) bool { return concerned(g) && newest[g.Group] != g })
}

// droppedBy is the counter of what a policy drops.
func (c *Counters) droppedBy(policy Policy) *atomic.Int64 {
	if policy == KeepLatest {
		return &c.Superseded
	}
	return &c.Dropped
}

// dropLocked drops the frames that drop chooses, the oldest first, until at most
// target bytes wait.
func (o *Outbox) dropLocked(target int, count *atomic.Int64, drop func(*Frame) bool) {
	if o.bytes <= target {
		return
	}
	kept := o.q[o.head:o.head]
	dropped := 0
	for _, g := range o.q[o.head:] {
		if o.bytes > target && drop(g) {
			o.releaseLocked(g)
			dropped++
		} else {
			kept = append(kept, g)
		}
	}
	clear(o.q[int(o.head)+len(kept):])
	o.q = o.q[:int(o.head)+len(kept)]
	o.tellLocked()
	count.Add(int64(dropped))
}
