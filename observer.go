package channels

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/channels-go/channels/mesh"
)

// An Observer is told of each step of the hub's work: for metrics and traces, which
// this package does not depend on. Its methods are called by many goroutines at the
// same time, and have to be quick: a message waits for them.
type Observer interface {
	// Begin is called before a step. The step gets the context that Begin returns, which
	// must derive from ctx. The steps within it, the Store and the app's hooks see that
	// context, too.
	Begin(ctx context.Context, s Step) context.Context
	// End is called after the step, with its context and with what was still unknown at
	// its beginning. Then err is why the step failed, or nil.
	End(ctx context.Context, s Step, err error)
}

// A Tracer is an Observer whose traces go on at the other replicas.
type Tracer interface {
	Observer
	// Inject returns what goes to the other replicas beside a message. ctx is that of its
	// StepPublish. Nothing goes if that is empty or longer than [mesh.MaxTraceBytes].
	Inject(ctx context.Context) []byte
	// Extract returns a context for the StepReceive of a message that came with trace. It
	// must not keep trace, which may be anything: other replicas are trusted, but they
	// may have another Tracer.
	Extract(ctx context.Context, trace []byte) context.Context
}

// A Step is a part of the hub's work. Fields that say nothing of a step are zero.
type Step struct {
	Kind      StepKind
	Call      string    // StepStore: the method, as in [Metrics]: "append", "update_presence" and so on
	Channel   string    // empty if the step is about several channels, or about none
	Origin    string    // StepReceive: the id of the replica that published the message
	Start     time.Time // when the step began
	Bytes     int       // of the message's body
	Position  Position  // of the message, if it has one; of a StepPublish in End
	Receivers int       // subscribers on this replica whose queues the message went to; in End
}

// StepKind says what happens in a step.
type StepKind uint8

const (
	// StepPublish is a whole publish, from Go, over HTTP or over a connection. Its context
	// derives from the caller's; that of a connection from nothing.
	StepPublish StepKind = iota
	// StepStore is one call of the Store. An error may be store.ErrKeyReused, which is the
	// publisher's, or the end of the caller's context.
	StepStore
	// StepRelay hands a published message to the mesh.
	StepRelay
	// StepReceive takes a message that another replica has published, from the mesh to the
	// queues of its subscribers.
	StepReceive

	stepKinds = iota
)

// Observe adds an observer of steps of these kinds, or of all if none are given. Call it
// before the hub serves and publishes: steps that are under way do not know of it.
// Several observers are called in the order in which they were added, and in the reverse
// order at the end of a step. Only the first [Tracer] among them has its Inject and
// Extract called.
func (h *Hub) Observe(o Observer, kinds ...StepKind) {
	for {
		old := h.observers.Load()
		next := &observers{log: h.log}
		if old != nil {
			*next = *old
		}
		for kind := range next.of {
			if len(kinds) == 0 || slices.Contains(kinds, StepKind(kind)) {
				next.of[kind] = append(slices.Clip(next.of[kind]), o)
			}
		}
		if t, ok := o.(Tracer); ok && next.tracer == nil {
			next.tracer = t
		}
		if h.observers.CompareAndSwap(old, next) {
			return
		}
	}
}

// observers are all observers of a hub. They do not change.
type observers struct {
	log    *slog.Logger
	of     [stepKinds][]Observer // by the kind of step
	tracer Tracer                // nil if none of them is one
}

// observed is a step that observers were told of. The zero value is a step that nobody
// observes.
type observed struct {
	by *observers
	Step
}

// begin begins a step. Who calls it asks first whether there are observers, or each
// message would pay for this call: so it pays for a look at a pointer (BenchmarkObserve).
func (by *observers) begin(ctx context.Context, s Step) (context.Context, observed) {
	if len(by.of[s.Kind]) == 0 {
		return ctx, observed{}
	}
	s.Start = time.Now()
	for _, o := range by.of[s.Kind] {
		guard(by.log, "an Observer", func() error {
			if in := o.Begin(ctx, s); in != nil {
				ctx = in
			}
			return nil
		})
	}
	return ctx, observed{by, s}
}

// end ends a step, whose context is ctx.
func (s *observed) end(ctx context.Context, err error) {
	if s.by != nil {
		s.by.end(ctx, s.Step, err)
	}
}

func (by *observers) end(ctx context.Context, s Step, err error) {
	for _, o := range slices.Backward(by.of[s.Kind]) {
		guard(by.log, "an Observer", func() error { o.End(ctx, s, err); return nil })
	}
}

// trace returns what goes to the other replicas with a message. ctx is that of its
// publish.
func (by *observers) trace(ctx context.Context) (trace []byte) {
	if by.tracer == nil {
		return nil
	}
	guard(by.log, "a Tracer", func() error { trace = by.tracer.Inject(ctx); return nil })
	if len(trace) > mesh.MaxTraceBytes {
		return nil
	}
	return trace
}

// receive begins the step of a message from another replica.
func (by *observers) receive(ctx context.Context, p *mesh.Packet) (context.Context, observed) {
	if n := len(p.Trace); n > 0 && n <= mesh.MaxTraceBytes && by.tracer != nil {
		guard(by.log, "a Tracer", func() error {
			if in := by.tracer.Extract(ctx, p.Trace); in != nil {
				ctx = in
			}
			return nil
		})
	}
	return by.begin(ctx, Step{Kind: StepReceive, Channel: p.Channel, Origin: p.Origin, Bytes: len(p.Body), Position: Position{p.Epoch, p.Offset}})
}
