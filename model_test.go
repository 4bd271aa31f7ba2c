package channels_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/meshtest"
	"github.com/channels-go/channels/store"
)

var (
	modelTime = flag.Duration("model", 0, "for how long TestModel tries seeds; 0 is for a fixed number of them")
	modelSeed = flag.Uint64("modelseed", 0, "the only seed that TestModel tries, to do it again; 0 is many")
)

// modelSeeds are many, and few with the race detector: its memory of a bubble's
// timers is bounded, and where it overflows it ends the process
// (go.dev/issue/78156). "make test" runs both.
var modelSeeds = map[bool]uint64{false: 2000, true: 10}[raceDetector]

const modelChannel = "c"

// TestModel lets one to three replicas publish, subscribe, resume and be slow
// in random order, while messages are late, lost, doubled and out of order, and
// the Store trims, forgets, loses its end or all of it, fails, and loses
// answers. What each subscriber gets, through all the times that it resumes, is
// checked against docs/positions.md: each message once and in order, or a reset
// that says what is missing, where it stands, and not without need; and in the
// end everybody has everything.
func TestModel(t *testing.T) {
	begin := time.Now()
	first := cmp.Or(*modelSeed, uint64(1))
	if *modelTime > 0 && *modelSeed == 0 {
		first = rand.Uint64()
	}
	for seed := first; ; seed++ {
		runModel(t, seed)
		switch {
		case t.Failed(), *modelSeed != 0, *modelTime > 0 && time.Since(begin) > *modelTime:
			return
		case *modelTime == 0 && (seed-first+1 >= modelSeeds || testing.Short() && seed-first >= 200):
			return
		}
	}
}

// model is one run.
type model struct {
	t      *testing.T
	seed   uint64
	rand   *rand.Rand
	store  *modelStore
	net    *meshtest.Network
	hubs   []*channels.Hub
	slow   time.Duration // how long a slow reader takes for a message, at the most
	narrow bool          // queues are short, and readers are fast
	wg     sync.WaitGroup
	body   int

	mu       sync.Mutex // guards the fields below
	readers  []*modelReader
	handed   []map[channels.Position]int // by replica: what its mesh has brought, and when, by events
	events   int
	trace    []string
	problems []string
	except   map[string]*modelReader // by body: who has sent it, and does not get it
}

func runModel(t *testing.T, seed uint64) {
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		n := 1 + rnd.IntN(3)
		size := []int{1, 3, 10, 10, 50, 1000}[rnd.IntN(6)]
		m := &model{t: t, seed: seed, rand: rnd, store: newModelStore(t, rand.New(rand.NewPCG(seed, 2)), size), net: meshtest.NewNetwork(seed)}
		o := channels.Options{Store: m.store, StoreTimeout: time.Second, Logger: quiet,
			Channel: keep(size)}
		switch rnd.IntN(6) {
		case 0, 1:
			m.slow = 200 * time.Millisecond
			o.MaxMessageBytes = 1 << 10
			o.QueueBytes = 2<<10 + rnd.IntN(4<<10)
		case 2: // what a fill brings is more than this, what is published at once is not
			o.MaxMessageBytes, o.QueueBytes = 1<<10, 3<<10
			m.narrow = true
		}
		for i := range n {
			o.ReplicaID = fmt.Sprintf("r%d", i)
			o.Mesh = nil
			m.handed = append(m.handed, map[channels.Position]int{})
			if n > 1 {
				node := m.net.Join(o.ReplicaID)
				defer node.Close()
				o.Mesh = &watched{node, m, i}
			}
			h, err := channels.New(o)
			require.NoError(t, err)
			m.hubs = append(m.hubs, h)
		}
		synctest.Wait()
		m.run()
		for _, h := range m.hubs {
			require.NoError(t, h.Shutdown(context.Background()))
		}
		m.wg.Wait()
		synctest.Wait()
		if len(m.problems) > 0 {
			t.Errorf("%d replicas, history of %d; to repeat: -run TestModel -modelseed %d\n%s\n%s", n, size, seed,
				strings.Join(m.problems, "\n"), strings.Join(m.trace, "\n"))
		}
	})
}

// watched is a mesh that notes what it brings.
type watched struct {
	mesh.Mesh
	m *model
	i int
}

func (w *watched) Receive(ctx context.Context, deliver func(mesh.Packet)) error {
	return w.Mesh.Receive(ctx, func(p mesh.Packet) {
		if (p.Kind == mesh.KindMessage || p.Kind == mesh.KindAgain) && p.Offset > 0 {
			pos := channels.Position{Epoch: p.Epoch, Offset: p.Offset}
			w.m.mu.Lock()
			w.m.handed[w.i][pos] = w.m.eventLocked("%s: the mesh brings %v", fmt.Sprintf("r%d", w.i), pos)
			w.m.mu.Unlock()
		}
		deliver(p)
	})
}

func (m *model) eventLocked(format string, args ...any) int {
	m.events++
	m.trace = append(m.trace, time.Now().Format("05.000 ")+fmt.Sprintf(format, args...))
	return m.events
}

func (m *model) event(format string, args ...any) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.eventLocked(format, args...)
}

// chance is true in one of n cases.
func (m *model) chance(n int) bool { return m.rand.IntN(n) == 0 }

func (m *model) run() {
	for range 40 + m.rand.IntN(60) {
		m.step()
		switch {
		case m.chance(12):
			time.Sleep(time.Duration(m.rand.IntN(3000)) * time.Millisecond)
		case m.narrow, !m.chance(3):
			time.Sleep(time.Millisecond) // readers read
			time.Sleep(time.Duration(m.rand.IntN(60)) * time.Millisecond)
		}
	}
	m.store.mu.Lock()
	m.store.down, m.store.fail = false, 0
	m.store.mu.Unlock()
	m.net.SetFaults(meshtest.Faults{})
	m.net.Heal()
	m.event("all faults end")
	settle(time.Minute) // slow readers, with all that they resume
	m.event("the Store has %v", m.store.top())
	m.mu.Lock()
	readers := m.readers
	m.mu.Unlock()
	for _, r := range readers {
		r.finish()
	}
}

func (m *model) step() {
	switch n := m.rand.IntN(100); {
	case n < 45:
		for range 1 + m.rand.IntN(8)*m.rand.IntN(2) {
			m.publish()
		}
	case n < 60:
		m.subscribe()
	case n < 66:
		m.mu.Lock()
		if len(m.readers) > 0 {
			m.readers[m.rand.IntN(len(m.readers))].leave()
		}
		m.mu.Unlock()
	case n < 74:
		f := meshtest.Faults{Drop: []float64{0, 0, 0.1, 0.5, 1}[m.rand.IntN(5)], Duplicate: []float64{0, 0.3}[m.rand.IntN(2)],
			Delay: []time.Duration{0, 20 * time.Millisecond, 150 * time.Millisecond, 2 * time.Second}[m.rand.IntN(4)]}
		m.event("network: %+v", f)
		m.net.SetFaults(f)
	case n < 77 && len(m.hubs) > 1:
		m.event("network: a cut")
		m.net.Cut("r0", "r1")
	case n < 79:
		m.event("network: healed")
		m.net.Heal()
	case n < 84:
		m.store.mu.Lock()
		m.store.late = []time.Duration{0, 0, 10 * time.Millisecond, 100 * time.Millisecond, 400 * time.Millisecond}[m.rand.IntN(5)]
		m.store.fail = []float64{0, 0, 0, 0.1, 0.4}[m.rand.IntN(5)]
		m.event("store: up to %v late, %v fail", m.store.late, m.store.fail)
		m.store.mu.Unlock()
	case n < 87:
		m.store.mu.Lock()
		m.store.down = !m.store.down
		m.event("store: down %v", m.store.down)
		m.store.mu.Unlock()
	case n < 90:
		m.store.expire(m.rand.Float64())
		m.event("store: entries expire")
	case n < 94:
		m.store.loseEnd(1 + m.rand.Uint64N(5))
		m.event("store: loses its end, up to %v", m.store.top())
	case n < 96:
		m.store.loseAll()
		m.event("store: loses all")
	}
}

// publish publishes one message, and repeats it with its key where that fails.
func (m *model) publish() {
	m.body++
	body, i := fmt.Sprintf(`"m%d"`, m.body), m.rand.IntN(len(m.hubs))
	again := m.rand.IntN(len(m.hubs))
	var o channels.PublishOptions
	m.mu.Lock()
	if len(m.readers) > 0 && m.chance(4) {
		r := m.readers[m.rand.IntN(len(m.readers))]
		if o.Except = r.id; r.id != "" {
			if m.except == nil {
				m.except = map[string]*modelReader{}
			}
			m.except[body] = r
		}
	}
	m.mu.Unlock()
	if m.chance(3) {
		o.Key = body[1 : len(body)-1]
	}
	m.wg.Go(func() {
		for range 2 {
			res, err := m.hubs[i].PublishWith(context.Background(), modelChannel, channels.Message{Header: "n", Body: json.RawMessage(body)}, o)
			m.event("r%d: publish %s %q: %v, duplicate %v, %v", i, body, o.Key, res.Position, res.Duplicate, err)
			if err == nil {
				m.store.mu.Lock()
				got, _ := m.store.body(store.Position(res.Position))
				m.store.mu.Unlock()
				if got != body {
					m.problem("%s was acknowledged at %v, where the Store has %s", body, res.Position, got)
				}
				return
			}
			if o.Key == "" || errors.Is(err, channels.ErrClosed) {
				return
			}
			i = again
		}
	})
}

func (m *model) problem(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.problems = append(m.problems, fmt.Sprintf("after event %d: ", m.events)+fmt.Sprintf(format, args...))
	m.eventLocked("PROBLEM "+format, args...)
}

// A modelReader is one subscriber, through all the times that it resumes.
type modelReader struct {
	m     *model
	name  string
	slow  time.Duration
	id    string // of its subscription; model.mu guards it
	ctx   context.Context
	leave context.CancelFunc // ends ctx
	done  chan struct{}

	// The goroutine's own, until done.
	at       channels.Position
	known    bool           // at is
	from     store.Position // the Store's top after it had subscribed, where at is not known
	attached int            // the event of the last subscribing
	strict   bool           // it is never behind by its own fault
	last     time.Time      // when it was attached, or got something
	odd      bool           // it comes with a position that there never was
	opens    bool           // it gets what comes first in one piece, and is told a position
	newest   int            // with how many messages it begins, if it comes with no position
	before   store.Position // the Store's top before it subscribed
	replica  int
}

// subscribe adds a reader: from now on, or from where another one has been.
func (m *model) subscribe() {
	r := &modelReader{m: m, done: make(chan struct{}), replica: m.rand.IntN(len(m.hubs))}
	r.ctx, r.leave = context.WithCancel(context.Background())
	if m.slow > 0 && m.chance(2) {
		r.slow = m.slow
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.readers) > 8 {
		return
	}
	top := m.store.top()
	switch m.rand.IntN(8) {
	case 0:
		r.known = true // the beginning
	case 1, 2, 3:
		r.known, r.at = true, channels.Position{Epoch: top.Epoch, Offset: m.rand.Uint64N(top.Offset + 2)}
		if top.Epoch == "" {
			r.at.Offset = 0
		}
	case 4:
		if m.store.epochs > 0 {
			r.known, r.at = true, channels.Position{Epoch: fmt.Sprintf("e%d", 1+m.rand.IntN(m.store.epochs)), Offset: m.rand.Uint64N(20)}
		}
	}
	r.opens = m.chance(3)
	if !r.known && m.chance(3) {
		r.newest = []int{1, 5, 1000}[m.rand.IntN(3)]
	}
	m.store.mu.Lock()
	_, was := m.store.body(store.Position(r.at))
	m.store.mu.Unlock()
	r.odd = r.known && r.at.Offset > 0 && !was
	r.strict = !r.known && !r.opens && r.newest == 0 && m.slow == 0 && !m.narrow // others may begin ahead of their replica
	r.name = fmt.Sprintf("s%d", len(m.readers))
	m.readers = append(m.readers, r)
	seed := m.rand.Uint64()
	m.wg.Go(func() { r.run(rand.New(rand.NewPCG(seed, 3))) })
}

// run subscribes again and again, each time from where it was, as a client does.
func (r *modelReader) run(rnd *rand.Rand) {
	defer close(r.done)
	m := r.m
	for r.ctx.Err() == nil {
		h := m.hubs[r.replica]
		var from *channels.Position
		if r.known {
			at := r.at
			from = &at
		}
		before := m.store.top()
		sub, opening, err := r.begin(h, from)
		if err != nil {
			if errors.Is(err, channels.ErrClosed) {
				return
			}
			select {
			case <-r.ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		r.from, r.last = m.store.top(), time.Now()
		r.attached = m.event("%s: subscribed at r%d from %v (known %v)", r.name, r.replica, r.at, r.known)
		m.mu.Lock()
		r.id = sub.ID()
		m.mu.Unlock()
		r.before = before
		if r.opens {
			r.opened(opening)
		}
		stop := context.AfterFunc(r.ctx, sub.Close)
		err = r.read(sub, rnd)
		stop()
		sub.Close()
		m.event("%s: ended: %v", r.name, err)
		if !errors.Is(err, channels.ErrSlowSubscriber) {
			return
		}
		if m.slow == 0 {
			m.problem("%s, which reads as fast as it can, was too slow", r.name)
		}
		r.replica, r.strict = rnd.IntN(len(m.hubs)), false
		if !r.known {
			return // it has nothing to resume from
		}
	}
}

// begin subscribes: from a position, with the newest messages, or from now on. What
// comes first, comes in one piece to those who open.
func (r *modelReader) begin(h *channels.Hub, from *channels.Position) (*channels.Subscription, channels.Opening, error) {
	ctx := context.Background()
	switch {
	case r.opens && r.known:
		return channels.SubscribeOpening(ctx, h, modelChannel, from, 0)
	case r.opens:
		return channels.SubscribeOpening(ctx, h, modelChannel, nil, r.newest)
	case r.newest > 0 && !r.known:
		sub, err := h.SubscribeLast(ctx, modelChannel, r.newest)
		return sub, channels.Opening{}, err
	}
	sub, err := h.Subscribe(ctx, modelChannel, from)
	return sub, channels.Opening{}, err
}

// opened takes what came in one piece. From then on the reader has a position, with
// an epoch.
func (r *modelReader) opened(o channels.Opening) {
	m := r.m
	m.event("%s: opened from %v to %v with %d messages, reset %q", r.name, o.From, o.At, len(o.Messages), o.Reason)
	if o.Reason != "" {
		r.reset(&channels.ResetError{Reason: o.Reason, Position: o.From})
	}
	for _, msg := range o.Messages {
		r.message(msg)
	}
	if r.known && o.Reason == "" && r.at.Epoch == o.At.Epoch && r.at != o.At && !r.sent(o.At, r.at.Offset+1, o.At.Offset) {
		m.problem("%s was told that it is at %v, and is at %v", r.name, o.At, r.at)
	}
	if r.at, r.known = o.At, true; r.at.Epoch == "" {
		m.problem("%s was told no epoch", r.name)
	}
	r.last = time.Time{} // what comes next may have been missing before it came
}

func (r *modelReader) read(sub *channels.Subscription, rnd *rand.Rand) error {
	for msg, err := range sub.Messages() {
		var reset *channels.ResetError
		switch {
		case errors.As(err, &reset):
			r.reset(reset)
		case err != nil:
			return err
		default:
			r.message(msg)
		}
		if r.slow > 0 {
			time.Sleep(time.Duration(rnd.Int64N(int64(r.slow))))
		}
	}
	return nil
}

func (r *modelReader) message(msg channels.Message) {
	m, at := r.m, msg.Position
	m.event("%s: %s at %v", r.name, msg.Body, at)
	m.store.mu.Lock()
	want, ok := m.store.body(store.Position(at))
	first, over := uint64(0), false
	if l := m.store.lives[at.Epoch]; l != nil {
		first, over = l.first, l.over
	}
	oldest := max(first, r.from.Offset+1-min(r.from.Offset, uint64(r.newest))) // of the newest messages
	shared, known := m.store.shared(store.Position(r.at), at.Epoch)
	rewound := m.store.lives[at.Epoch] != nil && len(m.store.lives[at.Epoch].rewinds) > 0
	m.store.mu.Unlock()
	switch {
	case !ok || want != string(msg.Body):
		m.problem("%s got %s at %v, where the Store has %q", r.name, msg.Body, at, want)
	case r.known && (!known || shared != r.at.Offset || at.Offset <= r.at.Offset || !r.sent(at, r.at.Offset+1, at.Offset-1)):
		m.problem("%s got %v behind %v", r.name, at, r.at)
	case !r.known && !rewound && !r.sent(at, r.from.Offset+1, at.Offset-1) && at.Epoch == r.from.Epoch && at.Offset > r.from.Offset+1:
		m.problem("%s got %v first; it had subscribed when the Store had %v", r.name, at, r.from)
	case !r.known && r.newest > 0 && !rewound && !over && at.Epoch == r.before.Epoch && (at.Offset+uint64(r.newest) <= r.before.Offset ||
		m.slow == 0 && !m.narrow && at.Epoch == r.from.Epoch && at.Offset > oldest && !r.sent(at, oldest, at.Offset-1)):
		m.problem("%s got %v first of the newest %d; the Store had %v before it subscribed and %v after it, and now keeps %d", r.name, at, r.newest, r.before, r.from, first)
	}
	r.at, r.known, r.last = at, true, time.Now()
}

// sent tells whether the reader itself has sent all messages from first to last
// of a log.
func (r *modelReader) sent(log channels.Position, first, last uint64) bool {
	m := r.m
	for n := first; n <= last; n++ {
		m.store.mu.Lock()
		body, _ := m.store.body(store.Position{Epoch: log.Epoch, Offset: n})
		m.store.mu.Unlock()
		m.mu.Lock()
		sender := m.except[body]
		m.mu.Unlock()
		if sender != r {
			return false
		}
	}
	return true
}

func (r *modelReader) reset(e *channels.ResetError) {
	m, to := r.m, e.Position
	n := m.event("%s: reset (%s) to %v", r.name, e.Reason, to)
	if r.known && !r.odd {
		had := r.at // with what it has sent, which it does not get
		for had.Offset < to.Offset && r.sent(had, had.Offset+1, had.Offset+1) {
			had.Offset++
		}
		err := m.store.justifies(store.Position(r.at), store.Position(to))
		if err != nil && m.store.justifies(store.Position(had), store.Position(to)) != nil {
			m.problem("%s, at %v, got a reset (%s) to %v, although %v", r.name, r.at, e.Reason, to, err)
		}
		if r.strict && e.Reason == "trimmed" && time.Since(r.last) < time.Second {
			m.problem("%s, at %v, got a reset to %v only %v later: what is missing may be late", r.name, r.at, to, time.Since(r.last))
		}
		// What this replica has been brought must not be skipped.
		for o := r.at.Offset + 1; r.strict && r.at.Epoch == to.Epoch && o <= to.Offset; o++ {
			m.mu.Lock()
			at, ok := m.handed[r.replica][channels.Position{Epoch: to.Epoch, Offset: o}]
			m.mu.Unlock()
			if ok && at > r.attached && at < n && !r.sent(to, o, o) {
				m.problem("%s, at %v, got a reset to %v, although r%d had been brought %d", r.name, r.at, to, r.replica, o)
				break
			}
		}
		if r.at.Epoch == to.Epoch && to.Offset < r.at.Offset {
			r.attached = n // it had what was brought before, and the Store has lost that
		}
	}
	r.at, r.known, r.odd, r.last = to, true, false, time.Now()
}

// finish ends the reader, and checks that it has everything.
func (r *modelReader) finish() {
	if r.ctx.Err() != nil {
		return
	}
	gone := false
	select {
	case <-r.done:
		gone = true // too slow, with nothing to resume from
	default:
	}
	r.leave()
	<-r.done
	m := r.m
	top := m.store.top()
	m.store.mu.Lock()
	shared, known := m.store.shared(store.Position(r.at), top.Epoch)
	m.store.mu.Unlock()
	switch {
	case gone, top.Epoch == "":
	case !r.known:
		if r.sent(channels.Position(top), r.from.Offset+1, top.Offset) {
			return // all that came was its own
		}
		if top.Epoch != r.from.Epoch && r.from.Epoch == "" && top.Offset > 0 || top.Epoch == r.from.Epoch && top.Offset > r.from.Offset {
			m.problem("%s never got anything; it had subscribed when the Store had %v, which has %v", r.name, r.from, top)
		}
	case known && shared == r.at.Offset && r.at.Offset < top.Offset && r.sent(channels.Position(top), r.at.Offset+1, top.Offset):
	case !known || shared != r.at.Offset || r.at.Offset != top.Offset:
		m.problem("%s has come to %v in the end; the Store has %v", r.name, r.at, top)
	}
}
