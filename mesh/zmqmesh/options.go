package zmqmesh

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/channels-go/channels/internal/zmqaddr"
)

// Options configure a Mesh. Only ID has no default.
type Options struct {
	// ID is the replica's id: the hub's Options.Node, which allows less. No two
	// replicas may have the same. 1 to 200 bytes of UTF-8 without control
	// characters.
	ID string

	// Listen is where other replicas connect to: "tcp://host:port". Host "*",
	// as "0.0.0.0" and none, is all interfaces, with IPv6; port "*", as 0, is a
	// free one. Default "tcp://127.0.0.1:10021".
	//
	// Beyond loopback, New refuses to start without TLS or Key.
	Listen string
	// Advertise is what Address returns, where others reach this replica at
	// another address than the bound one: "tcp://host:port", of one host and
	// with its port. Default: what is bound; where that is all interfaces, the machine's first address that
	// is not loopback.
	Advertise string

	// Peers are the addresses of other replicas, "tcp://host:port". This
	// replica's own may be among them. A hub with a Store finds replicas
	// without it.
	Peers []string
	// DNS is a name that has the addresses of all replicas, with their port:
	// "host:port", as of a headless service of Kubernetes. It is looked up
	// every 5 seconds. Default: none.
	DNS string

	// TLS has both sides of each connection show a certificate: it needs
	// Certificates (or GetCertificate and GetClientCertificate) and RootCAs,
	// which a peer's certificate must come from, as server and as client
	// (ClientCAs is for clients, where it is set). TLS 1.3 is required. A
	// certificate must be for the host that is dialled, or ServerName, where
	// that is set. It is not changed. Default: none.
	TLS *tls.Config
	// Key must be known to both sides, which prove it to each other without
	// sending it. At least 16 random bytes: who records a connection can try
	// keys that can be guessed. All that follows is sealed with keys that both
	// derive from it for this connection: nobody else reads, changes, repeats
	// or adds anything. Who learns Key later can read what was recorded; TLS
	// prevents that. Default: none.
	Key []byte
	// Insecure allows Listen to be beyond loopback without TLS and Key:
	// anybody who reaches the port reads and publishes on all channels. Only
	// for a network on which every program is trusted. With TLS or Key, New
	// refuses it: they would still be asked for.
	Insecure bool

	// MaxPacketBytes is how large a packet may be with all its fields. 1 KiB
	// to 1 GiB; default 16 MiB. Peers with less lose the larger ones. It has to be
	// more than the hub's MaxMessageBytes, by some KiB for the other fields
	// (see [Mesh.MaxBody]).
	MaxPacketBytes int
	// QueueBytes and QueuePackets bound what waits for one peer. What is
	// more is dropped, and the peer learns that it has missed something. Defaults 32 MiB and 500,000;
	// QueueBytes is at least MaxPacketBytes plus 64 KiB.
	QueueBytes   int
	QueuePackets int

	// Linger is how long Close goes on sending what is queued. Default 2 s;
	// negative: not at all.
	Linger time.Duration

	// Logger gets links that come and go, and who was refused. Default
	// slog.Default().
	Logger *slog.Logger
}

const (
	minKey       = 16       // bytes
	chunkBytes   = 32 << 10 // of packets that are sent as one message
	maxPeers     = 4_096    // addresses to connect to
	defaultQueue = 32 << 20
)

func (o *Options) setDefaults() {
	if o.Listen == "" {
		o.Listen = "tcp://127.0.0.1:10021"
	}
	if o.MaxPacketBytes == 0 {
		o.MaxPacketBytes = 16 << 20
	}
	if o.QueueBytes == 0 {
		o.QueueBytes = max(defaultQueue, o.MaxPacketBytes+2*chunkBytes)
	}
	if o.QueuePackets == 0 {
		o.QueuePackets = 500_000
	}
	if o.Linger == 0 {
		o.Linger = 2 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	o.Peers = slices.Clone(o.Peers)
	o.Key = slices.Clone(o.Key)
}

func (o *Options) check() error {
	if err := checkID(o.ID); err != nil {
		return fmt.Errorf("zmqmesh: this replica %w (Options.ID)", err)
	}
	listen, err := checkListen("Options.Listen", o.Listen)
	if err != nil {
		return err
	}
	if len(o.Key) > 0 && len(o.Key) < minKey {
		return fmt.Errorf("zmqmesh: Options.Key has %d bytes, which must be %d or more", len(o.Key), minKey)
	}
	if !listen.Loopback() && o.TLS == nil && len(o.Key) == 0 && !o.Insecure {
		return fmt.Errorf("zmqmesh: Options.Listen is %q, which others can reach: set TLS or Key (or Insecure, if every program on that network is trusted)", o.Listen)
	}
	if o.Insecure && (o.TLS != nil || len(o.Key) > 0) {
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
		a, err := zmqaddr.ParseHostPort(o.DNS)
		if err == nil {
			err = a.CheckReach()
		}
		if err != nil {
			return fmt.Errorf("zmqmesh: Options.DNS is %.200q, which must be host:port, with the port on which replicas listen: %w", o.DNS, err)
		}
	}
	if o.MaxPacketBytes < 1<<10 || o.MaxPacketBytes > 1<<30 {
		return fmt.Errorf("zmqmesh: Options.MaxPacketBytes is %d, which must be 1 KiB to 1 GiB", o.MaxPacketBytes)
	}
	if o.QueueBytes < o.MaxPacketBytes+2*chunkBytes {
		return fmt.Errorf("zmqmesh: Options.QueueBytes is %d, which must be %d or more: MaxPacketBytes and 64 KiB", o.QueueBytes, o.MaxPacketBytes+2*chunkBytes)
	}
	if o.QueuePackets < 1 {
		return fmt.Errorf("zmqmesh: Options.QueuePackets is %d, which must be 1 or more", o.QueuePackets)
	}
	if t := o.TLS; t != nil {
		switch {
		case len(t.Certificates) == 0 && (t.GetCertificate == nil || t.GetClientCertificate == nil):
			return errors.New("zmqmesh: Options.TLS has no certificate: set Certificates, or GetCertificate and GetClientCertificate")
		case t.RootCAs == nil:
			return errors.New("zmqmesh: Options.TLS has no RootCAs: without them any certificate that the system trusts would do")
		case t.InsecureSkipVerify:
			return errors.New("zmqmesh: Options.TLS has InsecureSkipVerify, with which anybody may be a peer")
		}
	}
	return nil
}

// tlsConfigs returns those of the listener and of diallers.
func (o *Options) tlsConfigs() (listen, dial *tls.Config) {
	if o.TLS == nil {
		return nil, nil
	}
	listen = o.TLS.Clone()
	listen.MinVersion = tls.VersionTLS13
	listen.ClientAuth = tls.RequireAndVerifyClientCert
	if listen.ClientCAs == nil {
		listen.ClientCAs = listen.RootCAs
	}
	dial = o.TLS.Clone()
	dial.MinVersion = tls.VersionTLS13
	return listen, dial
}

// checkListen reads an address to listen on.
func checkListen(what, address string) (zmqaddr.Address, error) {
	a, err := zmqaddr.Parse(address)
	if err == nil {
		err = a.CheckListen()
	}
	if err != nil {
		return a, fmt.Errorf("zmqmesh: %s has %.200q, which must be tcp://host:port, where * is all interfaces or a free port: %w", what, address, err)
	}
	return a, nil
}

// checkReachable refuses an address that cannot be connected to from elsewhere:
// one of no host, of all interfaces or without a port.
func checkReachable(what, address string) error {
	a, err := zmqaddr.Parse(address)
	if err != nil {
		return fmt.Errorf("zmqmesh: %s has %.200q, which must be tcp://host:port: %w", what, address, err)
	}
	if err := a.CheckReach(); err != nil {
		return fmt.Errorf("zmqmesh: %s has %.200q, which nobody can connect to: %w", what, address, err)
	}
	return nil
}

// reachable is the address that a listener has for others.
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
		if address := "tcp://" + net.JoinHostPort(ip.IP.String(), fmt.Sprint(a.Port)); found == "" || ip.IP.To4() != nil {
			if found = address; ip.IP.To4() != nil {
				break
			}
		}
	}
	return found
}
