package metrics_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/metrics"
)

// What Prometheus reads after a publish. The channel's pattern has series of its own.
func ExampleNew() {
	ctx := context.Background()
	hub, err := channels.New(channels.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Shutdown(ctx)
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.New(hub, metrics.Options{Channels: []string{"chat.*"}}))
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	defer server.Close()

	if _, err := hub.Publish(ctx, "chat.lobby", channels.Message{Header: "said", Body: json.RawMessage(`"hello"`)}); err != nil {
		log.Fatal(err)
	}
	resp, err := server.Client().Get(server.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, `channels_publishes_total{door="go"`) || strings.HasPrefix(line, "channels_pattern_") {
			fmt.Print(line)
		}
	}
	// Output:
	// channels_pattern_channels{pattern="chat.*"} 1
	// channels_pattern_deliveries_total{pattern="chat.*"} 0
	// channels_pattern_published_messages_total{pattern="chat.*"} 1
	// channels_pattern_subscriptions{pattern="chat.*"} 0
	// channels_publishes_total{door="go",outcome="duplicate"} 0
	// channels_publishes_total{door="go",outcome="ok"} 1
}
