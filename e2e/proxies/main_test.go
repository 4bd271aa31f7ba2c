//go:build linux

// Package proxies runs the real nginx, Caddy and HAProxy with the files in deploy/
// before a hub. Only addresses, ports and the lengths of timeouts are replaced.
package proxies

import (
	"flag"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin") // which only root's has
	flag.Parse()
	flag.Set("test.parallel", "40") // they wait for one another's clocks, not for the processor
	goleak.VerifyTestMain(m)
}
