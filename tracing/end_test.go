package tracing_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/hubtest"
)

// An observer of the app's has spans of its own, which outlast the steps.
type appSpans struct {
	tracer trace.Tracer
	begun  []trace.Span
}

func (a *appSpans) Begin(ctx context.Context, _ channels.Step) context.Context {
	ctx, span := a.tracer.Start(ctx, "own")
	a.begun = append(a.begun, span)
	return ctx
}

func (a *appSpans) End(context.Context, channels.Step, error) {}

// The app's spans are the app's to end, also those that are the last in a step's context.
func TestTheAppsSpansAreNotEnded(t *testing.T) {
	t.Parallel()
	a := start(t, channels.Options{Channel: keep}, sdk.AlwaysSample())
	own := &appSpans{tracer: a.provider.Tracer("app")}
	a.Hub.Observe(own)
	a.PublishGo("c", "1")
	require.Equal(t, []string{"producer publish", "client store append in " + own.begun[0].SpanContext().SpanID().String()}, a.told())
	require.Len(t, own.begun, 2, "of the publish and of the append")
	for _, span := range own.begun {
		require.True(t, span.IsRecording(), "it has not ended")
	}
	require.NotEmpty(t, attributes(a.span("publish"))["messaging.message.id"])
}

// inside drops the publishes within another one.
type inside struct{}

func (inside) Description() string { return "not inside" }

func (inside) ShouldSample(p sdk.SamplingParameters) sdk.SamplingResult {
	if p.Name == "publish" && trace.SpanContextFromContext(p.ParentContext).IsValid() {
		return sdk.SamplingResult{Decision: sdk.Drop}
	}
	return sdk.SamplingResult{Decision: sdk.RecordAndSample}
}

// A publish that has no span does not end that of the publish around it.
func TestAPublishWithinAPublish(t *testing.T) {
	t.Parallel()
	var a *replica
	a = start(t, channels.Options{Channel: keep, OnPublish: func(ctx context.Context, p *channels.Publication) error {
		if p.Channel != "outer" {
			return nil
		}
		_, err := a.Hub.Publish(ctx, "inner", hubtest.Msg("x", "1"))
		return err
	}}, inside{})
	_, err := a.Hub.Publish(t.Context(), "outer", hubtest.Msg("x", "1"))
	require.NoError(t, err)
	require.Equal(t, []string{"producer publish", "client store append in publish"}, a.told())
	require.NotEmpty(t, attributes(a.span("publish"))["messaging.message.id"], "it ended after its own append")
}
