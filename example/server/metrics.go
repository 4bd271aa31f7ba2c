package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/origin"
	"github.com/channels-go/channels/internal/pattern"
	"github.com/channels-go/channels/metrics"
	"github.com/channels-go/channels/middleware"
)

// metricsConfig is what flags say about metrics. Without an address, there are none.
type metricsConfig struct {
	addr    string
	options metrics.Options
}

func (c *metricsConfig) flags(fs *flag.FlagSet) {
	fs.Func("metrics", "`HOST:PORT` where Prometheus finds /metrics and Go's tools /debug/pprof/, e.g. 127.0.0.1:9090; it asks nobody who they are, so let only operators reach it (default: nowhere)", func(s string) error {
		if _, port, err := net.SplitHostPort(s); s != "" && (err != nil || port == "") {
			return errors.New("it must be HOST:PORT, e.g. 127.0.0.1:9090")
		}
		c.addr = s
		return nil
	})
	list(fs, "metrics-channels", "`PATTERN` of channels whose numbers -metrics also shows apart from the others', e.g. 'chat.*'; repeatable, separated by spaces in the environment", func(s string) error {
		if len(c.options.Channels) == channels.MaxWatched {
			return fmt.Errorf("there may be up to %d patterns", channels.MaxWatched)
		}
		if _, err := pattern.Compile(s); err != nil {
			return fmt.Errorf("the pattern %q: %w", s, err)
		}
		c.options.Channels = append(c.options.Channels, s)
		return nil
	})
}

// check refuses patterns that would show nowhere.
func (c *metricsConfig) check() error {
	if c.addr == "" && len(c.options.Channels) > 0 {
		return errors.New("-metrics-channels (or CHANNELS_METRICS_CHANNELS) needs -metrics HOST:PORT, e.g. 127.0.0.1:9090: without it, no metrics are served")
	}
	return nil
}

// open serves metrics until stop is called.
func (c *metricsConfig) open(hub *channels.Hub, log *slog.Logger) (stop func(), err error) {
	if c.addr == "" {
		return func() {}, nil
	}
	registry := prometheus.NewRegistry()
	for _, one := range []prometheus.Collector{
		metrics.New(hub, c.options),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := registry.Register(one); err != nil {
			return nil, fmt.Errorf("-metrics-channels: %w", err)
		}
	}
	l, err := net.Listen("tcp", c.addr)
	if err != nil {
		return nil, notListening("-metrics", err)
	}
	handler := fromNoWebsite(operatorsTools(registry))
	if isLoopback(l.Addr()) {
		hosts, err := middleware.Hosts() // no website may come in under its own name
		if err != nil {
			return nil, err
		}
		handler = hosts(handler)
	} else {
		log.Warn("-metrics is not a loopback address: whoever reaches it can read this process's memory and slow it down; let only Prometheus and operators in", "addr", l.Addr().String())
	}
	srv := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      3 * time.Minute, // a profile is written once it is complete
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	log.Info("serves metrics", "addr", l.Addr().String())
	ended := make(chan struct{})
	go func() { // ended by stop, which waits for it
		defer close(ended)
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics are served no more", "err", err)
		}
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if srv.Shutdown(ctx) != nil { // somebody takes a profile
			srv.Close()
		}
		<-ended
	}, nil
}

// fromNoWebsite refuses what a website has its visitor's browser ask for: a profile takes
// a processor, and the browser runs where the service or its operators are.
func fromNoWebsite(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !origin.IsOwn(r) {
			channels.WriteError(w, r, &channels.Error{Code: "bad_origin", Status: http.StatusForbidden, Message: "the request comes from another website; type the address, or follow a link of this page"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// operatorsTools has paths of its own, and not those of http.DefaultServeMux.
func operatorsTools(registry *prometheus.Registry) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, `<!doctype html><title>channels</title><p>For operators: <a href="metrics">metrics</a> for Prometheus, and <a href="debug/pprof/">profiles</a> for Go's tools.`)
	})
	mux.Handle("GET /metrics", promhttp.InstrumentMetricHandler(registry, promhttp.HandlerFor(registry, promhttp.HandlerOpts{})))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}
