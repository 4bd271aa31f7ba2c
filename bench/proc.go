package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	serverCPU = 0
	clientCPU = 1
)

func setAffinity(cpus ...int) error {
	var set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	return unix.SchedSetaffinity(0, &set)
}

// A child is a server under test: this program, run as "serve NAME".
type child struct {
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
	addr string
}

// start starts a server alone on its processor.
func (b *bench) start(name string) (*child, error) { return b.startOn(name, nil, serverCPU) }

// startCounting is start with a counter of what has arrived.
func (b *bench) startCounting(name, counter string) (*child, error) {
	return b.startOn(name, []string{counterFile + "=" + counter}, serverCPU)
}

// startReplica starts a server that the kernel may move between the given processors.
// Mostly these are both, since the rows of the mesh have more processes than there are
// processors. It has a counter.
func (b *bench) startReplica(name, counter string, cpus ...int) (*child, error) {
	return b.startOn(name, []string{counterFile + "=" + counter}, cpus...)
}

// startLast starts clients that run on the processor of those that measure, which must
// not wait for them.
func (b *bench) startLast(name string) (*child, error) {
	cmd, err := b.command(name, nil)
	if err != nil {
		return nil, err
	}
	last := exec.Command("nice", append([]string{"-n", "19"}, cmd.Args...)...)
	last.Env = cmd.Env
	return startChild(name, last, clientCPU)
}

func (b *bench) startOn(name string, env []string, cpus ...int) (*child, error) {
	cmd, err := b.command(name, env)
	if err != nil {
		return nil, err
	}
	return startChild(name, cmd, cpus...)
}

func (b *bench) command(name string, env []string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "serve", name)
	cmd.Env = append(append(os.Environ(), "GOMAXPROCS=1"), env...)
	if b.profile != "" && (strings.HasPrefix(name, "channels") || env != nil) {
		cmd.Env = append(cmd.Env, "CHANNELS_BENCH_PROFILE="+b.profile)
	}
	return cmd, nil
}

// startChild starts a program that prints its address, and then one line for
// each line that it reads.
func startChild(name string, cmd *exec.Cmd, cpus ...int) (c *child, err error) {
	c = &child{name: name, cmd: cmd}
	cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewScanner(out)

	// A process inherits the processor of the thread that starts it.
	if pinned() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := setAffinity(cpus...); err != nil {
			return nil, err
		}
		defer setAffinity(clientCPU)
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	if c.addr, err = c.answer(); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

// do sends a command to the server and returns its answer.
func (c *child) do(format string, args ...any) (string, error) {
	if _, err := fmt.Fprintf(c.in, format+"\n", args...); err != nil {
		return "", err
	}
	return c.answer()
}

func (c *child) answer() (string, error) {
	if !c.out.Scan() {
		return "", fmt.Errorf("%s: the server ended", c.name)
	}
	if s, ok := strings.CutPrefix(c.out.Text(), "error: "); ok {
		return "", errors.New(c.name + ": " + s)
	}
	return c.out.Text(), nil
}

// stop ends the server by closing its standard input.
func (c *child) stop() {
	c.in.Close()
	t := time.AfterFunc(10*time.Second, func() { c.cmd.Process.Kill() })
	c.cmd.Wait()
	t.Stop()
}

// cpu returns the processor time of all threads of the server, including the
// kernel's work for it.
func (c *child) cpu() (time.Duration, error) {
	// The CPU clock of a process: linux/posix-timers.h, CPUCLOCK_SCHED.
	clock := int32(^c.cmd.Process.Pid<<3 | 2)
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, err
	}
	return time.Duration(ts.Nano()), nil
}

// collected is rss after a garbage collection.
func (c *child) collected() (int, error) {
	if _, err := c.do("gc"); err != nil {
		return 0, err
	}
	return c.rss()
}

// rss returns the server's resident memory in bytes, without the C library and the
// program's file.
func (c *child) rss() (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(string(b)) {
		if f := strings.Fields(l); len(f) == 3 && f[0] == "RssAnon:" {
			kib, err := strconv.Atoi(f[1])
			return kib << 10, err
		}
	}
	return 0, errors.New("no RssAnon in /proc")
}
