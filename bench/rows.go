package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A row is one kind of work, done by the hub and by those that it is compared
// with.
type row struct {
	name string
	run  func(*bench) (line, error)
}

var rows = []row{
	{"fanout", fanout},
	{"burst", burst},
	{"room", room},
	{"large", large},
	{"idle", idle},
	{"idle-100000", idleMany},
	{"queue", queue},
	{"many-channels", manyChannels},
	{"parallel", parallel},
	{"deflate", deflate},
	{"tls", overTLS},
	{"publish", httpPublish},
	{"list", list},
	{"connect", connect},
	{"metrics", metricsOn},
	{"client-fanout", clientFanout},
	{"client-burst", clientBurst},
	{"client-channels", clientChannels},
	{"client-idle", clientIdle},
	{"client-connect", clientConnect},
	{"client-recover", clientRecover},
	{"redis-append", redisAppend},
	{"redis-alone", redisAlone},
	{"redis-resume", redisResume},
	{"redis-list", redisList},
	{"redis-commands", redisCommands},
	{"redis-costs", redisCosts},
	{"mesh-rate", meshRate},
	{"mesh-latency", meshLatency},
	{"mesh-latency-one", meshLatencyOnOne},
	{"mesh-alone", meshAlone},
	{"mesh-stopped", meshStopped},
	{"mesh-join", meshJoin},
	{"mesh-unwanted", meshUnwanted},
	{"mesh-growth", meshGrowth},
}

func rowNames() string {
	var s []string
	for _, r := range rows {
		s = append(s, r.name)
	}
	return strings.Join(s, ", ")
}

// A job is one way of publishing to n subscribers.
type job struct {
	server   string
	subs     int
	of       func(i int) dialOptions
	channels int
	batch    int
	count    int
	size     int
	interval time.Duration
	each     int // deliveries of one message
}

// result is what one run measured.
type result struct {
	cpu time.Duration // of the server, for each delivery
	p99 time.Duration // from publishing to arrival
}

// own returns the options of a connection to one channel in the protocol that a server
// speaks: centrifuge has one of its own.
func own(server string, o dialOptions) dialOptions {
	if !strings.HasPrefix(server, "centrifuge") || o.subscribes != nil {
		return o
	}
	s := session(path.Base(o.path))
	s.from, s.tls, s.deflate = o.from, o.tls, o.deflate
	return s
}

func oneChannel(o dialOptions) func(int) dialOptions {
	o.path = "/channel/c0/"
	return func(int) dialOptions { return o }
}

// do runs a job once, on a new server.
func (b *bench) do(j job) (result, error) {
	c, err := b.start(j.server)
	if err != nil {
		return result{}, err
	}
	defer c.stop()
	l, err := subscribe(c.addr, j.subs, j.of)
	if err != nil {
		return result{}, err
	}
	defer l.close()
	if _, err := c.do("await %d", j.subs); err != nil {
		return result{}, err
	}
	// The first round makes buffers grow and warms them up.
	warm := j.batch * 2
	if _, err := c.do("publish %d %d %d %d %d", j.channels, j.batch, warm, j.size, 10_000); err != nil {
		return result{}, err
	}
	if err := l.await(int64(warm * j.each)); err != nil {
		return result{}, fmt.Errorf("%s: %w", j.server, err)
	}
	for _, s := range l.subs {
		s.waited = nil
	}
	before, err := c.cpu()
	if err != nil {
		return result{}, err
	}
	if _, err := c.do("publish %d %d %d %d %d", j.channels, j.batch, j.count, j.size, j.interval.Microseconds()); err != nil {
		return result{}, err
	}
	if err := l.await(int64((warm + j.count) * j.each)); err != nil {
		return result{}, fmt.Errorf("%s: %w", j.server, err)
	}
	after, err := c.cpu()
	if err != nil {
		return result{}, err
	}
	return result{(after - before) / time.Duration(j.count*j.each), l.waited(0.99)}, nil
}

// turns runs each job b.runs times, in turns, and returns the medians.
func (b *bench) turns(jobs ...job) ([]result, error) {
	all := make([][]result, len(jobs))
	for range b.runs {
		for i, j := range jobs {
			r, err := b.do(j)
			if err != nil {
				return nil, err
			}
			b.say("   %-12s %-22s %8s CPU per delivery, p99 %s", j.server, j.of(0).path, r.cpu, r.p99.Round(10*time.Microsecond))
			all[i] = append(all[i], r)
		}
	}
	medians := make([]result, len(jobs))
	for i, rs := range all {
		medians[i] = result{
			median(rs, func(r result) time.Duration { return r.cpu }),
			median(rs, func(r result) time.Duration { return r.p99 }),
		}
	}
	return medians, nil
}

func median[T any, V cmp.Ordered](all []T, of func(T) V) V {
	vs := make([]V, len(all))
	for i, t := range all {
		vs[i] = of(t)
	}
	slices.Sort(vs)
	return vs[len(vs)/2]
}

// on returns copies of a job for several servers.
func (j job) on(servers ...string) []job {
	jobs := make([]job, len(servers))
	for i, s := range servers {
		jobs[i] = j
		jobs[i].server = s
		jobs[i].of = func(k int) dialOptions { return own(s, j.of(k)) }
	}
	return jobs
}

func us(d time.Duration) string { return fmt.Sprintf("%.2f µs", float64(d.Nanoseconds())/1e3) }

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Nanoseconds())/1e6) }

func ratio[T ~int64 | ~int | ~float64](a, b T) string {
	return fmt.Sprintf("%.2f ×", float64(a)/float64(b))
}

// verdict says whether a target was reached.
func verdict(ok bool) string {
	if ok {
		return "reached"
	}
	return "**not reached**"
}

func peers(names []string, rs []result, base time.Duration) string {
	var s []string
	for i, r := range rs {
		s = append(s, names[i]+" "+ratio(r.cpu, base))
	}
	return strings.Join(s, ", ")
}

// paced is the work of the first row: 1,000 subscribers of one channel, 20
// messages of 128 bytes a second.
func (b *bench) paced() job {
	n := b.n(1000, 20)
	return job{subs: n, of: oneChannel(dialOptions{}), channels: 1, batch: 1, count: b.n(100, 5), size: 128, interval: 50 * time.Millisecond, each: n}
}

func fanout(b *bench) (line, error) {
	l, err := b.beside(b.paced())
	l.work = "1 channel, 1,000 subscribers, 20 msg/s of 128 B: CPU per delivery"
	return l, err
}

// beside does a paced job with the hub, the raw loop and the peers. Its goal is that of
// the first row.
func (b *bench) beside(j job) (line, error) {
	names := []string{"gws", "gorilla", "melody", "coder", "centrifuge"}
	rs, err := b.turns(j.on(append([]string{"channels", "raw"}, names...)...)...)
	if err != nil {
		return line{}, err
	}
	ours, raw, others := rs[0], rs[1], rs[2:]
	best := others[0].p99
	for _, r := range others {
		best = min(best, r.p99)
	}
	return line{
		ours:    fmt.Sprintf("%s = **%s**; p99 %s", us(ours.cpu), ratio(ours.cpu, raw.cpu), ms(ours.p99)),
		limit:   fmt.Sprintf("raw write(2) loop %s; p99 %s", us(raw.cpu), ms(raw.p99)),
		peers:   peers(names, others, raw.cpu) + "; best p99 " + ms(best),
		target:  "≤ 1.10 ×, p99 ≤ the best peer's (± 5 %)",
		verdict: verdict(float64(ours.cpu) <= 1.10*float64(raw.cpu) && float64(ours.p99) <= 1.05*float64(best)),
		chart:   cpuChart(1, append([]string{"channels", "raw write(2) loop"}, names...), rs, 1.10*float64(raw.cpu)),
	}, nil
}

func burst(b *bench) (line, error) {
	n := b.n(500, 20)
	j := job{subs: n, of: oneChannel(dialOptions{}), channels: 1, batch: 16, count: b.n(1600, 32) / 16 * 16, size: 128, each: n}
	names := []string{"gws", "gorilla", "melody", "coder", "centrifuge"}
	rs, err := b.turns(j.on(append([]string{"channels", "raw16"}, names...)...)...)
	if err != nil {
		return line{}, err
	}
	ours, raw := rs[0], rs[1]
	return line{
		work:    "1 channel, 500 subscribers, 1,600 msg of 128 B as fast as it goes, none lost: CPU per delivery",
		ours:    fmt.Sprintf("%s = **%s**", us(ours.cpu), ratio(ours.cpu, raw.cpu)),
		limit:   "raw loop, 16 frames at once " + us(raw.cpu),
		peers:   peers(names, rs[2:], raw.cpu),
		target:  "≤ 1.0 ×",
		verdict: verdict(ours.cpu <= raw.cpu),
		chart:   cpuChart(1, append([]string{"channels", "raw, 16 at once"}, names...), rs, float64(raw.cpu)),
	}, nil
}

func queue(b *bench) (line, error) {
	n := b.n(9_500, 100)
	names := []string{"channels", "centrifuge"}
	times, allocs := make([][]float64, len(names)), make([][]float64, len(names))
	for range b.runs {
		for i, name := range names {
			s, err := b.queue(name, n, b.n(100, 5))
			if err != nil {
				return line{}, err
			}
			var ns, a float64
			if _, err := fmt.Sscanf(s, "%f %f", &ns, &a); err != nil {
				return line{}, err
			}
			b.say("   %-12s %s", name, s)
			times[i], allocs[i] = append(times[i], ns), append(allocs[i], a)
		}
	}
	self := func(v float64) float64 { return v }
	ns, peer := median(times[0], self), median(times[1], self)
	a, peerAllocs := median(allocs[0], self), median(allocs[1], self)
	return line{
		work:    fmt.Sprintf("queueing one message for %d WebSockets: each", n),
		ours:    fmt.Sprintf("**%.0f ns**, %.3f allocations", ns, a),
		peers:   fmt.Sprintf("centrifuge %.0f ns, %.3f allocations", peer, peerAllocs),
		target:  "≤ 100 ns, 0 allocations",
		verdict: verdict(ns <= 100 && a < 0.01),
		chart:   chart{"ns", bars(0, names, []float64{ns, peer}), 100},
	}, nil
}

// queue queues messages for n connections.
func (b *bench) queue(server string, n, messages int) (string, error) {
	c, err := b.start(server)
	if err != nil {
		return "", err
	}
	defer c.stop()
	o := own(server, dialOptions{path: "/channel/c0/"})
	l, err := subscribe(c.addr, n, func(int) dialOptions { return o })
	if err != nil {
		return "", err
	}
	defer l.close()
	if _, err := c.do("await %d", n); err != nil {
		return "", err
	}
	return c.do("queue %d", messages)
}

func manyChannels(b *bench) (line, error) {
	n := b.n(9_500, 100)
	names := []string{"channels", "raw", "gws", "gws-pings", "centrifuge"}
	// 15 s, so that all collect their garbage meanwhile.
	many := job{subs: n, channels: n, batch: 5, count: b.n(75_000, 200), size: 128, interval: time.Millisecond, each: 1,
		of: func(i int) dialOptions { return dialOptions{path: "/channel/c" + strconv.Itoa(i) + "/"} }}
	rs, err := b.turns(many.on(names...)...)
	if err != nil {
		return line{}, err
	}
	ours, raw, gws := rs[0], rs[1], rs[2]
	return line{
		work:    fmt.Sprintf("%d channels with 1 subscriber each, 5,000 msg/s, 5 at a time: CPU per delivery", n),
		ours:    fmt.Sprintf("%s = **%s**", us(ours.cpu), ratio(ours.cpu, gws.cpu)),
		limit:   fmt.Sprintf("gws %s; raw write(2) loop %s", us(gws.cpu), ratio(raw.cpu, gws.cpu)),
		peers:   peers(names[3:], rs[3:], gws.cpu),
		target:  "≤ 1.0 × gws",
		verdict: verdict(ours.cpu <= gws.cpu),
		chart:   cpuChart(1, append([]string{names[0], "raw write(2) loop"}, names[2:]...), rs, float64(gws.cpu)),
	}, nil
}

func deflate(b *bench) (line, error) {
	plain := b.paced()
	plain.size = 1100 // above the threshold, and mostly compressible
	plain.server = "channels"
	small := plain
	small.of = oneChannel(dialOptions{deflate: true})
	peer := small.on("gws-deflate", "gorilla", "coder", "centrifuge-deflate")
	names := []string{"gws", "gorilla", "coder", "centrifuge"}
	rs, err := b.turns(append([]job{plain, small}, peer...)...)
	if err != nil {
		return line{}, err
	}
	return line{
		work:    "1 KiB messages with permessage-deflate, 1,000 subscribers: CPU per delivery",
		ours:    fmt.Sprintf("%s = **%s**", us(rs[1].cpu), ratio(rs[1].cpu, rs[0].cpu)),
		limit:   "uncompressed " + us(rs[0].cpu),
		peers:   peers(names, rs[2:], rs[0].cpu),
		target:  "≤ 1.3 ×",
		verdict: verdict(float64(rs[1].cpu) <= 1.3*float64(rs[0].cpu)),
		chart:   cpuChart(1, append([]string{"channels", "uncompressed"}, names...), append([]result{rs[1], rs[0]}, rs[2:]...), 1.3*float64(rs[0].cpu)),
	}, nil
}

func overTLS(b *bench) (line, error) {
	j := b.paced()
	j.of = oneChannel(dialOptions{tls: true})
	names := []string{"gws", "gorilla", "coder", "centrifuge"}
	rs, err := b.turns(j.on("channels+tls", "raw+tls", "gws+tls", "gorilla+tls", "coder+tls", "centrifuge+tls")...)
	if err != nil {
		return line{}, err
	}
	return line{
		work:    "the first row's work over `wss://` (TLS 1.3): CPU per delivery",
		ours:    fmt.Sprintf("%s = **%s**", us(rs[0].cpu), ratio(rs[0].cpu, rs[1].cpu)),
		limit:   "raw loop over TLS " + us(rs[1].cpu),
		peers:   peers(names, rs[2:], rs[1].cpu),
		target:  "≤ 1.15 ×",
		verdict: verdict(float64(rs[0].cpu) <= 1.15*float64(rs[1].cpu)),
		chart:   cpuChart(1, append([]string{"channels", "raw loop over TLS"}, names...), rs, 1.15*float64(rs[1].cpu)),
	}, nil
}

// rate is the number of requests a second that a server answers, and the CPU
// time of one.
type rate struct {
	perSecond float64
	cpu       time.Duration
}

func httpPublish(b *bench) (line, error) {
	names := []string{"channels", "http"}
	all := make([][]rate, 2)
	for range b.runs {
		for i, name := range names {
			r, err := b.requests(name, 64, b.n(40_000, 640))
			if err != nil {
				return line{}, err
			}
			b.say("   %-12s %.0f requests/s, %s CPU each", name, r.perSecond, r.cpu)
			all[i] = append(all[i], r)
		}
	}
	perSecond := func(r rate) float64 { return r.perSecond }
	cpu := func(r rate) time.Duration { return r.cpu }
	ours, bare := median(all[0], perSecond), median(all[1], perSecond)
	return line{
		work:    "`POST …/publish`, 64 connections: requests/s",
		ours:    fmt.Sprintf("%.0f = **%.0f %%**; CPU %s", ours, 100*ours/bare, us(median(all[0], cpu))),
		limit:   fmt.Sprintf("bare net/http handler that decodes the same JSON %.0f; CPU %s", bare, us(median(all[1], cpu))),
		target:  "≥ 85 %",
		verdict: verdict(ours >= 0.85*bare),
		chart:   chart{"/s", bars(1, []string{"channels", "bare net/http"}, []float64{ours, bare}), 0.85 * bare},
	}, nil
}

// requests publishes n times over conns connections.
func (b *bench) requests(server string, conns, n int) (rate, error) {
	c, err := b.start(server)
	if err != nil {
		return rate{}, err
	}
	defer c.stop()
	body := `{"header":"m","body":{"text":"` + strings.Repeat("x", 90) + `"}}`
	req := fmt.Sprintf("POST /v1/channel/c0/publish HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	var first atomic.Pointer[error]
	before, err := c.cpu()
	if err != nil {
		return rate{}, err
	}
	begin := time.Now()
	for range conns {
		wg.Go(func() {
			if err := requestLoop(c.addr, req, &left); err != nil {
				first.CompareAndSwap(nil, &err)
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	after, err := c.cpu()
	if e := first.Load(); e != nil {
		err = *e
	}
	return rate{float64(n) / took.Seconds(), (after - before) / time.Duration(n)}, err
}

func requestLoop(addr, req string, left *atomic.Int64) error {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	r := bufio.NewReader(nc)
	for left.Add(-1) >= 0 {
		if _, err := io.WriteString(nc, req); err != nil {
			return err
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		if resp.StatusCode != 200 {
			return fmt.Errorf("publish: %s", resp.Status)
		}
	}
	return nil
}

func list(b *bench) (line, error) {
	n := b.n(100_000, 500)
	c, err := b.start("channels")
	if err != nil {
		return line{}, err
	}
	defer c.stop()
	if _, err := c.do("publish %d %d %d %d %d", n, n, n, 64, 0); err != nil {
		return line{}, err
	}
	var times []time.Duration
	for end := time.Now().Add(time.Minute); len(times) < 20; {
		begin := time.Now()
		count, err := firstPage(c.addr)
		if err != nil {
			return line{}, err
		}
		if count < min(n, 1000) { // channels are reported once a second
			if time.Now().After(end) {
				return line{}, fmt.Errorf("the first page has %d channels", count)
			}
			time.Sleep(100 * time.Millisecond)
			continue
		}
		times = append(times, time.Since(begin))
	}
	took := median(times, func(d time.Duration) time.Duration { return d })
	return line{
		work:    fmt.Sprintf("first page (1,000) of %d channels, over HTTP", n),
		ours:    "**" + ms(took) + "**",
		target:  "≤ 20 ms",
		verdict: verdict(took <= 20*time.Millisecond),
	}, nil
}

func firstPage(addr string) (int, error) {
	resp, err := http.Get("http://" + addr + "/v1/channel?limit=1000")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != 200 {
		err = fmt.Errorf("list: %s", resp.Status)
	}
	return strings.Count(string(b), `"channel_name"`), err
}

func connect(b *bench) (line, error) {
	names := []string{"channels", "gws", "gws-deflate", "gorilla", "coder", "centrifuge"}
	all := make([][]result, len(names))
	for range b.shortTurns() {
		for i, name := range names {
			cpu, err := b.connects(name, b.n(12_000, 100), own(name, dialOptions{path: "/channel/c0/"}))
			if err != nil {
				return line{}, err
			}
			b.say("   %-12s %s", name, cpu)
			all[i] = append(all[i], result{cpu: cpu})
		}
	}
	var ds []result
	for _, rs := range all {
		ds = append(ds, result{cpu: median(rs, func(r result) time.Duration { return r.cpu })})
	}
	return line{
		work:    "connecting and leaving: CPU each",
		ours:    fmt.Sprintf("%s = **%s**", us(ds[0].cpu), ratio(ds[0].cpu, ds[1].cpu)),
		limit:   "gws " + us(ds[1].cpu),
		peers:   peers(names[2:], ds[2:], ds[1].cpu),
		target:  "≤ 1.0 × gws",
		verdict: verdict(ds[0].cpu <= ds[1].cpu),
		chart:   cpuChart(0, names, ds, float64(ds[1].cpu)),
	}, nil
}

// connects lets n clients connect and leave, 64 at a time.
func (b *bench) connects(server string, n int, o dialOptions) (time.Duration, error) {
	c, err := b.start(server)
	if err != nil {
		return 0, err
	}
	defer c.stop()
	before, err := c.cpu()
	if err != nil {
		return 0, err
	}
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	var first atomic.Pointer[error]
	for range 64 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				nc, _, err := dial(c.addr, o)
				if err != nil {
					first.CompareAndSwap(nil, &err)
					return
				}
				nc.Close()
			}
		})
	}
	wg.Wait()
	time.Sleep(100 * time.Millisecond) // so that the ends of the last ones count too
	after, err := c.cpu()
	if e := first.Load(); e != nil {
		err = *e
	}
	return (after - before) / time.Duration(n), err
}
