package channels_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// The README lists every code that an error may have, and no other.
func TestTheReadmeListsEveryErrorCode(t *testing.T) {
	source, err := os.ReadFile("errors.go")
	require.NoError(t, err)
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	codes := map[string]bool{}
	for _, m := range regexp.MustCompile(`Error\{Code: "(\w+)"`).FindAllSubmatch(source, -1) {
		codes[string(m[1])] = true
	}
	require.Greater(t, len(codes), 20)
	table := regexp.MustCompile("(?s)\\| code \\|.*?\n\n").Find(readme)
	require.NotEmpty(t, table, "the table of codes")
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile("`([a-z_0-9]+)`").FindAllSubmatch(table, -1) {
		listed[string(m[1])] = true
	}
	for c := range codes {
		require.True(t, listed[c], "%s is not listed", c)
	}
}
