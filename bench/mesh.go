package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// A group is the replicas a, b, … in processes of their own, with a Redis of their own if
// their mesh needs it.
type group struct {
	replicas []*child
	redis    *redisServer
	dir      string
	taken    *atomic.Int64 // how many messages have arrived, for the publisher
	load     *load         // WebSockets on b
	stop     func()        // ends the counting
	base     int64         // deliveries before the measurement
}

func (g *group) close() {
	if g.stop != nil {
		g.stop()
	}
	if g.load != nil {
		g.load.close()
	}
	for _, c := range g.replicas {
		c.stop()
	}
	if g.redis != nil {
		g.redis.stop()
	}
	os.RemoveAll(g.dir)
}

// anywhere lets the kernel choose the processor, since the rows of the mesh mostly have
// more processes than there are processors.
var anywhere = []int{serverCPU, clientCPU}

// replicas starts n servers of an app on a mesh of the given kind, on these processors.
func (b *bench) replicas(app, kind string, n int, cpus []int) (_ *group, err error) {
	g := &group{}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	if g.dir, err = os.MkdirTemp("", "bench-mesh"); err != nil {
		return nil, err
	}
	counter := filepath.Join(g.dir, "taken")
	if g.taken, err = newCounter(counter); err != nil {
		return nil, err
	}
	var addresses []string
	for range n {
		a, err := freePort()
		if err != nil {
			return nil, err
		}
		addresses = append(addresses, "tcp://"+a)
	}
	if brokered(kind) {
		if g.redis, err = startRedis(cpus...); err != nil {
			return nil, err
		}
	}
	for i := range n {
		name := fmt.Sprintf("%s %s %c ", app, kind, 'a'+i)
		if brokered(kind) {
			name += g.redis.addr
		} else {
			name += addresses[i] + " " + strings.Join(addresses, " ")
		}
		c, err := b.startReplica(name, counter, cpus...)
		if err != nil {
			return nil, err
		}
		g.replicas = append(g.replicas, c)
	}
	return g, nil
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

const meshChannels = 100

// listen opens a WebSocket on b for each channel, and waits until messages
// published on a arrive.
func (g *group) listen() (err error) {
	g.load, err = subscribe(g.replicas[1].addr, meshChannels, func(i int) dialOptions {
		return dialOptions{path: "/channel/c" + strconv.Itoa(i) + "/"}
	})
	if err != nil {
		return err
	}
	g.stop = g.load.tell(g.taken, 1)
	// A message that is published before its subscription is active does not
	// arrive, so rounds are published until one arrives completely.
	for end := time.Now().Add(time.Minute); ; {
		before := g.load.delivered.Load()
		if _, err := g.replicas[0].do("flood %d 1 %d 64 0", meshChannels, meshChannels); err != nil {
			return err
		}
		whole := func() bool { return g.load.delivered.Load() >= before+meshChannels }
		for round := time.Now().Add(300 * time.Millisecond); !whole() && time.Now().Before(round); {
			time.Sleep(time.Millisecond)
		}
		if whole() {
			break
		}
		if time.Now().After(end) {
			return errors.New("the subscriptions are not active after a minute")
		}
	}
	time.Sleep(100 * time.Millisecond) // so that no message of an earlier round is on its way
	g.mark()
	return nil
}

// mark resets the counters.
func (g *group) mark() {
	g.base = g.load.delivered.Load()
	g.taken.Store(g.base)
	for _, s := range g.load.subs {
		s.waited = nil
	}
}

// cpu returns the CPU time that the replicas and Redis have used.
func (g *group) cpu() (sum time.Duration, err error) {
	for _, c := range g.replicas {
		d, e := c.cpu()
		sum, err = sum+d, errors.Join(err, e)
	}
	if g.redis != nil {
		d, e := (&child{cmd: g.redis.cmd}).cpu()
		sum, err = sum+d, errors.Join(err, e)
	}
	return sum, err
}

// flood makes a publish count messages from 256 goroutines, at most 50,000
// ahead of the clients. None may be lost.
func (g *group) flood(count int) (rate, error) {
	g.mark()
	before, err := g.cpu()
	if err != nil {
		return rate{}, err
	}
	begin := time.Now()
	if _, err := g.replicas[0].do("flood %d 256 %d 128 50000", meshChannels, count); err != nil {
		return rate{}, err
	}
	if err := g.load.await(g.base + int64(count)); err != nil {
		return rate{}, err
	}
	took := time.Since(begin)
	after, err := g.cpu()
	return rate{float64(count) / took.Seconds(), (after - before) / time.Duration(count)}, err
}

// pace makes a publish 1,000 messages a second. It returns how long they took
// to reach the clients.
func (g *group) pace(count int) (p50, p99 time.Duration, err error) {
	g.mark()
	if _, err := g.replicas[0].do("publish %d 1 %d 128 1000", meshChannels, count); err != nil {
		return 0, 0, err
	}
	err = g.load.await(g.base + int64(count))
	return g.load.waited(0.5), g.load.waited(0.99), err
}

// onReplicas runs f with n replicas and their clients.
func (b *bench) onReplicas(kind string, n int, f func(g *group) error) error {
	g, err := b.replicas("replica", kind, n, anywhere)
	if err != nil {
		return err
	}
	defer g.close()
	if err := g.listen(); err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	if err := f(g); err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	return nil
}

// inTurns measures kinds of mesh in short turns. All groups run all
// the time, so that other load on the machine affects them equally.
func (b *bench) inTurns(kinds []string, cpus []int, warm, measure func(g *group, i int) error) error {
	groups := make([]*group, len(kinds))
	for i, kind := range kinds {
		g, err := b.replicas("replica", kind, 2, cpus)
		if err != nil {
			return err
		}
		defer g.close()
		groups[i] = g
		if err := g.listen(); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		if err := warm(g, i); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
	}
	for range b.shortTurns() {
		for i, g := range groups {
			if err := measure(g, i); err != nil {
				return fmt.Errorf("%s: %w", kinds[i], err)
			}
		}
	}
	return nil
}

func meshRate(b *bench) (line, error) {
	kinds := []string{"zmq", "unsealed", "redis", "plain"}
	all := make([][]rate, len(kinds))
	warm := func(g *group, _ int) error { _, err := g.flood(b.n(200_000, 500)); return err } // so that buffers have grown
	err := b.inTurns(kinds, anywhere, warm, func(g *group, i int) error {
		n := b.n(1_000_000, 500) // at the end of less, the publisher's processor has nothing to do
		if kinds[i] == "plain" {
			n = b.n(100_000, 500)
		}
		r, err := g.flood(n)
		b.say("   %-8s %.0f deliveries/s, %s CPU of all replicas and Redis each", kinds[i], r.perSecond, r.cpu)
		all[i] = append(all[i], r)
		return err
	})
	if err != nil {
		return line{}, err
	}
	perSecond := func(r rate) float64 { return r.perSecond }
	cpu := func(r rate) time.Duration { return r.cpu }
	zmq, unsealed, redis, plain := median(all[0], perSecond), median(all[1], perSecond), median(all[2], perSecond), median(all[3], perSecond)
	return line{
		work:    "2 replicas, 100 channels, published on A by 256 goroutines, 100 WebSockets on B, none lost: deliveries/s",
		ours:    fmt.Sprintf("zmqmesh, with a key, **%.0f** = **%s**; CPU %s; without a key %.0f, CPU %s", zmq, ratio(zmq, redis), us(median(all[0], cpu)), unsealed, us(median(all[1], cpu))),
		limit:   fmt.Sprintf("redismesh %.0f; CPU %s, with Redis", redis, us(median(all[2], cpu))),
		peers:   fmt.Sprintf("one PUBLISH a message, with this hub too: %.0f (%s); CPU %s", plain, ratio(zmq, plain), us(median(all[3], cpu))),
		target:  "≥ 1,000,000",
		verdict: verdict(zmq >= 1_000_000),
		chart:   chart{"/s", bars(1, []string{"zmqmesh", "zmqmesh, no key", "redismesh", "PUBLISH per message"}, []float64{zmq, unsealed, redis, plain}), 1_000_000},
	}, nil
}

// waits are the p50 and p99 of one run.
type waits struct{ p50, p99 time.Duration }

// latency measures how long a message takes to a WebSocket of another replica, with all
// processes on these processors.
func (b *bench) latency(work string, cpus []int) (line, error) {
	kinds := []string{"zmq", "unsealed", "redis", "bare"}
	all := make([][]waits, len(kinds))
	warm := func(g *group, _ int) error { _, _, err := g.pace(b.n(1000, 20)); return err }
	err := b.inTurns(kinds, cpus, warm, func(g *group, i int) error {
		p50, p99, err := g.pace(b.n(2000, 50))
		b.say("   %-8s p50 %s, p99 %s", kinds[i], p50, p99)
		all[i] = append(all[i], waits{p50, p99})
		return err
	})
	if err != nil {
		return line{}, err
	}
	var p50, p99 []time.Duration
	for _, of := range all {
		p50 = append(p50, median(of, func(w waits) time.Duration { return w.p50 }))
		p99 = append(p99, median(of, func(w waits) time.Duration { return w.p99 }))
	}
	return line{
		work:    work,
		ours:    fmt.Sprintf("zmqmesh, with a key, p50 **%s**, p99 %s; without p50 %s", us(p50[0]), us(p99[0]), us(p50[1])),
		limit:   fmt.Sprintf("bare loops of read(2) and write(2) in place of both hubs p50 %s, p99 %s", us(p50[3]), us(p99[3])),
		peers:   fmt.Sprintf("redismesh p50 %s, p99 %s", us(p50[2]), us(p99[2])),
		target:  "p50 ≤ 100 µs",
		verdict: verdict(p50[0] <= 100*time.Microsecond),
	}, nil
}

func meshLatency(b *bench) (line, error) {
	return b.latency("the same at 1,000 msg/s: publish → WebSocket of the other replica", anywhere)
}

// meshLatencyOnOne has all processes on one processor. So no message has to wake another
// processor, which in a virtual machine may take longer than all else.
func meshLatencyOnOne(b *bench) (line, error) {
	return b.latency("the same with the replicas and their clients on one processor", []int{clientCPU})
}

// meshAlone compares with libzmq's PUB and SUB in two Python processes.
func meshAlone(b *bench) (line, error) {
	n := b.n(1_000_000, 2000)
	var ours, overRedis, theirs []float64
	for range b.runs {
		r, err := b.alone("zmq", n)
		if err != nil {
			return line{}, err
		}
		o, err := b.alone("redis", n)
		if err != nil {
			return line{}, err
		}
		l, err := libzmq(n)
		if err != nil {
			return line{}, err
		}
		b.say("   zmqmesh %.0f packets/s, redismesh %.0f, libzmq %.0f", r, o, l)
		ours, overRedis, theirs = append(ours, r), append(overRedis, o), append(theirs, l)
	}
	self := func(v float64) float64 { return v }
	r, o, l := median(ours, self), median(overRedis, self), median(theirs, self)
	return line{
		work:    "a mesh without a hub, with a key, one topic, 100 B, one way between two processes: packets/s",
		ours:    fmt.Sprintf("zmqmesh %.0f = **%.0f %%**, %s redismesh (%.0f)", r, 100*r/l, ratio(r, o), o),
		limit:   fmt.Sprintf("libzmq's PUB → SUB by its Python binding, 2 frames (topic, 100 B) %.0f", l),
		target:  "≥ 60 %",
		verdict: verdict(r >= 0.6*l),
	}, nil
}

func (b *bench) alone(kind string, n int) (perSecond float64, err error) {
	g, err := b.replicas("mesh", kind, 2, anywhere)
	if err != nil {
		return 0, err
	}
	defer g.close()
	a := g.replicas[0]
	for end := time.Now().Add(time.Minute); g.taken.Load() == 0; time.Sleep(10 * time.Millisecond) {
		if _, err := a.do("flood 1 1 1 90 0"); err != nil {
			return 0, err
		}
		if time.Now().After(end) {
			return 0, fmt.Errorf("%s: the subscription is not active after a minute", kind)
		}
	}
	time.Sleep(100 * time.Millisecond) // so that nothing is on its way
	for range 2 {                      // the first round is for warming up
		begin, before := time.Now(), g.taken.Load()
		if _, err := a.do("flood 1 1 %d 90 20000", n); err != nil {
			return 0, err
		}
		if err := wait("packets", func() bool { return g.taken.Load() >= before+int64(n) }); err != nil {
			return 0, err
		}
		perSecond = float64(n) / time.Since(begin).Seconds()
	}
	return perSecond, nil
}

const (
	pubScript = `
import sys, zmq
s = zmq.Context().socket(zmq.PUB)
s.sndhwm = 0
print(s.bind_to_random_port('tcp://127.0.0.1'), flush=True)
body = b'x' * 100
for line in sys.stdin:
    for i in range(int(line)):
        s.send(b'c0\0', zmq.SNDMORE)
        s.send(body)
    print('sent', flush=True)
`
	subScript = `
import sys, zmq
s = zmq.Context().socket(zmq.SUB)
s.rcvhwm = 0
s.subscribe(b'c0\0')
s.connect('tcp://127.0.0.1:' + sys.argv[1])
print('up', flush=True)
for line in sys.stdin:
    n = int(line)
    if n == 0:
        while s.poll(200):
            s.recv(); s.recv(); n += 1
    else:
        for i in range(n):
            s.recv(); s.recv()
    print(n, flush=True)
`
)

// libzmq returns how many messages a second it carries from one process to
// another. Both are Python programs, and may use both processors.
func libzmq(n int) (perSecond float64, err error) {
	pub, err := python(pubScript)
	if err != nil {
		return 0, err
	}
	defer pub.stop()
	sub, err := python(subScript, pub.addr)
	if err != nil {
		return 0, err
	}
	defer sub.stop()
	end := time.Now().Add(time.Minute)
	for got := "0"; got == "0"; { // the subscription takes a moment
		if _, err := pub.do("1"); err != nil {
			return 0, err
		}
		if got, err = sub.do("0"); err != nil {
			return 0, err
		}
		if time.Now().After(end) {
			return 0, errors.New("libzmq: nothing arrived within a minute")
		}
	}
	for range 2 { // the first round is for warming up
		begin := time.Now()
		if _, err := fmt.Fprintln(sub.in, n); err != nil {
			return 0, err
		}
		if _, err := pub.do("%d", n); err != nil {
			return 0, err
		}
		if _, err := sub.answer(); err != nil {
			return 0, err
		}
		perSecond = float64(n) / time.Since(begin).Seconds()
	}
	return perSecond, nil
}

// python starts a script with the first Python in the PATH that has libzmq.
func python(script string, args ...string) (*child, error) {
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		path := filepath.Join(dir, "python3")
		if exec.Command(path, "-c", "import zmq").Run() == nil {
			return startChild("libzmq", exec.Command(path, append([]string{"-c", script}, args...)...), serverCPU, clientCPU)
		}
	}
	return nil, errors.New("no python3 in the PATH has the libzmq binding: install python3-zmq")
}

// stopped holds what two of three replicas do before the third one is stopped,
// and while it is.
type stopped struct {
	before, during  rate
	calm, disturbed waits
	memory          int // bytes by which the publisher grew
}

func meshStopped(b *bench) (line, error) {
	var all []stopped
	for range b.runs {
		err := b.onReplicas("zmq", 3, func(g *group) error {
			s, err := b.stopOne(g)
			all = append(all, s)
			b.say("   %.0f/s, p99 %s; stopped: %.0f/s, p99 %s, %d MiB more", s.before.perSecond, s.calm.p99, s.during.perSecond, s.disturbed.p99, s.memory>>20)
			return err
		})
		if err != nil {
			return line{}, err
		}
	}
	before := median(all, func(s stopped) float64 { return s.before.perSecond })
	during := median(all, func(s stopped) float64 { return s.during.perSecond })
	calm := median(all, func(s stopped) time.Duration { return s.calm.p99 })
	disturbed := median(all, func(s stopped) time.Duration { return s.disturbed.p99 })
	memory := 0
	for _, s := range all {
		memory = max(memory, s.memory)
	}
	return line{
		work:    "one of three replicas, with subscribers of the same channels, stopped: deliveries/s of the others, p99 at 1,000 msg/s, memory of the publisher",
		ours:    fmt.Sprintf("**%.0f** = %.0f %%; p99 **%s** = %s; + %d MiB", during, 100*during/before, us(disturbed), ratio(disturbed, calm), memory>>20),
		limit:   fmt.Sprintf("before: %.0f; p99 %s", before, us(calm)),
		target:  "within 10 %, ≤ 64 MiB more",
		verdict: verdict(during >= 0.9*before && float64(disturbed) <= 1.1*float64(calm) && memory <= 64<<20),
	}, nil
}

func (b *bench) stopOne(g *group) (s stopped, err error) {
	a, c := g.replicas[0], g.replicas[2]
	other, err := subscribe(c.addr, meshChannels, func(i int) dialOptions {
		return dialOptions{path: "/channel/c" + strconv.Itoa(i) + "/"}
	})
	if err != nil {
		return s, err
	}
	defer other.close()
	measure := func() (r rate, w waits, err error) {
		if w.p50, w.p99, err = g.pace(b.n(3000, 20)); err != nil {
			return r, w, err
		}
		r, err = g.flood(b.n(400_000, 500))
		return r, w, err
	}
	if _, err := g.flood(b.n(200_000, 500)); err != nil { // so that buffers have grown
		return s, err
	}
	if err := wait("third replica's messages", func() bool { return other.delivered.Load() > 0 }); err != nil {
		return s, err
	}
	if s.before, s.calm, err = measure(); err != nil {
		return s, err
	}
	memory, err := a.rss()
	if err != nil {
		return s, err
	}
	if err := c.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return s, err
	}
	defer c.cmd.Process.Signal(syscall.SIGCONT)
	if s.during, s.disturbed, err = measure(); err != nil {
		return s, err
	}
	now, err := a.rss()
	s.memory = max(0, now-memory)
	return s, err
}

func meshJoin(b *bench) (line, error) {
	n := b.n(100_000, 100)
	var all []time.Duration
	bytes := 0
	for range b.runs {
		c, err := b.startReplica("channels", "", anywhere...)
		if err != nil {
			return line{}, err
		}
		s, err := c.do("join %d", n)
		c.stop()
		if err != nil {
			return line{}, err
		}
		var ns int64
		if _, err := fmt.Sscan(s, &ns, &bytes); err != nil {
			return line{}, err
		}
		b.say("   %s, %d bytes a channel", time.Duration(ns), bytes)
		all = append(all, time.Duration(ns))
	}
	took := median(all, func(d time.Duration) time.Duration { return d })
	return line{
		work:    fmt.Sprintf("%d channels subscribed on one replica, a peer joins (both in one process, on one processor): until the echo", n),
		ours:    fmt.Sprintf("**%s**; the peer keeps %d bytes of each", ms(took), bytes),
		target:  "≤ 500 ms",
		verdict: verdict(took <= 500*time.Millisecond),
	}, nil
}

func meshUnwanted(b *bench) (line, error) {
	n := b.n(1_000_000, 1000)
	var with, without []time.Duration
	for range b.runs {
		err := b.onReplicas("zmq", 2, func(g *group) error {
			// Nobody subscribes to the channels from c100 on. The others are
			// published first, so that the connection is in use.
			d, err := cpuEach(g.replicas[0], "unwanted %d", n)
			with = append(with, d)
			return err
		})
		if err != nil {
			return line{}, err
		}
		c, err := b.startReplica("channels", "", anywhere...)
		if err != nil {
			return line{}, err
		}
		d, err := cpuEach(c, "unwanted %d", n)
		c.stop()
		if err != nil {
			return line{}, err
		}
		without = append(without, d)
		b.say("   with a mesh %s, without %s", with[len(with)-1], d)
	}
	self := func(d time.Duration) time.Duration { return d }
	w, o := median(with, self), median(without, self)
	return line{
		work:    "Publish on a channel that no other replica wants, of 128 B: CPU of the whole process each",
		ours:    fmt.Sprintf("%s, of which the mesh **%s**", us(w), us(w-o)),
		limit:   "a hub without a mesh " + us(o),
		target:  "the mesh ≤ 1 µs",
		verdict: verdict(w-o <= time.Microsecond),
	}, nil
}

// cpuEach returns the CPU time for each of the n operations of a command, when
// it runs for the second time.
func cpuEach(c *child, format string, n int) (time.Duration, error) {
	if _, err := c.do(format, n); err != nil {
		return 0, err
	}
	before, err := c.cpu()
	if err != nil {
		return 0, err
	}
	if _, err := c.do(format, n); err != nil {
		return 0, err
	}
	after, err := c.cpu()
	return (after - before) / time.Duration(n), err
}

func meshGrowth(b *bench) (line, error) {
	var figures []string
	for _, n := range []int{2, 4, 8, 16} {
		c, err := b.startReplica("channels", "", anywhere...)
		if err != nil {
			return line{}, err
		}
		s, err := c.do("grow %d %d", n, b.n(100_000, 200))
		c.stop()
		if err != nil {
			return line{}, err
		}
		var g growth
		if err := json.Unmarshal([]byte(s), &g); err != nil {
			return line{}, err
		}
		text := fmt.Sprintf("%d: %d links of %.0f KiB, %.0f µs/s idle each, %.2f µs a message to all, %.2f µs to none", g.Replicas, g.Links, g.Bytes/1024, g.Idle/1e3, g.Want/1e3, g.Nobody/1e3)
		b.say("   %s", text)
		figures = append(figures, text)
	}
	return line{
		work: "2, 4, 8, 16 replicas in one process: links, their memory, CPU of a replica that is idle, CPU of a message",
		ours: strings.Join(figures, "; "),
	}, nil
}
