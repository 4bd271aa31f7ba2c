//go:build linux

package faults

import (
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

// ahead builds example/server so that its clock is an hour ahead: with one line
// more in the standard library's time.Now. A Go program asks the kernel itself,
// so that nothing from outside can change what it is told.
func ahead(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	require.NoError(t, err)
	original := filepath.Join(strings.TrimSpace(string(root)), "src/time/time.go")
	source, err := os.ReadFile(original)
	require.NoError(t, err)
	ask := regexp.MustCompile(`(?m)^\tsec, nsec, mono := (runtimeNow|now)\(\)$`)
	require.Len(t, ask.FindAll(source, -1), 1, "time.Now is not as it was")
	dir := t.TempDir()
	changed, overlay, server := filepath.Join(dir, "time.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "server")
	require.NoError(t, os.WriteFile(changed, ask.ReplaceAll(source, []byte("$0\n\tsec += 3600")), 0o600))
	b, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(overlay, b, 0o600))
	build := exec.Command("go", "build", "-overlay", overlay, "-o", server, "./example/server")
	build.Dir = "../.."
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return server
}

// The clock of one replica is an hour ahead, and history is kept for an hour:
// nothing goes by the replicas' clocks.
//
// The first build of it takes minutes, since all of Go's library is built
// again: it runs where CHANNELS_CLOCKS is set.
func TestClocksDifferByAnHour(t *testing.T) {
	if os.Getenv("CHANNELS_CLOCKS") == "" {
		t.Skip("CHANNELS_CLOCKS is not set, so clocks that differ are not tested; make faults does it")
	}
	server := ahead(t)
	redis := redistest.Start(t)
	var all []*replica
	for _, name := range []string{"a", "b", "c"} {
		r := newReplica(t, name, "127.0.0.1", nil, "-redis", "redis://"+redis.Addr+"/0")
		if name == "b" {
			r.argv[0] = server
		}
		all = append(all, r)
		r.start()
	}
	green(t, all...)
	require.True(t, all[0].started("b").After(time.Now().Add(30*time.Minute)), "the clock of b is ahead")
	c := check(t, "keep", all, 6, 4, 5*time.Millisecond)
	f := follow(t, all[1], "free")
	for range 100 {
		f.publish(all[0])
	}
	c.more(200)
	for _, r := range all {
		redistest.Eventually(t, r.name+" counts the subscribers of all", func() bool {
			var page struct {
				Data []struct {
					Name  string `json:"channel_name"`
					Count int    `json:"cnt"`
				}
			}
			_, body := r.get("/v1/channel?prefix=keep")
			return json.Unmarshal(body, &page) == nil && len(page.Data) == 1 && page.Data[0].Name == "keep" && page.Data[0].Count == 6
		})
		status, body := r.get("/v1/channel/keep/history?limit=1")
		require.Equal(t, http.StatusOK, status)
		require.Contains(t, string(body), `"first"`, "the oldest message is kept, %s says", r.name)
	}
	all[2].kill()
	redistest.Eventually(t, "a killed replica is missed by those that are left", func() bool {
		return all[0].nodes()["c"].Status == "red" && all[1].nodes()["c"].Status == "red"
	})
	all[2].start()
	c.more(200)
	c.verify()
	green(t, all...)
}
