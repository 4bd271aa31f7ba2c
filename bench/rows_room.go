package main

import (
	"fmt"
	"syscall"
	"time"
)

// room has about as many subscribers as a process may have files on many machines.
func room(b *bench) (line, error) {
	n := b.n(18_000, 20)
	work := fmt.Sprintf("1 channel, %d subscribers, 2 msg/s of 128 B: CPU per delivery", n)
	if why := tooFewFiles(n); why != "" {
		return skipped(work, why), nil
	}
	l, err := b.beside(job{
		subs: n, of: oneChannel(dialOptions{}), channels: 1, batch: 1, count: b.n(10, 2), size: 128, interval: 500 * time.Millisecond, each: n,
	})
	l.work = work
	return l, err
}

func large(b *bench) (line, error) {
	j := b.paced()
	j.size = 16 << 10
	l, err := b.beside(j)
	l.work = "the first row's work with messages of 16 KiB: CPU per delivery"
	return l, err
}

// tooFewFiles says why n connections are too many for a process, or "" if they are not.
func tooFewFiles(n int) string {
	const others = 100 // files besides the connections
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return err.Error()
	}
	if files.Max < uint64(n+others) {
		return fmt.Sprintf("needs %d open files, and this system allows a process %d", n+others, files.Max)
	}
	return ""
}

// skipped is the line of a row that this machine can't run.
func skipped(work, why string) line { return line{work: work, verdict: "skipped: " + why} }
