package tracing_test

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/propagation"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/tracing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A replica is a hub behind a server, with the spans that it has ended.
type replica struct {
	*hubtest.Server
	provider *sdk.TracerProvider
	spans    *tracetest.InMemoryExporter
}

// onlyAsked samples the traces that somebody else has decided to sample.
var onlyAsked = sdk.ParentBased(sdk.NeverSample())

// start starts a replica. Its requests go through Middleware, and before that through
// the middleware given.
func start(t *testing.T, o channels.Options, sampler sdk.Sampler, before ...func(http.Handler) http.Handler) *replica {
	t.Helper()
	r := &replica{spans: tracetest.NewInMemoryExporter()}
	r.provider = sdk.NewTracerProvider(sdk.WithSampler(sampler), sdk.WithSyncer(r.spans))
	var traced *tracing.Tracing
	all := append([]func(http.Handler) http.Handler{func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { traced.Middleware(next).ServeHTTP(w, r) })
	}}, before...)
	r.Server = hubtest.New(t, o, all...)
	traced = tracing.New(r.Hub, tracing.Options{TracerProvider: r.provider, Propagator: propagation.TraceContext{}})
	r.HTTP.Start()
	return r
}

// told are the spans so far, in the order of their beginning: each with its parent, if
// that is among those of all.
func (r *replica) told(all ...tracetest.SpanStub) (lines []string) {
	spans := r.spans.GetSpans()
	slices.Reverse(spans) // a parent ends after its children
	slices.SortStableFunc(spans, func(a, b tracetest.SpanStub) int { return a.StartTime.Compare(b.StartTime) })
	names := map[trace.SpanID]string{}
	for _, s := range append(all, spans...) {
		names[s.SpanContext.SpanID()] = s.Name
	}
	for _, s := range spans {
		line := fmt.Sprintf("%s %s", s.SpanKind, s.Name)
		if parent := s.Parent.SpanID(); parent.IsValid() {
			line += " in " + cmp.Or(names[parent], parent.String())
		}
		if s.Status.Description != "" {
			line += ": " + s.Status.Code.String()
		}
		lines = append(lines, line)
	}
	return lines
}

// span is the only one of this name.
func (r *replica) span(name string) tracetest.SpanStub {
	r.T.Helper()
	var found tracetest.SpanStubs
	for _, s := range r.spans.GetSpans() {
		if s.Name == name {
			found = append(found, s)
		}
	}
	require.Len(r.T, found, 1, name)
	return found[0]
}

// attributes are those of a span, as text.
func attributes(s tracetest.SpanStub) map[string]string {
	all := map[string]string{}
	for _, a := range s.Attributes {
		all[string(a.Key)] = a.Value.String()
	}
	return all
}

// post publishes over HTTP, as a part of a trace if parent is not empty.
func (r *replica) post(channel, parent string) {
	r.T.Helper()
	var header []string
	if parent != "" {
		header = []string{"traceparent", parent}
	}
	resp := hubtest.Request(r.T, context.Background(), r.HTTP.Client(), "POST", r.HTTP.URL+"/v1/channel/"+channel+"/publish", `{"header":"h","body":"12"}`, header...)
	require.Equal(r.T, 200, resp.StatusCode, hubtest.Body(r.T, resp))
}

// linkTo waits until messages on a channel, of which r has a subscriber, come from
// another replica.
func (r *replica) linkTo(from *replica, channel string) {
	r.T.Helper()
	before := r.Hub.Metrics().Received
	basetest.Eventually(r.T, "messages come from the other replica", func() bool {
		_, err := from.Hub.Publish(context.Background(), channel, hubtest.Msg("probe", "1"))
		require.NoError(r.T, err)
		return r.Hub.Metrics().Received > before
	})
}
