package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/store"
)

// Losing is a server that can be made to lose its last acknowledged writes,
// like a server that comes back with older data or whose replica takes over too
// early.
type Losing struct {
	// Open returns another Store on the server's data, as another process
	// would.
	Open func(t *testing.T) store.Store
	// Save makes all that is stored now survive the next Lose.
	Save func(t *testing.T)
	// Lose discards all that came after the last Save. It returns when the
	// server answers again.
	Lose func(t *testing.T)
}

// losingCases are the cases of [RunLosing].
var losingCases = []struct {
	Name, Explain string
	Check         func(t *testing.T, l Losing)
}{
	{"NoPositionMeansTwoMessages", "After each loss, the next Append, by whichever process, goes on under another epoch. Page.Earlier says up to which offset the log is the same as before.", noPositionMeansTwoMessages},
	{"LostBeginnings", "A log that has begun and lost its first entries goes on under another epoch, which begins like the one before. If the beginning is lost, too, the log begins under another epoch.", lostBeginnings},
	{"LostKeys", "A message that was lost with its key is appended when it is sent again. One that was not lost is a duplicate, at a position that still means it.", lostKeys},
}

// RunLosing checks what a Store promises for a log that loses its last entries.
// [Run] cannot cause such a loss. Each case has a server of its own, which
// loses data a dozen times, and may take 10 minutes.
func RunLosing(t *testing.T, server func(t *testing.T) Losing) {
	for _, c := range losingCases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			basetest.Promise(t, c.Explain, 10*time.Minute)
			c.Check(t, server(t))
		})
	}
}

// told maps each position that was ever acknowledged to its message.
type told map[store.Position]string

// add appends a message and records its position.
func (m told) add(t *testing.T, s store.Store, channel, text string) store.Position {
	t.Helper()
	pos := appendOne(t, s, channel, store.Entry{Header: text}, plenty)
	require.Empty(t, m[pos], "%v means two messages", pos)
	m[pos] = text
	return pos
}

// check compares the log with all that was acknowledged.
func (m told) check(t *testing.T, s store.Store, channel string) store.Page {
	t.Helper()
	p := readAll(t, s, channel)
	require.EqualValues(t, 1, p.First)
	require.Len(t, p.Entries, int(p.Top.Offset))
	require.LessOrEqual(t, len(p.Earlier), 8)
	last, seen := p.Top.Offset, map[string]bool{p.Top.Epoch: true}
	for _, e := range p.Earlier {
		require.False(t, seen[e.Epoch], "epoch %s twice", e.Epoch)
		seen[e.Epoch] = true
		require.LessOrEqual(t, e.Offset, last, "an older epoch must not have more in common with the log than a newer one")
		last = e.Offset
	}
	for pos, text := range m {
		for _, e := range append([]store.Position{p.Top}, p.Earlier...) {
			if pos.Epoch == e.Epoch && pos.Offset <= e.Offset {
				require.Equal(t, text, p.Entries[pos.Offset-1].Header, "%v means another message now; earlier epochs: %v", pos, p.Earlier)
			}
		}
	}
	return p
}

func noPositionMeansTwoMessages(t *testing.T, l Losing) {
	ch, idle, m := unique("log"), unique("idle"), told{}
	old := l.Open(t)
	first := appendOne(t, old, idle, store.Entry{Header: "idle"}, plenty)
	for round := range 12 {
		text := func(what string, i int) string { return fmt.Sprint(what, " ", round, "/", i) }
		for i := range round%3 + 1 {
			m.add(t, old, ch, text("kept", i))
		}
		kept := m.check(t, old, ch)
		l.Save(t)
		lost := round % 4
		for i := range lost {
			m.add(t, old, ch, text("lost", i))
		}
		l.Lose(t)

		// Reading shows what is left and changes nothing.
		for range 2 {
			require.Equal(t, kept.Top.Offset, top(t, old, ch).Offset)
			require.Equal(t, kept.Top.Offset, m.check(t, old, ch).Top.Offset)
		}
		next := old
		if round%2 == 0 {
			next = l.Open(t) // which does not know what was lost
		}
		pos := m.add(t, next, ch, text("after", 0))
		require.Equal(t, kept.Top.Offset+1, pos.Offset)
		page := m.check(t, old, ch)
		require.Equal(t, pos, page.Top)
		if lost > 0 {
			require.NotEqual(t, kept.Top.Epoch, pos.Epoch)
			require.Equal(t, kept.Top, page.Earlier[0], "the epochs are the same up to the last kept message")
		}
		require.Equal(t, pos.Epoch, m.add(t, old, ch, text("after", 1)).Epoch, "it goes on in the same epoch")
	}

	pos := appendOne(t, old, idle, store.Entry{Header: "busy"}, plenty)
	require.EqualValues(t, 2, pos.Offset, "this log lost nothing")
	if page := readAll(t, old, idle); pos.Epoch != first.Epoch {
		require.Equal(t, first, page.Earlier[0])
	}
}

func lostBeginnings(t *testing.T, l Losing) {
	saved, lost, m := unique("saved"), unique("lost"), told{}
	s := l.Open(t)
	begin := func(channel string) store.Position {
		at, err := s.Begin(t.Context(), channel)
		require.NoError(t, err)
		require.Zero(t, at.Offset)
		return at
	}
	first := begin(saved)
	l.Save(t)
	again := begin(lost)
	m.add(t, s, saved, "1")
	m.add(t, s, lost, "2")
	l.Lose(t)
	require.NotEqual(t, again.Epoch, begin(lost).Epoch)
	begin(saved)
	pos := m.add(t, s, saved, "3")
	require.EqualValues(t, 1, pos.Offset)
	require.Equal(t, []store.Position{first}, m.check(t, s, saved).Earlier, "whoever was at the beginning goes on from there")
	require.EqualValues(t, 1, m.add(t, s, lost, "4").Offset)
}

func lostKeys(t *testing.T, l Losing) {
	ch, m := unique("log"), told{}
	s := l.Open(t)
	for round := range 4 {
		kept, lost := fmt.Sprint("kept ", round), fmt.Sprint("lost ", round)
		keptAt := appendOne(t, s, ch, store.Entry{Header: kept}, keyed(kept, time.Hour))
		m[keptAt] = kept
		l.Save(t)
		lostAt := appendOne(t, s, ch, store.Entry{Header: lost}, keyed(lost, time.Hour))
		m[lostAt] = lost
		l.Lose(t)
		for i, repeat := range []string{kept, lost, kept, lost} {
			done, err := s.Append(t.Context(), ch, store.Entry{Header: repeat}, keyed(repeat, time.Hour))
			require.NoError(t, err)
			require.Equal(t, i != 1, done.Duplicate, "%s: only the first repetition of the lost one is none", repeat)
			if other := m[done.Position]; other != "" {
				require.Equal(t, other, repeat, done.Position)
			}
			m[done.Position] = repeat
			m.check(t, s, ch)
		}
		p := m.check(t, s, ch)
		require.Len(t, p.Entries, 2*(round+1))
		require.Equal(t, kept, p.Entries[2*round].Header)
		require.Equal(t, lost, p.Entries[2*round+1].Header)
	}
}
