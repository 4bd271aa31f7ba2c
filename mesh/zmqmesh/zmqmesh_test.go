package zmqmesh_test

import (
	"crypto/tls"
	"sync"
	"testing"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/meshtest"
	"github.com/channels-go/channels/mesh/zmqmesh"
)

func TestMesh(t *testing.T) {
	meshtest.Run(t, func(*testing.T) meshtest.Fabric { return newFabric(nil) })
}

// fabric has a proxy in each direction between two replicas.
type fabric struct {
	tls *tls.Config // or nil

	mu      sync.Mutex // guards the fields below
	meshes  map[string]*zmqmesh.Mesh
	proxies map[[2]string]*proxy // from the one that dials to the other
}

func newFabric(config *tls.Config) *fabric {
	return &fabric{tls: config, meshes: map[string]*zmqmesh.Mesh{}, proxies: map[[2]string]*proxy{}}
}

func (f *fabric) Join(t *testing.T, id string) mesh.Mesh {
	m := newMesh(t, id, withTLS(f.tls))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.meshes[id] = m
	for from, other := range f.meshes { // an earlier mesh with this id had another proxy
		if from != id {
			f.proxies[[2]string{from, id}] = newProxy(t, tcp(m))
			f.introduceLocked(from, other)
			if f.proxies[[2]string{id, from}] == nil {
				f.proxies[[2]string{id, from}] = newProxy(t, tcp(other))
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
