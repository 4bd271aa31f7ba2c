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
	moved   atomic.Bool   // the sender has to leave its server

	// The reader's own.
	origins recent[uint64, *origin] // by life
	doubts  map[uint64]doubt        // by life
	texts   packet.Kept

	mu     sync.Mutex // guards the fields below
	up     bool
	since  time.Time // of up
	err    error     // why it is not up
	cause  error     // why the connection was closed from here; nil: it was not
	conn   *conn     // what is subscribed with; nil while there is none
	opened time.Time // of conn
	busy   time.Time // since when the reader is at work; zero: it waits
	held   time.Time // when it last came back from work that took long
	rtt    time.Duration
	probed probe

	// Where the sender publishes, to see that it is where this link listens.
	sendsTo    string
	sendsSince time.Time
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
	// probeWait is how long nothing may come while a probe that Redis has
	// taken is not back, before the subscription counts as dead. The probe
	// stands behind what came before it, which may be large: where something
	// comes, longestWait is the bound.
	probeWait = 3 * time.Second
	// connectWait bounds opening a connection, and how long Redis may owe the
	// answer to a subscription while nothing comes; where something does,
	// longestWait is the bound.
	connectWait = 10 * time.Second
	longestWait = 15 * time.Second
	// silentWait is for a link that has no probe to tell: publishing fails.
	silentWait  = 30 * time.Second
	maxOrigins  = 4096 // lives; who was forgotten could repeat a pipeline
	doubtPeriod = 10 * time.Second
)

func newLink(m *Mesh, base string) *link {
	l := &link{mesh: m, base: base, doubts: map[uint64]doubt{}, decided: make(chan struct{}), origins: recent[uint64, *origin]{max: maxOrigins}, since: time.Now(), err: errAway}
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

// server returns the client of the server that has the link's slot.
func (l *link) server(ctx context.Context) (*redis.Client, error) {
	if c := l.mesh.cluster; c != nil {
		return inTime(ctx, func() (*redis.Client, error) { return c.MasterForKey(ctx, l.base) }, nil)
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
		err := l.session()
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

// session is the life of one connection. It returns why it has ended.
func (l *link) session() error {
	ctx, cancel := context.WithTimeout(l.mesh.ctx, connectWait)
	defer cancel()
	if l.mesh.cluster != nil {
		if err := l.decide(ctx); err != nil {
			select {
			case <-l.decided:
			default:
				l.queue.setDown(l.explain(err)) // nothing is sent before
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
	defer ps.Close()              // closed already where ask found the fault
	if err := l.subscribe(ctx, ps, l.all); err != nil {
		return err
	}
	cancel()
	l.subs.restart()
	l.setConn(c)
	var asking sync.WaitGroup
	broken := make(chan struct{})
	asking.Go(func() { l.ask(ps, broken) })
	err = l.read(ps)
	close(broken)
	asking.Wait()
	return err
}

// setConn notes what the link is subscribed with.
func (l *link) setConn(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn, l.opened, l.cause = c, time.Now(), nil
}

// decide asks a Cluster whether it has sharded pub/sub, anew with each
// connection: it may have been upgraded, and all replicas have to agree.
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
				l.fail(err) // so that the reader ends, too
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
	for {
		// Without a timeout: how long it may take depends on what is awaited.
		// ask watches, and closes the connection.
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
		clear(l.doubts) // all are told
		l.mesh.lost("", "")
	}
	return nil
}

// arrive takes what was published on a name.
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
		}
		return
	}
	if f.origin == l.mesh.node {
		l.mesh.meetTwin()
		return // never one's own, and a hub could not tell them apart
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
		delete(l.doubts, f.life)
		l.mesh.lost("", from.id)
	case frameMessages:
		l.pass(name, f, from.id, packets)
	}
}

// pass gives packets to deliver.
func (l *link) pass(name string, f frame, from, packets string) {
	channel, isChannel := strings.CutPrefix(name, l.base+"c:")
	if isChannel {
		switch l.subs.follow(channel, f) {
		case unwanted:
			return
		case gap:
			l.mesh.lost(channel, from)
		case doubtful:
			l.doubt(f.life, from)
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

// doubt is a publisher on so many channels that it has forgotten what it sent
// last on some of them, so that nobody can see a gap there.
type doubt struct {
	origin string
	told   time.Time
	open   bool // there was a frame since
}

// doubt tells of what may be missing: at once the first time, and then not more
// often than once in doubtPeriod for each publisher.
func (l *link) doubt(life uint64, origin string) {
	d, known := l.doubts[life]
	if !known {
		if len(l.doubts) >= maxOrigins {
			clear(l.doubts)
		}
		l.mesh.lost("", origin)
		l.doubts[life] = doubt{origin: origin, told: time.Now()}
		return
	}
	d.open = true
	l.doubts[life] = d
}

// tellDoubts comes with each probe.
func (l *link) tellDoubts() {
	for life, d := range l.doubts {
		switch {
		case time.Since(d.told) < doubtPeriod:
		case d.open:
			l.mesh.lost("", d.origin)
			l.doubts[life] = doubt{origin: d.origin, told: time.Now()}
		default:
			delete(l.doubts, life)
		}
	}
}

// The probe: a frame that the link publishes to itself. When Redis has taken
// one and it does not come back, the subscription is dead, whatever TCP says.

func (l *link) probeLeaves(number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := &l.probed
	if !p.taken.IsZero() && !p.back || p.number == number {
		return // the one before is still awaited, or this is an attempt to repeat it
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

// check tells what is wrong with the connection. ask calls it once a second.
func (l *link) check() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.busy.IsZero() {
		return nil // the reader does not read at this moment
	}
	since := func(t time.Time) time.Duration { // not counting when the reader did not read
		if l.held.After(t) {
			t = l.held
		}
		return time.Since(t)
	}
	silent := min(l.mesh.clock()-l.conn.heard(), since(l.opened))
	asked := l.subs.askedSince()
	p := &l.probed
	switch {
	case !asked.IsZero() && since(asked) > connectWait && (silent > probeWait || since(asked) > longestWait):
		return fmt.Errorf("a subscription was not confirmed by Redis for %s", since(asked).Round(time.Second))
	case !l.up:
	case !p.taken.IsZero() && !p.back && since(p.taken) > probeWait && (silent > probeWait || since(p.taken) > longestWait):
		return fmt.Errorf("the subscription is dead: a probe that Redis has taken did not come back within %s", since(p.taken).Round(time.Second))
	case silent > silentWait:
		return fmt.Errorf("the subscription is dead: nothing came for %s", silent.Round(time.Second))
	case l.sendsTo != "" && l.sendsSince.After(l.opened) && l.sendsTo != l.conn.remote():
		return fmt.Errorf("the server has changed: publishing was at %s, and is at %s now", l.conn.remote(), l.sendsTo)
	}
	return nil
}

// sends notes where the sender publishes from now on.
func (l *link) sends(remote string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sendsTo, l.sendsSince = remote, time.Now()
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

// fail ends the connection, and notes why.
func (l *link) fail(err error) {
	l.mu.Lock()
	c := l.conn
	if c != nil {
		l.cause = err
	}
	l.mu.Unlock()
	if c != nil {
		c.cut() // TLS may say goodbye, and wait for it
	}
}

// setBroken notes that the connection is, and tells whether it was up.
func (l *link) setBroken(err error) bool {
	err = l.explain(err)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause != nil {
		err = l.cause // of what has ended the reader
	}
	was := l.up
	if was {
		l.since = time.Now()
	}
	if l.mesh.ctx.Err() == nil && (was || l.err == errAway) {
		l.mesh.log.Warn("mesh: no subscription at Redis; what is published meanwhile is missed", "lane", l.base, "err", err)
	}
	l.up, l.err, l.conn, l.cause = false, err, nil, nil
	return was
}

// health is the link's part of the mesh's Status.
func (l *link) health() (up bool, since time.Time, rtt time.Duration, err error) {
	changed, down := l.queue.health()
	l.mu.Lock()
	defer l.mu.Unlock()
	up, since, err = l.up && down == nil, l.since, l.err
	switch { // it is up while both are, and down since the first is
	case err == nil:
		err = down
		if up && changed.After(since) || !up && l.up {
			since = changed
		}
	case down != nil && changed.Before(since):
		since = changed
	}
	return up, since, l.rtt, err
}
