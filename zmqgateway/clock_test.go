package zmqgateway_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNoTimeWithoutMonotonicReading: the machine's clock may be set back by
// hours, so nothing here may measure time by it. A time without its monotonic
// reading would make this package silent, or have it wait, for that long.
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
