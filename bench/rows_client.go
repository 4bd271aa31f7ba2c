package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The rows of the client protocol compare /connection/websocket with the door of one
// channel, and with centrifuge, whose protocol it is.

func sessionsOf(channels ...string) func(int) dialOptions {
	o := session(channels...)
	return func(int) dialOptions { return o }
}

func clientFanout(b *bench) (line, error) {
	simple := b.paced()
	simple.server = "channels"
	ours := simple
	ours.of = sessionsOf("c0")
	peer := ours
	peer.server = "centrifuge"
	rs, err := b.turns(simple, ours, peer)
	if err != nil {
		return line{}, err
	}
	return line{
		work:    "1 channel, 1,000 connections, 20 msg/s of 128 B in JSON: CPU per delivery",
		ours:    fmt.Sprintf("%s = **%s** the simple door, **%s** centrifuge; p99 %s", us(rs[1].cpu), ratio(rs[1].cpu, rs[0].cpu), ratio(rs[1].cpu, rs[2].cpu), ms(rs[1].p99)),
		limit:   fmt.Sprintf("the simple door %s; p99 %s", us(rs[0].cpu), ms(rs[0].p99)),
		peers:   fmt.Sprintf("centrifuge %s; p99 %s", us(rs[2].cpu), ms(rs[2].p99)),
		target:  "≤ 1.05 × the simple door, ≤ 0.75 × centrifuge",
		verdict: verdict(float64(rs[1].cpu) <= 1.05*float64(rs[0].cpu) && float64(rs[1].cpu) <= 0.75*float64(rs[2].cpu)),
		chart: cpuChart(1, []string{"channels", "the simple door", "centrifuge"}, []result{rs[1], rs[0], rs[2]},
			min(1.05*float64(rs[0].cpu), 0.75*float64(rs[2].cpu))),
	}, nil
}

func clientBurst(b *bench) (line, error) {
	n := b.n(500, 20)
	j := job{subs: n, of: sessionsOf("c0"), channels: 1, batch: 16, count: b.n(1600, 32) / 16 * 16, size: 128, each: n}
	rs, err := b.turns(j.on("channels", "centrifuge")...)
	if err != nil {
		return line{}, err
	}
	return line{
		work:    "1 channel, 500 connections, 1,600 msg of 128 B as fast as it goes, none lost: CPU per delivery",
		ours:    fmt.Sprintf("%s = **%s**", us(rs[0].cpu), ratio(rs[0].cpu, rs[1].cpu)),
		peers:   "centrifuge " + us(rs[1].cpu),
		target:  "≤ 0.25 × centrifuge",
		verdict: verdict(float64(rs[0].cpu) <= 0.25*float64(rs[1].cpu)),
		chart:   cpuChart(0, []string{"channels", "centrifuge"}, rs, 0.25*float64(rs[1].cpu)),
	}, nil
}

// clientChannels has as many receivers of a message on both doors: the same number of
// connections shares more channels if each has more of them.
func clientChannels(b *bench) (line, error) {
	const most, receivers = 50, 10
	n := b.n(1000, 20)
	simple := job{server: "channels", subs: n, channels: n / receivers, batch: 1, count: b.n(10_000, 50), size: 128, interval: time.Millisecond, each: receivers}
	simple.of = func(i int) dialOptions {
		return dialOptions{path: "/channel/c" + strconv.Itoa(i%simple.channels) + "/"}
	}
	ours := simple
	ours.channels = n * most / receivers
	ours.of = func(i int) dialOptions {
		names := make([]string, most)
		for k := range names {
			names[k] = "c" + strconv.Itoa((i*most+k)%ours.channels)
		}
		return session(names...)
	}
	peer := ours
	peer.server = "centrifuge"
	rs, err := b.turns(simple, ours, peer)
	if err != nil {
		return line{}, err
	}
	return line{
		work:    fmt.Sprintf("1,000 connections × %d channels, 1,000 msg/s over 5,000 channels: CPU per delivery", most),
		ours:    fmt.Sprintf("%s = **%s**", us(rs[1].cpu), ratio(rs[1].cpu, rs[0].cpu)),
		limit:   "the simple door, 1 of 100 channels each: " + us(rs[0].cpu),
		peers:   "centrifuge " + ratio(rs[2].cpu, rs[0].cpu),
		target:  "≤ 1.15 × the simple door",
		verdict: verdict(float64(rs[1].cpu) <= 1.15*float64(rs[0].cpu)),
		chart: cpuChart(1, []string{"channels", "the simple door", "centrifuge"}, []result{rs[1], rs[0], rs[2]},
			1.15*float64(rs[0].cpu)),
	}, nil
}

func clientIdle(b *bench) (line, error) {
	n := b.n(4000, 100)
	const most = 50
	many := make([]string, most)
	for i := range many {
		many[i] = "c" + strconv.Itoa(i)
	}
	loads := []func(int) dialOptions{sessionsOf("c0"), sessionsOf(many...)}
	servers := []string{"channels", "centrifuge"}
	var all [2][2][]float64 // by server and load
	for range b.runs {
		for s, server := range servers {
			for i, of := range loads {
				m, err := b.idle(server, n, of)
				if err != nil {
					return line{}, err
				}
				b.say("   %-12s %2d subscriptions %.1f KiB, %.1f after a collection", server, len(of(0).subscribes), m.resident, m.collected)
				all[s][i] = append(all[s][i], m.collected)
			}
		}
	}
	of := func(s, i int) float64 { return median(all[s][i], func(v float64) float64 { return v }) }
	further := (of(0, 1) - of(0, 0)) * 1024 / (most - 1)
	return line{
		work:    fmt.Sprintf("%d idle connections with 1 and with %d subscriptions: KiB of resident memory each, after a garbage collection", n, most),
		ours:    fmt.Sprintf("%.1f = **%s**, %.1f = **%s**; each further subscription **%.0f B**", of(0, 0), ratio(of(0, 0), of(1, 0)), of(0, 1), ratio(of(0, 1), of(1, 1)), further),
		peers:   fmt.Sprintf("centrifuge %.1f, %.1f", of(1, 0), of(1, 1)),
		target:  "≤ 0.35 × centrifuge; ≤ 300 B",
		verdict: verdict(of(0, 0) <= 0.35*of(1, 0) && of(0, 1) <= 0.35*of(1, 1) && further <= 300),
		chart: chart{"KiB", []bar{
			{"channels, 1", "ours", of(0, 0)}, {"centrifuge, 1", "peer", of(1, 0)},
			{fmt.Sprintf("channels, %d", most), "ours", of(0, 1)}, {fmt.Sprintf("centrifuge, %d", most), "peer", of(1, 1)},
		}, 0},
	}, nil
}

func clientConnect(b *bench) (line, error) {
	var all [3][]time.Duration
	for range b.runs {
		for i, name := range []string{"channels", "centrifuge", "raw"} {
			cpu, err := b.connects(name, b.n(12_000, 100), session("c0"))
			if err != nil {
				return line{}, err
			}
			b.say("   %-12s %s", name, cpu)
			all[i] = append(all[i], cpu)
		}
	}
	self := func(d time.Duration) time.Duration { return d }
	ours, peer, limit := median(all[0], self), median(all[1], self), median(all[2], self)
	return line{
		work:    "connect, subscribe to 1 channel, and leave: CPU each",
		ours:    fmt.Sprintf("%s = **%s**", us(ours), ratio(ours, peer)),
		limit:   fmt.Sprintf("net/http, and replies that never change: %s = %s", us(limit), ratio(limit, peer)),
		peers:   "centrifuge " + us(peer),
		target:  "≤ 0.7 × centrifuge",
		verdict: verdict(float64(ours) <= 0.7*float64(peer)),
		chart: cpuChart(1, []string{"channels", "fixed replies", "centrifuge"}, []result{{cpu: ours}, {cpu: limit}, {cpu: peer}},
			0.7*float64(peer)),
	}, nil
}

// storm is what one run of clientRecover measured.
type storm struct {
	reads       int
	took        time.Duration // until everybody has recovered
	calm, rough time.Duration // the others' p99 without and with the storm
}

func clientRecover(b *bench) (line, error) {
	n := b.n(2000, 20)
	var all []storm
	for range b.runs {
		s, err := b.storm(n)
		if err != nil {
			return line{}, err
		}
		b.say("   %d range reads in %s; p99 %s, before %s", s.reads, ms(s.took), us(s.rough), us(s.calm))
		all = append(all, s)
	}
	reads := median(all, func(s storm) int { return s.reads })
	calm := median(all, func(s storm) time.Duration { return s.calm })
	rough := median(all, func(s storm) time.Duration { return s.rough })
	return line{
		work:    fmt.Sprintf("Redis: %d connections come back at once and recover 5 channels each, 20 missed messages of each; meanwhile 100 others get 200 msg/s", n),
		ours:    fmt.Sprintf("**%d range reads**, %s; the others' p99 %s = **%s**", reads, ms(median(all, func(s storm) time.Duration { return s.took })), ms(rough), ratio(rough, calm)),
		limit:   "before: p99 " + ms(calm),
		target:  "≤ 100 range reads; p99 ≤ 2 ×",
		verdict: verdict(reads <= 100 && rough <= 2*calm),
	}, nil
}

// storm lets n clients come back to a hub on Redis.
func (b *bench) storm(n int) (s storm, err error) {
	const names, others = 10, 100
	r, err := startRedis(clientCPU)
	if err != nil {
		return s, err
	}
	defer r.stop()
	c, err := b.start("channels-history " + r.addr)
	if err != nil {
		return s, err
	}
	defer c.stop()

	// c0 is the others' channel.
	if _, err := c.do("publish %d 1 %d 128 0", names+1, names+1); err != nil {
		return s, err
	}
	args := []string{"storm", c.addr}
	for i := 1; i <= names; i++ {
		at, err := c.do("position %d", i)
		if err != nil {
			return s, err
		}
		args = append(args, fmt.Sprintf("c%d,%s", i, at))
	}
	if _, err := c.do("publish %d 1 %d 128 0", names+1, stormMissed*(names+1)); err != nil {
		return s, err
	}
	clients, err := b.startLast(strings.Join(args, " "))
	if err != nil {
		return s, err
	}
	defer clients.stop()
	calm, err := subscribe(c.addr, others, sessionsOf("c0"))
	if err != nil {
		return s, err
	}
	defer calm.close()
	beat := b.n(400, 20)
	measure := func() (time.Duration, error) {
		for _, one := range calm.subs {
			one.waited = nil
		}
		want := calm.delivered.Load() + int64(beat*others)
		if _, err := c.do("publish 1 1 %d 128 5000", beat); err != nil {
			return 0, err
		}
		err := calm.await(want)
		return calm.waited(0.99), err
	}
	if _, err = measure(); err != nil { // so that buffers have grown
		return s, err
	}
	if s.calm, err = measure(); err != nil {
		return s, err
	}
	took, done := "", make(chan error)
	go func() {
		var err error
		took, err = clients.do("storm %d", n)
		done <- err
	}()
	s.rough, err = measure()
	if err = errors.Join(err, <-done); err != nil {
		return s, err
	}
	ns, err := strconv.ParseInt(took, 10, 64)
	if err != nil {
		return s, err
	}
	s.took = time.Duration(ns)
	reads, err := c.do("ranges")
	if err != nil {
		return s, err
	}
	s.reads, err = strconv.Atoi(reads)
	return s, err
}
