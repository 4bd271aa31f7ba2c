package meshtest_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/meshtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fabric struct{ *meshtest.Network }

func (f fabric) Join(_ *testing.T, id string) mesh.Mesh { return f.Network.Join(id) }

func TestNetwork(t *testing.T) {
	meshtest.Run(t, func(*testing.T) meshtest.Fabric { return fabric{meshtest.NewNetwork(1)} })
}
