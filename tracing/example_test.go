package tracing_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/tracing"
)

// The spans of a message that Go code publishes within a span of its own. A real program
// has an exporter that sends them to a collector.
func ExampleNew() {
	ctx := context.Background()
	hub, err := channels.New(channels.Options{
		Channel: func(string) channels.ChannelOptions { return channels.ChannelOptions{HistorySize: 100} },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Shutdown(ctx)
	spans := tracetest.NewInMemoryExporter()
	provider := sdk.NewTracerProvider(sdk.WithSyncer(spans))
	defer provider.Shutdown(ctx)
	tracing.New(hub, tracing.Options{TracerProvider: provider})

	order, span := provider.Tracer("shop").Start(ctx, "order")
	if _, err := hub.Publish(order, "orders", channels.Message{Header: "new", Body: json.RawMessage(`{"id":1}`)}); err != nil {
		log.Fatal(err)
	}
	span.End()
	for _, s := range spans.GetSpans() {
		fmt.Println(s.SpanKind, s.Name)
	}
	// Output:
	// client store append
	// producer publish
	// internal order
}
