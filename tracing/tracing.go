// Package tracing shows the way of each message as OpenTelemetry spans, across replicas:
//
//	hub, err := channels.New(channels.Options{Mesh: m, Store: st})
//	t := tracing.New(hub, tracing.Options{})
//	mux.Handle("/rt/", http.StripPrefix("/rt", t.Middleware(hub.Handler())))
//
// The spans of a message are
//
//	publish       the whole publish, from Go, over HTTP or over a connection; a producer
//	store append  each call of the Store within it, by the name of the method; a client
//	relay         the message is handed to the mesh
//	receive       another replica hands it to its subscribers; a consumer, once for each
//	              replica that has some
//
// publish is a part of whatever trace its context is in: that of the request, if the app's
// middleware has begun one (otelhttp does). What comes over a connection begins a trace of
// its own, since a connection may last for days. The receive of each replica is a child of
// the publish, not only linked to it: there is one message, and nothing else that the
// receive could be a part of.
//
// Calls of the Store are traced within any span of the app's, so a request for a history
// is too. Those that the hub makes by itself, such as heartbeats, are not.
//
// The attributes are those of OpenTelemetry's conventions for messaging. A channel's name
// is in messaging.destination.name, not in the names of spans, of which there have to be
// few.
package tracing

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/store"
)

// Options say where spans go and where traces come from.
type Options struct {
	// TracerProvider makes the spans, and decides which traces are sampled. nil: the
	// global one.
	TracerProvider trace.TracerProvider
	// Propagator reads the headers of requests, for Middleware. nil: the global one,
	// which reads nothing until otel.SetTextMapPropagator was called. Between replicas,
	// traces always have the form of W3C Trace Context.
	Propagator propagation.TextMapPropagator
}

// Tracing traces the messages of one hub. Its methods may be called concurrently.
type Tracing struct{ propagator propagation.TextMapPropagator }

// New traces what a hub does from now on. Call it once for a hub, before it serves, and
// on each replica. With the provider of package noop, the hub is as if it was not called.
func New(hub *channels.Hub, o Options) *Tracing {
	if o.TracerProvider == nil {
		o.TracerProvider = otel.GetTracerProvider()
	}
	if o.Propagator == nil {
		o.Propagator = otel.GetTextMapPropagator()
	}
	if _, none := o.TracerProvider.(noop.TracerProvider); !none {
		hub.Observe(newObserver(o.TracerProvider))
	}
	return &Tracing{o.Propagator}
}

// Middleware has the requests of next go on with the trace that their headers name, unless
// a middleware before it has begun a span. It makes no span itself.
//
// It is not a part of the hub's handler, because an app has to choose whom it trusts so
// far: who sends a traceparent has a say in which traces are sampled, and in their ids.
func (t *Tracing) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ctx := r.Context(); !trace.SpanContextFromContext(ctx).IsValid() {
			r = r.WithContext(t.propagator.Extract(ctx, propagation.HeaderCarrier(r.Header)))
		}
		next.ServeHTTP(w, r)
	})
}

// observer makes spans of a hub's steps.
type observer struct {
	tracer trace.Tracer
	// unset is the global provider if that is still the one that waits for the app's. It
	// makes no spans, but what it is given for them would take memory.
	unset trace.TracerProvider
}

func newObserver(p trace.TracerProvider) *observer {
	o := &observer{tracer: p.Tracer("github.com/channels-go/channels/tracing")}
	if t := reflect.TypeOf(p); t.Kind() == reflect.Pointer && t.Elem().PkgPath() == "go.opentelemetry.io/otel/internal/global" {
		o.unset = p
	}
	return o
}

// off reports whether the app has set no provider yet.
func (o *observer) off() bool { return o.unset != nil && otel.GetTracerProvider() == o.unset }

// A begun span is in the context of its step, so that End finds it there: the context's
// last span may be one that the app has begun meanwhile, or that of a step around this one.
type begun struct {
	trace.Span
	kind channels.StepKind
	at   time.Time // the step's Start
}

type begunKey struct{}

// What the spans of one kind have in common.
var (
	system  = attribute.String("messaging.system", "channels")
	publish = []attribute.KeyValue{system, attribute.String("messaging.operation.name", "publish"), attribute.String("messaging.operation.type", "send")}
	receive = []attribute.KeyValue{system, attribute.String("messaging.operation.name", "receive"), attribute.String("messaging.operation.type", "process")}

	producer = trace.WithSpanKind(trace.SpanKindProducer)
	consumer = trace.WithSpanKind(trace.SpanKindConsumer)
	client   = trace.WithSpanKind(trace.SpanKindClient)
)

// Begin begins the span of a step. Only a publish may begin a trace, so only there is the
// provider asked whether one is sampled.
func (o *observer) Begin(ctx context.Context, s channels.Step) context.Context {
	if o.off() {
		return ctx
	}
	var span trace.Span
	switch s.Kind {
	case channels.StepPublish:
		ctx, span = o.tracer.Start(ctx, "publish", producer, with(publish, &s))
	case channels.StepStore:
		if trace.SpanFromContext(ctx).IsRecording() {
			ctx, span = o.tracer.Start(ctx, "store "+s.Call, client, with(nil, &s, attribute.String("channels.store.call", s.Call)))
		}
	case channels.StepRelay:
		if trace.SpanFromContext(ctx).IsRecording() {
			ctx, span = o.tracer.Start(ctx, "relay", with(nil, &s))
		}
	case channels.StepReceive:
		if trace.SpanContextFromContext(ctx).IsSampled() {
			ctx, span = o.tracer.Start(ctx, "receive", consumer, with(receive, &s, attribute.String("channels.origin", s.Origin)))
		}
	}
	if span == nil || !span.IsRecording() {
		return ctx
	}
	return context.WithValue(ctx, begunKey{}, &begun{span, s.Kind, s.Start})
}

// with returns the attributes with which a step's span begins. Samplers see them.
func with(common []attribute.KeyValue, s *channels.Step, more ...attribute.KeyValue) trace.SpanStartEventOption {
	all := make([]attribute.KeyValue, 0, len(common)+len(more)+2)
	all = append(append(all, common...), more...)
	if channels.CheckName(s.Channel) == nil { // a refused one may be long, and no UTF-8
		all = append(all, attribute.String("messaging.destination.name", s.Channel))
	}
	if s.Bytes > 0 {
		all = append(all, attribute.Int("messaging.message.body.size", s.Bytes))
	}
	return trace.WithAttributes(all...)
}

// End ends the span that Begin has begun, if it has. ctx may have that of a step around
// this one instead.
func (o *observer) End(ctx context.Context, s channels.Step, err error) {
	span, _ := ctx.Value(begunKey{}).(*begun)
	if span == nil || span.kind != s.Kind || !span.at.Equal(s.Start) {
		return
	}
	if s.Position.Offset > 0 {
		span.SetAttributes(attribute.String("messaging.message.id", s.Position.String()))
	}
	if s.Kind == channels.StepPublish || s.Kind == channels.StepReceive {
		span.SetAttributes(attribute.Int("channels.receivers", s.Receivers))
	}
	if err != nil && !errors.Is(err, store.ErrKeyReused) { // which is an answer of the Store's
		span.SetAttributes(attribute.String("error.type", errorType(err)))
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

// errorType is one of few words.
func errorType(err error) string {
	var e *channels.Error
	switch {
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, context.Canceled):
		return "cancelled"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	}
	return "_OTHER"
}
