package main

import (
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/channels-go/channels/metrics"
)

// newScraped is the app with the hub, whose metrics are scraped each second until the
// process ends.
func newScraped() (app, error) {
	a, err := newChannels()
	if err != nil {
		return nil, err
	}
	registry := prometheus.NewRegistry()
	if err := registry.Register(metrics.New(a.(onChannels).hub, metrics.Options{})); err != nil {
		return nil, err
	}
	h := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	go func() {
		for range time.Tick(time.Second) {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/metrics", nil))
		}
	}()
	return a, nil
}
