package zmqmesh_test

import (
	"crypto/tls"
	"sync"
	"testing"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/meshtest"
	"github.com/channels-go/channels/mesh/zmqmesh"
)

func TestMesh(t *testing.T) {
	meshtest.Run(t, func(*testing.T) meshtest.Fabric { return newFabric(nil) })
}

// fabric has a relay in each direction between two replicas.
type fabric struct {
	tls *tls.Config // or nil

	mu     sync.Mutex // guards the fields below
	meshes map[string]*zmqmesh.Mesh
	relays map[[2]string]*basetest.Relay // from the one that dials to the other
}

func newFabric(config *tls.Config) *fabric {
	return &fabric{tls: config, meshes: map[string]*zmqmesh.Mesh{}, relays: map[[2]string]*basetest.Relay{}}
}

func (f *fabric) Join(t *testing.T, id string) mesh.Mesh {
	m := newMesh(t, id, withTLS(f.tls))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.meshes[id] = m
	for from, other := range f.meshes { // an earlier mesh with this id had another relay
		if from != id {
			f.relays[[2]string{from, id}] = basetest.NewRelay(t, tcp(m))
			f.introduceLocked(from, other)
			if f.relays[[2]string{id, from}] == nil {
				f.relays[[2]string{id, from}] = basetest.NewRelay(t, tcp(other))
			}
		}
	}
	f.introduceLocked(id, m)
	return m
}

// introduceLocked tells a replica the addresses of all others.
func (f *fabric) introduceLocked(id string, m *zmqmesh.Mesh) {
	peers := map[string]string{}
	for pair, r := range f.relays {
		if pair[0] == id {
			peers[pair[1]] = "tcp://" + r.Addr
		}
	}
	m.SetPeers(peers)
}

// Cut makes black holes of both directions.
func (f *fabric) Cut(a, b string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.relays[[2]string{a, b}].Freeze()
	f.relays[[2]string{b, a}].Freeze()
}

func (f *fabric) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for pair, r := range f.relays {
		r.Lead(tcp(f.meshes[pair[1]]))
	}
}
