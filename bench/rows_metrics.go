package main

import (
	"fmt"
	"time"
)

// metricsOn compares the hub whose metrics are scraped with one that nobody asks.
func metricsOn(b *bench) (line, error) {
	servers := []string{"channels", "channels-metrics"}
	rs, err := b.turns(b.paced().on(servers...)...)
	if err != nil {
		return line{}, err
	}
	all := make([][]time.Duration, len(servers))
	for range b.runs {
		for i, server := range servers {
			took, err := b.publishes(server, b.n(1_000_000, 1000))
			if err != nil {
				return line{}, err
			}
			b.say("   %-12s %8s CPU per publish", server, took)
			all[i] = append(all[i], took)
		}
	}
	self := func(d time.Duration) time.Duration { return d }
	without, with := median(all[0], self), median(all[1], self)
	return line{
		work:    "metrics that are scraped each second: the first row's CPU per delivery; CPU of a publish that nobody is subscribed to",
		ours:    fmt.Sprintf("%s = **%s**; %s = **%s**", us(rs[1].cpu), ratio(rs[1].cpu, rs[0].cpu), us(with), ratio(with, without)),
		limit:   fmt.Sprintf("nobody scrapes: %s; %s", us(rs[0].cpu), us(without)),
		target:  "≤ 1.02 ×; ≤ 1.05 ×",
		verdict: verdict(float64(rs[1].cpu) <= 1.02*float64(rs[0].cpu) && float64(with) <= 1.05*float64(without)),
	}, nil
}

// publishes returns the CPU time of a publish from Go code, on a server without
// subscribers.
func (b *bench) publishes(server string, count int) (time.Duration, error) {
	c, err := b.start(server)
	if err != nil {
		return 0, err
	}
	defer c.stop()
	if _, err := c.do("publish 10 1000 1000 128 0"); err != nil { // which makes the channels
		return 0, err
	}
	before, err := c.cpu()
	if err != nil {
		return 0, err
	}
	if _, err := c.do("publish 10 1000 %d 128 0", count); err != nil {
		return 0, err
	}
	after, err := c.cpu()
	return (after - before) / time.Duration(count), err
}
