package zmtp_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNoTimeWithoutMonotonicReading: a machine's clock may be set back by hours.
// Nothing here measures time by it: what is stripped of the monotonic reading
// would be silent, or wait, for so long.
func TestNoTimeWithoutMonotonicReading(t *testing.T) {
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
