package zmqmesh_test

import (
	"crypto/tls"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/certtest"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/zmqmesh"
)

// TestTLS: both sides need a certificate from the authority, for the host that is
// dialled, and TLS 1.3.
func TestTLS(t *testing.T) {
	t.Parallel()
	ours, theirs := certtest.NewAuthority(), certtest.NewAuthority()
	good := withTLS(ours.Config("127.0.0.1"))
	m := newMesh(t, "m", good)
	in := receive(t, m)
	requireWorks(t, m, in, "friend", withTLS(ours.Config("127.0.0.1")))
	named := ours.Config("127.0.0.1")
	named.ServerName = "127.0.0.1"
	requireWorks(t, m, in, "named", withTLS(named))
	wrong := theirs.Config("127.0.0.1")
	wrong.RootCAs = ours.Config().RootCAs
	requireApart(t, m, "wrong", withTLS(wrong))
	requireApart(t, m, "plain")

	before := m.Status().Refused
	old := ours.Config("127.0.0.1")
	old.MaxVersion = tls.VersionTLS12
	old.ServerName = "127.0.0.1"
	require.Error(t, tls.Client(dial(t, m), old).Handshake())
	anonymous := ours.Config("127.0.0.1")
	anonymous.Certificates, anonymous.ServerName = nil, "127.0.0.1"
	c := tls.Client(dial(t, m), anonymous)
	_, _ = c.Write([]byte("x")) // TLS 1.3 tells the client afterwards
	_, err := c.Read(make([]byte, 1))
	require.ErrorContains(t, err, "certificate")
	eventually(t, "both are refused", func() bool { return m.Status().Refused >= before+2 })

	elsewhere := newMesh(t, "elsewhere", withTLS(ours.Config("example.org")))
	m.SetPeers(map[string]string{"elsewhere": elsewhere.Address()})
	eventually(t, "a certificate for another host is refused", func() bool {
		p := m.Status().Peers
		return len(p) == 1 && strings.Contains(p[0].Err, "certificate")
	})
	m.SetPeers(nil)

	both := newMesh(t, "both", good, withKey("0123456789abcdef"))
	requireApart(t, both, "m2", good)
	m3 := newMesh(t, "m3", withTLS(ours.Config("127.0.0.1")), withKey("0123456789abcdef"))
	in = receive(t, m3)
	m3.SetPeers(map[string]string{"both": both.Address()})
	eventually(t, "a big packet arrives over TLS, in one direction", func() bool {
		require.NoError(t, both.Publish(t.Context(), mesh.Packet{Header: "big", Body: make([]byte, 3<<20)}))
		return in.count(message("big")) > 0
	})
}

// TestKey: both sides need the same key, and are told if they do not have it.
func TestKey(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "m", withKey("the right key of the mesh"))
	in := receive(t, m)
	requireWorks(t, m, in, "friend", withKey("the right key of the mesh"))
	requireApart(t, m, "wrong", withKey("the wrong key of the mesh"))
	requireApart(t, m, "none")
}

// TestOptions: what New refuses, with what it says.
func TestOptions(t *testing.T) {
	t.Parallel()
	ours := certtest.NewAuthority()
	for want, change := range map[string]func(o *zmqmesh.Options){
		`Options.ReplicaID is "a b"; it must be 1 to 64`: func(o *zmqmesh.Options) { o.ReplicaID = "a b" },
		`Options.ReplicaID is "a\n"; it must be 1 to 64`: func(o *zmqmesh.Options) { o.ReplicaID = "a\n" },
		`Options.ReplicaID is "xx`:                       func(o *zmqmesh.Options) { o.ReplicaID = strings.Repeat("x", 65) },
		"set TLS or Key":                                 func(o *zmqmesh.Options) { o.Listen = "tcp://0.0.0.0:0" },
		`Options.Listen is "tcp://:0"`:                   func(o *zmqmesh.Options) { o.Listen = "tcp://:0" },
		"Options.Listen has":                             func(o *zmqmesh.Options) { o.Listen = "127.0.0.1:0" },
		"it must be tcp://host:port":                     func(o *zmqmesh.Options) { o.Listen = "ipc://x" },
		`Options.Listen has "tcp://lo:1"`:                func(o *zmqmesh.Options) { o.Listen = "tcp://lo:1" },
		`Options.DNS is "*:1"`:                           func(o *zmqmesh.Options) { o.DNS = "*:1" },
		`Advertise has "tcp://*:1", which nobody`:        func(o *zmqmesh.Options) { o.Advertise = "tcp://*:1" },
		`Peers has "tcp://*:1", which nobody`:            func(o *zmqmesh.Options) { o.Peers = []string{"tcp://*:1"} },
		`Peers has "tcp://h:*", which nobody`:            func(o *zmqmesh.Options) { o.Peers = []string{"tcp://h:*"} },
		`Options.Listen is "tcp://*:*", which others`:    func(o *zmqmesh.Options) { o.Listen = "tcp://*:*" },
		`"ipc" is not supported, only tcp`:               func(o *zmqmesh.Options) { o.Listen = "ipc:///run/m.sock" },
		"Options.Advertise has":                          func(o *zmqmesh.Options) { o.Advertise = "x" },
		"Options.Peers has":                              func(o *zmqmesh.Options) { o.Peers = []string{"x"} },
		"it must be host:port":                           func(o *zmqmesh.Options) { o.DNS = "host" },
		`Options.DNS is "host:0"`:                        func(o *zmqmesh.Options) { o.DNS = "host:0" },
		`Options.DNS is "host:65536"`:                    func(o *zmqmesh.Options) { o.DNS = "host:65536" },
		`Advertise has "tcp://0.0.0.0:1", which nobody`:  func(o *zmqmesh.Options) { o.Advertise = "tcp://0.0.0.0:1" },
		`Advertise has "tcp://[::]:1", which nobody`:     func(o *zmqmesh.Options) { o.Advertise = "tcp://[::]:1" },
		`Advertise has "tcp://h:0", which nobody`:        func(o *zmqmesh.Options) { o.Advertise = "tcp://h:0" },
		`Peers has "tcp://:1", which nobody`:             func(o *zmqmesh.Options) { o.Peers = []string{"tcp://a:1", "tcp://:1"} },
		`Peers has "tcp://h:0", which nobody`:            func(o *zmqmesh.Options) { o.Peers = []string{"tcp://h:0"} },
		"Insecure is for a mesh without TLS and Key":     func(o *zmqmesh.Options) { o.Insecure, o.Key = true, []byte("0123456789abcdef") },
		"Insecure is for a mesh without TLS":             func(o *zmqmesh.Options) { o.Insecure, o.TLS = true, ours.Config("x") },
		"it must have 16 or more":                        func(o *zmqmesh.Options) { o.Key = []byte("short") },
		"1 KiB to 1 GiB":                                 func(o *zmqmesh.Options) { o.MaxPacketBytes = 1 },
		"MaxPacketBytes and 64 KiB":                      func(o *zmqmesh.Options) { o.QueueBytes = 1 << 20 },
		"it must be 1 or more":                           func(o *zmqmesh.Options) { o.QueuePackets = -1 },
		"has no certificate":                             func(o *zmqmesh.Options) { o.TLS = &tls.Config{} },
		"has no RootCAs":                                 func(o *zmqmesh.Options) { o.TLS = ours.Config("x"); o.TLS.RootCAs = nil },
		"InsecureSkipVerify, with which anybody may be":  func(o *zmqmesh.Options) { o.TLS = ours.Config("x"); o.TLS.InsecureSkipVerify = true },
	} {
		m, err := zmqmesh.New(options(t, "a", change))
		if err == nil {
			m.Close()
		}
		require.ErrorContains(t, err, want)
	}
	taken := newMesh(t, "a")
	_, err := zmqmesh.New(options(t, "b", func(o *zmqmesh.Options) { o.Listen = taken.Address() }))
	require.ErrorContains(t, err, "address already in use")
}

// TestAddress: others can reach what is announced.
func TestAddress(t *testing.T) {
	t.Parallel()
	require.Regexp(t, `^tcp://127\.0\.0\.1:[1-9][0-9]*$`, newMesh(t, "a").Address())
	at := func(listen, advertise string) string {
		return newMesh(t, "b", func(o *zmqmesh.Options) { o.Listen, o.Advertise, o.Insecure = listen, advertise, true }).Address()
	}
	everywhere := at("tcp://0.0.0.0:0", "")
	require.Regexp(t, `^tcp://.+:[1-9][0-9]*$|^$`, everywhere)
	require.NotContains(t, everywhere, "0.0.0.0")
	require.Regexp(t, `^tcp://[^*]+:[1-9][0-9]*$|^$`, at("tcp://*:*", ""))
	require.Equal(t, "tcp://b.example.org:10021", at("tcp://*:*", "tcp://b.example.org:10021"))
}
