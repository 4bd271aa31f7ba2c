package zmqmesh_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/certtest"
	"github.com/channels-go/channels/mesh/zmqmesh"
)

// TestNamesOfTwoSources: an address that both the DNS and the registry give is
// one replica with two names, and its certificate may be for either. Links are
// made, and made again after a restart, whichever source comes or goes first.
func TestNamesOfTwoSources(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		early    bool     // the address is among Options.Peers, and so there before the DNS answers
		registry []string // "in" or "out", before each restart
	}{
		"registry after DNS":    {false, []string{"in", "in"}},
		"registry comes, goes":  {false, []string{"in", "out", "in"}},
		"options before DNS":    {true, []string{"out", "in"}},
		"options, and registry": {true, []string{"in", "out"}},
	} {
		for _, host := range []string{"localhost", "127.0.0.1"} {
			t.Run(name+", certificate for "+host, func(t *testing.T) {
				t.Parallel()
				ours := certtest.NewAuthority()
				ofB := options(t, "b", withTLS(ours.Config(host)))
				b, err := zmqmesh.New(ofB)
				require.NoError(t, err)
				ofB.Listen = b.Address()
				_, port, err := net.SplitHostPort(tcp(b))
				require.NoError(t, err)
				a := newMesh(t, "a", withTLS(ours.Config(host)), func(o *zmqmesh.Options) {
					o.DNS = "localhost:" + port
					if c.early {
						o.Peers = []string{ofB.Listen}
					}
				})
				linked := func() bool { return linkedTo(a, "b", ofB.Listen) }
				for _, registry := range c.registry {
					a.SetPeers(nil)
					if registry == "in" {
						a.SetPeers(map[string]string{"b": ofB.Listen})
					}
					// The DNS alone knows only its own name.
					works := host == "localhost" || c.early || registry == "in"
					if works {
						eventually(t, "they link", linked)
					}
					require.NoError(t, b.Close())
					eventually(t, "the link ends", func() bool { return !linked() })
					eventually(t, "the peer is back", func() bool {
						b, err = zmqmesh.New(ofB)
						return err == nil
					})
					if works {
						eventually(t, "they link again", linked)
					}
				}
				require.NoError(t, b.Close())
			})
		}
	}
}
