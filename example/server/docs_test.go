package main

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	documented = regexp.MustCompile("`(-[a-z][a-z0-9-]*)[^`]*`")
	flagRow    = regexp.MustCompile("(?m)^\\| (`-[^|]*(?:\\\\\\|[^|]*)*) \\|")
)

// The tables of flags in docs have every flag, and whatever looks like a flag of
// the service there is one.
func TestFlagsAreDocumented(t *testing.T) {
	var cfg config
	var flags []string
	cfg.flags().VisitAll(func(f *flag.Flag) { flags = append(flags, "-"+f.Name) })
	var listed []string
	for _, page := range []string{"operations.md", "replicas.md", "zeromq.md"} {
		b, err := os.ReadFile("../../docs/" + page)
		require.NoError(t, err)
		for _, row := range flagRow.FindAllStringSubmatch(string(b), -1) {
			for _, m := range documented.FindAllStringSubmatch(row[1], -1) {
				if !strings.HasSuffix(m[1], "-") && !strings.Contains(m[0], "…") { // a group of them, with a table of its own
					listed = append(listed, m[1])
				}
			}
		}
	}
	slices.Sort(flags)
	for _, f := range flags {
		require.Contains(t, listed, f, "no table has it")
	}
	for _, f := range listed {
		require.Contains(t, flags, f, "there is no such flag")
	}

	// In the text, and in commands.
	pages, err := filepath.Glob("../../docs/*.md")
	require.NoError(t, err)
	command := regexp.MustCompile(`(?m)^ {4}(?:\$ )?go run \./example/server (.*)$`)
	for _, page := range append(pages, "../../README.md") {
		b, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, m := range documented.FindAllStringSubmatch(string(b), -1) {
			if m[1] != "-h" && !strings.HasSuffix(m[1], "-") && !strings.Contains(m[0], "…") {
				require.Contains(t, flags, m[1], page)
			}
		}
		for _, m := range command.FindAllStringSubmatch(string(b), -1) {
			for word := range strings.FieldsSeq(m[1]) {
				if strings.HasPrefix(word, "-") {
					require.Contains(t, flags, word, page)
				}
			}
		}
	}
}
