package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sys/unix"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/redismesh"
	"github.com/channels-go/channels/mesh/zmqmesh"
	"github.com/channels-go/channels/store"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// openMesh opens a mesh from the arguments of a server's name: KIND ID ADDRESS
// and, for "zmq" and "unsealed", which is zmqmesh without a key, the other replicas'
// addresses. ADDRESS is where these listen, or where Redis is.
func openMesh(args []string) (mesh.Mesh, error) {
	switch {
	case len(args) >= 3 && !brokered(args[0]):
		o := zmqmesh.Options{ReplicaID: args[1], Listen: args[2], Peers: args[3:], Logger: quiet}
		if args[0] == "zmq" {
			o.Key = []byte("the key of a benchmark")
		}
		return zmqmesh.New(o)
	case len(args) == 3 && args[0] == "redis":
		return redismesh.New(redis.NewClient(&redis.Options{Addr: args[2]}), redismesh.Options{ReplicaID: args[1], Logger: quiet})
	case len(args) == 3 && args[0] == "plain":
		return newPlainRedis(args[1], args[2]), nil
	}
	return nil, fmt.Errorf("no mesh %q", args)
}

func brokered(kind string) bool { return kind == "redis" || kind == "plain" }

// newReplica returns a hub on a mesh, or a relay in place of both. The hub's Store is its
// own memory, since no channel of the benchmark keeps history.
func newReplica(args []string) (app, error) {
	if args[0] == "bare" {
		return newRelay(args)
	}
	m, err := openMesh(args)
	if err != nil {
		return nil, err
	}
	s, err := store.NewMemory(store.MemoryOptions{})
	if err != nil {
		return nil, err
	}
	hub, err := channels.New(channels.Options{Mesh: m, ReplicaID: args[1], Store: s, Logger: quiet})
	if err != nil {
		return nil, err
	}
	return onChannels{hub.Handler(), hub}, nil
}

// onMesh is a mesh without a hub. It counts the packets that arrive.
type onMesh struct {
	http.Handler
	mesh mesh.Mesh
	id   string
}

func newOnMesh(args []string) (app, error) {
	m, err := openMesh(args)
	if err != nil {
		return nil, err
	}
	a := onMesh{http.NotFoundHandler(), m, args[1]}
	if args[1] != "a" { // "a" publishes
		taken, err := openCounter(os.Getenv(counterFile))
		if err != nil {
			return nil, err
		}
		if err := m.Subscribe("c0"); err != nil {
			return nil, err
		}
		go m.Receive(background, func(p mesh.Packet) { // ends with the process
			if p.Kind == mesh.KindMessage {
				taken.Add(1)
			}
		})
	}
	return a, nil
}

func (a onMesh) publish(channel string, body []byte) error {
	return a.mesh.Publish(background, mesh.Packet{Channel: channel, Header: "m", Body: body})
}

func (a onMesh) subscribers() int { return 0 }

// newCounter makes that file.
func newCounter(file string) (*atomic.Int64, error) {
	if err := os.WriteFile(file, make([]byte, os.Getpagesize()), 0o600); err != nil {
		return nil, err
	}
	return openCounter(file)
}

// openCounter maps the file that tells this process how much has arrived at
// another one, so that a publisher does not outrun its subscribers.
func openCounter(file string) (*atomic.Int64, error) {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), 0, 8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return (*atomic.Int64)(unsafe.Pointer(&b[0])), nil // aligned, since it begins a page
}

// counterFile is the environment variable with the name of that file.
const counterFile = "CHANNELS_BENCH_TAKEN"

// flood publishes count messages of size bytes from the given number of
// goroutines to the channels c0, c1, … as fast as possible, but at most window
// messages ahead of those that have arrived. A window of 0 means no bound.
func flood(a app, channels, goroutines, count, size, window int) error {
	taken := new(atomic.Int64)
	if window > 0 {
		var err error
		if taken, err = openCounter(os.Getenv(counterFile)); err != nil {
			return err
		}
	}
	begin := taken.Load()
	body := []byte(`{"t":0,"p":"` + strings.Repeat("x", max(0, size-len(`{"t":0,"p":""}`))) + `"}`)
	names := make([]string, channels)
	for i := range names {
		names[i] = "c" + strconv.Itoa(i)
	}
	var next, room atomic.Int64 // the number of messages that may be published by now
	var turn sync.Mutex         // held by the goroutine that waits for more room
	var failed atomic.Pointer[error]
	await := func(i int64) (ok bool) {
		turn.Lock()
		defer turn.Unlock()
		for end := time.Now().Add(20 * time.Second); failed.Load() == nil; time.Sleep(time.Millisecond) {
			now := taken.Load() - begin
			if i < now+int64(window) {
				room.Store(now + int64(window))
				return true
			}
			if time.Now().After(end) {
				err := fmt.Errorf("%d of %d messages arrived", now, i)
				failed.CompareAndSwap(nil, &err)
			}
		}
		return false
	}
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for failed.Load() == nil {
				i := next.Add(1) - 1
				if i >= int64(count) {
					return
				}
				if window > 0 && i >= room.Load() && !await(i) {
					return
				}
				if err := a.publish(names[i%int64(channels)], body); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// unwanted publishes count messages on channels without subscribers.
func unwanted(a app, count int) error {
	body := []byte(`{"p":"` + strings.Repeat("x", 120) + `"}`)
	for i := range count {
		if err := a.publish("unwanted"+strconv.Itoa(i%10), body); err != nil {
			return err
		}
	}
	return nil
}

// join subscribes to n channels and then starts a peer. It returns how many
// nanoseconds pass from telling the replica the peer's address until the echo
// proves that all subscriptions are active there, and how many bytes the peer
// keeps for each.
func join(n int) (string, error) {
	one, err := zmqmesh.New(zmqmesh.Options{ReplicaID: "one", Listen: "tcp://127.0.0.1:0", Logger: quiet})
	if err != nil {
		return "", err
	}
	defer one.Close()
	active := make(chan struct{}, 1)
	go one.Receive(background, func(p mesh.Packet) { // ends with Close
		if p.Kind == mesh.KindLost && p.Origin == "two" {
			select {
			case active <- struct{}{}:
			default:
			}
		}
	})
	for i := range n {
		if err := one.Subscribe("room-" + strconv.Itoa(i)); err != nil {
			return "", err
		}
	}
	two, err := zmqmesh.New(zmqmesh.Options{ReplicaID: "two", Listen: "tcp://127.0.0.1:0", Logger: quiet})
	if err != nil {
		return "", err
	}
	defer two.Close()
	before := heap()
	begin := time.Now()
	one.SetPeers(map[string]string{"two": two.Address()})
	select {
	case <-active:
	case <-time.After(time.Minute):
		return "", errors.New("no echo arrived within a minute")
	}
	took := time.Since(begin)
	return fmt.Sprintf("%d %.0f", took.Nanoseconds(), (heap()-before)/float64(n)), nil
}

// heap returns the bytes on this process's heap and stacks.
func heap() float64 {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse)
}

// growth is what a number of replicas in one process need.
type growth struct {
	Replicas int
	Links    int     // TCP connections
	Bytes    float64 // of heap and stacks, for each link
	Idle     float64 // nanoseconds of CPU per second, for each replica
	Want     float64 // nanoseconds of CPU for a message that all replicas want
	Nobody   float64 // nanoseconds of CPU for a message that no other replica wants
}

func grow(n, count int) (string, error) {
	s, err := store.NewMemory(store.MemoryOptions{})
	if err != nil {
		return "", err
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	var hubs []*channels.Hub
	var meshes []*zmqmesh.Mesh
	var got atomic.Int64
	defer func() {
		for i, h := range hubs {
			h.Shutdown(background)
			meshes[i].Close()
		}
	}()
	var static []string // each replica connects to those before it, which learn of it from the store
	for i := range n {
		id := "r" + strconv.Itoa(i)
		m, err := zmqmesh.New(zmqmesh.Options{ReplicaID: id, Listen: "tcp://127.0.0.1:0", Peers: static, Logger: quiet})
		if err != nil {
			return "", err
		}
		static = append(static, m.Address())
		meshes = append(meshes, m)
		h, err := channels.New(channels.Options{ReplicaID: id, Store: s, Mesh: m, Logger: quiet})
		if err != nil {
			return "", err
		}
		hubs = append(hubs, h)
	}
	alone := heap()
	up := func() (links int) {
		for _, m := range meshes {
			for _, p := range m.Status().Peers {
				if p.Up {
					links++
				}
			}
		}
		return links
	}
	if err := wait("links", func() bool { return up() == n*(n-1) }); err != nil {
		return "", err
	}
	g := growth{Replicas: n, Links: up()}
	g.Bytes = (heap() - alone) / float64(g.Links)
	idle := 12 * time.Second // four heartbeats
	if count < 10_000 {
		idle = 100 * time.Millisecond
	}
	before := processCPU()
	time.Sleep(idle)
	g.Idle = float64(processCPU()-before) / idle.Seconds() / float64(n)

	for _, h := range hubs[1:] {
		sub, err := h.Subscribe(ctx, "all", nil)
		if err != nil {
			return "", err
		}
		go func() { // ends with ctx
			for range sub.Messages() {
				got.Add(1)
			}
		}()
	}
	m := channels.Message{Header: "m", Body: json.RawMessage(`{"p":"` + strings.Repeat("x", 90) + `"}`)}
	err = wait("subscriptions", func() bool {
		got.Store(0)
		hubs[0].Publish(ctx, "all", m)
		end := time.Now().Add(time.Second)
		for got.Load() < int64(n-1) && time.Now().Before(end) {
			time.Sleep(time.Millisecond)
		}
		return got.Load() >= int64(n-1)
	})
	if err != nil {
		return "", err
	}
	for end := time.Now().Add(time.Minute); got.Load()%int64(n-1) != 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	got.Store(0)
	publish := func(channel string, window int64) error {
		for i := range int64(count) {
			if _, err := hubs[0].Publish(ctx, channel, m); err != nil {
				return err
			}
			for end := time.Now().Add(20 * time.Second); window > 0 && i-got.Load()/int64(n-1) > window; time.Sleep(100 * time.Microsecond) {
				if time.Now().After(end) {
					return fmt.Errorf("%d of %d deliveries", got.Load(), i*int64(n-1))
				}
			}
		}
		return nil
	}
	before = processCPU()
	if err := publish("all", 2000); err != nil {
		return "", err
	}
	if err := wait("deliveries", func() bool { return got.Load() >= int64(count*(n-1)) }); err != nil {
		return "", err
	}
	g.Want = float64(processCPU()-before) / float64(count)
	before = processCPU()
	if err := publish("nobody", 0); err != nil {
		return "", err
	}
	g.Nobody = float64(processCPU()-before) / float64(count)
	b, err := json.Marshal(g)
	return string(b), err
}

func wait(what string, ok func() bool) error {
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("the %s did not arrive within a minute", what)
		}
	}
	return nil
}

// processCPU returns the CPU time that this process has used.
func processCPU() time.Duration {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r) // cannot fail with these arguments
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
