package meshtest

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/mesh"
)

var prefixCases = []Case{
	{Name: "Prefix", Check: prefixed,
		Explain: "A replica that asks for a prefix gets the packets of all channels whose names begin so, and of no others, whole and in order. Others get none of them."},
	{Name: "PrefixAndChannelOnce", Check: prefixAndChannel,
		Explain: "A packet that is wanted in several ways comes once: by overlapping prefixes, or by a prefix and its channel, whichever was asked for first."},
	{Name: "PrefixEnds", Check: prefixEnds,
		Explain: "One UnsubscribePrefix ends any number of SubscribePrefixes. It ends no other prefix, and no channel."},
	{Name: "PrefixOfAll", Check: prefixOfAll,
		Explain: "The empty prefix brings the packets of all channels."},
	{Name: "PrefixLatePeer", Check: prefixLatePeer,
		Explain: "A prefix also covers peers that come later, and those that come again."},
	{Name: "PrefixAcrossACut", Check: prefixAcrossACut,
		Explain: "A prefix is wanted as before once a cut link is back, whichever side was cut."},
	{Name: "PrefixNames", Check: prefixNames,
		Explain: "A prefix may be any beginning of a name, even one that ends within a character or has a meaning for a broker."},
	{Name: "ManyPrefixes", Check: manyPrefixes,
		Explain: "A replica may ask for 2,000 prefixes, and leave them."},
}

// beginTo asks for prefixes, and waits until packets from from arrive on these
// channels.
func (m *member) beginTo(t *testing.T, from *member, prefixes []string, channels ...string) {
	t.Helper()
	for _, p := range prefixes {
		require.NoError(t, m.SubscribePrefix(p))
	}
	m.awaitFrom(t, from, channels...)
}

func prefixed(t *testing.T, f Fabric) {
	m := joinAll(t, f, 3)
	names := []string{"chat.a", "chat.b", "chat."}
	m[1].beginTo(t, m[0], []string{"chat."}, names...)
	m[2].beginTo(t, m[0], []string{"news."}, "news.x")
	for i := 1; i <= 100; i++ {
		for _, ch := range append([]string{"chat", "cha", "Chat.a", "x.chat.a", "news.x"}, names...) {
			m[0].say(t, ch, i)
		}
	}
	for _, ch := range names {
		m[1].requireNumbers(t, ch, 100)
	}
	m[2].requireNumbers(t, "news.x", 100)
	full := mesh.Packet{Channel: "chat.a", Kind: mesh.KindAgain, Header: "h", Body: []byte(`{"a":1}`), Epoch: "e", Offset: 7, Sender: "s"}
	m[0].send(t, full)
	m[1].awaitNumber(t, "chat.a", 101)
	got := m[1].all("chat.a")[100]
	require.Equal(t, "n0", got.Origin)
	require.Equal(t, `{"a":1}`, string(got.Body))
	got.Body, got.Origin, got.Seq, full.Body = nil, "", 0, nil
	require.Equal(t, full, got)
	m[0].say(t, "", 1) // behind the others
	m[2].requireNumbers(t, "", 1)
	m[1].requireNumbers(t, "", 1)
	require.Equal(t, 3*100+1+1, m[1].total())
	require.Equal(t, 100+1, m[2].total())
	require.Zero(t, m[0].total(), "its own packet came back")
}

func prefixAndChannel(t *testing.T, f Fabric) {
	m := joinAll(t, f, 2)
	a, b := m[0], m[1]
	b.subscribeTo(t, a, "chat.a")
	b.beginTo(t, a, []string{"chat.", "ch", "chat.a", "chat.a", ""}, "chat.b", "chat.c", "other")
	for i := 1; i <= 200; i++ {
		a.say(t, "chat.a", i)
		a.say(t, "chat.b", i)
		if i == 100 { // the channel after its prefix
			b.subscribe(t, "chat.b")
		}
		a.say(t, "chat.c", i)
	}
	b.awaitFrom(t, a, "chat.b") // now also by its name, where the two differ
	for i := 201; i <= 300; i++ {
		a.say(t, "chat.b", i)
	}
	b.requireNumbers(t, "chat.b", 300)
	b.requireNumbers(t, "chat.a", 200)
	b.requireNumbers(t, "chat.c", 200)
}

func prefixEnds(t *testing.T, f Fabric) {
	m := joinAll(t, f, 2)
	a, b := m[0], m[1]
	require.NoError(t, b.UnsubscribePrefix("never"))
	b.beginTo(t, a, []string{"chat.", "chat.", "chat.room.", "lively"}, "chat.x", "chat.room.1", "lively")
	b.subscribeTo(t, a, "chat.a")
	require.NoError(t, b.UnsubscribePrefix("chat."))
	requireStopped(t, a, b, "chat.x", "lively")
	for i, ch := range []string{"chat.room.1", "chat.a"} {
		now := len(b.all(ch))
		a.say(t, ch, i)
		b.awaitNumber(t, ch, now+1)
	}
	require.NoError(t, b.UnsubscribePrefix("chat.room."))
	requireStopped(t, a, b, "chat.room.1", "lively")
	b.beginTo(t, a, []string{"chat."}) // again
	now := len(b.all("chat.x"))
	eventually(t, "packets come again", func() bool {
		a.say(t, "chat.x", 1)
		return len(b.all("chat.x")) > now
	})
	require.NoError(t, b.UnsubscribePrefix("chat."))
	requireStopped(t, a, b, "chat.x", "chat.a")
}

func prefixOfAll(t *testing.T, f Fabric) {
	m := joinAll(t, f, 2)
	m[1].subscribeTo(t, m[0], "x")
	m[1].beginTo(t, m[0], []string{"", ""}, "never subscribed")
	for i := 1; i <= 10; i++ {
		m[0].say(t, "x", i)
	}
	m[1].requireNumbers(t, "x", 10)
	late := join(t, f, "late")
	eventually(t, "packets of a later peer come too", func() bool {
		late.say(t, "late", 1)
		return len(m[1].all("late")) > 0
	})
	require.NoError(t, m[1].UnsubscribePrefix(""))
	requireStopped(t, m[0], m[1], "never subscribed", "x")
}

func prefixLatePeer(t *testing.T, f Fabric) {
	a := join(t, f, "n0")
	require.NoError(t, a.SubscribePrefix("chat."))
	for life := range 3 {
		b := join(t, f, "n1")
		ch := fmt.Sprint("chat.", life)
		a.awaitFrom(t, b, ch)
		for i := 1; i <= 100; i++ {
			b.say(t, ch, i)
		}
		a.requireNumbers(t, ch, 100)
		b.close(t)
	}
}

func prefixAcrossACut(t *testing.T, f Fabric) {
	m := joinAll(t, f, 3)
	a, b := m[0], m[1]
	b.beginTo(t, a, []string{"chat."}, "chat.a")
	for round, cutOff := range []*member{b, a, b} {
		missOne(t, f, a, b, "chat.a", cutOff) // it stays lost
		f.Heal()
		ch := fmt.Sprint("chat.", round)
		b.awaitFrom(t, a, ch)
		for i := 1; i <= 100; i++ {
			a.say(t, ch, i)
		}
		b.requireNumbers(t, ch, 100)
	}
}

func prefixNames(t *testing.T, f Fabric) {
	m := joinAll(t, f, 2)
	prefixes := []string{"[a-c]", "{a}", "a\\", "*", "%", "你", "ü\xc3", "^", "chat:{18}:c:"}
	var names []string
	for _, p := range prefixes {
		name := p + "x"
		if p == "ü\xc3" {
			name = "üü"
		}
		names = append(names, name)
	}
	m[1].beginTo(t, m[0], prefixes, append([]string{"你"}, names...)...)
	for _, ch := range append([]string{"a", "ax", "b", "18", "你", "好", "chat"}, names...) {
		m[0].say(t, ch, 1)
	}
	for _, ch := range names {
		m[1].requireNumbers(t, ch, 1)
	}
	m[1].requireNumbers(t, "你", 1)
	require.Equal(t, len(names)+1, m[1].total())
}

func manyPrefixes(t *testing.T, f Fabric) {
	const n = 2_000
	m := joinAll(t, f, 2)
	name := func(i int) string { return fmt.Sprintf("room-%d.", i) }
	for i := range n {
		require.NoError(t, m[1].SubscribePrefix(name(i)))
	}
	m[1].beginTo(t, m[0], []string{"lively"}, "lively", name(0)+"a", name(n-1)+"a")
	for i := range n {
		m[0].say(t, name(i)+"a", 1)
		m[0].say(t, fmt.Sprintf("room-%d", i), 1)
	}
	for i := range n {
		m[1].requireNumbers(t, name(i)+"a", 1)
	}
	require.Equal(t, n, m[1].total())
	for i := range n {
		require.NoError(t, m[1].UnsubscribePrefix(name(i)))
	}
	requireStopped(t, m[0], m[1], name(n/2)+"a", "lively")
}
