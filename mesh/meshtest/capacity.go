package meshtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/mesh"
)

var capacityCases = []Case{
	{Name: "LargestBody", Check: largestBody, alone: true,
		Explain: "A body of MaxBody bytes arrives. Publish refuses a much longer one before anything is sent or lost. A mesh without MaxBody accepts 8 MiB."},
}

// takes returns how large a body may be, and whether the mesh has a MaxBody.
func takes(m mesh.Mesh) (bytes int, limited bool) {
	if l, ok := m.(interface{ MaxBody() int }); ok {
		return l.MaxBody(), true
	}
	return 8 << 20, false
}

func largestBody(t *testing.T, f Fabric) {
	m := joinAll(t, f, 2)
	a, b := m[0], m[1]
	b.subscribeTo(t, a, "x")
	size, limited := takes(a.Mesh)
	// A string of the largest size, and spaces behind it that make it too large:
	// it is made once, as the race detector takes long for each copy.
	text := bytes.Repeat([]byte(" "), size+128<<10)
	copy(text[1:size-1], bytes.Repeat([]byte("b"), size-2))
	text[0], text[size-1] = '"', '"'
	arrives := func(body json.RawMessage) {
		t.Helper()
		for attempt := 1; !bodyArrives(t, a, b, body, fmt.Sprint(len(body), " bytes, attempt ", attempt)); attempt++ {
			require.Less(t, attempt, 10, "a body of %d bytes breaks a link each time", len(body)) // a busy machine may break it once
		}
	}
	arrives(text[:size:size])
	if limited {
		// Publish always accepts MaxBody; with few other fields it may accept a
		// little more.
		dropped := a.Status().Dropped
		require.Error(t, a.Publish(t.Context(), mesh.Packet{Channel: "x", Header: "too large", Body: text}))
		require.Equal(t, dropped, a.Status().Dropped)
		arrives(json.RawMessage(`"small"`))
	}
}

// bodyArrives returns false if a link was lost meanwhile.
func bodyArrives(t *testing.T, a, b *member, body json.RawMessage, name string) bool {
	t.Helper()
	eventually(t, "all links are up", func() bool { // losses that are reported as links come up do not count
		return a.Status().Err == nil && b.Status().Err == nil
	})
	dropped, lost := a.Status().Dropped, b.Status().Lost
	var got []mesh.Packet // of this attempt
	arrives := func(p mesh.Packet) bool {
		t.Helper()
		n := len(got)
		a.send(t, p)
		eventually(t, "the body arrives, and the packet after it", func() bool {
			got = slices.DeleteFunc(slices.Clone(b.all("x")), func(p mesh.Packet) bool { return !strings.HasSuffix(p.Header, name) })
			return len(got) > n || b.Status().Lost > lost
		})
		return b.Status().Lost == lost
	}
	// One after the other, since a queue may have room for only the body.
	if !arrives(mesh.Packet{Channel: "x", Header: name, Body: body}) || !arrives(mesh.Packet{Channel: "x", Header: "behind " + name}) {
		return false
	}
	require.Equal(t, []string{name, "behind " + name}, headers(got))
	require.True(t, bytes.Equal(body, got[0].Body), "the body has changed")
	require.Equal(t, dropped, a.Status().Dropped)
	return true
}
