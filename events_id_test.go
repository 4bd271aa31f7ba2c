package channels_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

func TestIDsOfSeveralChannels(t *testing.T) {
	names := []string{"b", "a", "c,d"}
	at := map[string]channels.Position{"a": {Epoch: "e,%:", Offset: 7}, "b": {}}
	id := channels.PositionsID(names, at)
	require.Regexp(t, `^1:[\w-]{8}:e%2C%25::7,:0,$`, id)
	for range 2 { // the order of the channels does not matter
		got, err := channels.ParsePositions(names, id)
		require.NoError(t, err)
		require.Equal(t, map[string]*channels.Position{"a": {Epoch: "e,%:", Offset: 7}, "b": {}}, got)
		names[0], names[1] = names[1], names[0]
	}
	for name, bad := range map[string]string{
		"empty":                 "",
		"a position":            "e:7",
		"another version":       "2" + id[1:],
		"of other channels":     channels.PositionsID([]string{"a", "b", "c"}, nil),
		"one too few":           strings.TrimSuffix(id, ","),
		"one too many":          id + ",",
		"not escaped correctly": strings.Replace(id, "%25", "%2", 1),
		"escaped without need":  strings.Replace(id, "%25", "%25%41", 1),
		"no offset":             strings.Replace(id, ":7", "", 1),
		"a zero in front":       strings.Replace(id, ":7", ":07", 1),
		"a space":               id + " ",
		"too large":             strings.Replace(id, ":7", ":18446744073709551616", 1),
	} {
		got, err := channels.ParsePositions(names, bad)
		require.ErrorIs(t, err, channels.ErrBadQuery, name)
		require.Empty(t, got, name)
	}
}

// With as many channels as one stream may have by default, the id fits into a line of a
// request's header, of which proxies take 8 KiB.
func TestIDsAreShort(t *testing.T) {
	var names []string
	at := map[string]channels.Position{}
	for i := range 128 {
		name := strings.Repeat("n", channels.MaxNameBytes-3) + string(rune('a'+i%26)) + string(rune('a'+i/26))
		names = append(names, name)
		at[name] = channels.Position{Epoch: "I72ODULW75", Offset: 1 << 50}
	}
	require.Less(t, len(channels.PositionsID(names, at)), 4<<10)
}

// FuzzPositions: what is taken for an id is what the hub has made, byte by byte.
func FuzzPositions(f *testing.F) {
	names := []string{"a", "b", "c,d"}
	f.Add(channels.PositionsID(names, nil))
	f.Add(channels.PositionsID(names, map[string]channels.Position{"a": {Epoch: "e", Offset: 1}, "c,d": {}}))
	f.Add(channels.PositionsID(names, map[string]channels.Position{"b": {Epoch: "e,%~:", Offset: 1<<64 - 1}}))
	f.Fuzz(func(t *testing.T, id string) {
		at, err := channels.ParsePositions(names, id)
		if err != nil {
			require.ErrorIs(t, err, channels.ErrBadQuery)
			return
		}
		again := map[string]channels.Position{}
		for name, p := range at {
			require.Contains(t, names, name)
			again[name] = *p
		}
		require.Equal(t, id, channels.PositionsID(names, again))
		require.False(t, strings.ContainsAny(id, " \r\n\x00"))
	})
}
