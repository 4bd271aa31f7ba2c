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
	if err := os.Setenv("GOMAXPROCS", "1"); err != nil {
		t.Fatal(err)
	}
	b := &bench{runs: 1, scale: 0.01, log: io.Discard}
	table, err := b.run(regexp.MustCompile("."))
	if err != nil {
		t.Fatal(err)
	}
	if len(table.lines) != len(rows) {
		t.Errorf("%d rows of %d", len(table.lines), len(rows))
	}
	t.Log(table.markdown())
}
