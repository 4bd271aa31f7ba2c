package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

func idle(b *bench) (line, error) {
	n := b.n(9_500, 100) // on many machines a process may open 20,000 files
	names := []string{"channels", "raw", "gws", "gorilla", "melody", "coder", "centrifuge"}
	l, err := b.idles(names, n, 1, func(m memory) string { return fmt.Sprintf(" (%.1f)", m.collected) })
	l.work = fmt.Sprintf("%d idle connections: KiB of resident memory each (after a garbage collection)", n)
	return l, err
}

// idleMany has more connections than one address has ports for.
func idleMany(b *bench) (line, error) {
	const addresses = 5
	n := b.n(100_000, 100)
	work := fmt.Sprintf("%d idle connections from %d addresses: KiB of resident memory each; the kernel's for both ends", n, addresses)
	if why := tooFewFiles(n); why != "" {
		return skipped(work, why), nil
	}
	l, err := b.idles([]string{"channels", "raw", "gws"}, n, addresses, func(m memory) string { return fmt.Sprintf("; %.1f", m.kernel) })
	l.work = work
	return l, err
}

// idles compares the medians of several runs of idle, in which servers take turns: ours,
// the limit, and the peers. also says what the line has besides the resident memory.
func (b *bench) idles(servers []string, n, addresses int, also func(memory) string) (line, error) {
	all := make([][]memory, len(servers))
	for range b.runs {
		for i, server := range servers {
			m, err := b.idle(server, n, func(k int) dialOptions {
				o := dialOptions{path: "/channel/c0/"}
				if addresses > 1 {
					o.from = fmt.Sprintf("127.0.0.%d", 1+k%addresses)
				}
				return own(server, o)
			})
			if err != nil {
				return line{}, err
			}
			b.say("   %-12s %.1f KiB, %.1f after a collection, the kernel's %.1f", server, m.resident, m.collected, m.kernel)
			all[i] = append(all[i], m)
		}
	}
	said, resident := make([]string, len(servers)), make([]float64, len(servers))
	for i, ms := range all {
		m := memory{
			median(ms, func(m memory) float64 { return m.resident }),
			median(ms, func(m memory) float64 { return m.collected }),
			median(ms, func(m memory) float64 { return m.kernel }),
		}
		resident[i] = m.resident
		said[i] = fmt.Sprintf("%s %.1f%s", servers[i], m.resident, also(m))
		if i == 0 {
			said[i] = fmt.Sprintf("**%.1f**%s", m.resident, also(m))
		}
	}
	return line{
		ours:    said[0],
		limit:   said[1],
		peers:   strings.Join(said[2:], ", "),
		target:  "≤ 4.0",
		verdict: verdict(resident[0] <= 4),
		chart:   chart{"KiB", bars(1, servers, resident), 4},
	}, nil
}

// memory is what one of many connections takes, in KiB: as the system sees it, after a
// garbage collection, and in the kernel. The last is for both ends, since both are on
// this machine, and includes what else happens here meanwhile.
type memory struct{ resident, collected, kernel float64 }

// idle returns the memory of each of n connections that have been idle for a while.
func (b *bench) idle(server string, n int, of func(int) dialOptions) (m memory, err error) {
	c, err := b.start(server)
	if err != nil {
		return m, err
	}
	defer c.stop()
	before, err := c.collected()
	if err != nil {
		return m, err
	}
	kernel, err := slab()
	if err != nil {
		return m, err
	}
	l, err := subscribe(c.addr, n, of)
	if err != nil {
		return m, err
	}
	defer l.close()
	if _, err := c.do("await %d", n); err != nil {
		return m, err
	}
	time.Sleep(b.settle)
	each := func(bytes, before int, e error) float64 {
		err = errors.Join(err, e)
		return float64(bytes-before) / float64(n) / 1024
	}
	now, e := slab()
	m.kernel = each(now, kernel, e)
	now, e = c.rss()
	m.resident = each(now, before, e)
	now, e = c.collected()
	m.collected = each(now, before, e)
	if e := l.failed.Load(); e != nil {
		err = *e
	}
	return m, err
}

// slab returns the bytes of the kernel's own objects, sockets among them.
func slab() (int, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(string(b)) {
		if f := strings.Fields(l); len(f) == 3 && f[0] == "Slab:" {
			kib, err := strconv.Atoi(f[1])
			return kib << 10, err
		}
	}
	return 0, errors.New("no Slab in /proc")
}
