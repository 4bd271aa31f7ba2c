package channels_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/store"
)

// waiting is a Store that has to be waited for, as far as a hub knows.
type waiting struct{ store.Store }

// bothStores runs f with a Store that answers at once, and with one that does not.
func bothStores(t *testing.T, f func(t *testing.T, st store.Store)) {
	t.Run("memory", func(t *testing.T) { f(t, newMemory(t)) })
	t.Run("a Store to wait for", func(t *testing.T) { f(t, waiting{newMemory(t)}) })
}

func TestPublishMany(t *testing.T) {
	bothStores(t, func(t *testing.T, st store.Store) {
		hub := newHub(t, channels.Options{Store: st, Channel: named(map[string]channels.ChannelOptions{"h": {HistorySize: 1000}}),
			OnPublish: func(_ context.Context, p *channels.Publication) error {
				if p.Message.Header == "no" {
					return channels.ErrForbidden
				}
				p.Message.Body[0] = '2'
				return nil
			}})
		sub := subscription(t, hub, "a", nil)
		shared := msg("m", "1")
		posts := []channels.Post{
			{Channel: "a", Message: shared},
			{Channel: "h", Message: shared, Options: channels.PublishOptions{Key: "k"}},
			{Channel: "no such name", Message: shared},
			{Channel: "h", Message: shared, Options: channels.PublishOptions{Key: "k"}},
			{Channel: "h", Message: msg("m", "not JSON")},
			{Channel: "h", Message: msg("no", "1")},
			{Channel: channels.UserChannel("ann"), Message: shared},
			{Channel: "h", Message: msg("last", "1")},
		}
		got, err := hub.PublishMany(t.Context(), posts)
		require.ErrorIs(t, err, channels.ErrBadChannel)
		require.ErrorContains(t, err, `channels: message 3 of 8, on "no such name": `)
		require.Len(t, got, len(posts))
		codes := make([]string, len(got))
		for i, one := range got {
			codes[i] = reasonCode(one.Err)
		}
		require.Equal(t, []string{"none", "none", "bad_channel", "none", "bad_message", "forbidden", "none", "none"}, codes)
		require.Equal(t, channels.Result{Receivers: 1}, got[0].Result)
		require.True(t, got[1].Stored)
		require.EqualValues(t, 1, got[1].Position.Offset)
		require.True(t, got[3].Duplicate)
		require.Equal(t, got[1].Position, got[3].Position)
		require.EqualValues(t, 2, got[7].Position.Offset)
		require.Equal(t, "2", string(next(t, sub).Body))
		require.Equal(t, "1", string(shared.Body), "the app's own bytes are not changed")

		got, err = hub.PublishMany(t.Context(), nil)
		require.NoError(t, err)
		require.Empty(t, got)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		got, err = hub.PublishMany(ended, posts[:2])
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, got[1].Err, context.Canceled)
		require.NoError(t, hub.Shutdown(t.Context()))
		_, err = hub.PublishMany(t.Context(), posts[:2])
		require.ErrorIs(t, err, channels.ErrClosed)
	})
}

// Messages of one channel keep their order, with a thousand of them on thirty channels.
func TestPublishManyInOrder(t *testing.T) {
	bothStores(t, func(t *testing.T, st store.Store) {
		hub := newHub(t, channels.Options{Store: st, Channel: keep(1000)})
		var posts []channels.Post
		for i := range 1000 {
			posts = append(posts, channels.Post{Channel: "c" + strconv.Itoa(i*i%30), Message: msg("m", strconv.Itoa(i))})
		}
		got, err := hub.PublishMany(t.Context(), posts)
		require.NoError(t, err)
		want := map[string][]string{}
		for i, p := range posts {
			want[p.Channel] = append(want[p.Channel], strconv.Itoa(i))
			require.EqualValues(t, len(want[p.Channel]), got[i].Position.Offset)
		}
		for channel, bodies := range want {
			var kept []string
			for _, m := range historyOf(t, hub, channel, channels.HistoryQuery{Since: &channels.Position{}, Limit: 1000}).Messages {
				kept = append(kept, string(m.Body))
			}
			require.Equal(t, bodies, kept, channel)
		}
	})
}

// Go has the limits of HTTP.
func TestPublishManyLimits(t *testing.T) {
	hub := newHub(t, channels.Options{MaxMessageBytes: 64 << 10})
	posts := make([]channels.Post, 1001)
	for i := range posts {
		posts[i] = channels.Post{Channel: "a", Message: msg("m", "1")}
	}
	got, err := hub.PublishMany(t.Context(), posts)
	require.ErrorIs(t, err, channels.ErrTooLarge)
	require.ErrorContains(t, err, "at most 1000 messages at a time, not 1001")
	require.Nil(t, got)
	_, err = hub.PublishMany(t.Context(), posts[:1000])
	require.NoError(t, err)

	big := channels.Post{Channel: "a", Message: msg("m", `"`+strings.Repeat("x", 60<<10)+`"`)}
	for n := 1; ; n++ {
		require.Less(t, n, 100)
		if _, err = hub.PublishMany(t.Context(), slices.Repeat([]channels.Post{big}, n)); err != nil {
			require.ErrorIs(t, err, channels.ErrTooLarge)
			require.Regexp(t, fmt.Sprintf(`at most \d+ bytes at a time; these messages have %d`, n*(len(big.Message.Body)+1)), err.Error())
			require.Greater(t, n, 4)
			break
		}
	}
	huge := channels.Post{Channel: "a", Message: msg("m", `"`+strings.Repeat("x", 65<<10)+`"`)}
	got, err = hub.PublishMany(t.Context(), []channels.Post{huge, posts[0]})
	require.ErrorIs(t, err, channels.ErrTooLarge)
	require.NoError(t, got[1].Err, "the others are published")
	n, _ := hub.Channel(t.Context(), "a")
	require.Greater(t, n.Publishes, 1000)
}
