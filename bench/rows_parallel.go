package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// parallel has many goroutines of the server's process publish at a time.
func parallel(b *bench) (line, error) {
	servers := []struct {
		name  string
		count int // so that each runs for about a second
	}{{"channels", 200_000}, {"raw64", 200_000}, {"gws", 20_000}, {"centrifuge", 50_000}}
	all := make([][]rate, len(servers))
	for range b.runs {
		for i, s := range servers {
			r, err := b.parallel(s.name, b.n(s.count, 1280))
			if err != nil {
				return line{}, fmt.Errorf("%s: %w", s.name, err)
			}
			all[i] = append(all[i], r)
		}
	}
	perSecond, cpus := make([]float64, len(servers)), make([]time.Duration, len(servers))
	for i, rs := range all {
		perSecond[i] = median(rs, func(r rate) float64 { return r.perSecond })
		cpus[i] = median(rs, func(r rate) time.Duration { return r.cpu })
	}
	said := func(i int) string { return fmt.Sprintf("%.0f; CPU %s", perSecond[i], us(cpus[i])) }
	return line{
		work:    "100 channels with 10 subscribers each, 64 goroutines publish 128 B as fast as possible, none lost: deliveries/s",
		ours:    fmt.Sprintf("**%.0f**; CPU %s", perSecond[0], us(cpus[0])),
		limit:   "the raw loop, 64 frames of a channel at once: " + said(1),
		peers:   "gws " + said(2) + ", centrifuge " + said(3),
		target:  "≥ 2,000,000",
		verdict: verdict(perSecond[0] >= 2_000_000),
		chart:   chart{"/s", bars(1, []string{"channels", "raw, 64 at once", "gws", "centrifuge"}, perSecond), 2_000_000},
	}, nil
}

// parallel publishes count messages, at most a window ahead of the clients, so that no
// queue is full.
func (b *bench) parallel(server string, count int) (rate, error) {
	const each, publishers, window = 10, 64, 10_000
	dir, err := os.MkdirTemp("", "bench-parallel")
	if err != nil {
		return rate{}, err
	}
	defer os.RemoveAll(dir)
	counter := filepath.Join(dir, "taken")
	taken, err := newCounter(counter)
	if err != nil {
		return rate{}, err
	}
	c, err := b.startCounting(server, counter)
	if err != nil {
		return rate{}, err
	}
	defer c.stop()
	n := b.n(1000, 2*each)
	channels := n / each
	l, err := subscribe(c.addr, n, func(i int) dialOptions {
		return own(server, dialOptions{path: "/channel/c" + strconv.Itoa(i%channels) + "/"})
	})
	if err != nil {
		return rate{}, err
	}
	defer l.close()
	if _, err := c.do("await %d", n); err != nil {
		return rate{}, err
	}
	defer l.tell(taken, each)()
	// Each channel gets a multiple of 64 messages: raw64 keeps what is less.
	flood := func(count int) (int, error) {
		count = max(1, count/(64*channels)) * 64 * channels
		want := l.delivered.Load() + int64(count*each)
		if _, err := c.do("flood %d %d %d 128 %d", channels, publishers, count, window); err != nil {
			return 0, err
		}
		return count * each, l.await(want)
	}
	if _, err := flood(count / 10); err != nil { // so that buffers have grown
		return rate{}, err
	}
	before, err := c.cpu()
	if err != nil {
		return rate{}, err
	}
	begin := time.Now()
	deliveries, err := flood(count)
	if err != nil {
		return rate{}, err
	}
	took := time.Since(begin)
	after, err := c.cpu()
	r := rate{float64(deliveries) / took.Seconds(), (after - before) / time.Duration(deliveries)}
	b.say("   %-12s %.0f deliveries/s, %s CPU each; its processor was busy for %.0f %%", server, r.perSecond, r.cpu, 100*(after-before).Seconds()/took.Seconds())
	return r, err
}
