package zmtptest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// RequireMonotonic checks the sources of the package under test: the machine's
// clock may be set back by hours, so nothing there may measure time by it. A time
// without its monotonic reading would make the package silent, or have it wait,
// for that long.
func RequireMonotonic(t testing.TB) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	strips := regexp.MustCompile(`\.(Unix|UnixMilli|UnixMicro|UnixNano|Round|Truncate|UTC|Local|In|AddDate)\(`)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Empty(t, strips.FindString(string(b)), file)
	}
}
