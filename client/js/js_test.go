package js

import (
	"bytes"
	"compress/gzip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// mostGzipped is what a page pays at most for the client.
const mostGzipped = 8 << 10

func TestModuleIsSmall(t *testing.T) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	require.NoError(t, err)
	_, err = w.Write([]byte(Module()))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.LessOrEqual(t, b.Len(), mostGzipped)
}

// Module leaves out nothing that means something, because the source keeps to a few
// rules: two slashes stand only where a comment begins, no text has a quote, a
// line's end, the name of something private or ";}" in it, and a statement ends with a semicolon or a brace.
func TestTheSourceKeepsToTheRulesOfModule(t *testing.T) {
	for i, line := range strings.Split(source, "\n") {
		code, _, comment := strings.Cut(line, "//")
		require.True(t, !comment || strings.TrimSpace(code) == "" || strings.HasSuffix(code, " "), "line %d has slashes that begin no comment", i+1)
		require.NotRegexp(t, `/\*|\*/|'`, code, "line %d", i+1)
		require.Regexp(t, `^$|[;{}(,\[]$`, strings.TrimSpace(code), "line %d ends in a way that a next line could go on", i+1)
		require.NotRegexp(t, `\+ \+|- -`, code, "line %d has operators that would become another", i+1)
		for j, part := range strings.Split(code, `"`) {
			require.False(t, j%2 == 1 && (private.MatchString(part) || strings.Contains(part, ";}")), "line %d has a text that would change", i+1)
		}
		for _, quote := range []string{"`", `"`} {
			require.Zero(t, strings.Count(code, quote)%2, "line %d", i+1)
		}
		require.NotContains(t, code, `\"`, "line %d", i+1)
	}
	require.NotContains(t, Module(), "//")
	require.NotRegexp(t, `(?m)^\s|^$`, strings.TrimSuffix(Module(), "\n"))
	check := exec.Command("node", "--input-type=module", "--check")
	check.Stdin = strings.NewReader(Module())
	out, err := check.CombinedOutput()
	require.NoError(t, err, string(out))
}

// The tests in the folder test run what pages get.
func TestModule(t *testing.T) {
	module := filepath.Join(t.TempDir(), "channels.mjs")
	require.NoError(t, os.WriteFile(module, []byte(Module()), 0o600))
	test := exec.Command("node", "--test", "test/channels.test.mjs")
	test.Env = append(os.Environ(), "MODULE="+module)
	out, err := test.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Regexp(t, `(?m)^# pass [1-9]\d+$`, string(out))
}

// Types names what the module exports.
func TestTypesNameTheExports(t *testing.T) {
	export := regexp.MustCompile(`(?m)^export (?:declare )?(?:class|const|function) (\w+)`)
	names := func(text string) (all []string) {
		for _, m := range export.FindAllStringSubmatch(text, -1) {
			all = append(all, m[1])
		}
		return all
	}
	require.ElementsMatch(t, names(source), names(Types))
	require.Contains(t, names(Types), "connect")
}
