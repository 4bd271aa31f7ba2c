//go:build linux

package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	setting = regexp.MustCompile(`(?m)^([A-Za-z]+)=(.*)$`)
	start   = regexp.MustCompile(`(?ms)^ExecStart=(\S+)(.*?[^\\])$`)
)

func TestSystemdUnit(t *testing.T) {
	t.Parallel()
	unit := read(t, "channels.service")
	command := start.FindStringSubmatch(unit)
	require.NotNil(t, command)
	args := strings.Fields(strings.ReplaceAll(command[2], "\\\n", " "))
	f := readFlags(t, args)
	starts(t, args)
	settings, credentials := map[string]string{}, map[string]bool{}
	for _, m := range setting.FindAllStringSubmatch(unit, -1) {
		settings[m[1]] = m[2]
		if name, _, _ := strings.Cut(m[2], ":"); m[1] == "LoadCredential" {
			credentials["%d/"+name] = true
		}
	}
	stop, err := time.ParseDuration(settings["TimeoutStopSec"])
	require.NoError(t, err)
	require.GreaterOrEqual(t, stop, f.end(t)+5*time.Second)
	require.Equal(t, map[string]bool{f.one(t, "jwt-secret-file"): true, f.one(t, "admin-token-file"): true}, credentials)

	// systemd looks whether the binary is there.
	installed := filepath.Join(t.TempDir(), "channels.service")
	require.NoError(t, os.WriteFile(installed, []byte(strings.ReplaceAll(unit, command[1], server)), 0o644))
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", installed).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Empty(t, string(out))
	// 0 is a service that can do nothing, 10 one that can do everything. The threshold is
	// in tenths.
	out, err = exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", installed).CombinedOutput()
	require.NoError(t, err, "%s", out)
}
