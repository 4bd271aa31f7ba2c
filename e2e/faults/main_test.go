//go:build linux

// Package faults tests several replicas in processes of their own. They are
// killed, stopped, cut off and restarted under load, with a ZeroMQ mesh and one
// Redis. The tests need signals, /proc and network namespaces: Linux.
package faults

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// binary is example/server, built once. Go's test cache does not notice changes
// to it: run these tests with -count=1.
var binary string

// pace is the pause of most publishers between two messages.
var pace = flag.Duration("pace", 20*time.Millisecond, "the pause of each publisher between two messages; make faults has more load")

func TestMain(m *testing.M) {
	if binary = os.Getenv(inside); binary != "" { // already built
		goleak.VerifyTestMain(m)
		return
	}
	dir, err := os.MkdirTemp("", "faults")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "server")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", binary, "./example/server")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "example/server could not be built: %v\n%s", err, out)
		os.RemoveAll(dir)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}
