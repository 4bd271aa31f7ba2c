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

	"github.com/channels-go/channels/mesh/internal/packet"
)

// A link is one way to Redis and back: a queue of what is to be published, and
// a connection for what is subscribed to. One server needs one link, a Cluster
// one for each lane.
type link struct {
	mesh  *Mesh
	base  string // begins all its names
	own   string // the name of this replica: its probes, and what is to it alone
	all   string // the name that every replica subscribes to
	queue queue
	subs  subs

	decided chan struct{} // closed when sharded is known
	sharded atomic.Bool   // SPUBLISH and SSUBSCRIBE

	// The reader's own.
	origins recent[uint64, *origin] // by life
	texts   packet.Kept

	mu     sync.Mutex // guards the fields below
	up     bool
	since  time.Time // of up
	err    error     // why it is not up
	busy   time.Time // since when the reader is at work; zero: it waits
	held   time.Time // when it last came back from work that took long
	rtt    time.Duration
	probed probe
}

// probe is the one on its way.
type probe struct {
	number      uint64
	left, taken time.Time // the sender; Redis. Zero: not yet
	back        bool
}

// origin is another replica, in one of its lives.
type origin struct {
	id    string
	frame uint64 // the last one
}

const (
	probePeriod = time.Second
	// probeWait is how long a probe that Redis has taken may need to come
	// back, before the subscription counts as dead.
	probeWait   = 3 * time.Second
	connectWait = 10 * time.Second
	maxOrigins  = 4096 // lives; who was forgotten could repeat a pipeline
)

func newLink(m *Mesh, base string) *link {
	l := &link{mesh: m, base: base, decided: make(chan struct{}), origins: recent[uint64, *origin]{max: maxOrigins}, since: time.Now(), err: errAway}
	l.own, l.all = l.node(m.node), base+"all"
	l.queue.maxPackets, l.queue.maxBytes, l.queue.wake = maxQueued, maxQueuedBytes, make(chan struct{}, 1)
	l.subs.channels, l.subs.wake = map[string]*sub{}, make(chan struct{}, 1)
	if m.cluster == nil {
		close(l.decided) // one server, or a master and its replicas
	} else {
		l.queue.maxPackets, l.queue.maxBytes = maxQueued/4, maxQueuedBytes/4
	}
	return l
}

// name is what a channel's packets are published on. Those for everybody take
// the name that everybody subscribes to.
func (l *link) name(channel string) string {
	if channel == "" {
		return l.all
	}
	return l.base + "c:" + channel
}

func (l *link) node(id string) string { return l.base + "n:" + id }

// client returns the server that has the link's slot.
func (l *link) client(ctx context.Context) (*redis.Client, error) {
	if c := l.mesh.cluster; c != nil {
		return c.MasterForKey(ctx, l.base)
	}
	return l.mesh.client.(*redis.Client), nil
}

// ended is a context for calls that must not make go-redis connect again: it
// would do so by itself after any error, and resubscribe, so that nobody knew
// what was missed. Reading and writing look at its deadline only, which it has not.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// run keeps the link connected, and reads from it. New starts it; it ends with
// the mesh, and Close waits for it.
func (l *link) run() {
	pause := time.Duration(0)
	for l.mesh.ctx.Err() == nil {
		ps, err := l.connect()
		if err == nil {
			var asking sync.WaitGroup
			broken := make(chan struct{})
			asking.Go(func() { l.ask(ps, broken) })
			err = l.read(ps)
			close(broken)
			asking.Wait()
			_ = ps.Close() // it is closed already where ask found the fault
		}
		if l.setBroken(err) {
			pause = 0 // it worked
		}
		if l.mesh.cluster != nil {
			l.mesh.cluster.ReloadState(l.mesh.ctx)
		}
		select {
		case <-time.After(pause/2 + rand.N(pause/2+50*time.Millisecond)):
		case <-l.mesh.ctx.Done():
		}
		pause = min(2*pause+50*time.Millisecond, 2*time.Second)
	}
}

// connect opens a connection that is subscribed to the name of all.
func (l *link) connect() (*redis.PubSub, error) {
	ctx, cancel := context.WithTimeout(l.mesh.ctx, connectWait)
	defer cancel()
	if l.mesh.cluster != nil {
		if err := l.decide(ctx); err != nil {
			select {
			case <-l.decided:
			default:
				l.queue.setDown(l.explain(err)) // nothing is sent before
			}
			return nil, err
		}
	}
	ps := l.mesh.client.Subscribe(ctx) // sends nothing yet
	if err := l.subscribe(ctx, ps, l.all); err != nil {
		_ = ps.Close()
		return nil, err
	}
	return ps, nil
}

// decide asks a Cluster whether it has sharded pub/sub, anew with each
// connection: it may have been upgraded, and all replicas have to agree.
func (l *link) decide(ctx context.Context) error {
	client, err := l.client(ctx)
	if err != nil {
		return err
	}
	info, err := client.Do(ctx, "command", "info", "ssubscribe").Slice()
	if err != nil {
		return err
	}
	l.sharded.Store(len(info) > 0 && info[0] != nil)
	select {
	case <-l.decided:
	default:
		close(l.decided)
		l.queue.setDown(nil)
	}
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

// ask sends subscriptions, and probes, until the connection is broken or the
// mesh ends; then it closes the connection, so that the reader ends. run starts
// it and waits for it.
func (l *link) ask(ps *redis.PubSub, broken <-chan struct{}) {
	t := time.NewTicker(probePeriod)
	defer t.Stop()
	defer ps.Close()
	l.subs.restart()
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
			if err := l.checkProbe(); err != nil {
				l.fail(err)
				return
			}
		case <-broken:
			return
		case <-l.mesh.ctx.Done():
			return
		}
	}
}

// askSome sends some of the subscriptions that wait; false where none does.
func (l *link) askSome(ps *redis.PubSub) (more bool, err error) {
	enter, leave, fence := l.subs.take()
	for i := range enter {
		enter[i] = l.name(enter[i])
	}
	for i := range leave {
		leave[i] = l.name(leave[i])
	}
	if fence { // behind all that were there when it connected
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

// read takes what comes until the connection breaks.
func (l *link) read(ps *redis.PubSub) error {
	session := time.Now()
	for {
		// Without a timeout: one that fell into the middle of a reply would
		// have the next read begin there. ask watches instead.
		msg, err := ps.Receive(ended)
		if err != nil {
			return err
		}
		l.work()
		switch msg := msg.(type) {
		case *redis.Message:
			l.arrive(msg.Channel, msg.Payload, session)
		case *redis.Subscription:
			err = l.confirm(msg.Kind, msg.Channel)
		}
		l.rest()
		if err != nil {
			return err
		}
	}
}

// confirm takes Redis's answer to a subscription.
func (l *link) confirm(kind, name string) error {
	channel, isChannel := strings.CutPrefix(name, l.base+"c:")
	switch {
	case strings.Contains(kind, "unsub"):
		if !isChannel { // nobody asked for it; all names of a link are in one slot
			return fmt.Errorf("the subscriptions were ended by Redis: the slot of %q has moved", name)
		}
	case isChannel:
		if l.subs.confirm(channel) {
			l.mesh.lost(channel, "")
		}
	case name == l.own:
		l.setUp()
		l.subs.setUp()
		l.queue.askProbe()
		l.mesh.lost("", "")
	}
	return nil
}

// arrive takes what was published on a name.
func (l *link) arrive(name, payload string, session time.Time) {
	f, packets, err := readFrame(payload)
	if err != nil {
		l.mesh.refuse(name, err)
		return
	}
	if f.life == l.mesh.life {
		if f.kind == frameProbe {
			l.probeBack(f.number)
		}
		return
	}
	from, _ := l.origins.get(f.life)
	if from == nil || from.id != f.origin {
		from = &origin{id: strings.Clone(f.origin)}
	}
	l.origins.set(f.life, from)
	if f.number <= from.frame {
		return // a pipeline was repeated
	}
	from.frame = f.number
	switch f.kind {
	case frameLost:
		l.mesh.lost("", from.id)
	case frameMessages:
		l.pass(name, f, from.id, packets, session)
	}
}

// pass gives packets to deliver.
func (l *link) pass(name string, f frame, from, packets string, session time.Time) {
	channel, isChannel := strings.CutPrefix(name, l.base+"c:")
	if isChannel {
		wanted, gap := l.subs.follow(channel, f, session)
		if !wanted {
			return
		}
		if gap {
			l.mesh.lost(channel, from)
		}
	}
	m := l.mesh
	m.receiving.RLock()
	defer m.receiving.RUnlock()
	for b := []byte(packets); len(b) > 0; {
		p, rest, err := packet.Next(b, &l.texts)
		if err != nil {
			m.refuse(name, err)
			return
		}
		b = rest
		p.Origin = from
		if isChannel {
			p.Channel = channel
		}
		if m.deliver == nil {
			m.missed.Store(true)
			return
		}
		m.deliver(p)
	}
}

// The probe: a frame that the link publishes to itself. When Redis has taken
// one and it does not come back, the subscription is dead, whatever TCP says.

func (l *link) probeLeaves(number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.probed.number != number { // not an attempt to repeat it
		l.probed = probe{number: number, left: time.Now()}
	}
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

// checkProbe has the next one sent, where the last is back.
func (l *link) checkProbe() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := &l.probed
	switch {
	case !l.up || !l.busy.IsZero():
	case p.back || p.left.IsZero():
		l.queue.askProbe()
	case p.taken.IsZero():
		l.queue.askProbe() // it is on its way, or was given up
	default:
		from := p.taken
		if l.held.After(from) {
			from = l.held
		}
		if time.Since(from) > probeWait {
			return fmt.Errorf("the subscription is dead: a probe that Redis has taken did not come back within %s", probeWait)
		}
	}
	return nil
}

// work notes that the reader is at work. Meanwhile the probe cannot come, and
// where it took long, the probe stands behind all that has gathered.
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

// fail notes why the connection is about to be closed.
func (l *link) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

// setBroken notes that the connection is, and tells whether it was up.
func (l *link) setBroken(err error) bool {
	err = l.explain(err)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.up && l.err != nil {
		err = l.err // the cause
	}
	was := l.up
	if was {
		l.since = time.Now()
	}
	if l.mesh.ctx.Err() == nil && (was || l.err == errAway) {
		l.mesh.log.Warn("mesh: no subscription at Redis; what is published meanwhile is missed", "lane", l.base, "err", err)
	}
	l.up, l.err = false, err
	return was
}

// health is the link's part of the mesh's Status.
func (l *link) health() (up bool, since time.Time, rtt time.Duration, err error) {
	l.queue.mu.Lock()
	down := l.queue.down
	l.queue.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	err = l.err
	if err == nil {
		err = down
	}
	return l.up && down == nil, l.since, l.rtt, err
}
