//go:build (linux || darwin) && !portable

package steady

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// Without a descriptor, all would work as well, only slower.
func TestConnHasItsSocketsDescriptor(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	require.NotNil(t, NewConn(c).raw)
	require.Nil(t, NewConn(struct{ net.Conn }{c}).raw)
}
