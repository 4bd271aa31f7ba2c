package redistest_test

import (
	"net"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/channels-go/channels/store/redisstore/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A port stays reserved until the test ends, in all processes, even if its
// server does not run.
func TestPortsAreGivenOnce(t *testing.T) {
	other := ""
	t.Run("one", func(t *testing.T) {
		other = "@channels-test-port-" + strconv.Itoa(redistest.FreePort(t))
		_, err := net.Listen("unix", other)
		require.Error(t, err, "it is taken")
	})
	l, err := net.Listen("unix", other)
	require.NoError(t, err, "it is given back")
	defer l.Close()
}
