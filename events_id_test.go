package channels_test

import (
	"errors"
	"net/url"
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

// FuzzEventsQuery: what is taken has names that are valid and different, no more than the
// limit, and positions for no other channels.
func FuzzEventsQuery(f *testing.F) {
	id := url.QueryEscape(channels.PositionsID([]string{"a", "b"}, map[string]channels.Position{"a": {Epoch: "e", Offset: 1}}))
	for _, query := range []string{"", "channel=a", "channel=a&channel=b&pattern=c*&last=5", "channel=b&channel=a&since=" + id, "channel=a&channel=a", "pattern=[", "channel=%zz", "channel=a;b", "heartbeat=event&format=event&channel=a", "channel=a&since=" + id + "&last=1"} {
		f.Add(query, "")
	}
	f.Add("channel=a&channel=b&since=x", channels.PositionsID([]string{"a", "b"}, nil))
	f.Add("channel=a", "x")
	hub := newHub(f, channels.Options{MaxSubscriptions: 4})
	f.Fuzz(func(t *testing.T, query, lastID string) {
		r := request("GET", "/v1/events", query, nil)
		r.Header.Set("Last-Event-ID", lastID)
		names, patterns, since, last, err := channels.EventsQuery(hub, r)
		if err != nil {
			require.True(t, errors.Is(err, channels.ErrBadQuery) || errors.Is(err, channels.ErrBadChannel), err)
			return
		}
		all := map[string]bool{}
		for _, name := range names {
			require.NoError(t, channels.CheckName(name))
			all[name] = true
		}
		for name := range since {
			require.True(t, all[name], name)
		}
		for _, pattern := range patterns {
			require.ErrorIs(t, channels.CheckName(pattern), channels.ErrBadChannel, "or it could be taken for a name")
			all[pattern] = true
		}
		require.Len(t, all, len(names)+len(patterns))
		require.NotEmpty(t, all)
		require.LessOrEqual(t, len(all), 4)
		require.True(t, last >= 0 && last <= 1000)
	})
}
