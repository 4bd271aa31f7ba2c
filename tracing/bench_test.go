package tracing_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/tracing"
)

// BenchmarkPublish is a publish without subscribers and without a history: without tracing,
// with the provider of noop, before the app has set a provider, in a trace that is not
// sampled, and in one that is, without what an exporter costs.
func BenchmarkPublish(b *testing.B) {
	for _, c := range []struct {
		name     string
		provider trace.TracerProvider
	}{
		{"off", nil},
		{"noop", noop.NewTracerProvider()},
		{"unset", otel.GetTracerProvider()},
		{"not sampled", sdk.NewTracerProvider(sdk.WithSampler(sdk.NeverSample()))},
		{"sampled", sdk.NewTracerProvider(sdk.WithSampler(sdk.AlwaysSample()))},
	} {
		b.Run(c.name, func(b *testing.B) {
			hub := hubtest.NewHub(b, channels.Options{})
			if c.provider != nil {
				tracing.New(hub, tracing.Options{TracerProvider: c.provider})
			}
			m := hubtest.Msg("created", `{"n":17,"text":"some words of a chat"}`)
			ctx := context.Background()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := hub.Publish(ctx, "c", m); err != nil {
					require.NoError(b, err)
				}
			}
		})
	}
}
