package redismesh_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/meshtest"
	"github.com/channels-go/channels/mesh/redismesh"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

func TestMain(m *testing.M) {
	logging.Disable() // servers are killed here
	goleak.VerifyTestMain(m)
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func open(t testing.TB, c redis.UniversalClient, prefix, id string) *redismesh.Mesh {
	t.Helper()
	m, err := redismesh.New(c, redismesh.Options{Prefix: prefix, Node: id, Logger: quiet})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

// fabric is a Redis under a prefix of its own; each node has a client.
type fabric struct {
	prefix string
	client func(dial dialer) redis.UniversalClient

	mu    sync.Mutex // guards the fields below
	wires map[string]*wire
}

type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

func (f *fabric) Join(t *testing.T, id string) mesh.Mesh {
	w := &wire{conns: map[net.Conn]bool{}}
	f.mu.Lock()
	f.wires[id] = w
	f.mu.Unlock()
	c := f.client(w.dial)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return open(t, c, f.prefix, id)
}

func (f *fabric) Cut(_, b string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wires[b].set(true)
}

func (f *fabric) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.wires {
		w.set(false)
	}
}

// wire is all that a client has to a server. It can be cut.
type wire struct {
	mu    sync.Mutex // guards the fields below
	cut   bool
	conns map[net.Conn]bool
}

func (w *wire) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		return nil, errors.New("the wire is cut")
	}
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, addr)
	if err == nil {
		w.conns[c] = true
	}
	return c, err
}

func (w *wire) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
	for c := range w.conns {
		if cut {
			_ = c.Close()
			delete(w.conns, c)
		}
	}
}

// conform runs the suite with a prefix for each case.
func conform(t *testing.T, client func(dial dialer) redis.UniversalClient) {
	var mu sync.Mutex
	n := 0
	meshtest.Run(t, func(*testing.T) meshtest.Fabric {
		mu.Lock()
		defer mu.Unlock()
		n++
		return &fabric{prefix: fmt.Sprint("case", n), client: client, wires: map[string]*wire{}}
	})
}

func TestMeshOnOneServer(t *testing.T) {
	s := redistest.Start(t)
	conform(t, func(dial dialer) redis.UniversalClient {
		return redis.NewClient(&redis.Options{Addr: s.Addr, Dialer: dial})
	})
}

func TestMeshOnCluster(t *testing.T) {
	cluster := redistest.StartCluster(t, 3, false)
	conform(t, func(dial dialer) redis.UniversalClient {
		return redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{cluster.Masters[0].Addr, cluster.Masters[1].Addr}, Dialer: dial})
	})
}

func TestMeshBehindSentinel(t *testing.T) {
	s := redistest.StartSentinel(t)
	conform(t, func(dial dialer) redis.UniversalClient {
		var addrs []string
		for _, w := range s.Sentinels {
			addrs = append(addrs, w.Addr)
		}
		return redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "main", SentinelAddrs: addrs, Dialer: dial})
	})
}
