package redismesh_test

import (
	"testing"

	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// A replica is named once, at its mesh, also by chance; the hub refuses another
// name.
func TestHubTakesTheReplicaID(t *testing.T) {
	c := redistest.NewClient(t, "127.0.0.1:1") // no server is needed for this
	hubtest.TakesReplicaID(t, func(id string) hubtest.Identified { return open(t, c, "", id) })
}
