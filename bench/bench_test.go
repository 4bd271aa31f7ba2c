package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
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
			charts := t.TempDir()
			if err := table.draw(charts); err != nil {
				t.Fatal(err)
			}
			file := "bench-" + r.name + ".svg"
			if _, err := os.Stat(filepath.Join("../docs/img", file)); err != nil {
				return
			}
			svg, err := os.ReadFile(filepath.Join(charts, file))
			if err != nil {
				t.Fatalf("the docs have a chart that the row does not draw: %v", err)
			}
			parse(t, string(svg))
		})
	}
}

// A row that has been renamed leaves no chart behind.
func TestEachChartOfTheDocsHasARow(t *testing.T) {
	files, err := filepath.Glob("../docs/img/bench-*.svg")
	if err != nil || len(files) == 0 {
		t.Fatalf("no charts in the docs: %v", err)
	}
	for _, path := range files {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "bench-"), ".svg")
		if !slices.ContainsFunc(rows, func(r row) bool { return r.name == name }) {
			t.Errorf("%s is of no row", path)
		}
	}
}
