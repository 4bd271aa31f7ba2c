package meshtest

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/mesh"
)

var capacityCases = []Case{
	{Name: "LargestBody", Check: largestBody, alone: true,
		Explain: "A body of MaxBody bytes arrives, one that is far longer is refused before anything is sent or lost; a mesh without MaxBody takes 8 MiB."},
}

// takes is how large a body may be, and whether the mesh says so.
func takes(m mesh.Mesh) (bytes int, limited bool) {
	if l, ok := m.(interface{ MaxBody() int }); ok {
		return l.MaxBody(), true
	}
	return 8 << 20, false
}

func largestBody(t *testing.T, f Fabric) {
	m := joinAll(t, f, 2)
	a, b := m[0], m[1]
	b.subscribe(t, "x")
	b.awaitFrom(t, a, "x")
	size, limited := takes(a.Mesh)
	body := func(n int) json.RawMessage {
		return append(append(append(make([]byte, 0, n), '"'), bytes.Repeat([]byte("b"), n-2)...), '"')
	}
	eventually(t, "all links are up", func() bool { // what a mesh tells as they come up is no loss by this body
		return a.Status().Err == nil && b.Status().Err == nil
	})
	lost := b.Status().Lost
	largest := body(size)
	a.send(t, mesh.Packet{Channel: "x", Header: "largest", Body: largest})
	b.awaitNumber(t, "x", 1)
	require.True(t, bytes.Equal(largest, b.all("x")[0].Body), "the largest body has changed")
	if limited {
		// MaxBody is what Publish is sure to take; with few other fields it may be some more.
		require.Error(t, a.Publish(t.Context(), mesh.Packet{Channel: "x", Header: "too large", Body: body(size + 128<<10)}))
	}
	a.say(t, "x", 1)
	b.awaitNumber(t, "x", 2)
	require.Equal(t, []string{"largest", "1"}, headers(b.all("x")))
	require.Equal(t, lost, b.Status().Lost, "the largest body has cost a link")
	require.Zero(t, a.Status().Dropped)
}

// withoutAllChannels is for a mesh that is no AllSubscriber: it brings what was
// subscribed to, and has no half of that interface which a caller could take
// for the whole.
func withoutAllChannels(t *testing.T, from, to *member) {
	t.Helper()
	_, begins := to.Mesh.(interface{ SubscribeAll() error })
	_, ends := to.Mesh.(interface{ UnsubscribeAll() error })
	require.False(t, begins || ends, "an AllSubscriber has both methods")
	to.subscribe(t, "x")
	to.awaitFrom(t, from, "x")
	requireStopped(t, from, to, "never subscribed", "x")
	require.Empty(t, to.all("never subscribed"))
	t.Log("the mesh is no AllSubscriber: it brings only the channels that were subscribed to")
}
