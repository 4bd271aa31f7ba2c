package meshtest

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
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
	a := join(t, f, "n0")
	size, limited := takes(a.Mesh)
	// The largest body, and what makes it too large, with a number here and there. It
	// is compared as it arrives, and not kept: memory for so much takes long, the more
	// so with the race detector.
	text := make([]byte, size+128<<10)
	for at := 0; at+8 <= len(text); at += 256 {
		binary.BigEndian.PutUint64(text[at:], uint64(at))
	}
	var whole atomic.Int64 // how long the last body was, or -1 if it had changed
	b := joinWith(t, f, "n1", func(p mesh.Packet) {
		switch {
		case p.Kind != mesh.KindMessage || len(p.Body) == 0:
		case bytes.HasPrefix(text, p.Body):
			whole.Store(int64(len(p.Body)))
		default:
			whole.Store(-1)
		}
	})
	link(t, a, b)
	b.subscribeTo(t, a, big)
	arrives := func(body json.RawMessage) {
		t.Helper()
		for attempt := 1; !bodyArrives(t, a, b, body, fmt.Sprint(len(body), " bytes, attempt ", attempt)); attempt++ {
			require.Less(t, attempt, 10, "a body of %d bytes breaks a link each time", len(body)) // a busy machine may break it once
		}
		require.EqualValues(t, len(body), whole.Load(), "the body has changed")
	}
	arrives(text[:size:size])
	if limited {
		// Publish always accepts MaxBody; with few other fields it may accept a
		// little more.
		dropped := a.Status().Dropped
		require.Error(t, a.Publish(t.Context(), mesh.Packet{Channel: big, Header: "too large", Body: text}))
		require.Equal(t, dropped, a.Status().Dropped)
		arrives(text[:10])
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
			got = slices.DeleteFunc(slices.Clone(b.all(big)), func(p mesh.Packet) bool { return !strings.HasSuffix(p.Header, name) })
			return len(got) > n || b.Status().Lost > lost
		})
		return b.Status().Lost == lost
	}
	// One after the other, since a queue may have room for only the body.
	if !arrives(mesh.Packet{Channel: big, Header: name, Body: body}) || !arrives(mesh.Packet{Channel: big, Header: "behind " + name}) {
		return false
	}
	require.Equal(t, []string{name, "behind " + name}, headers(got))
	require.Equal(t, dropped, a.Status().Dropped)
	return true
}
