package channels_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/meshtest"
	"github.com/channels-go/channels/store"
)

// A stepRecorder writes down the steps of a hub that are about the channel c, or about all
// channels if all is set. It is a Tracer that calls each step by a number, of which a
// replica's are all above base.
type stepRecorder struct {
	t     *testing.T
	base  int
	trace func([]byte) []byte // changes what Inject returns; may be nil

	mu    sync.Mutex // guards the fields below
	steps int
	lines []string
}

type stepKey struct{}

// stepOf is the number of the step that a context is of, or 0.
func stepOf(ctx context.Context) int {
	n, _ := ctx.Value(stepKey{}).(int)
	return n
}

var kindNames = map[channels.StepKind]string{
	channels.StepPublish: "publish", channels.StepStore: "store", channels.StepRelay: "relay", channels.StepReceive: "receive",
}

func (r *stepRecorder) Begin(ctx context.Context, s channels.Step) context.Context {
	if s.Channel != "c" {
		return ctx
	}
	assert.WithinDuration(r.t, time.Now(), s.Start, time.Minute)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.steps++
	n := r.base + r.steps
	r.lines = append(r.lines, strings.TrimSuffix(fmt.Sprintf("%d in %d: %s %s", n, stepOf(ctx), kindNames[s.Kind], s.Call), " "))
	return context.WithValue(ctx, stepKey{}, n)
}

func (r *stepRecorder) End(ctx context.Context, s channels.Step, err error) {
	if s.Channel != "c" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	line := fmt.Sprintf("%d ends", stepOf(ctx))
	if s.Bytes > 0 || s.Receivers > 0 {
		line += fmt.Sprintf(" with %d bytes for %d", s.Bytes, s.Receivers)
	}
	if s.Position.Offset > 0 {
		line += fmt.Sprint(" at ", s.Position.Offset)
	}
	if s.Origin != "" {
		line += " from " + s.Origin
	}
	if err != nil {
		line += ": " + reasonCode(err)
	}
	r.lines = append(r.lines, line)
}

func (r *stepRecorder) Inject(ctx context.Context) []byte {
	trace := fmt.Append(nil, stepOf(ctx))
	if r.trace != nil {
		return r.trace(trace)
	}
	return trace
}

func (r *stepRecorder) Extract(ctx context.Context, trace []byte) context.Context {
	var n int
	if _, err := fmt.Sscan(string(trace), &n); err != nil {
		return nil
	}
	return context.WithValue(ctx, stepKey{}, n)
}

func (r *stepRecorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := r.lines
	r.lines, r.steps = nil, 0
	return lines
}

// What an observer is told of a message, from its publish to its subscribers on another
// replica.
func TestObserversSeeEachStepOfAMessage(t *testing.T) {
	inBubble(t, 2, named(map[string]channels.ChannelOptions{"c": {HistorySize: 10}}), func(r *replicas) {
		here, there := &stepRecorder{t: t, base: 10}, &stepRecorder{t: t, base: 20}
		r.hubs[0].Observe(here)
		r.hubs[1].Observe(there)
		defer r.subscribe(0, "c", nil).close()
		s := r.subscribe(1, "c", nil)
		defer s.close()
		settle(time.Second)
		here.take()
		there.take()

		_, err := r.hubs[0].Publish(context.WithValue(context.Background(), stepKey{}, 5), "c", msg("x", `"12"`))
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, []string{
			"11 in 5: publish",
			"12 in 11: store append", "12 ends",
			"13 in 11: relay", "13 ends with 4 bytes for 0 at 1",
			"11 ends with 4 bytes for 1 at 1",
		}, here.take())
		require.Equal(t, []string{"21 in 11: receive", "21 ends with 4 bytes for 1 at 1 from r0"}, there.take())

		r.store.full.Store(true)
		_, err = r.hubs[0].Publish(context.Background(), "c", msg("x", "1"))
		require.ErrorIs(t, err, channels.ErrStoreUnavailable)
		lines := here.take()
		require.Equal(t, "11 in 0: publish", lines[0])
		require.Contains(t, lines, "11 ends with 1 bytes for 0: store_unavailable")
		r.store.full.Store(false)

		settle(time.Second) // the channel looks after what may be in the Store
		here.take()

		// What is refused at once, and a packet that is no message.
		_, err = r.hubs[0].Publish(context.Background(), "c", msg("", "1"))
		require.Error(t, err)
		require.Contains(t, here.take(), "11 ends with 1 bytes for 0: bad_message")
		there.take()
		channels.Take(r.hubs[1], mesh.Packet{Channel: "c", Header: "reset", Body: []byte("1"), Origin: "r9"})
		require.Equal(t, []string{"21 in 0: receive", "21 ends with 1 bytes for 0 from r9: reserved_header"}, there.take())
	})
}

// Observers see each call of the Store.
func TestObserversSeeEachCallOfTheStore(t *testing.T) {
	t.Parallel()
	s := serve(t, channels.Options{Channel: every(channels.ChannelOptions{HistorySize: 10, Presence: channels.PresenceList})})
	calls := &storeCalls{}
	s.hub.Observe(calls, channels.StepStore)
	_, _, err := channels.SubscribeOpening(t.Context(), s.hub, "new", nil, 0)
	require.NoError(t, err)
	s.join("c", "")
	_, err = s.hub.Publish(t.Context(), "c", msg("x", "1"))
	require.NoError(t, err)
	for _, path := range []string{"/v1/channel", "/v1/channel/c", "/v1/channel/c/history", "/v1/channel/c/presence", "/v1/nodes"} {
		require.Equal(t, 200, s.get(path).status)
	}
	s.join("c", "") // the first report had all members
	require.Equal(t, 200, s.get("/v1/channel/c/presence").status)
	require.NoError(t, s.hub.Shutdown(context.Background()))
	require.Equal(t, []string{"append", "begin", "channel", "channels", "forget", "members", "range", "replicas", "report", "tops", "update_presence"}, calls.sorted())
}

// storeCalls are the calls of a Store that an observer was told of.
type storeCalls struct {
	mu   sync.Mutex // guards the fields below
	all  []string
	ends []error
}

func (c *storeCalls) Begin(ctx context.Context, _ channels.Step) context.Context { return ctx }

func (c *storeCalls) End(_ context.Context, s channels.Step, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all, c.ends = append(c.all, s.Call), append(c.ends, err)
}

func (c *storeCalls) sorted() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Compact(slices.Sorted(slices.Values(c.all)))
}

// A key that is used again for another message is the publisher's fault, and observers
// can tell it from a Store that fails.
func TestObserversSeeAReusedKey(t *testing.T) {
	hub := newHub(t, channels.Options{Channel: keep(10)})
	calls := &storeCalls{}
	for _, body := range []string{"1", "2"} {
		_, err := hub.PublishWith(t.Context(), "c", msg("x", body), channels.PublishOptions{Key: "k"})
		require.Equal(t, body == "2", errors.Is(err, channels.ErrKeyReused))
		if body == "1" {
			hub.Observe(calls, channels.StepStore)
		}
	}
	require.Contains(t, calls.ends, store.ErrKeyReused)
}

// A call of the Store ends for observers and in the metrics also if the Store panics, and
// so does a message's way to a mesh that does.
func TestObserversSeeAPanicEnd(t *testing.T) {
	var armed atomic.Value // the name of a method
	st := &guardedStore{newMemory(t), func(_ context.Context, method string) error { panicIf(&armed, method); return nil }}
	node := meshtest.NewNetwork(1).Join("n")
	t.Cleanup(func() { node.Close() })
	hub := newHub(t, channels.Options{Store: st, Mesh: panicking{node, &armed}, ReplicaID: "n", Channel: named(map[string]channels.ChannelOptions{"c": {HistorySize: 10}})})
	steps := &stepRecorder{t: t}
	hub.Observe(steps)
	before := hub.Metrics().Store["append"]

	armed.Store("Append")
	_, err := hub.Publish(t.Context(), "c", msg("x", "1"))
	require.ErrorIs(t, err, channels.ErrStoreUnavailable)
	require.Equal(t, []string{
		"1 in 0: publish",
		"2 in 1: store append", "2 ends: none", // an error of the Store has no code
		"1 ends with 1 bytes for 0: store_unavailable",
	}, steps.take())
	after := hub.Metrics().Store["append"]
	require.Equal(t, before.Calls+1, after.Calls)
	require.Equal(t, before.Errors+1, after.Errors)
	require.Equal(t, before.Time.Count()+1, after.Time.Count(), "all calls have ended")

	armed.Store("Publish")
	_, err = hub.Publish(t.Context(), "c", msg("x", "1"))
	require.NoError(t, err, "it is in the Store")
	require.Contains(t, steps.take(), "3 ends with 1 bytes for 0 at 1: internal")
	armed.Store("")
}

// What an observer puts into the context is seen by the hooks and by the observers after
// it. They end in the reverse order.
func TestObserversAreNested(t *testing.T) {
	var order lines
	hub := newHub(t, channels.Options{OnPublish: func(ctx context.Context, p *channels.Publication) error {
		order.add("hook in %d", stepOf(ctx))
		return nil
	}})
	for n := range 3 {
		hub.Observe(orderly{n + 1, &order})
	}
	_, err := hub.Publish(t.Context(), "c", msg("x", "1"))
	require.NoError(t, err)
	require.Equal(t, []string{"1 begins in 0", "2 begins in 1", "3 begins in 2", "hook in 3", "3 ends in 3", "2 ends in 3", "1 ends in 3"}, order.take())
}

type orderly struct {
	n     int
	order *lines
}

func (o orderly) Begin(ctx context.Context, s channels.Step) context.Context {
	if s.Kind != channels.StepPublish {
		return nil // which changes nothing
	}
	o.order.add("%d begins in %d", o.n, stepOf(ctx))
	return context.WithValue(ctx, stepKey{}, o.n)
}

func (o orderly) End(ctx context.Context, s channels.Step, err error) {
	if s.Kind == channels.StepPublish {
		o.order.add("%d ends in %d", o.n, stepOf(ctx))
	}
}

// A panic of an observer is logged, and the message comes all the same.
func TestAnObserverThatPanics(t *testing.T) {
	inBubble(t, 2, keep(10), func(r *replicas) {
		for _, h := range r.hubs {
			h.Observe(panicky{})
		}
		s := r.subscribe(1, "c", nil)
		defer s.close()
		settle(time.Second)
		_, err := r.hubs[0].Publish(context.Background(), "c", msg("x", "1"))
		require.NoError(t, err)
		s.wait(t, 1)
	})
}

type panicky struct{}

func (panicky) Begin(context.Context, channels.Step) context.Context      { panic("begin") }
func (panicky) End(context.Context, channels.Step, error)                 { panic("end") }
func (panicky) Inject(context.Context) []byte                             { panic("inject") }
func (panicky) Extract(ctx context.Context, trace []byte) context.Context { panic("extract") }

// A trace that is too long stays here, and one that is nonsense makes no step fail.
func TestTracesThatAreNone(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		var reply []byte
		here, there := &stepRecorder{t: t, base: 10, trace: func([]byte) []byte { return reply }}, &stepRecorder{t: t, base: 20}
		r.hubs[0].Observe(here)
		r.hubs[1].Observe(there)
		defer r.subscribe(1, "c", nil).close()
		settle(time.Second)
		for _, trace := range []string{"", "nonsense", "7" + strings.Repeat(" ", mesh.MaxTraceBytes)} {
			reply = []byte(trace)
			_, err := r.hubs[0].Publish(context.Background(), "c", msg("x", "1"))
			require.NoError(t, err)
			synctest.Wait()
			require.Equal(t, []string{"21 in 0: receive", "21 ends with 1 bytes for 1 from r0"}, there.take())
		}
		channels.Take(r.hubs[1], mesh.Packet{Channel: "c", Header: "h", Body: []byte("1"), Trace: []byte("7" + strings.Repeat(" ", mesh.MaxTraceBytes))})
		require.Equal(t, "21 in 0: receive", there.take()[0])
		channels.Take(r.hubs[1], mesh.Packet{Channel: "c", Header: "h", Body: []byte("1"), Trace: []byte("7")})
		require.Equal(t, "21 in 7: receive", there.take()[0])
	})
}

// Without observers, a publish allocates nothing.
func TestPublishWithoutObserversAllocatesNothing(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	hub := newHub(t, channels.Options{})
	m := msg("x", "1")
	publish := func() {
		if _, err := hub.Publish(t.Context(), "c", m); err != nil {
			t.Error(err)
		}
	}
	before := testing.AllocsPerRun(1000, publish)
	hub.Observe(idle{})
	require.Equal(t, before, testing.AllocsPerRun(1000, publish), "an observer that does nothing costs no memory either")
	require.Zero(t, before)
}

// idle is an observer that does nothing.
type idle struct{}

func (idle) Begin(ctx context.Context, _ channels.Step) context.Context { return ctx }
func (idle) End(context.Context, channels.Step, error)                  {}

// BenchmarkObserve is what a step costs that nobody observes, and one with observers that
// do nothing.
func BenchmarkObserve(b *testing.B) {
	for _, n := range []int{0, 1, 2} {
		b.Run(fmt.Sprint(n, " observers"), func(b *testing.B) {
			hub := newHub(b, channels.Options{})
			for range n {
				hub.Observe(idle{})
			}
			b.ReportAllocs()
			ctx := b.Context()
			for b.Loop() {
				channels.Observed(ctx, hub)
			}
		})
	}
}
