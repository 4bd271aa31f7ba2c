// Command server runs the hub as a service of its own, for apps that are not
// written in Go. They publish with POST /v1/channel/{name}/publish.
//
//	go run ./example/server -addr 127.0.0.1:8080 -history 'chat.*=1000,24h'
//
// Without keys for tokens (-jwt-secret-file, -jwt-public-key) or API keys
// (-api-keys-file), everyone may do everything. Then keep the server on a
// private address. On a loopback address it answers only to localhost and IP
// addresses, unless -host lists more names, so that no website can reach it
// under a name of its own.
//
// With -redis, several servers share history, lists and presence:
//
//	go run ./example/server -redis redis://127.0.0.1:6379/0 -redis-prefix channels
//
// The server also starts while Redis is down. GET /readyz tells when it is
// ready.
//
// With -mesh, a message published on one server reaches the subscribers of all,
// over Redis or directly:
//
//	go run ./example/server -redis redis://127.0.0.1:6379/0 -mesh redis
//	go run ./example/server -redis redis://127.0.0.1:6379/0 -mesh zmq -mesh-listen tcp://127.0.0.1:0
//
// Without Redis, -mesh zmq connects the replicas that -mesh-peers or -mesh-dns
// name. Channels then have no history.
//
// With -metrics, Prometheus finds the server's numbers at an address of their own:
//
//	go run ./example/server -metrics 127.0.0.1:9090
//
// ZeroMQ programs read and publish at the addresses -zmq-pub, -zmq-pull and
// -zmq-rep.
//
// With -admin-token-file, the operators' page is at /admin/.
//
// Every flag is also an environment variable: -addr is CHANNELS_ADDR. Secrets
// come from files, or from CHANNELS_JWT_SECRET, CHANNELS_API_KEYS,
// CHANNELS_MESH_KEY, CHANNELS_ZMQ_TOKEN and CHANNELS_ADMIN_TOKEN. A Redis URL
// with a password must be in CHANNELS_REDIS. Any other variable that begins with CHANNELS_ is an error.
//
// SIGTERM drains the server: /readyz answers 503 for -drain-delay while
// everything else goes on. Then clients are told to connect elsewhere, and the
// server exits with 0. A second signal ends the delay; once that
// is over, the next one ends the process at once.
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
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/example/internal/web"
	"github.com/channels-go/channels/store"
)

func main() {
	cfg, err := parse(os.Args[1:], os.LookupEnv, os.Stderr)
	if err == nil {
		err = misspelt(os.Environ())
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintf(os.Stderr, "server: %v\nserver -h shows all flags\n", err)
		os.Exit(2)
	}
	log := newLog(os.Stderr, cfg.logLevel)
	slog.SetDefault(log)
	// run handles further signals, after the first one has ended ctx.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, cfg, log); err != nil {
		log.Error("server", "err", err)
		os.Exit(1)
	}
}

// newLog returns a JSON logger that writes durations readably: 1.5s.
func newLog(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() == slog.KindDuration {
			a.Value = slog.StringValue(a.Value.Duration().String())
		}
		return a
	}}))
}

// run serves until ctx ends, then drains.
func run(ctx context.Context, cfg config, log *slog.Logger) error {
	opts := cfg.options()
	opts.Logger = log
	var client redis.UniversalClient
	if cfg.redis.url != "" {
		c, st, err := cfg.redis.open(log)
		if err != nil {
			return err
		}
		defer c.Close() // after the mesh, which may use it
		defer st.Close()
		client, opts.Store = c, st
	}
	replicas, err := cfg.mesh.open(opts.ReplicaID, client, cfg.redis.prefix, log)
	if err != nil {
		return err
	}
	if replicas != nil {
		defer replicas.Close() // after the hub; sends what is queued
		opts.Mesh = replicas
		if opts.Store == nil { // no history; lists and presence cover this replica only
			st, err := store.NewMemory(store.MemoryOptions{})
			if err != nil {
				return err
			}
			defer st.Close()
			opts.Store = st
		}
	}
	around, err := cfg.security.around(&opts, log)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", cfg.addr)
	if err != nil {
		return notListening("-addr", err)
	}
	defer l.Close()
	if len(opts.Hosts) == 0 && cfg.security.open() && isLoopback(l.Addr()) {
		// No website may come in under another name; see docs/security.md.
		opts.Hosts = []string{"localhost"}
	}
	hub, err := channels.New(opts)
	if err != nil {
		return inFlags(err)
	}
	programs, err := cfg.gateway.open(hub, cfg.security.zmqToken, log)
	if err != nil {
		return errors.Join(err, hub.Shutdown(context.Background()))
	}
	stopMetrics, err := cfg.metrics.open(hub, log)
	if err != nil {
		programs()
		return errors.Join(err, hub.Shutdown(context.Background()))
	}
	defer stopMetrics() // last, so that a drain can be watched
	handler, closePage, err := withAdmin(hub, &cfg, &opts, around(hub.Handler()), log)
	if err != nil {
		programs()
		return errors.Join(err, hub.Shutdown(context.Background()))
	}
	defer closePage()
	srv := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second, // the hub sets its own deadlines for its streams
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // for example clients that disconnect
	}
	log.Info("listening", "addr", l.Addr().String())
	sayWhatIsOpen(&cfg.security, &opts, l.Addr(), log)
	if err = web.Serve(ctx, srv, l); err == nil {
		log.Info("draining; a second signal skips the delay", "clients", hub.Stats().Connections, "delay", opts.DrainDelay)
	}
	// Clients have the drain time to go, and a little more. The delay takes at
	// most half of the whole time.
	end, cancel := context.WithTimeout(context.Background(), max(2*opts.DrainDelay, opts.DrainDelay+opts.DrainTime+5*time.Second))
	defer cancel()
	defer skipOnSignal(end, hub, opts.DrainDelay)()
	if e := hub.Drain(end); e != nil {
		log.Warn("the drain did not end in time", "err", e)
	}
	if e := closePage(); e != nil {
		log.Warn("the operators' page did not end in time", "err", e)
	}
	programs() // after the clients, and before the hub that the gateway uses
	if e := hub.Shutdown(end); e != nil {
		log.Warn("the hub did not end cleanly", "err", e)
	}
	if e := srv.Shutdown(end); e != nil {
		srv.Close()
	}
	log.Info("stopped")
	return err
}
