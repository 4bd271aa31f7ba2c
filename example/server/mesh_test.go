package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/example/internal/webtest"
	"github.com/channels-go/channels/internal/certtest"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

const meshKey = "0123456789abcdef-of-the-mesh"

func TestMeshFlags(t *testing.T) {
	mesh := parsed(t, map[string]string{"CHANNELS_MESH_KEY": meshKey},
		"-mesh", "zmq", "-mesh-listen", "tcp://127.0.0.1:0", "-mesh-peers", "tcp://a:1, tcp://b:2", "-mesh-dns", "app:10021", "-mesh-advertise", "tcp://a:1").mesh
	z := mesh.zmq
	require.Equal(t, "zmq", mesh.kind)
	require.Equal(t, []string{"tcp://127.0.0.1:0", "tcp://a:1", "app:10021", meshKey}, []string{z.Listen, z.Advertise, z.DNS, string(z.Key)})
	require.Equal(t, []string{"tcp://a:1", "tcp://b:2"}, z.Peers)
	mesh = parsed(t, map[string]string{"CHANNELS_MESH_INSECURE": "true"}, "-mesh", "zmq", "-mesh-listen", "tcp://:1", "-mesh-dns", "app:10021").mesh
	require.True(t, mesh.zmq.Insecure)
	mesh = parsed(t, nil, "-mesh", "zmq", "-mesh-peers", "tcp://a:1", "-mesh-key-file", file(t, meshKey+"\n")).mesh
	require.Equal(t, meshKey, string(mesh.zmq.Key))
	parsed(t, nil, "-mesh", "none", "-history", "a=1,1h") // the same as no -mesh
}

// Flags that contradict each other are refused at the start, with what to do.
func TestMeshFlagsThatMakeNoSense(t *testing.T) {
	cert, key := certtest.NewAuthority().Files(t.TempDir(), "localhost")
	peers := []string{"-mesh", "zmq", "-mesh-peers", "tcp://a:1"}
	with := func(args ...string) []string {
		return append([]string{"-mesh", "zmq", "-redis", "redis://127.0.0.1:1/0"}, args...)
	}
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"peers without tcp":         {with("-mesh-peers", "tcp://a:1,127.0.0.1:1"), `for flag -mesh-peers: "127.0.0.1:1": it must be tcp://HOST:PORT`},
		"a peer of no host":         {with("-mesh-peers", "tcp://:1"), `for flag -mesh-peers: "tcp://:1": it has to name one host`},
		"a peer of no port":         {with("-mesh-peers", "tcp://h:0"), `for flag -mesh-peers: "tcp://h:0": it has to name the port`},
		"a name of no port":         {with("-mesh-dns", "foo"), "for flag -mesh-dns: it must be HOST:PORT"},
		"a name with port 0":        {with("-mesh-dns", "foo:0"), "for flag -mesh-dns: it has to name the port"},
		"a port that is too large":  {with("-mesh-dns", "foo:65536"), "for flag -mesh-dns: it must be HOST:PORT"},
		"to be found anywhere":      {with("-mesh-advertise", "tcp://0.0.0.0:1"), "for flag -mesh-advertise: it has to name one host"},
		"to be found at any port":   {with("-mesh-advertise", "tcp://h:0"), "for flag -mesh-advertise: it has to name the port"},
		"a key, and none needed":    {with("-mesh-insecure", "-mesh-key-file", file(t, meshKey)), "-mesh-insecure is for a mesh without a key and TLS"},
		"TLS, and none needed":      {with("-mesh-insecure", "-mesh-cert", cert, "-mesh-tls-key", key, "-mesh-ca", cert), "-mesh-insecure is for a mesh without a key and TLS"},
		"an unknown mesh":           {[]string{"-mesh", "amqp"}, "none, zmq or redis"},
		"redis without Redis":       {[]string{"-mesh", "redis"}, "-redis"},
		"no peers, no DNS name":     {[]string{"-mesh", "zmq"}, "-mesh-peers or -mesh-dns"},
		"an empty list of peers":    {[]string{"-mesh", "zmq", "-mesh-peers", " ,"}, "-mesh-peers or -mesh-dns"},
		"history of its own":        {append(peers, "-history", "a=1,1h"), "a -redis that all replicas share"},
		"an address for no mesh":    {[]string{"-mesh-listen", "tcp://:1"}, "-mesh-listen (or its variable) is for -mesh zmq"},
		"insecure, for no mesh":     {[]string{"-mesh-insecure"}, "-mesh-insecure"},
		"peers for Redis":           {[]string{"-mesh", "redis", "-redis", "redis://a:1", "-mesh-peers", "tcp://a:1"}, "-mesh-peers"},
		"insecure, not a truth":     {[]string{"-mesh-insecure=maybe"}, "true or false"},
		"a certificate alone":       {append(peers, "-mesh-cert", cert), "all three"},
		"a key as the certificate":  {append(peers, "-mesh-cert", key, "-mesh-tls-key", key, "-mesh-ca", cert), "-mesh-cert and -mesh-tls-key"},
		"an authority that's a key": {append(peers, "-mesh-cert", cert, "-mesh-tls-key", key, "-mesh-ca", key), "-mesh-ca"},
		"a file that is not there":  {append(peers, "-mesh-ca", "/nonexistent/hush"), "-mesh-ca: the file cannot be read"},
		"a short key":               {append(peers, "-mesh-key-file", file(t, "hush-1")), "-mesh-key-file: the secret has 6 bytes; it has to have 16 or more"},
		"a key as a flag":           {append(peers, "-mesh-key", "hush"), "CHANNELS_MESH_KEY in the environment, or give a file with -mesh-key-file"},
		"a key as its file":         {append(peers, "-mesh-key-file", "hush"), "-mesh-key-file: the file cannot be read"},
		"open to everybody":         {append(peers, "-mesh-listen", "tcp://0.0.0.0:0"), "it needs -mesh-key-file or -mesh-cert (or -mesh-insecure"},
		"no address":                {append(peers, "-mesh-listen", "127.0.0.1:1"), "tcp://HOST:PORT"},
		"a peer of no address":      {[]string{"-mesh", "zmq", "-mesh-peers", "a:1"}, "tcp://HOST:PORT"},
	} {
		t.Run(name, func(t *testing.T) {
			wantRefused(t, nil, c.args, c.says)
		})
	}
	wantRefused(t, map[string]string{"CHANNELS_MESH_KEY": "too-short"}, peers, "CHANNELS_MESH_KEY: the secret has 9 bytes")
}

// The record at the start says where the replica listens and which replicas it
// looks for; it leaves out empty values.
func TestMeshRecord(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want map[string]any
	}{
		"by DNS":    {[]string{"-mesh-dns", "localhost:1"}, map[string]any{"dns": "localhost:1"}},
		"by a list": {[]string{"-mesh-peers", "tcp://127.0.0.1:1 tcp://127.0.0.1:2"}, map[string]any{"peers": "tcp://127.0.0.1:1,tcp://127.0.0.1:2"}},
	} {
		cfg := parsed(t, nil, append([]string{"-mesh", "zmq"}, c.args...)...)
		require.Equal(t, "tcp://127.0.0.1:10021", cfg.mesh.zmq.Listen, "the default is set")
		cfg.mesh.zmq.Listen = "tcp://" + free(t)
		c.want["listen"], c.want["address"] = cfg.mesh.zmq.Listen, cfg.mesh.zmq.Listen
		log := new(records)
		m, err := cfg.mesh.open("one", nil, "", slog.New(slog.NewJSONHandler(log, nil)))
		require.NoError(t, err)
		rec := log.wait(t, "mesh")
		require.NoError(t, m.Close())
		for _, k := range []string{"time", "level", "msg"} {
			delete(rec, k)
		}
		require.Equal(t, c.want, rec, name)
	}
}

// A message published on one replica reaches subscribers of the other, however
// the replicas are linked.
func TestMeshLinksReplicas(t *testing.T) {
	r := redistest.Start(t)
	url := "redis://" + r.Addr + "/0"
	key := file(t, meshKey)
	ours := certtest.NewAuthority()
	cert, tlsKey := ours.Files(t.TempDir(), "localhost", "127.0.0.1", "::1")
	a, b := free(t), free(t)
	peers := "tcp://" + a + ",tcp://" + b
	for name, args := range map[string]func(own string) []string{
		"redis": func(string) []string { return []string{"-mesh", "redis", "-redis", url, "-redis-prefix", "one"} },
		"zmq by the registry": func(string) []string {
			return []string{"-mesh", "zmq", "-mesh-listen", "tcp://127.0.0.1:0", "-redis", url, "-redis-prefix", "two"}
		},
		"zmq by a list, with a key": func(own string) []string {
			return []string{"-mesh", "zmq", "-mesh-listen", "tcp://" + own, "-mesh-peers", peers, "-mesh-key-file", key}
		},
		"zmq by DNS, with TLS": func(own string) []string {
			_, port, _ := net.SplitHostPort(a)
			return []string{"-mesh", "zmq", "-mesh-listen", "tcp://" + own, "-mesh-dns", "localhost:" + port, "-mesh-cert", cert, "-mesh-tls-key", tlsKey, "-mesh-ca", ours.CAFile(t.TempDir())}
		},
	} {
		t.Run(name, func(t *testing.T) {
			one, _ := start(t, nil, args(a)...)
			two, _ := start(t, nil, args(b)...)
			ws := join(t, two, "far")
			// A message published before the subscription has reached the other
			// replica may be lost. After the first message that arrives, all
			// arrive.
			arrived := make(chan message, 1)
			go func() {
				m, err := webtest.Next(ws)
				if err == nil {
					arrived <- m
				}
				close(arrived)
			}()
			var m message
			for n := 0; m.Header == ""; n++ {
				post(t, one, "far", fmt.Sprintf(`{"header":"x","body":%d}`, n))
				select {
				case m = <-arrived:
					require.Equal(t, "x", m.Header)
				case <-time.After(20 * time.Millisecond): // Next has a timeout, so the loop ends
				}
			}
			post(t, one, "far", `{"header":"end","body":0}`)
			for m.Header != "end" {
				m = receive(t, ws)
			}
		})
	}
}

// free returns an address on which nothing listens.
func free(t *testing.T) string {
	t.Helper()
	return fmt.Sprint("127.0.0.1:", redistest.FreePort(t))
}

// nodes returns the status of each replica that the replica at addr knows.
func nodes(t *testing.T, addr string) map[string]string {
	t.Helper()
	var list struct {
		Data []struct{ Node, Status string }
	}
	require.NoError(t, json.Unmarshal([]byte(get(t, addr, "/v1/nodes")), &list))
	all := map[string]string{}
	for _, n := range list.Data {
		all[n.Node] = n.Status
	}
	return all
}
