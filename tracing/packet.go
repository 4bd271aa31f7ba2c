package tracing

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/channels-go/channels/mesh"
)

// A packet's Trace is the text of a traceparent and, behind a line's end, of a tracestate
// if there is one. It has the form of W3C Trace Context whatever Options.Propagator is, so
// that replicas with different settings understand each other.

// Inject returns nothing for a trace that is not sampled: then the other replicas have
// nothing to do.
func (o *observer) Inject(ctx context.Context) []byte {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return nil
	}
	var c carrier
	propagation.TraceContext{}.Inject(ctx, &c)
	b := make([]byte, 0, len(c.parent)+1+len(c.state))
	b = append(b, c.parent...)
	if c.state != "" && len(b)+1+len(c.state) <= mesh.MaxTraceBytes { // the parent is worth more
		b = append(append(b, '\n'), c.state...)
	}
	return b
}

// Extract returns ctx if trace is none.
func (o *observer) Extract(ctx context.Context, trace []byte) context.Context {
	var c carrier
	c.parent, c.state, _ = strings.Cut(string(trace), "\n")
	return propagation.TraceContext{}.Extract(ctx, &c)
}

// A carrier holds what propagation.TraceContext writes and reads.
type carrier struct{ parent, state string }

func (c *carrier) at(key string) *string {
	switch key {
	case "traceparent":
		return &c.parent
	case "tracestate":
		return &c.state
	}
	return new(string)
}

func (c *carrier) Get(key string) string { return *c.at(key) }
func (c *carrier) Set(key, value string) { *c.at(key) = value }
func (c *carrier) Keys() []string        { return []string{"traceparent", "tracestate"} }
