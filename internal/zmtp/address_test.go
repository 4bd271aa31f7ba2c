package zmtp_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/zmtp"
)

func TestParseAddress(t *testing.T) {
	for s, want := range map[string]zmtp.Address{
		"tcp://127.0.0.1:10022":  {Host: "127.0.0.1", Port: 10022},
		"tcp://*:10022":          {Port: 10022},
		"tcp://:10022":           {Port: 10022},
		"tcp://*:*":              {},
		"tcp://127.0.0.1:*":      {Host: "127.0.0.1"},
		"tcp://127.0.0.1:0":      {Host: "127.0.0.1"},
		"tcp://[::1]:1":          {Host: "::1", Port: 1},
		"tcp://[::]:1":           {Host: "::", Port: 1},
		"tcp://[fe80::1%eth0]:1": {Host: "fe80::1%eth0", Port: 1},
		"tcp://app-mesh.x_y:1":   {Host: "app-mesh.x_y", Port: 1},
	} {
		got, err := zmtp.ParseAddress(s)
		require.NoError(t, err, s)
		require.Equal(t, want, got, s)
	}
	for s, says := range map[string]string{
		"":                          "no tcp://",
		"127.0.0.1:1":               "no tcp://",
		"ipc:///run/c.sock":         `"ipc" is not supported, only tcp`,
		"inproc://x":                `"inproc" is not supported`,
		"pgm://x:1":                 `"pgm" is not supported`,
		"TCP://x:1":                 `"TCP" is not supported`,
		"tcp://x":                   "missing port",
		"tcp://x:":                  "there is no port",
		"tcp://x:65536":             `the port "65536"`,
		"tcp://x:-1":                `the port "-1"`,
		"tcp://x:1/":                `the port "1/"`,
		"tcp://x:!":                 `the port "!"`,
		"tcp://::1:1":               "too many colons",
		"tcp://*.example.org:1":     "neither *, an IP address nor a name",
		"tcp://a b:1":               "neither *, an IP address nor a name",
		"tcp://10.0.0.1;10.0.0.2:1": "a source address",
	} {
		_, err := zmtp.ParseAddress(s)
		require.ErrorContains(t, err, says, s)
	}
}

func TestAddressChecks(t *testing.T) {
	parse := func(s string) zmtp.Address {
		a, err := zmtp.ParseAddress(s)
		require.NoError(t, err, s)
		return a
	}
	for _, s := range []string{"tcp://*:1", "tcp://:1", "tcp://0.0.0.0:1", "tcp://[::]:1", "tcp://[::ffff:0.0.0.0]:1", "tcp://224.0.0.1:1"} {
		require.ErrorContains(t, parse(s).CheckReach(), "name one host", s)
	}
	for _, s := range []string{"tcp://x:0", "tcp://x:*"} {
		require.ErrorContains(t, parse(s).CheckReach(), "name the port", s)
	}
	require.NoError(t, parse("tcp://x:1").CheckReach())

	all, err := net.Interfaces()
	require.NoError(t, err)
	for _, i := range all {
		require.ErrorContains(t, parse("tcp://"+i.Name+":1").CheckListen(), "the name of an interface")
	}
	for _, s := range []string{"tcp://*:1", "tcp://localhost:1", "tcp://127.0.0.1:1", "tcp://no-such-interface:1"} {
		require.NoError(t, parse(s).CheckListen(), s)
	}
	require.True(t, parse("tcp://localhost:1").Loopback())
	require.True(t, parse("tcp://[::1]:1").Loopback())
	require.False(t, parse("tcp://*:1").Loopback())
	require.Equal(t, ":0", parse("tcp://*:*").HostPort())
	require.Equal(t, "[::1]:1", parse("tcp://[::1]:1").HostPort())
}

// FuzzParseAddress: what is parsed can be written and parsed again, and nothing
// panics.
func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"tcp://127.0.0.1:10022", "tcp://*:*", "tcp://[fe80::1%eth0]:1", "tcp://::1:1", "ipc:///x", "tcp://a;b:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := zmtp.ParseAddress(s)
		if err != nil {
			return
		}
		require.LessOrEqual(t, a.Port, 65535)
		again, err := zmtp.ParseAddress("tcp://" + a.HostPort())
		require.NoError(t, err)
		require.Equal(t, a, again)
	})
}
