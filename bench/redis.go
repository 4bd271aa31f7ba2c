package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/store"
	"github.com/channels-go/channels/store/redisstore"
)

// redisServer is the benchmark's own redis-server, alone on a processor unless
// startRedis gets further ones.
type redisServer struct {
	cmd  *exec.Cmd
	port string
	addr string
	dir  string
}

func startRedis(cpus ...int) (*redisServer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &redisServer{addr: l.Addr().String()}
	l.Close()
	_, r.port, _ = net.SplitHostPort(r.addr)
	if r.dir, err = os.MkdirTemp("", "bench-redis"); err != nil {
		return nil, err
	}
	r.cmd = exec.Command("redis-server", "--port", r.port, "--bind", "127.0.0.1", "--save", "", "--dir", r.dir)
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a killed benchmark leaves none behind
	if pinned() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := setAffinity(append(cpus, serverCPU)...); err != nil {
			return nil, err
		}
		defer setAffinity(clientCPU)
	}
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("redis-server must be installed (.ci/setup does it): %w", err)
	}
	c := r.client(nil)
	defer c.Close()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err = c.Ping(context.Background()).Err(); err == nil {
			return r, nil
		}
		if time.Now().After(end) {
			r.stop()
			return nil, err
		}
	}
}

func (r *redisServer) stop() {
	r.cmd.Process.Kill()
	r.cmd.Wait()
	os.RemoveAll(r.dir)
}

func (r *redisServer) client(count *trips) *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: r.addr, ContextTimeoutEnabled: true})
	if count != nil {
		c.AddHook(count)
	}
	return c
}

// trips counts a client's round trips and commands.
type trips struct {
	roundTrips, commands, ranges atomic.Int64
	rangeSHA                     string
}

func (t *trips) count(cmds ...redis.Cmder) {
	t.roundTrips.Add(1)
	for _, c := range cmds {
		t.commands.Add(1)
		if a := c.Args(); len(a) > 2 && a[1] == t.rangeSHA {
			t.ranges.Add(1)
		}
	}
}

func (t *trips) DialHook(next redis.DialHook) redis.DialHook { return next }
func (t *trips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, c redis.Cmder) error { t.count(c); return next(ctx, c) }
}
func (t *trips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cs []redis.Cmder) error { t.count(cs...); return next(ctx, cs) }
}

// script reads one of redisstore's scripts from the source tree.
func script(name string) (string, error) {
	for _, dir := range []string{"../store/redisstore/lua/", "store/redisstore/lua/"} {
		if b, err := os.ReadFile(dir + name + ".lua"); err == nil {
			return string(b), nil
		}
	}
	return "", errors.New("the scripts of redisstore were not found: run this in bench/")
}

var appendOptions = store.AppendOptions{Size: 10_000, TTL: time.Hour}

// scriptArgs are the arguments for appending one message of 128 bytes.
func scriptArgs(sha string) []string {
	return []string{"EVALSHA", sha, "2", "channels:log:{b}", "channels:top:{b}", "message", string(payload128()), "10000", "3600000", "bench", "86400000", "", "0"}
}

func payload128() []byte { return bytes.Repeat([]byte("1"), 128) }

func withStore(r *redisServer, t *trips, f func(*redisstore.Store) error) error {
	c := r.client(t)
	defer c.Close()
	s, err := redisstore.New(c, redisstore.Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	return f(s)
}

func redisAppend(b *bench) (line, error) {
	text, err := script("append")
	if err != nil {
		return line{}, err
	}
	n := b.n(200_000, 2000)
	var ours, limit []float64
	for range b.runs {
		r, err := startRedis()
		if err != nil {
			return line{}, err
		}
		for range 2 { // the first round is for warming up
			var took time.Duration
			err = withStore(r, nil, func(s *redisstore.Store) error {
				var wg sync.WaitGroup
				var left atomic.Int64
				var failed atomic.Pointer[error]
				left.Store(int64(n))
				begin := time.Now()
				for range 256 {
					wg.Go(func() {
						e := store.Entry{Header: "message", Body: payload128()}
						for left.Add(-1) >= 0 {
							if _, err := s.Append(context.Background(), "a", e, appendOptions); err != nil {
								failed.Store(&err)
								return
							}
						}
					})
				}
				wg.Wait()
				took = time.Since(begin)
				if err := failed.Load(); err != nil {
					return *err
				}
				return nil
			})
			if err == nil {
				ours = append(ours, float64(n)/took.Seconds())
			}
		}
		ours = slices.Delete(ours, len(ours)-2, len(ours)-1)
		c := r.client(nil)
		sha, err2 := c.ScriptLoad(context.Background(), text).Result()
		c.Close()
		args := append([]string{"-p", r.port, "-n", strconv.Itoa(n), "-c", "4", "-P", "64", "-q"}, scriptArgs(sha)...)
		out, err3 := exec.Command("redis-benchmark", args...).CombinedOutput()
		r.stop()
		if err := errors.Join(err, err2, err3); err != nil {
			return line{}, err
		}
		m := regexp.MustCompile(`([0-9.]+) requests per second`).FindAllSubmatch(out, -1)
		if len(m) == 0 {
			return line{}, fmt.Errorf("redis-benchmark: %s", out)
		}
		perSecond, _ := strconv.ParseFloat(string(m[len(m)-1][1]), 64)
		limit = append(limit, perSecond)
		b.say("   channels %.0f/s, redis-benchmark %.0f/s", ours[len(ours)-1], perSecond)
	}
	same := func(f float64) float64 { return f }
	a, l := median(ours, same), median(limit, same)
	return line{
		work:    "Redis: appends from 256 goroutines, 128 B",
		ours:    fmt.Sprintf("%.0f/s = **%.0f %%**", a, 100*a/l),
		limit:   fmt.Sprintf("redis-benchmark, the same script, -P 64: %.0f/s", l),
		target:  "≥ 70 %",
		verdict: verdict(a >= 0.7*l),
	}, nil
}

func redisAlone(b *bench) (line, error) {
	text, err := script("append")
	if err != nil {
		return line{}, err
	}
	r, err := startRedis()
	if err != nil {
		return line{}, err
	}
	defer r.stop()
	c := r.client(nil)
	defer c.Close()
	ctx := context.Background()
	sha, err := c.ScriptLoad(ctx, text).Result()
	if err != nil {
		return line{}, err
	}
	var bare []any
	for _, a := range scriptArgs(sha) {
		bare = append(bare, a)
	}
	var ours, limit []time.Duration
	err = withStore(r, nil, func(s *redisstore.Store) error {
		e := store.Entry{Header: "message", Body: payload128()}
		for i := range b.n(20_000, 200) { // in turns
			begin := time.Now()
			_, err := s.Append(ctx, "a", e, appendOptions)
			middle := time.Now()
			err2 := c.Do(ctx, bare...).Err()
			if err := errors.Join(err, err2); err != nil {
				return err
			}
			if i >= 100 {
				ours, limit = append(ours, middle.Sub(begin)), append(limit, time.Since(middle))
			}
		}
		return nil
	})
	if err != nil {
		return line{}, err
	}
	same := func(d time.Duration) time.Duration { return d }
	a, l := median(ours, same), median(limit, same)
	return line{
		work:    "Redis: one append, alone",
		ours:    fmt.Sprintf("%s = **%s**", us(a), ratio(a, l)),
		limit:   "the bare script " + us(l),
		target:  "≤ 1.2 ×",
		verdict: verdict(float64(a) <= 1.2*float64(l)),
	}, nil
}

func redisResume(b *bench) (line, error) {
	text, err := script("range")
	if err != nil {
		return line{}, err
	}
	r, err := startRedis()
	if err != nil {
		return line{}, err
	}
	defer r.stop()
	t := &trips{}
	c := r.client(nil)
	t.rangeSHA, err = c.ScriptLoad(context.Background(), text).Result()
	c.Close()
	if err != nil {
		return line{}, err
	}
	const names, missed = 10, 20
	n := b.n(1000, 20)
	var took time.Duration
	err = withStore(r, t, func(s *redisstore.Store) error {
		hub, stop, err := historyHub(s)
		if err != nil {
			return err
		}
		defer stop()
		srv := httptest.NewServer(hub.Handler())
		defer srv.Close()
		since := make([]string, names)
		for i := range since {
			for k := range 1 + missed {
				res, err := hub.Publish(context.Background(), fmt.Sprint("c", i), channels.Message{Header: "message", Body: payload128()})
				if err != nil {
					return err
				}
				if k == 0 {
					since[i] = res.Position.String()
				}
			}
		}
		begin := time.Now()
		l, err := subscribe(strings.TrimPrefix(srv.URL, "http://"), n, func(i int) dialOptions {
			return dialOptions{path: fmt.Sprintf("/channel/c%d/?since=%s", i%names, since[i%names])}
		})
		if err != nil {
			return err
		}
		defer l.close()
		err = l.await(int64(n * missed))
		took = time.Since(begin)
		return err
	})
	if err != nil {
		return line{}, err
	}
	reads := t.ranges.Load()
	return line{
		work:    fmt.Sprintf("Redis: %d connections resume, %d missed messages each, %d channels", n, missed, names),
		ours:    fmt.Sprintf("**%d range reads**, %s", reads, ms(took)),
		target:  "≤ 100",
		verdict: verdict(reads <= 100),
	}, nil
}

func historyHub(s store.Store) (*channels.Hub, func(), error) {
	hub, err := channels.New(channels.Options{Store: s, Channel: func(string) channels.ChannelOptions {
		return channels.ChannelOptions{HistorySize: 1000}
	}})
	if err != nil {
		return nil, nil, err
	}
	return hub, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		hub.Shutdown(ctx)
	}, nil
}

func redisList(b *bench) (line, error) {
	r, err := startRedis()
	if err != nil {
		return line{}, err
	}
	defer r.stop()
	const replicas = 5
	n := b.n(100_000, 500)
	t := &trips{}
	var times []time.Duration
	var trip int64
	err = withStore(r, t, func(s *redisstore.Store) error {
		ctx := context.Background()
		report := func(full bool) error {
			for node := range replicas {
				rep := store.Report{Replica: store.Replica{ID: fmt.Sprint("n", node), Info: json.RawMessage("{}")}, Full: full}
				for i := range n { // each channel is on two replicas
					if full && (i%replicas == node || (i+1)%replicas == node) {
						rep.Channels = append(rep.Channels, store.Count{Channel: fmt.Sprintf("channel-%06d", i), Subscribers: 1, Publishes: 1})
					}
				}
				if _, err := s.Report(ctx, rep); err != nil {
					return err
				}
			}
			return nil
		}
		if err := report(true); err != nil {
			return err
		}
		for i := range 50 {
			if err := report(false); err != nil {
				return err
			}
			after := fmt.Sprintf("channel-%06d", i*n/100)
			before, begin := t.roundTrips.Load(), time.Now()
			page, err := s.Channels(ctx, "channel-", after, 1000)
			times = append(times, time.Since(begin))
			trip = max(trip, t.roundTrips.Load()-before)
			if err != nil || len(page) < min(n/2, 1000)-1 || page[0].Subscribers != 2 {
				return fmt.Errorf("a page of %d channels: %w", len(page), err)
			}
		}
		return nil
	})
	if err != nil {
		return line{}, err
	}
	took := median(times, func(d time.Duration) time.Duration { return d })
	return line{
		work:    fmt.Sprintf("Redis: list page of 1,000 of %d channels on %d replicas", n, replicas),
		ours:    fmt.Sprintf("**%s, %d round trips**", ms(took), trip),
		target:  "≤ 20 ms, ≤ 20 round trips",
		verdict: verdict(took <= 20*time.Millisecond && trip <= 20),
	}, nil
}

func redisCommands(b *bench) (line, error) {
	r, err := startRedis()
	if err != nil {
		return line{}, err
	}
	defer r.stop()
	t := &trips{}
	n, seconds := b.n(1000, 10), max(1, int(10*b.scale))
	var commands int64
	err = withStore(r, t, func(s *redisstore.Store) error {
		hub, stop, err := historyHub(s)
		if err != nil {
			return err
		}
		defer stop()
		ctx := context.Background()
		for i := range n { // with subscribers, so that the hub compares the tops too
			sub, err := hub.Subscribe(ctx, fmt.Sprint("c", i), nil)
			if err != nil {
				return err
			}
			defer sub.Close()
		}
		before := t.commands.Load()
		tick := time.NewTicker(time.Second / time.Duration(n))
		defer tick.Stop()
		for i := range n * seconds {
			<-tick.C
			if _, err := hub.Publish(ctx, fmt.Sprint("c", i%n), channels.Message{Header: "message", Body: payload128()}); err != nil {
				return err
			}
		}
		commands = t.commands.Load() - before
		return nil
	})
	if err != nil {
		return line{}, err
	}
	each := float64(commands) / float64(n*seconds)
	return line{
		work:    fmt.Sprintf("Redis: %d msg/s on %d channels with subscribers, reports included: commands a message", n, n),
		ours:    fmt.Sprintf("**%.2f**", each),
		target:  "≤ 1.3",
		verdict: verdict(each <= 1.3 || b.scale < 1), // commands that run once a second weigh more with few messages
	}, nil
}

// redisCost is what each of n things costs Redis: bytes of memory, and
// microseconds of its processor.
type redisCost struct{ bytes, us float64 }

// redisCosts measures the costs that the documentation of redisstore lists.
func redisCosts(b *bench) (line, error) {
	r, err := startRedis()
	if err != nil {
		return line{}, err
	}
	defer r.stop()
	n := b.n(100_000, 1000)
	var message, keyed, log, top, channel, change, join, leave redisCost
	err = withStore(r, nil, func(s *redisstore.Store) error {
		ctx := context.Background()
		c := r.client(nil)
		defer c.Close()
		used := func() (now redisCost) {
			info := c.InfoMap(ctx, "memory", "cpu").Item
			now.bytes, _ = strconv.ParseFloat(info("Memory", "used_memory"), 64)
			for _, key := range []string{"used_cpu_user", "used_cpu_sys"} {
				seconds, _ := strconv.ParseFloat(info("CPU", key), 64)
				now.us += 1e6 * seconds
			}
			return now
		}
		measure := func(to *redisCost, f func() error) error {
			before := used()
			err := f()
			now := used()
			*to = redisCost{(now.bytes - before.bytes) / float64(n), (now.us - before.us) / float64(n)}
			return err
		}
		appends := func(name func(i int) string, key bool) func() error {
			return func() error {
				var wg sync.WaitGroup
				var failed atomic.Pointer[error]
				for g := range 64 {
					wg.Go(func() {
						for i := g; i < n; i += 64 {
							o := store.AppendOptions{Size: n, TTL: time.Hour}
							if key {
								o.Key, o.KeyTTL = fmt.Sprintf("key-%016d", i), time.Hour
							}
							if _, err := s.Append(ctx, name(i), store.Entry{Header: "message", Body: payload128()}, o); err != nil {
								failed.Store(&err)
								return
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
		}
		names := make([]string, n)
		rep := store.Report{Replica: store.Replica{ID: "n"}, Full: true}
		var joins, leaves []store.PresenceChange
		for i := range n {
			names[i] = fmt.Sprintf("channel-%06d", i)
			rep.Channels = append(rep.Channels, store.Count{Channel: names[i], Subscribers: 1})
			m := store.Member{ID: fmt.Sprintf("node-%013d", i), User: "alice", Info: json.RawMessage(`{"name":"Alice"}`)}
			joins = append(joins, store.PresenceChange{Channel: "room", Member: m})
			leaves = append(leaves, store.PresenceChange{Channel: "room", Member: m, Left: true})
		}
		report := func() error { _, err := s.Report(ctx, rep); return err }
		return errors.Join(
			measure(&message, appends(func(int) string { return "one" }, false)),
			measure(&keyed, appends(func(int) string { return "two" }, true)),
			measure(&log, appends(func(i int) string { return names[i] }, false)),
			measure(&top, func() error { _, err := s.Tops(ctx, names); return err }),
			measure(&channel, report),
			func() error { rep.Full = false; return measure(&change, report) }(),
			measure(&join, func() error { return s.UpdatePresence(ctx, "n", joins) }),
			measure(&leave, func() error { return s.UpdatePresence(ctx, "n", leaves) }),
		)
	})
	if err != nil {
		return line{}, err
	}
	return line{
		work: "Redis: what it costs",
		ours: fmt.Sprintf("memory: a message of 128 B %.0f B, its idempotency key %.0f B, a channel with history %.0f B more, a channel on a replica's list %.0f B, a member %.0f B; "+
			"processor: a message %.1f µs, with a key %.1f µs, a channel's change on the list %.1f µs, its top %.1f µs, a member who joins %.1f µs, who leaves %.1f µs",
			message.bytes, keyed.bytes-message.bytes, log.bytes-message.bytes, channel.bytes, join.bytes,
			message.us, keyed.us, change.us, top.us, join.us, leave.us),
	}, nil
}
