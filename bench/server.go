package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/centrifugal/centrifuge"

	"github.com/channels-go/channels/internal/certtest"
)

// An app is the same small program on one of the libraries. It subscribes
// clients at /channel/NAME/ and publishes {"header":"m","body":BODY} to them.
type app interface {
	http.Handler
	publish(channel string, body []byte) error
	subscribers() int
}

// apps are the servers by name. Further words are arguments. "+tls" after a
// name serves it over TLS 1.3.
var apps = map[string]func(args []string) (app, error){
	"channels":         func([]string) (app, error) { return newChannels() },
	"channels-metrics": func([]string) (app, error) { return newScraped() },
	"raw":              func([]string) (app, error) { return newRaw(1), nil },
	"raw16":            func([]string) (app, error) { return newRaw(16), nil },
	"raw64":            func([]string) (app, error) { return newRaw(64), nil },
	"http":             func([]string) (app, error) { return bareHTTP{}, nil },
	"coder":            func([]string) (app, error) { return newCoder(), nil },
	"gorilla":          func([]string) (app, error) { return newGorilla(), nil },
	"gws":              func([]string) (app, error) { return newGWS(false), nil },
	"gws-deflate":      func([]string) (app, error) { return newGWS(true), nil },
	"gws-pings":        func([]string) (app, error) { return newPingingGWS(), nil },
	"melody":           func([]string) (app, error) { return newMelody(), nil },
	"replica":          newReplica,
	"mesh":             newOnMesh,

	"centrifuge": func([]string) (app, error) { return newCentrifuge(centrifuge.WebsocketConfig{}) },
	"centrifuge-deflate": func([]string) (app, error) {
		// As the hub compresses: what is large enough, and once for all.
		return newCentrifuge(centrifuge.WebsocketConfig{Compression: true, CompressionMinSize: 512, CompressionPreparedMessageCacheSize: 1 << 20})
	},
	"channels-history": newHistory,
	"storm":            newStorm,
}

// serve runs a server. It prints its address and then obeys the commands on
// standard input until that ends.
func serve(name string) {
	base, secure := strings.CutSuffix(name, "+tls")
	words := strings.Fields(base)
	make := apps[words[0]]
	if make == nil {
		log.Fatalf("no server %q", name)
	}
	a, err := make(words[1:])
	if err != nil {
		log.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{Handler: a, TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}}
	if secure {
		srv.TLSConfig = certtest.NewAuthority().Config("127.0.0.1")
		srv.TLSConfig.MinVersion = tls.VersionTLS13
		go srv.ServeTLS(l, "", "")
	} else {
		go srv.Serve(l)
	}
	profile(name)
	defer pprof.StopCPUProfile()
	fmt.Println(l.Addr())
	for in := bufio.NewScanner(commands()); in.Scan(); {
		if strings.HasPrefix(in.Text(), "publish") || strings.HasPrefix(in.Text(), "flood") {
			profile(name)
		}
		s, err := obey(a, strings.Fields(in.Text()))
		if err != nil {
			s = "error: " + strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Println(s)
	}
}

// commands is standard input, which the runtime watches. To wait in a read(2) for the next
// command would keep the only processor for up to 20 ms, until the runtime finds out: the last
// of a hundred messages waited for that, and was the p99.
func commands() *os.File {
	if info, err := os.Stdin.Stat(); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		return os.Stdin // a terminal, of which the shell's side would not block either
	}
	if err := syscall.SetNonblock(syscall.Stdin, true); err != nil {
		log.Fatal(err)
	}
	return os.NewFile(uintptr(syscall.Stdin), "commands")
}

// profile starts a CPU profile in place of the previous one, so that it covers
// the last publishing only.
func profile(name string) {
	dir := os.Getenv("CHANNELS_BENCH_PROFILE")
	if dir == "" {
		return
	}
	pprof.StopCPUProfile()
	f, err := os.Create(filepath.Join(dir, fmt.Sprintf("cpu-%s-%d.pprof", strings.Fields(name)[0], os.Getpid())))
	if err != nil {
		log.Fatal(err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		log.Fatal(err)
	}
}

// heapProfile writes a heap profile if profiles are wanted.
func heapProfile() error {
	dir := os.Getenv("CHANNELS_BENCH_PROFILE")
	if dir == "" {
		return nil
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	log.Printf("heap %d KiB in use of %d, stacks %d, others %d", m.HeapAlloc>>10, m.HeapInuse>>10, m.StackInuse>>10, (m.Sys-m.HeapSys-m.StackSys)>>10)
	f, err := os.Create(filepath.Join(dir, fmt.Sprintf("heap-%d-%d.pprof", os.Getpid(), time.Now().UnixNano())))
	if err != nil {
		return err
	}
	defer f.Close()
	return pprof.WriteHeapProfile(f)
}

func obey(a app, args []string) (string, error) {
	if len(args) == 0 {
		return "", errors.New("no command")
	}
	var n []int
	for _, s := range args[1:] {
		v, err := strconv.Atoi(s)
		if err != nil {
			return "", err
		}
		n = append(n, v)
	}
	switch {
	case args[0] == "gc" && len(n) == 0:
		debug.FreeOSMemory()
		return "ok", heapProfile()
	case args[0] == "await" && len(n) == 1: // most peers answer the handshake before the client is subscribed
		for end := time.Now().Add(time.Minute); a.subscribers() != n[0]; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				return "", fmt.Errorf("%d subscribers, not %d", a.subscribers(), n[0])
			}
		}
		return "ok", nil
	case args[0] == "publish" && len(n) == 5:
		return "ok", publish(a, n[0], n[1], n[2], n[3], time.Duration(n[4])*time.Microsecond)
	case args[0] == "flood" && len(n) == 5:
		return "ok", flood(a, n[0], n[1], n[2], n[3], n[4])
	case args[0] == "unwanted" && len(n) == 1:
		return "ok", unwanted(a, n[0])
	case args[0] == "join" && len(n) == 1:
		return join(n[0])
	case args[0] == "grow" && len(n) == 2:
		return grow(n[0], n[1])
	case args[0] == "position" && len(n) == 1:
		return a.(onHistory).position("c" + args[1])
	case args[0] == "storm" && len(n) == 1:
		return a.(*onStorm).begin(n[0])
	case args[0] == "ranges" && len(n) == 0:
		return strconv.FormatInt(a.(onHistory).trips.ranges.Load(), 10), nil
	case args[0] == "queue" && len(n) == 1:
		return queueing(a, n[0])
	}
	return "", fmt.Errorf("unknown command %q", args)
}

// publish publishes count messages of size bytes to the channels c0, c1, … in
// turn: batch of them per interval, or all at once if interval is 0.
func publish(a app, channels, batch, count, size int, interval time.Duration) error {
	pad := strings.Repeat("x", max(0, size-len(`{"header":"m","body":{"t":1234567890123456789,"p":""}}`)))
	next := time.Now()
	for i := range count {
		if i%batch == 0 && interval > 0 {
			time.Sleep(time.Until(next))
			next = next.Add(interval)
		}
		body := make([]byte, 0, size)
		body = append(body, `{"t":`...)
		body = strconv.AppendInt(body, time.Now().UnixNano(), 10)
		body = append(body, `,"p":"`...)
		body = append(body, pad...)
		body = append(body, `"}`...)
		if err := a.publish("c"+strconv.Itoa(i%channels), body); err != nil {
			return err
		}
	}
	return nil
}

// queueing publishes n messages. It returns the medians, for each subscriber, of the
// nanoseconds and allocations that publishing takes. With one processor, the writers run
// only after it.
func queueing(a app, n int) (string, error) {
	subscribers := float64(a.subscribers())
	var took, allocs []float64
	for range n {
		time.Sleep(100 * time.Millisecond) // the writers have finished the message before
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		begin := time.Now()
		if err := a.publish("c0", []byte(`{"t":1,"n":1}`)); err != nil {
			return "", err
		}
		took = append(took, float64(time.Since(begin).Nanoseconds())/subscribers)
		runtime.ReadMemStats(&after)
		allocs = append(allocs, float64(after.Mallocs-before.Mallocs)/subscribers)
	}
	slices.Sort(took)
	slices.Sort(allocs)
	return fmt.Sprintf("%.1f %.4f", took[n/2], allocs[n/2]), nil
}

// message returns the text that a peer's app sends, in the hub's form.
func message(body []byte) []byte {
	b := make([]byte, 0, len(body)+32)
	b = append(b, `{"header":"m","body":`...)
	b = append(b, body...)
	return append(b, '}')
}

// channelOf returns NAME from /channel/NAME/.
func channelOf(r *http.Request) string {
	return strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/channel/"), "/")
}

var background = context.Background()
