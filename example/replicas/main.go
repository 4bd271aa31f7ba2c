// Command replicas is a chat on several replicas behind a load balancer. It
// shows how they pass messages to each other, and how pages move when you kill
// one.
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
// what an app would do in each of them. balancer.go has the balancer, and
// supervisor.go starts and kills replicas.
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
	addr := flag.String("addr", "127.0.0.1:8080", "`HOST:PORT` to listen on")
	n := flag.Int("n", 3, "`N` replicas: 1 to 9")
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
	web.Main("replicas", func(ctx context.Context) error { return run(ctx, *addr, *n, *redis, os.Stdout, *hosts...) })
}

// run starts n replicas and serves them on addr until ctx ends, then drains
// them. Nobody has to log in, so it answers only to these hosts.
func run(ctx context.Context, addr string, n int, redis string, out io.Writer, hosts ...string) error {
	if n < 1 || n > 9 {
		return fmt.Errorf("-n is %d; it must be 1 to 9", n)
	}
	if err := checkRedis(redis); err != nil {
		return err
	}
	own, err := middleware.Hosts(hosts...)
	if err != nil {
		return fmt.Errorf("-host: %w", err)
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("-addr: %w", err)
	}
	all, err := newSupervisor(n, redis, hosts)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	server := web.NewServer(own(routes(all))) // balance lifts its timeouts for event streams
	server.ErrorLog = slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug)
	all.start()
	fmt.Fprintf(out, "Replicas is running: http://%s/\n", listener.Addr())
	err = web.Serve(ctx, server, listener)
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
