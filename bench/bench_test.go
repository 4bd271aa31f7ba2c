package main

import (
	"io"
	"os"
	"regexp"
	"testing"
)

// TestMain also runs the test binary as the servers.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		serve(os.Args[2])
		return
	}
	os.Exit(m.Run())
}

// TestRows runs every row with a hundredth of the load. The results mean
// nothing, but every message is counted.
func TestRows(t *testing.T) {
	// With the race detector, each server would otherwise wait a second at its end.
	for k, v := range map[string]string{"GOMAXPROCS": "1", "GORACE": "atexit_sleep_ms=0"} {
		if err := os.Setenv(k, v); err != nil {
			t.Fatal(err)
		}
	}
	b := &bench{runs: 1, scale: 0.01, log: io.Discard}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			table, err := b.run(regexp.MustCompile("^" + r.name + "$"))
			if err != nil {
				t.Fatal(err)
			}
			t.Log(table.markdown())
		})
	}
}
