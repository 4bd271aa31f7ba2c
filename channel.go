package channels

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/channels-go/channels/internal/fanout"
	"github.com/channels-go/channels/store"
)

// A channel is what this replica holds of one channel: its subscribers, the order
// in which messages reach them, its members and its numbers. It exists while it
// has subscribers or recent publishes, or while a goroutine works on it. All its
// methods may be called concurrently, except those that end in Locked.
//
// hub.go has the order of its locks.
type channel struct {
	// What a publish touches stands together: in a hub with many channels, each of its
	// cache lines has to be fetched from memory.
	key   [32]byte // see keyLocked
	env   *channelEnv
	name  string
	users atomic.Int32 // callers at work on the channel, which keep it in the table
	opts  ChannelOptions
	group fanout.Group

	mu        sync.Mutex // guards the fields below
	subs      []*subscription
	one       [1]*subscription // what subs is while there is no more than one
	rate      rate             // of publishes
	published int64            // when a message was published last, by the hub's uptime
	watched   uint32           // which of the hub's watched patterns count the channel: see channel_watch.go
	freed     bool             // no longer in the table
	hot       bool             // on the hub's list of channels whose rate decays
	due       due              // which report has the numbers
	order     order

	clients  int                // how many of subs are connections; counted only for env.occupancy
	members  map[string]Member  // by connection id, if opts.Presence is on
	people   map[string]*person // by user, if opts.PresenceBy is PresenceByUser
	reads    *sharedRead        // those that are under way, or wait for one: see readShared
	reported numbers            // what the Store knows
	telling  sync.Mutex         // held while the mesh is told whether the channel is wanted

	// Guarded by idleChannels.mu.
	place int   // its place in idleHeap, from 1; 0: it is not in it
	since int64 // idleHeap's key
}

// attachLocked makes s a subscriber of all that comes from now on.
func (ch *channel) attachLocked(s *subscription) {
	s.slot = int32(len(ch.subs))
	if s.slot == 0 {
		ch.subs = ch.one[:0]
	}
	if ch.subs = append(ch.subs, s); s.slot == 1 {
		ch.one[0] = nil // it would keep the subscription as long as the channel lives
	}
	ch.countSubscriptionLocked(1)
	ch.occupyLocked(s, 1)
	ch.touchLocked(dueNext)
}

// occupyLocked counts connections for OnOccupied and OnVacated. Go subscribers do not
// count: what feeds a channel must not keep it occupied.
func (ch *channel) occupyLocked(s *subscription, n int) {
	oc := ch.env.occupancy
	if oc == nil || s.client.inGo() {
		return
	}
	ch.clients += n
	if ch.clients == 0 || ch.clients == 1 && n > 0 {
		oc.set(ch.name, n > 0)
	}
}

func (ch *channel) countSubscriptionLocked(n int64) {
	ch.env.counts.subscriptions.Add(n)
	ch.watchersLocked(func(c *watchedChannels) { c.subscriptions.Add(n) })
}

// detach ends a subscription. It may be repeated.
func (ch *channel) detach(s *subscription) {
	if ch.removed(s) {
		ch.unlisten()
	}
}

// removed takes a subscription out, and reports whether it was the last one.
func (ch *channel) removed(s *subscription) (last bool) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if s.slot < 0 {
		return false
	}
	end := len(ch.subs) - 1
	ch.subs[s.slot] = ch.subs[end]
	ch.subs[s.slot].slot = s.slot
	ch.subs[end] = nil
	ch.subs = ch.subs[:end]
	s.slot, s.own = -1, nil
	ch.countSubscriptionLocked(-1)
	ch.occupyLocked(s, -1)
	if len(ch.subs) == 0 {
		ch.subs = nil
	}
	ch.touchLocked(dueNext)
	return ch.restLocked()
}

// restLocked reports whether no subscriber is left. If so, it ends what the
// channel does for subscribers.
func (ch *channel) restLocked() bool {
	if len(ch.subs) > 0 || ch.order.waiting > 0 {
		return false
	}
	ch.order.rest()
	if !ch.freed {
		ch.env.idle.add(ch, ch.published)
	}
	return true
}

// listen asks the mesh for the channel's messages.
func (ch *channel) listen() error {
	m := ch.env.mesh
	if m == nil {
		return nil
	}
	ch.telling.Lock()
	defer ch.telling.Unlock()
	if err := guard(ch.env.log, "the mesh", func() error { return m.Subscribe(ch.name) }); err != nil {
		return ErrMeshUnavailable.because(err)
	}
	return nil
}

// unlisten ends listen if no subscriber is left. If that fails, the mesh goes on
// bringing messages, which are dropped.
func (ch *channel) unlisten() {
	m := ch.env.mesh
	if m == nil {
		return
	}
	ch.telling.Lock() // a subscriber that comes from now on listens after this
	defer ch.telling.Unlock()
	ch.mu.Lock()
	idle := len(ch.subs) == 0 && ch.order.waiting == 0
	ch.mu.Unlock()
	if !idle {
		return
	}
	if err := guard(ch.env.log, "the mesh", func() error { return m.Unsubscribe(ch.name) }); err != nil {
		ch.env.log.Debug("mesh: unsubscribe", "channel", ch.name, "err", err)
	}
}

// take hands a message or an event to the local subscribers: if it has a position, in
// its turn (channel_order.go), otherwise at once. It returns how many have got it or
// will get it.
func (ch *channel) take(f *frame) int {
	if f.offset() > 0 {
		return ch.arrive(f)
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.fanOutLocked(f, false, Position{})
}

// fanOutLocked queues a frame for all subscribers but f.except, and returns for how
// many. With paced, a subscriber with less than half its queue free gets nothing here.
// It reads for itself instead, after before, which is the channel's position without f.
func (ch *channel) fanOutLocked(f *frame, paced bool, before Position) int {
	n := 0
	cast := ch.group.Cast(&f.Frame, len(ch.subs))
	for i, s := range ch.subs {
		fetchSome(ch.subs, i)
		sender := f.isFrom(s)
		if !sender {
			n++
		}
		switch {
		case s.quiet && f.Kind == fanout.Event:
		case s.own != nil && s.holdsLocked(f): // its own message too, since its place moves on by it
		case sender:
		case paced && !s.out.Roomy(f.Size()):
			ch.readLocked(s, before)
		default:
			cast.To(s.out, ch.opts.SlowSubscriber.policy())
		}
	}
	cast.Done()
	if f.Kind == fanout.Message {
		ch.watchersLocked(func(c *watchedChannels) { c.delivered.Add(int64(n)) })
	}
	return n
}

// fetchSome brings the outboxes of the next subscribers near, each time that the loop over
// them has come to their first.
func fetchSome(subs []*subscription, i int) {
	const some = 16
	if i%some == 0 {
		for _, s := range subs[i:min(i+some, len(subs))] {
			s.out.Fetch()
		}
	}
}

// receiversLocked returns how many subscribers get a frame.
func (ch *channel) receiversLocked(f *frame) int {
	if f.except != nil && slices.ContainsFunc(ch.subs, f.isFrom) {
		return len(ch.subs) - 1
	}
	return len(ch.subs)
}

// countPublish counts one message that was published through this replica. It
// reports whether a subscriber here may want it. One that comes later finds it in
// the history, if there is one.
func (ch *channel) countPublish() (wanted bool) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	when := dueInTurn
	if ch.rate.total == 0 {
		when = dueNext // it may not be in the list yet
	}
	ch.published = ch.env.clock.uptime()
	ch.rate.add(ch.published)
	ch.watchersLocked(func(c *watchedChannels) { c.published.Add(1) })
	ch.touchLocked(when)
	return len(ch.subs) > 0 || ch.order.waiting > 0
}

// touchLocked notes that the channel's numbers have changed.
func (ch *channel) touchLocked(when due) {
	if ch.due >= when && ch.hot {
		return
	}
	ch.env.report.touch(ch, when, !ch.hot)
	ch.hot = true
}

// numbers are what is told of a channel.
type numbers struct{ subscribers, publishes int }

func (ch *channel) countLocked() numbers {
	return numbers{len(ch.subs), ch.rate.sum(ch.env.clock.uptime())}
}

// count is what the Store is told.
func (ch *channel) count(n numbers) store.Count {
	return store.Count{Channel: ch.name, Subscribers: n.subscribers, Publishes: n.publishes}
}

// release ends a caller's work on the channel.
func (ch *channel) release() { ch.users.Add(-1) }
