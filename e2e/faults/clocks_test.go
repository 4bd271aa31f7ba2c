//go:build linux

package faults

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store/redisstore/redistest"
)

// ahead builds example/server with a clock that is an hour ahead, by one more
// statement in the standard library's time.Now. A Go program asks the kernel
// directly, so its clock cannot be changed from outside.
//
// Only package time is compiled, and linked with the existing packages.
// Building everything that imports it would take minutes.
func ahead(t *testing.T) string {
	t.Helper()
	original := filepath.Join(strings.TrimSpace(goTool(t, "env", "GOROOT")), "src/time/time.go")
	source, err := os.ReadFile(original)
	require.NoError(t, err)
	ask := regexp.MustCompile(`(?m)^\tsec, nsec, mono := (runtimeNow|now)\(\)$`)
	require.Len(t, ask.FindAll(source, -1), 1, "time.Now has changed")
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, content, 0o600))
		return path
	}
	changed := file("time.go", ask.ReplaceAll(source, []byte("$0; sec += 3600")))
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	require.NoError(t, err)
	library := filepath.Join(dir, "time.a")
	goTool(t, "build", "-overlay", file("overlay.json", replace), "-o", library, "time")

	// Each line is "packagefile PATH=FILE". The program's line is last.
	config, main := goTool(t, "list", "-deps", "-export", "-f", "{{if .Export}}packagefile {{.ImportPath}}={{.Export}}{{end}}", "./example/server"), ""
	config = regexp.MustCompile(`(?m)^packagefile time=(.*)$`).ReplaceAllStringFunc(config, func(line string) string {
		_, unchanged, _ := strings.Cut(line, "=")
		exportAs(t, library, unchanged)
		return "packagefile time=" + library
	})
	require.Contains(t, config, library)
	for line := range strings.Lines(config) {
		_, main, _ = strings.Cut(strings.TrimSpace(line), "=")
	}
	server := filepath.Join(dir, "server")
	goTool(t, "tool", "link", "-s", "-w", "-importcfg", file("link.cfg", []byte(config)), "-o", server, main)
	return server
}

// exportAs gives a package's file the fingerprint of another file. The linker
// compares it with the one that the importers were compiled with. The imported
// package is compatible, since no declaration has changed.
func exportAs(t *testing.T, file, other string) {
	t.Helper()
	const size = 8
	fingerprint := func(archive []byte) []byte {
		magic := []byte("\x00go120ld") // begins an object file; the fingerprint follows
		i := bytes.Index(archive, magic) + len(magic)
		require.Greater(t, i, len(magic), "the format of object files has changed")
		return archive[i : i+size]
	}
	to, err := os.ReadFile(file)
	require.NoError(t, err)
	from, err := os.ReadFile(other)
	require.NoError(t, err)
	copy(fingerprint(to), fingerprint(from))
	require.NoError(t, os.WriteFile(file, to, 0o600))
}

// goTool runs go in the root of the module and returns its output.
func goTool(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	var errs bytes.Buffer
	cmd.Dir, cmd.Stderr = "../..", &errs
	out, err := cmd.Output()
	require.NoError(t, err, "go %s: %s", args[0], &errs)
	return string(out)
}

// The clock of one replica is an hour ahead, and history is kept for an hour:
// nothing depends on the replicas' clocks.
func TestClocksDifferByAnHour(t *testing.T) {
	t.Parallel()
	server := ahead(t)
	all := three(t, redistest.Start(t), func(r *replica) {
		if r.name == "b" {
			r.argv[0] = server
		}
	})
	require.True(t, all[0].nodes()["b"].Started.After(time.Now().Add(30*time.Minute)), "the clock of b is ahead")
	c := check(t, all, 6, 4, *pace)
	f := listen(t, all[1], "free")
	for range 100 {
		f.publish(all[0])
	}
	c.more(200)
	for _, r := range all {
		eventually(t, r.name+" counts the subscribers of all replicas", func() bool {
			_, body := r.get("/v1/channel?prefix=keep")
			return bytes.HasPrefix(body, []byte(`{"data":[{"channel_name":"keep","cnt":6,`)) && bytes.Count(body, []byte("channel_name")) == 1
		})
		status, body := r.get("/v1/channel/keep/history?limit=1")
		require.Equal(t, http.StatusOK, status)
		require.Contains(t, string(body), `"first"`, "the oldest message is kept on %s", r.name)
	}
	all[2].Kill()
	eventually(t, "the others notice a killed replica", func() bool {
		return all[0].nodes()["c"].Status == "red" && all[1].nodes()["c"].Status == "red"
	})
	all[2].start()
	c.more(200)
	c.verify()
	green(t, all...)
}
