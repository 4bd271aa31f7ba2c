package channels_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// Subscribers come and go while messages are published, so the channel may be about
// to be freed each time. Nothing breaks, and a subscriber that has come gets what is
// published afterwards.
func TestPublishingWhileTheLastSubscriberLeaves(t *testing.T) {
	for _, hist := range []int{0, 1000} {
		t.Run(fmt.Sprintf("history %d", hist), func(t *testing.T) {
			s := serve(t, channels.Options{Channel: keep(hist)})
			for n := range 100 {
				name := fmt.Sprintf("c%d", n%10)
				r := s.upgrade("/channel/" + name + "/")
				var wg sync.WaitGroup
				for range 3 {
					wg.Go(func() {
						for range 5 {
							_, err := s.hub.Publish(context.Background(), name, msg("m", "1"))
							assert.NoError(t, err)
						}
					})
				}
				r.Close() // while they publish
				wg.Wait()
			}
			until(t, "nobody is left", func() bool { return s.hub.Stats().Connections == 0 })
			w := s.join("c0", "")
			s.publish("c0", "after", "1")
			w.want("after", "1")
		})
	}
}

func TestMaxChannels(t *testing.T) {
	s := serve(t, channels.Options{MaxChannels: 2})
	s.join("a", "")
	s.join("b", "")
	a := s.handshake("/channel/c/")
	a.wantFail(t, http.StatusServiceUnavailable, "too_many_channels")
	require.NotEmpty(t, a.header.Get("Retry-After"))
	s.publish("b", "x", "1")
	s.publish("c", "x", "1") // it needs no place
	require.Equal(t, 2, s.hub.Stats().Channels)
	sub := subscription(t, s.hub, "c", nil) // the app's own code is never refused
	s.publish("c", "x", "2")
	require.Equal(t, "2", string(next(t, sub).Body))
	require.ErrorIs(t, s.hub.Bridge(channels.Identity{}).Subscribe(canceled(t), "d", nil), nil)
	s.handshake("/channel/d/").wantFail(t, 503, "too_many_channels")
}

// At MaxChannels, channels without subscribers make way: first the one on which
// nothing was published for longest.
func TestIdleChannelsMakeWay(t *testing.T) {
	s := serve(t, channels.Options{MaxChannels: 100, Channel: keeps})
	w := s.join("real", "")
	for i := range 1000 {
		s.publish(fmt.Sprint("x", i), "m", "1")
		if i%10 == 0 { // it is used all the time
			s.publish("used", "m", "1")
		}
	}
	require.Equal(t, 100, s.hub.Stats().Channels)
	for i := range 98 { // all but one who listen, and stay
		s.join(fmt.Sprint("new", i), "")
	}
	require.Equal(t, 100, s.hub.Stats().Channels)
	s.publish("real", "m", "2")
	w.want("m", "2")
	last := s.join("h99", "") // in the place of the last idle one
	s.handshake("/channel/other/").wantFail(t, 503, "too_many_channels")
	last.c.CloseNow()
	s.untilLetIn("other") // who has gone makes way
}

// The channel on which nothing was published for longest makes way, and leaves the
// list of channels.
func TestTheLongestIdleChannelMakesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, channels.Options{MaxChannels: 4})
		publish := func(name string) {
			publish(t, hub, name, "x", "1")
			time.Sleep(2 * time.Second) // in the bubble
		}
		list := func() (names []string) {
			page, err := hub.Channels(t.Context(), channels.ChannelsQuery{})
			require.NoError(t, err)
			for _, c := range page.Channels {
				names = append(names, c.Name)
			}
			return names
		}
		for _, name := range []string{"a", "b", "c", "d", "a"} {
			publish(name)
		}
		require.Equal(t, []string{"a", "b", "c", "d"}, list())
		publish("e")
		require.Equal(t, []string{"a", "c", "d", "e"}, list())
		sub := subscription(t, hub, "c", nil)
		publish("f")
		require.Equal(t, []string{"a", "c", "e", "f"}, list())
		publish("b")
		sub.Close()
		require.Equal(t, []string{"b", "c", "e", "f"}, list())
		publish("g")
		require.Equal(t, []string{"b", "e", "f", "g"}, list(), "c is idle, and was published on longest ago")
		require.Equal(t, 4, hub.Stats().Channels)
	})
}

// canceled is a context that has ended.
func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// Reading a channel does not create it.
func TestReadingMakesNoChannel(t *testing.T) {
	s := serve(t, channels.Options{MaxChannels: 10, Channel: keeps})
	for i := range 100 {
		for _, path := range []string{"c%d", "h%d", "h%d/history", "p%d", "p%d/presence", "B%d", "B%d/history", "B%d/presence"} {
			require.Equal(t, 200, s.get("/v1/channel/"+fmt.Sprintf(path, i)).status)
		}
	}
	require.Zero(t, s.hub.Stats().Channels)
	s.publish("new", "x", "1")
}

// A refused publish creates no channel.
func TestRefusedPublishesMakeNoChannels(t *testing.T) {
	s := serve(t, channels.Options{
		MaxChannels: 100,
		Authorize: func(_ context.Context, r channels.Request) error {
			if r.Channel == "good" || strings.HasPrefix(r.Channel, "hook") {
				return nil
			}
			return channels.ErrForbidden
		},
		OnPublish: func(_ context.Context, p *channels.Publication) error {
			if p.Channel != "good" {
				return channels.ErrForbidden
			}
			return nil
		},
	})
	for _, prefix := range []string{"bad", "hook"} {
		a := s.post("/v1/publish", toChannels(prefix, 1000, "1"))
		require.Equal(t, 1000, strings.Count(a.body, `"forbidden"`))
	}
	require.Zero(t, s.hub.Stats().Channels)
	s.publish("good", "x", "1")
}
