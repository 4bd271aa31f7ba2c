package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/channels-go/channels/internal/zmtp"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/redismesh"
	"github.com/channels-go/channels/mesh/zmqmesh"
)

// meshListen is the default of -mesh-listen.
const meshListen = "tcp://127.0.0.1:10021"

// meshConfig is how this replica exchanges messages with the others. If kind is
// empty, it does not.
type meshConfig struct {
	kind           string // "", "zmq" or "redis"
	zmq            zmqmesh.Options
	cert, key, cas []byte // contents of -mesh-cert, -mesh-tls-key and -mesh-ca, in PEM
}

func (c *meshConfig) flags(fs *flag.FlagSet, s *security) {
	fs.Func("mesh", "`KIND`: how replicas pass messages to each other: zmq (directly, over ZeroMQ's protocol), redis (over -redis) or none (default none)", func(v string) error {
		switch v {
		case "none":
			c.kind = ""
		case "zmq", "redis":
			c.kind = v
		default:
			return errors.New("it must be none, zmq or redis")
		}
		return nil
	})
	addressFlag(fs, "mesh-listen", &c.zmq.Listen, listens, "`tcp://HOST:PORT` to listen on for other replicas; port 0 chooses a free one (default "+meshListen+")")
	addressFlag(fs, "mesh-advertise", &c.zmq.Advertise, reachable, "`tcp://HOST:PORT` where other replicas reach this one, if that is not -mesh-listen")
	fs.Func("mesh-peers", "`ADDRESSES` of other replicas, as tcp://HOST:PORT, separated by commas; its own address may be among them. Replicas with the same -redis find each other without", func(v string) error {
		c.zmq.Peers = nil
		for p := range strings.FieldsFuncSeq(v, func(r rune) bool { return r == ',' || r == ' ' }) {
			if err := reachable(p); err != nil {
				return fmt.Errorf("%.200q: %w", p, err)
			}
			c.zmq.Peers = append(c.zmq.Peers, p)
		}
		return nil
	})
	addressFlag(fs, "mesh-dns", &c.zmq.DNS, func(v string) error {
		a, err := zmtp.ParseHostPort(v)
		if err != nil {
			return fmt.Errorf("it must be HOST:PORT: %w", err)
		}
		return a.CheckReach()
	}, "`HOST:PORT` whose host resolves to the addresses of all replicas, e.g. a headless Service of Kubernetes")
	keep := func(to *[]byte) func([]byte) error {
		return func(b []byte) error { *to = b; return nil }
	}
	s.file(fs, "mesh-cert", "`FILE` with this replica's certificate in PEM, for TLS between replicas; needs -mesh-tls-key and -mesh-ca", keep(&c.cert))
	s.file(fs, "mesh-tls-key", "`FILE` with the certificate's key in PEM", keep(&c.key))
	s.file(fs, "mesh-ca", "`FILE` with the certificate authorities, in PEM, that must have signed the other replicas' certificates", keep(&c.cas))
	boolFlag(fs, "mesh-insecure", &c.zmq.Insecure, "accept replicas from other machines without a key or TLS: anyone who reaches the port can read and publish everything")
}

// check refuses flags that do not fit together, before anything is opened.
func (c *meshConfig) check(hasRedis, hasHistory bool) error {
	z := &c.zmq
	if c.kind != "zmq" {
		for _, f := range []struct {
			name  string
			given bool
		}{
			{"listen", z.Listen != ""}, {"advertise", z.Advertise != ""}, {"peers", len(z.Peers) > 0}, {"dns", z.DNS != ""}, {"key-file", len(z.Key) > 0},
			{"cert", c.cert != nil}, {"tls-key", c.key != nil}, {"ca", c.cas != nil}, {"insecure", z.Insecure},
		} {
			if f.given {
				return fmt.Errorf("-mesh-%s (or its variable) is for -mesh zmq", f.name)
			}
		}
	}
	switch {
	case c.kind == "":
		return nil
	case c.kind == "redis" && !hasRedis:
		return errors.New("-mesh redis needs -redis, since its messages go over Redis")
	case c.kind == "zmq" && !hasRedis && len(z.Peers) == 0 && z.DNS == "":
		return errors.New("-mesh zmq does not know where the other replicas are: set -mesh-peers or -mesh-dns, or a -redis that all replicas share, through which they find each other")
	case hasHistory && !hasRedis:
		return errors.New("-history with -mesh needs a -redis that all replicas share: otherwise each replica would have a history of its own, with positions that mean nothing on the others")
	}
	if c.kind == "redis" {
		return nil
	}
	if z.Listen == "" {
		z.Listen = meshListen
	}
	closed := len(z.Key) > 0 || c.cert != nil
	switch {
	case z.Insecure && closed:
		return errors.New("-mesh-insecure is for a mesh without a key and TLS: leave it out, or -mesh-key-file and -mesh-cert")
	case !z.Insecure && !closed && !private(z.Listen):
		return fmt.Errorf("-mesh-listen is %s, which others can reach: it needs -mesh-key-file or -mesh-cert (or -mesh-insecure, if every program on that network is trusted)", z.Listen)
	}
	return c.takeTLS()
}

// takeTLS makes the TLS configuration from the files, if there are any.
func (c *meshConfig) takeTLS() error {
	if c.cert == nil && c.key == nil && c.cas == nil {
		return nil
	}
	if c.cert == nil || c.key == nil || c.cas == nil {
		return errors.New("TLS between replicas needs all three of -mesh-cert, -mesh-tls-key and -mesh-ca")
	}
	pair, err := tls.X509KeyPair(c.cert, c.key)
	if err != nil {
		return fmt.Errorf("-mesh-cert and -mesh-tls-key: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(c.cas) {
		return errors.New("-mesh-ca: the file has no certificate in PEM")
	}
	c.zmq.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, MinVersion: tls.VersionTLS13}
	return nil
}

// open returns the mesh, or nil if there is none. client is nil without Redis.
func (c *meshConfig) open(node string, client redis.UniversalClient, prefix string, log *slog.Logger) (mesh.Mesh, error) {
	switch c.kind {
	case "redis":
		m, err := redismesh.New(client, redismesh.Options{ReplicaID: node, Prefix: prefix, Logger: log})
		if err != nil {
			return nil, fmt.Errorf("-mesh redis: %w", err)
		}
		return m, nil
	case "zmq":
		o := c.zmq
		o.ReplicaID, o.Logger = node, log
		m, err := zmqmesh.New(o)
		if err != nil {
			return nil, notListening("-mesh-listen", err)
		}
		log.Info("mesh", given("listen", o.Listen, "address", m.Address(), "peers", strings.Join(o.Peers, ","), "dns", o.DNS)...)
		return m, nil
	}
	return nil, nil
}
