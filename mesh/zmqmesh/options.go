package zmqmesh

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/channels-go/channels/internal/replica"
	"github.com/channels-go/channels/internal/zmtp"
)

// Options configure a Mesh. The zero value is a replica on loopback.
type Options struct {
	// ReplicaID names this replica. No two replicas may have the same id. The
	// hub takes it from the mesh. 1 to 64 of A-Z, a-z, 0-9, "-", "_" and ".".
	// Default: random.
	ReplicaID string

	// Listen is where other replicas connect to: "tcp://host:port". The host
	// "*", like "0.0.0.0" and none, means all interfaces, with IPv6; the port
	// "*", like 0, a free one. Default "tcp://127.0.0.1:10021".
	//
	// Beyond loopback, New refuses to start without TLS or Key.
	Listen string
	// Advertise is what Address returns, if others reach this replica at another
	// address than the bound one: "tcp://host:port", with the name or address of
	// one host, and its port. Default: what is bound, or, if that is all
	// interfaces, the machine's first address that is not loopback.
	Advertise string

	// Peers are the addresses of other replicas, "tcp://host:port". This
	// replica's own may be among them. A hub with a Store finds replicas without
	// Peers.
	Peers []string
	// DNS is a name that has the addresses of all replicas, and their port:
	// "host:port", say of a headless service of Kubernetes. It is looked up
	// every 5 seconds. Default: none.
	DNS string

	// TLS makes both sides of each connection show a certificate. It needs
	// Certificates (or GetCertificate and GetClientCertificate), and RootCAs for
	// the other side's certificate, whether that is server or client (ClientCAs,
	// if set, is for clients). TLS 1.3 is required. A certificate must be for the
	// host that is dialled, or for ServerName, if that is set. New does not
	// change it. Default: none.
	TLS *tls.Config
	// Key is a secret of all replicas, which they prove to each other without
	// sending it. At least 16 random bytes: someone who records a connection can
	// try keys that can be guessed. All messages are sealed with keys that both
	// sides derive from it for their connection, so that nobody else reads,
	// changes, repeats or adds anything. Someone who learns Key later can read
	// what was recorded before; TLS prevents that. Default: none.
	Key []byte
	// Insecure allows Listen to be beyond loopback without TLS and Key:
	// anybody who reaches the port reads and publishes on all channels. Only
	// for a network on which every program is trusted. New refuses it together
	// with TLS or Key, because these would still be required.
	Insecure bool

	// MaxPacketBytes is how large a packet may be with all its fields. Replicas
	// with less lose the larger packets. It must be more than the hub's
	// MaxMessageBytes, by some KiB for the other fields (see [Mesh.MaxBody]).
	// 1 KiB to 1 GiB; default 16 MiB.
	MaxPacketBytes int
	// QueueBytes and QueuePackets bound what waits for one replica. Anything
	// more is dropped, and the replica is told that it has missed something.
	// Defaults 32 MiB and 500,000; QueueBytes is at least MaxPacketBytes plus
	// 64 KiB.
	QueueBytes   int
	QueuePackets int

	// Linger is how long Close goes on sending what is queued. Negative: not at
	// all. Default 2 s.
	Linger time.Duration

	// Logger gets links that come and go, and connections that were refused.
	// Default slog.Default().
	Logger *slog.Logger
}

const (
	minKey       = 16       // bytes
	chunkBytes   = 32 << 10 // of packets that are sent as one message
	maxPeers     = 4_096    // addresses to connect to
	defaultQueue = 32 << 20
)

func (o *Options) setDefaults() {
	o.ReplicaID = cmp.Or(o.ReplicaID, replica.NewID())
	o.Listen = cmp.Or(o.Listen, "tcp://127.0.0.1:10021")
	o.MaxPacketBytes = cmp.Or(o.MaxPacketBytes, 16<<20)
	o.QueueBytes = cmp.Or(o.QueueBytes, max(defaultQueue, o.MaxPacketBytes+2*chunkBytes))
	o.QueuePackets = cmp.Or(o.QueuePackets, 500_000)
	o.Linger = cmp.Or(o.Linger, 2*time.Second)
	o.Logger = cmp.Or(o.Logger, slog.Default())
	o.Peers = slices.Clone(o.Peers)
	o.Key = slices.Clone(o.Key)
}

func (o *Options) check() error {
	if err := replica.CheckID(o.ReplicaID); err != nil {
		return fmt.Errorf("zmqmesh: Options.ReplicaID %w", err)
	}
	listen, err := zmtp.ParseListen(o.Listen)
	if err != nil {
		return fmt.Errorf("zmqmesh: Options.Listen has %.200q; it must be tcp://host:port, where * is all interfaces or a free port: %w", o.Listen, err)
	}
	switch {
	case len(o.Key) > 0 && len(o.Key) < minKey:
		return fmt.Errorf("zmqmesh: Options.Key has %d bytes; it must have %d or more", len(o.Key), minKey)
	case !listen.Loopback() && o.TLS == nil && len(o.Key) == 0 && !o.Insecure:
		return fmt.Errorf("zmqmesh: Options.Listen is %q, which others can reach: set TLS or Key (or Insecure, if every program on that network is trusted)", o.Listen)
	case o.Insecure && (o.TLS != nil || len(o.Key) > 0):
		return errors.New("zmqmesh: Options.Insecure is for a mesh without TLS and Key: set one or the other")
	}
	if o.Advertise != "" {
		if err := checkReachable("Options.Advertise", o.Advertise); err != nil {
			return err
		}
	}
	for _, p := range o.Peers {
		if err := checkReachable("Options.Peers", p); err != nil {
			return err
		}
	}
	if o.DNS != "" {
		a, err := zmtp.ParseHostPort(o.DNS)
		if err == nil {
			err = a.CheckReach()
		}
		if err != nil {
			return fmt.Errorf("zmqmesh: Options.DNS is %.200q; it must be host:port, with the port on which replicas listen: %w", o.DNS, err)
		}
	}
	switch {
	case o.MaxPacketBytes < 1<<10 || o.MaxPacketBytes > 1<<30:
		return fmt.Errorf("zmqmesh: Options.MaxPacketBytes is %d; it must be 1 KiB to 1 GiB", o.MaxPacketBytes)
	case o.QueueBytes < o.MaxPacketBytes+2*chunkBytes:
		return fmt.Errorf("zmqmesh: Options.QueueBytes is %d; it must be %d or more: MaxPacketBytes and 64 KiB", o.QueueBytes, o.MaxPacketBytes+2*chunkBytes)
	case o.QueuePackets < 1:
		return fmt.Errorf("zmqmesh: Options.QueuePackets is %d; it must be 1 or more", o.QueuePackets)
	}
	if t := o.TLS; t != nil {
		switch {
		case len(t.Certificates) == 0 && (t.GetCertificate == nil || t.GetClientCertificate == nil):
			return errors.New("zmqmesh: Options.TLS has no certificate: set Certificates, or GetCertificate and GetClientCertificate")
		case t.RootCAs == nil:
			return errors.New("zmqmesh: Options.TLS has no RootCAs: without them any certificate that the system trusts would be accepted")
		case t.InsecureSkipVerify:
			return errors.New("zmqmesh: Options.TLS has InsecureSkipVerify, with which anybody may be a replica")
		}
	}
	return nil
}

// tlsConfigs returns the configurations to listen with and to dial with.
func (o *Options) tlsConfigs() (listen, dial *tls.Config) {
	if o.TLS == nil {
		return nil, nil
	}
	listen = o.TLS.Clone()
	listen.MinVersion = tls.VersionTLS13
	listen.ClientAuth = tls.RequireAndVerifyClientCert
	listen.ClientCAs = cmp.Or(listen.ClientCAs, listen.RootCAs)
	dial = o.TLS.Clone()
	dial.MinVersion = tls.VersionTLS13
	return listen, dial
}

// checkReachable refuses an address that other machines cannot connect to: one
// without a host, for all interfaces, or without a port.
func checkReachable(what, address string) error {
	a, err := zmtp.ParseAddress(address)
	if err != nil {
		return fmt.Errorf("zmqmesh: %s has %.200q; it must be tcp://host:port: %w", what, address, err)
	}
	if err := a.CheckReach(); err != nil {
		return fmt.Errorf("zmqmesh: %s has %.200q, which nobody can connect to: %w", what, address, err)
	}
	return nil
}

// reachable is where others reach a listener: on all interfaces, at the machine's
// first address that is not loopback, IPv4 before IPv6; "" if there is none.
func reachable(l net.Addr) string {
	a, ok := l.(*net.TCPAddr)
	if !ok || !a.IP.IsUnspecified() {
		return "tcp://" + l.String()
	}
	found := ""
	nets, _ := net.InterfaceAddrs()
	for _, n := range nets {
		ip, ok := n.(*net.IPNet)
		if !ok || !ip.IP.IsGlobalUnicast() {
			continue
		}
		address := "tcp://" + net.JoinHostPort(ip.IP.String(), fmt.Sprint(a.Port))
		if ip.IP.To4() != nil {
			return address
		}
		found = cmp.Or(found, address)
	}
	return found
}
