package zmqmesh_test

import (
	"crypto/tls"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/meshtest"
	"github.com/channels-go/channels/mesh/zmqmesh"
)

func TestMesh(t *testing.T) {
	meshtest.Run(t, func(t *testing.T) meshtest.Fabric {
		return &fabric{meshes: map[string]*zmqmesh.Mesh{}, proxies: map[[2]string]*proxy{}}
	})
}

// fabric has a proxy in each direction between two replicas.
type fabric struct {
	tls *tls.Config // or nil

	mu      sync.Mutex // guards the fields below
	meshes  map[string]*zmqmesh.Mesh
	proxies map[[2]string]*proxy // from the one that dials to the other
}

// options are those of a replica in a test.
func options(t testing.TB, id string) zmqmesh.Options {
	return zmqmesh.Options{ReplicaID: id, Listen: "tcp://127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

func open(t testing.TB, o zmqmesh.Options) *zmqmesh.Mesh {
	t.Helper()
	m, err := zmqmesh.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

func (f *fabric) Join(t *testing.T, id string) mesh.Mesh {
	o := options(t, id)
	o.TLS = f.tls
	m := open(t, o)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.meshes[id] = m
	for from, other := range f.meshes { // an earlier mesh with this id had another proxy
		if from != id {
			f.proxies[[2]string{from, id}] = newProxy(t, strings.TrimPrefix(m.Address(), "tcp://"))
			f.introduceLocked(from, other)
			if f.proxies[[2]string{id, from}] == nil {
				f.proxies[[2]string{id, from}] = newProxy(t, strings.TrimPrefix(other.Address(), "tcp://"))
			}
		}
	}
	f.introduceLocked(id, m)
	return m
}

// introduceLocked tells a replica the addresses of all others.
func (f *fabric) introduceLocked(id string, m *zmqmesh.Mesh) {
	peers := map[string]string{}
	for pair, p := range f.proxies {
		if pair[0] == id {
			peers[pair[1]] = p.address()
		}
	}
	m.SetPeers(peers)
}

// Cut makes black holes of both directions.
func (f *fabric) Cut(a, b string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.proxies[[2]string{a, b}].set(true, true)
	f.proxies[[2]string{b, a}].set(true, true)
}

func (f *fabric) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.proxies {
		p.set(false, false)
	}
}
