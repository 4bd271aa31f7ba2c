// Command replicas is a chat on several replicas behind a load balancer. It
// shows how they pass messages to each other, and how pages move when you kill
// one. The operators' page shows how each replica does, and scales them.
//
//	go run ./example/replicas -n 3
//
// By default, the replicas are linked by a ZeroMQ mesh, each has a Store in its
// own memory, and the room has no history: a page that moves misses what is
// said meanwhile. With -redis they share a Store, and nothing is lost:
//
//	go run ./example/replicas -n 3 -redis redis://127.0.0.1:6379/0
//
// The replicas are child processes, so that they can be killed. replica.go is
// what an app would do in each of them. balancer.go has the balancer,
// supervisor.go starts and kills replicas, and scaling.go changes their number,
// for which the operators' page asks through scaler.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/channels-go/channels/example/internal/web"
	"github.com/channels-go/channels/middleware"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == replicaCommand {
		if err := runReplica(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "replica:", err)
			os.Exit(1)
		}
		return
	}
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil))) // as the replicas log
	addr := flag.String("addr", "127.0.0.1:8080", "`HOST:PORT` to listen on")
	n := flag.Int("n", 3, "`N` replicas at first: 1 to 9")
	loaded := flag.Bool("load", false, "begin with traffic, which the page can also start and stop")
	redis := flag.String("redis", "", "`URL` of a Redis that the replicas share, for history, e.g. redis://127.0.0.1:6379/0; set a URL with a password in CHANNELS_REDIS instead")
	hosts := web.HostFlag()
	flag.Parse()
	if flag.NArg() > 0 { // not shown, since it may be a secret
		fmt.Fprintln(os.Stderr, "replicas: unexpected argument; only flags are allowed, see -h")
		os.Exit(2)
	}
	if *redis == "" {
		*redis = os.Getenv("CHANNELS_REDIS")
	}
	web.Main("replicas", func(ctx context.Context) error {
		return run(ctx, *addr, *n, replicaConfig{Redis: *redis, Hosts: *hosts}, *loaded, os.Stdout)
	})
}

// run starts n replicas and serves them on addr until ctx ends, then drains
// them. Nobody has to log in to the chat, so it answers only to the hosts in
// config. The operators' page wants a token, which out gets in an address.
func run(ctx context.Context, addr string, n int, config replicaConfig, loaded bool, out io.Writer) error {
	if n < 1 || n > maxReplicas {
		return fmt.Errorf("-n is %d; it must be 1 to %d", n, maxReplicas)
	}
	if err := checkRedis(config.Redis); err != nil {
		return err
	}
	own, err := middleware.Hosts(config.Hosts...)
	if err != nil {
		return fmt.Errorf("-host: %w", err)
	}
	listener, err := web.Listen(addr)
	if err != nil {
		return err
	}
	control, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	config.newSecrets()
	config.Supervisor = "http://" + control.Addr().String()
	all, err := newSupervisor(config)
	if err != nil {
		return errors.Join(err, control.Close(), listener.Close())
	}
	scaling := web.NewServer(orders(all, config.ScaleToken))
	go scaling.Serve(control) // ends with Close
	defer scaling.Close()

	traffic := &load{url: "ws://" + reachable(listener)}
	server := web.NewServer(own(routes(all, traffic))) // balance lifts its timeouts for event streams
	server.ErrorLog = slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug)
	all.scale(n, nil) // what could not be started was logged
	if loaded {
		traffic.start()
	}
	fmt.Fprintf(out, "Replicas is running: http://%s/\nIts operators' page: http://%[1]s/admin/#token=%s\n", listener.Addr(), config.Token)
	err = web.Serve(ctx, server, listener)
	traffic.stop()
	all.stop() // the replicas drain: /readyz answers 503, then pages are told when to reconnect
	// More than the 5 s for which Shutdown waits for a new connection without a
	// request.
	ctx, cancel := context.WithTimeout(context.Background(), 7*time.Second)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		server.Close()
	}
	return err
}

// reachable is an address at which this machine itself reaches a listener.
func reachable(l net.Listener) string {
	a := l.Addr().(*net.TCPAddr)
	if a.IP.IsUnspecified() {
		return fmt.Sprintf("localhost:%d", a.Port)
	}
	return a.String()
}
