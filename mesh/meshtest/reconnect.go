package meshtest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/channels-go/channels/mesh"
)

var reconnectCases = []Case{
	{Name: "GapAcrossAReconnect", Check: gapAcrossAReconnect,
		Explain: "If a single packet was missed while a link was cut, the loss is reported, even if nothing else was published on the channel before or since, and whichever side was cut."},
	{Name: "GapAmongManyChannels", Check: gapAmongManyChannels,
		Explain: "A gap on one channel is reported, even if the publisher has published on 70,000 others since."},
}

// missOne publishes a packet that cannot arrive while the link is cut. It
// returns the number of losses reported before that.
func missOne(t *testing.T, f Fabric, from, to *member, channel string, cutOff *member) (told int64) {
	t.Helper()
	other := from
	if cutOff == from {
		other = to
	}
	f.Cut(other.id, cutOff.id)
	told = to.Status().Lost
	// Publish may fail. Then nothing was promised, but a loss may still be
	// reported.
	_ = from.Publish(t.Context(), mesh.Packet{Channel: channel, Header: "missed"})
	return told
}

// requireTold waits until the link carries packets again. It checks that the
// missed packet has arrived or that a loss was reported.
func requireTold(t *testing.T, from, to *member, channel string, told int64) {
	t.Helper()
	eventually(t, "packets arrive again", func() bool {
		_ = from.Publish(t.Context(), mesh.Packet{Channel: channel, Header: "behind"})
		return slices.Contains(headers(to.all(channel)), "behind")
	})
	eventually(t, "a packet that did not arrive is reported", func() bool {
		return slices.Contains(headers(to.all(channel)), "missed") || to.Status().Lost > told
	})
}

func gapAcrossAReconnect(t *testing.T, f Fabric) {
	m := joinAll(t, f, 2)
	a, b := m[0], m[1]
	for _, cutOff := range m {
		for _, before := range []bool{true, false} {
			ch := fmt.Sprint("x", cutOff.id, before)
			b.subscribe(t, ch)
			if before {
				b.awaitFrom(t, a, ch)
			}
			seen := len(b.all(""))
			eventually(t, "the link is up, and the queued packets have arrived", func() bool {
				_ = a.Publish(t.Context(), mesh.Packet{Header: "1"}) // the link may still be down
				return len(b.all("")) > seen
			})
			told := missOne(t, f, a, b, ch, cutOff)
			f.Heal()
			requireTold(t, a, b, ch, told)
		}
	}
}

func gapAmongManyChannels(t *testing.T, f Fabric) {
	const n, window = 70_000, 500
	m := joinAll(t, f, 2)
	a, b := m[0], m[1]
	b.subscribeTo(t, a, "x", "pace")
	told := missOne(t, f, a, b, "x", b)
	f.Heal()
	requireTold(t, a, b, "x", told)
	// A packet behind each window must have arrived, so that no queue fills. It is
	// repeated, since a link that ends on a busy machine loses what it carried.
	told = missOne(t, f, a, b, "x", b)
	f.Heal()
	b.mu.Lock()
	clear(b.probes)
	b.mu.Unlock()
	b.awaitFrom(t, a, "pace")
	for i := range n {
		_ = a.Publish(t.Context(), mesh.Packet{Channel: fmt.Sprint("other-", i)})
		if i%window == 0 {
			goal := fmt.Sprint(i)
			eventually(t, "the publisher is not ahead", func() bool {
				_ = a.Publish(t.Context(), mesh.Packet{Channel: "pace", Header: goal})
				return slices.Contains(headers(b.all("pace")), goal)
			})
		}
	}
	requireTold(t, a, b, "x", told)
}
