//go:build !race

package tracing_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/tracing"
)

// A publish takes no memory for spans that nobody makes, even within a span of the
// app's. This test is not for the race detector, which takes some itself.
func TestOffAllocatesNothing(t *testing.T) {
	plain := hubtest.NewHub(t, channels.Options{})
	none := hubtest.NewHub(t, channels.Options{})
	tracing.New(none, tracing.Options{TracerProvider: noop.NewTracerProvider()})
	later := hubtest.NewHub(t, channels.Options{})
	tracing.New(later, tracing.Options{})
	m := hubtest.Msg("x", "1")
	ctx, span := sdk.NewTracerProvider().Tracer("app").Start(t.Context(), "own")
	defer span.End()
	require.True(t, span.IsRecording())
	for name, hub := range map[string]*channels.Hub{"without tracing": plain, "with the provider of noop": none, "before the app has set a provider": later} {
		for _, ctx := range []context.Context{context.Background(), ctx} {
			require.Zero(t, testing.AllocsPerRun(1000, func() { hub.Publish(ctx, "c", m) }), name)
		}
	}

	spans := tracetest.NewInMemoryExporter()
	otel.SetTracerProvider(sdk.NewTracerProvider(sdk.WithSyncer(spans)))
	defer otel.SetTracerProvider(noop.NewTracerProvider())
	_, err := later.Publish(t.Context(), "c", m)
	require.NoError(t, err)
	require.Len(t, spans.GetSpans(), 1, "the app has set one")
	require.Equal(t, "publish", spans.GetSpans()[0].Name)
}
