package main

import (
	"io"
	"os"
	"regexp"
	"testing"
)

// TestMain lets the test's binary be the servers too.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		serve(os.Args[2])
		return
	}
	os.Exit(m.Run())
}

// Every row runs, with a hundredth of the load: what it measures so is worth
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
