package redismesh

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/channels-go/channels/internal/backoff"
	"github.com/channels-go/channels/internal/bell"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/internal/packet"
)

// A link is one way to Redis and back: a queue of packets to publish, and a
// connection for subscriptions. A single server needs one link, a Cluster one
// for each lane.
type link struct {
	mesh  *Mesh
	base  string // begins all its names
	own   string // the name of this replica, for its probes and for packets to it alone
	all   string // the name that every replica subscribes to
	queue queue
	subs  subs
	wants wants // the prefixes of other replicas

	decided chan struct{} // closed when sharded is known
	settle  func()        // closes decided, once
	sharded atomic.Bool   // use SPUBLISH and SSUBSCRIBE
	moved   atomic.Bool   // the sender has to leave its server

	// Only the reader uses these.
	origins recent[uint64, *origin] // by life
	doubts  map[uint64]doubt        // by life
	texts   packet.Kept

	mu     sync.Mutex // guards the fields below
	up     bool
	since  time.Time // when up last changed
	err    error     // why it is not up
	cause  error     // why this side closed the connection; nil: it did not
	conn   *conn     // the connection for subscriptions; nil while there is none
	opened time.Time // when conn was opened
	busy   time.Time // since when the reader has been at work; zero: it waits
	held   time.Time // when the reader last finished work that took long
	rtt    time.Duration
	probed probe

	// Where the sender publishes, to check that this link listens there.
	sendsTo    string
	sendsSince time.Time
}

// probe is the probe on its way.
type probe struct {
	number      uint64
	left, taken time.Time // left the sender; taken by Redis. Zero: not yet
	back        bool
}

// origin is one life of another replica.
type origin struct {
	id    string
	frame uint64 // the number of its last frame
}

const (
	probePeriod = time.Second
	// probeWait is how long nothing may come after Redis has taken a probe,
	// before the subscription counts as dead. The probe comes behind all
	// earlier data, which may be large: while data comes, longestWait is the
	// bound.
	probeWait = 3 * time.Second
	// connectWait bounds opening a connection. It also bounds how long Redis
	// may owe the confirmation of a subscription while nothing comes; while
	// data comes, longestWait is the bound.
	connectWait = 10 * time.Second
	longestWait = 15 * time.Second
	// silentWait is for a link without a probe, since publishing fails.
	silentWait  = 30 * time.Second
	maxOrigins  = 4096 // lives; a forgotten one could deliver a resent pipeline twice
	doubtPeriod = 10 * time.Second
)

func newLink(m *Mesh, base string) *link {
	l := &link{mesh: m, base: base, doubts: map[uint64]doubt{}, decided: make(chan struct{}), origins: recent[uint64, *origin]{max: maxOrigins}, since: time.Now(), err: errAway}
	l.own, l.all = l.node(m.replica), base+"all"
	l.queue.maxPackets, l.queue.maxBytes, l.queue.wake = maxQueued, maxQueuedBytes, bell.New()
	l.subs.channels, l.subs.wake = map[string]*sub{}, bell.New()
	l.wants.byLife = map[uint64]*want{}
	l.settle = sync.OnceFunc(func() {
		close(l.decided)
		l.queue.setDown(nil)
	})
	if m.cluster == nil {
		l.settle() // a single server, or a master and its replicas
	} else {
		l.queue.maxPackets, l.queue.maxBytes = maxQueued/4, maxQueuedBytes/4
	}
	return l
}

// name returns the name that a channel's packets are published on. Packets to
// every peer use the name that every replica subscribes to.
func (l *link) name(channel string) string {
	if channel == "" {
		return l.all
	}
	return l.base + "c:" + channel
}

func (l *link) node(id string) string { return l.base + "n:" + id }

// server returns the client of the server that has the link's slot.
func (l *link) server(ctx context.Context) (*redis.Client, error) {
	if c := l.mesh.cluster; c != nil {
		return inTime(ctx, func() (*redis.Client, error) { return c.MasterForKey(ctx, l.base) }, nil)
	}
	return l.mesh.client.(*redis.Client), nil
}

// ended is a context for calls that must not make go-redis reconnect: after any
// error it would reconnect and resubscribe by itself, and the link would not
// know that it missed something. go-redis reads and writes consult only the
// context's deadline, and ended has none.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// run keeps the link connected and reads from it. New starts it. It ends with
// the mesh, and Close waits for it.
func (l *link) run() {
	pause := time.Duration(0)
	for l.mesh.ctx.Err() == nil {
		err := l.session()
		if l.setBroken(err) {
			pause = 0 // it was up
		}
		if l.mesh.cluster != nil {
			l.mesh.cluster.ReloadState(l.mesh.ctx)
		}
		backoff.Pause(l.mesh.ctx, pause/2+rand.N(pause/2+50*time.Millisecond))
		pause = min(2*pause+50*time.Millisecond, 2*time.Second)
	}
}

// session is the life of one connection. It returns why the connection ended.
func (l *link) session() error {
	ctx, cancel := context.WithTimeout(l.mesh.ctx, connectWait)
	defer cancel()
	if l.mesh.cluster != nil {
		if err := l.decide(ctx); err != nil {
			select {
			case <-l.decided:
			default:
				l.queue.setDown(l.explain(err)) // nothing is sent before the decision
			}
			return err
		}
	}
	c, err := l.connect(ctx)
	if err != nil {
		return err
	}
	defer c.client.Close()
	ps := c.client.Subscribe(ctx) // sends nothing yet
	defer ps.Close()              // already closed if ask found the fault
	if err := l.subscribe(ctx, ps, l.all); err != nil {
		return err
	}
	cancel()
	l.subs.restart()
	l.mu.Lock()
	l.conn, l.opened, l.cause = c, time.Now(), nil
	l.mu.Unlock()
	var asking sync.WaitGroup
	broken := make(chan struct{})
	asking.Go(func() { l.ask(ps, broken) })
	err = l.read(ps)
	close(broken)
	asking.Wait()
	return err
}

// decide asks a Cluster whether it has sharded pub/sub. It asks for each
// connection, since the Cluster may have been upgraded and all replicas must
// agree.
func (l *link) decide(ctx context.Context) error {
	server, err := l.server(ctx)
	if err != nil {
		return err
	}
	info, err := inTime(ctx, func() ([]any, error) { return server.Do(ctx, "command", "info", "ssubscribe").Slice() }, nil)
	if err != nil {
		return err
	}
	l.sharded.Store(len(info) > 0 && info[0] != nil)
	l.settle()
	return nil
}

func (l *link) subscribe(ctx context.Context, ps *redis.PubSub, names ...string) error {
	if l.sharded.Load() {
		return ps.SSubscribe(ctx, names...)
	}
	return ps.Subscribe(ctx, names...)
}

func (l *link) unsubscribe(ctx context.Context, ps *redis.PubSub, names ...string) error {
	if l.sharded.Load() {
		return ps.SUnsubscribe(ctx, names...)
	}
	return ps.Unsubscribe(ctx, names...)
}

// ask sends subscriptions and checks the probe until the connection breaks or
// the mesh ends. It then closes the connection, so that the reader ends. run
// starts it and waits for it.
func (l *link) ask(ps *redis.PubSub, broken <-chan struct{}) {
	t := time.NewTicker(probePeriod)
	defer t.Stop()
	defer ps.Close()
	for {
		more, err := l.askSome(ps)
		if err != nil {
			return
		}
		if more {
			continue
		}
		select {
		case <-l.subs.wake:
		case <-t.C:
			if err := l.check(); err != nil {
				l.fail(err) // makes the reader end too
				return
			}
		case <-broken:
			return
		case <-l.mesh.ctx.Done():
			return
		}
	}
}

// askSome sends some of the pending subscriptions. It returns false if there
// are none.
func (l *link) askSome(ps *redis.PubSub) (more bool, err error) {
	enter, leave, fence := l.subs.take()
	for i := range enter {
		enter[i] = l.name(enter[i])
	}
	for i := range leave {
		leave[i] = l.name(leave[i])
	}
	if fence { // behind all channels that were pending when it connected
		enter = append(enter, l.own)
	}
	if len(leave) > 0 {
		err = l.unsubscribe(ended, ps, leave...)
	}
	if err == nil && len(enter) > 0 {
		err = l.subscribe(ended, ps, enter...)
	}
	return len(enter)+len(leave) > 0, err
}

// read handles what arrives until the connection breaks.
func (l *link) read(ps *redis.PubSub) error {
	for {
		// No timeout: how long it may take depends on what is awaited. ask
		// watches that, and closes the connection.
		msg, err := ps.Receive(ended)
		if err != nil {
			return err
		}
		l.work()
		switch msg := msg.(type) {
		case *redis.Message:
			l.arrive(msg.Channel, msg.Payload)
		case *redis.Subscription:
			err = l.confirm(msg.Kind, msg.Channel)
		}
		l.rest()
		if err != nil {
			return err
		}
	}
}

// confirm handles Redis's answer to a subscription.
func (l *link) confirm(kind, name string) error {
	channel, isChannel := strings.CutPrefix(name, l.base+"c:")
	switch {
	case strings.Contains(kind, "unsub"):
		if !isChannel { // unrequested; all names of a link are in one slot
			return fmt.Errorf("the subscriptions were ended by Redis because the slot of %q has moved", name)
		}
	case isChannel:
		if l.subs.confirm(channel) {
			l.mesh.inbox.Lost(channel, "")
		}
	case name == l.own:
		l.setUp()
		l.subs.setUp()
		l.queue.tell(func() { l.queue.probe = true })
		l.tellWantsAgain()
		clear(l.doubts) // the KindLost below covers them
		l.mesh.inbox.Lost("", "")
	}
	return nil
}

// arrive handles a frame that was published on a name.
func (l *link) arrive(name, payload string) {
	f, packets, err := readFrame(payload)
	if err != nil {
		l.mesh.refuse(name, err)
		return
	}
	if f.life == l.mesh.life {
		if f.kind == frameProbe {
			l.probeBack(f.number)
			l.tellDoubts()
			l.wants.forget()
		}
		return
	}
	if f.origin == l.mesh.replica {
		l.mesh.meetTwin()
		return // a packet of its own id is never delivered: a hub could not tell the two apart
	}
	from, _ := l.origins.get(f.life)
	if from == nil || from.id != f.origin {
		from = &origin{id: strings.Clone(f.origin)}
		l.tellWantsAgain()
	}
	l.origins.set(f.life, from)
	if f.number <= from.frame {
		return // a pipeline was resent
	}
	from.frame = f.number
	switch f.kind {
	case frameLost:
		delete(l.doubts, f.life)
		l.mesh.inbox.Lost("", from.id)
	case frameWants:
		if err := l.wants.take(f.life, from.id, packets); err != nil {
			l.mesh.refuse(name, err)
		}
	case frameMessages:
		channel, isChannel := strings.CutPrefix(name, l.base+"c:")
		l.pass(name, channel, isChannel, f, from.id, packets)
	case frameCopy:
		channel, packets, ok := cutText(packets)
		if !ok || channel == "" {
			l.mesh.refuse(name, errFrame)
			return
		}
		l.pass(name, channel, true, f, from.id, packets)
	}
}

// pass delivers the packets of a frame.
func (l *link) pass(name, channel string, isChannel bool, f frame, from, packets string) {
	if isChannel {
		switch l.subs.follow(channel, f) {
		case unwanted:
			if !l.mesh.prefixes.index.Has(channel) {
				return
			}
		case gap:
			l.mesh.inbox.Lost(channel, from)
		case doubtful:
			l.doubt(f.life, from)
		}
	}
	turn, deliver := l.mesh.inbox.Begin(channel)
	defer turn.Unlock()
	var p mesh.Packet // one for all, since it is large
	for b := []byte(packets); len(b) > 0 && deliver != nil; {
		rest, err := packet.Next(&p, b, &l.texts)
		if err != nil {
			l.mesh.refuse(name, err)
			return
		}
		b = rest
		p.Origin = from
		if isChannel {
			p.Channel = channel
		}
		deliver(p)
	}
}

// doubt records a publisher that sends on so many channels that it has
// forgotten its last frame on some of them. Receivers cannot see a gap there.
type doubt struct {
	origin string
	told   time.Time
	open   bool // another such frame came since
}

// doubt reports a possible loss: at once the first time, and then at most once
// in doubtPeriod for each publisher.
func (l *link) doubt(life uint64, origin string) {
	d, known := l.doubts[life]
	if !known {
		if len(l.doubts) >= maxOrigins {
			clear(l.doubts)
		}
		l.mesh.inbox.Lost("", origin)
		l.doubts[life] = doubt{origin: origin, told: time.Now()}
		return
	}
	d.open = true
	l.doubts[life] = d
}

// tellDoubts reports the doubts that are due. It runs with each probe.
func (l *link) tellDoubts() {
	for life, d := range l.doubts {
		switch {
		case time.Since(d.told) < doubtPeriod:
		case d.open:
			l.mesh.inbox.Lost("", d.origin)
			l.doubts[life] = doubt{origin: d.origin, told: time.Now()}
		default:
			delete(l.doubts, life)
		}
	}
}

// The probe is a frame that the link publishes to itself. If Redis has taken
// one and it does not come back, the subscription is dead, whatever TCP says.

func (l *link) probeLeaves(number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := &l.probed
	if !p.taken.IsZero() && !p.back || p.number == number {
		return // the probe before is still awaited, or this attempt resends it
	}
	*p = probe{number: number, left: time.Now()}
}

func (l *link) probeTaken(number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.probed.number == number {
		l.probed.taken = time.Now()
	}
}

func (l *link) probeBack(number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.probed.number == number && !l.probed.back {
		l.probed.back = true
		l.rtt = time.Since(l.probed.left)
	}
}

// check returns what is wrong with the connection. ask calls it once a second.
func (l *link) check() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.busy.IsZero() {
		return nil // the reader is not reading now
	}
	since := func(t time.Time) time.Duration { // does not count the time in which the reader did not read
		if l.held.After(t) {
			t = l.held
		}
		return time.Since(t)
	}
	silent := min(l.mesh.clock()-time.Duration(l.conn.heard.Load()), since(l.opened))
	asked := l.subs.askedSince()
	p := &l.probed
	switch {
	case !asked.IsZero() && since(asked) > connectWait && (silent > probeWait || since(asked) > longestWait):
		return fmt.Errorf("a subscription was not confirmed by Redis within %s", since(asked).Round(time.Second))
	case !l.up:
	case !p.taken.IsZero() && !p.back && since(p.taken) > probeWait && (silent > probeWait || since(p.taken) > longestWait):
		return fmt.Errorf("the subscription is dead: a probe that Redis accepted did not come back within %s", since(p.taken).Round(time.Second))
	case silent > silentWait:
		return fmt.Errorf("the subscription is dead: nothing came for %s", silent.Round(time.Second))
	case l.sendsTo != "" && l.sendsSince.After(l.opened) && l.sendsTo != l.conn.remote():
		return fmt.Errorf("the server has changed: this replica subscribes at %s and publishes at %s", l.conn.remote(), l.sendsTo)
	}
	return nil
}

// sends records where the sender publishes from now on.
func (l *link) sends(remote string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sendsTo, l.sendsSince = remote, time.Now()
}

// work records that the reader is at work. It cannot read the probe meanwhile.
// If the work took long, the probe waits behind all the data that has gathered.
func (l *link) work() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy = time.Now()
}

func (l *link) rest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.busy) > probePeriod {
		l.held = now
	}
	l.busy = time.Time{}
}

func (l *link) setUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.up, l.since, l.err, l.probed = true, time.Now(), nil, probe{}
	l.mesh.log.Info("mesh: subscribed at Redis", "lane", l.base)
}

// fail closes the connection and records why.
func (l *link) fail(err error) {
	l.mu.Lock()
	c := l.conn
	if c != nil {
		l.cause = err
	}
	l.mu.Unlock()
	if c != nil {
		c.cut() // Close would wait, since TLS may send a close alert
	}
}

// setBroken records that the connection is broken. It reports whether the link
// was up.
func (l *link) setBroken(err error) bool {
	err = l.explain(err)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause != nil {
		err = l.cause // not the error that this caused in the reader
	}
	was := l.up
	if was {
		l.since = time.Now()
	}
	if l.mesh.ctx.Err() == nil && (was || l.err == errAway) {
		l.mesh.log.Warn("mesh: no subscription at Redis; this replica misses what is published meanwhile", "lane", l.base, "err", err)
	}
	l.up, l.err, l.conn, l.cause = false, err, nil, nil
	return was
}

// health returns the link's part of the mesh's Status.
func (l *link) health() (p mesh.Peer, err error) {
	queued, changed, down := l.queue.health()
	l.mu.Lock()
	defer l.mu.Unlock()
	p, err = mesh.Peer{Up: l.up && down == nil, Since: l.since, RTT: l.rtt, Queued: queued}, l.err
	switch { // the link is up if both are; it is down since the first of them is
	case err == nil:
		err = down
		if p.Up && changed.After(p.Since) || !p.Up && l.up {
			p.Since = changed
		}
	case down != nil && changed.Before(p.Since):
		p.Since = changed
	}
	return p, err
}
