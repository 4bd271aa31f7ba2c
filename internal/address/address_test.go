package address

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNetwork(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:1234":           "192.0.2.1/32",
		"192.0.2.1":                "192.0.2.1/32",
		"[::ffff:192.0.2.1]:1":     "192.0.2.1/32",
		"[2001:db8:1:2:3:4:5:6]:1": "2001:db8:1:2::/64",
		"2001:db8:1:2:f::":         "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1":         "fe80::/64",
		"@":                        "invalid Prefix",
		"":                         "invalid Prefix",
		"example.com:80":           "invalid Prefix",
		"192.0.2.1:99999":          "invalid Prefix",
	} {
		require.Equal(t, want, Network(remote).String(), remote)
	}
}

func TestNetworkBits(t *testing.T) {
	for bits, want := range map[int]string{32: "2001:db8::/32", 48: "2001:db8:1::/48", 56: "2001:db8:1:200::/56", 128: "2001:db8:1:2ff:3:4:5:6/128"} {
		require.Equal(t, want, NetworkBits("[2001:db8:1:2ff:3:4:5:6]:1", bits).String())
		require.Equal(t, "192.0.2.1/32", NetworkBits("[::ffff:192.0.2.1]:1", bits).String())
	}
}
