package tracing_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/tracing"
)

// spanContext is one of a span at another place.
func spanContext(t *testing.T, state string) trace.SpanContext {
	t.Helper()
	c := trace.SpanContextConfig{TraceFlags: trace.FlagsSampled, Remote: true}
	var err error
	c.TraceID, err = trace.TraceIDFromHex(traceID)
	require.NoError(t, err)
	c.SpanID, err = trace.SpanIDFromHex(spanID)
	require.NoError(t, err)
	c.TraceState, err = trace.ParseTraceState(state)
	require.NoError(t, err)
	return trace.NewSpanContext(c)
}

func TestTheTraceOfAPacket(t *testing.T) {
	long := "a=" + strings.Repeat("x", 250)
	longest := long + ",b=" + strings.Repeat("y", 250) + ",c=" + strings.Repeat("z", 250) + ",d=" + strings.Repeat("z", mesh.MaxTraceBytes-len(sampled)-1-len(long)-2*253-3)
	for name, c := range map[string]struct{ state, want string }{
		"without a state":         {"", sampled},
		"with one":                {"vendor=1,other=2", sampled + "\nvendor=1,other=2"},
		"with the longest":        {longest, sampled + "\n" + longest},
		"with one that is longer": {longest + "z", sampled},
	} {
		t.Run(name, func(t *testing.T) {
			sc := spanContext(t, c.state)
			b := tracing.Inject(trace.ContextWithSpanContext(t.Context(), sc))
			require.Equal(t, c.want, string(b))
			require.LessOrEqual(t, len(b), mesh.MaxTraceBytes)
			got := trace.SpanContextFromContext(tracing.Extract(t.Context(), b))
			clear(b) // it is the mesh's
			if !strings.Contains(c.want, "\n") {
				sc = spanContext(t, "")
			}
			require.True(t, sc.Equal(got), "%v", got)
		})
	}
	require.Empty(t, tracing.Inject(t.Context()))
	for _, none := range []string{"", "\n", "x", dropped[:40], strings.ToUpper(sampled), sampled + "-more", "ff" + sampled[2:], "\n" + sampled} {
		require.Equal(t, t.Context(), tracing.Extract(t.Context(), []byte(none)), none)
	}
	bad := tracing.Extract(t.Context(), []byte(sampled+"\n=,;nonsense"))
	require.True(t, spanContext(t, "").Equal(trace.SpanContextFromContext(bad)), "a state that is none is left out")
}

// FuzzTrace reads anything as the Trace of a packet.
func FuzzTrace(f *testing.F) {
	for _, s := range []string{"", sampled, dropped, sampled + "\nvendor=1", "00-00000000000000000000000000000000-0000000000000000-01", "\n\n", sampled[:54]} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		sc := trace.SpanContextFromContext(tracing.Extract(t.Context(), b))
		if !sc.IsSampled() {
			return
		}
		require.True(t, sc.IsValid() && sc.IsRemote())
		again := tracing.Inject(trace.ContextWithSpanContext(t.Context(), sc))
		require.NotEmpty(t, again)
		require.LessOrEqual(t, len(again), mesh.MaxTraceBytes)
		got := trace.SpanContextFromContext(tracing.Extract(t.Context(), again))
		require.Equal(t, sc.SpanID(), got.SpanID())
		require.Equal(t, sc.TraceID(), got.TraceID())
	})
}
