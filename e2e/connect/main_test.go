// Package connect tests the doors for many channels over one connection with the
// SDKs that apps use: the hub's own channels.js and npm's centrifuge, in Node and in
// Chromium, and centrifuge-go.
// All of them run one list of scenarios.
package connect

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if o := os.Getenv(processEnv); o != "" {
		fmt.Fprintln(os.Stderr, runProcess(o))
		os.Exit(1)
	}
	flag.Parse()
	// The scenarios wait for one another's clocks, not for the processor.
	flag.Set("test.parallel", "12")
	os.Exit(func() int {
		if err := startHome(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		code := m.Run()
		if err := endHome(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}())
}
