package channels_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// Bridge.Subscribe misses nothing of a channel with history, whatever happens
// to its subscription, and goes on after the Store was away.
func TestBridgeSubscriptionGoesOn(t *testing.T) {
	inBubble(t, 1, every(channels.ChannelOptions{HistorySize: 1000, Presence: channels.PresenceEvents}), func(r *replicas) {
		var got lines
		hold := make(chan struct{})
		ctx, cancel := context.WithCancel(context.Background())
		r.store.down.Store(true)
		done := background(func() error {
			return r.hubs[0].Bridge(channels.Identity{}).Subscribe(ctx, "a", func(m channels.Message) {
				got.add("%s", m.Header)
				if m.Header == "0" {
					<-hold
				}
			})
		})
		synctest.Wait()
		r.store.down.Store(false)
		time.Sleep(10 * time.Second) // it has tried again
		var want []string
		for i := range 30 { // more than its queue holds
			publish(t, r.hubs[0], "a", fmt.Sprint(i), `"`+long(100_000)+`"`)
			want = append(want, fmt.Sprint(i))
		}
		require.EqualValues(t, 1, r.hubs[0].Stats().SlowClosed)
		close(hold)
		time.Sleep(10 * time.Second)
		require.Equal(t, want, got.list())
		cancel()
		require.NoError(t, <-done)
		require.ErrorIs(t, r.hubs[0].Bridge(channels.Identity{}).Subscribe(context.Background(), "a b", nil), channels.ErrBadChannel)
	})
}

// A message without a position may be the first that Bridge.Subscribe delivers,
// and slow; what comes meanwhile is more than its queue holds.
func TestBridgeKnowsWhereItBegan(t *testing.T) {
	for name, first := range map[string]channels.PublishOptions{"a local one": {Local: true}, "one with a position": {}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1, history, func(r *replicas) {
				hub := r.hubs[0]
				say := func(header string, o channels.PublishOptions) {
					publishWith(t, hub, "a", msg(header, `"`+long(200_000)+`"`), o)
				}
				say("before", channels.PublishOptions{})
				var got lines
				hold := make(chan struct{})
				ctx, cancel := context.WithCancel(context.Background())
				done := background(func() error {
					return hub.Bridge(channels.Identity{}).Subscribe(ctx, "a", func(m channels.Message) {
						got.add("%s", m.Header)
						if m.Header == "first" {
							<-hold
						}
					})
				})
				synctest.Wait()
				say("first", first)
				synctest.Wait()
				want := []string{"first"}
				for i := range 10 {
					say(fmt.Sprint(i), channels.PublishOptions{})
					want = append(want, fmt.Sprint(i))
				}
				require.EqualValues(t, 1, hub.Stats().SlowClosed)
				close(hold)
				time.Sleep(10 * time.Second)
				require.Equal(t, want, got.list())
				cancel()
				require.NoError(t, <-done)
			})
		})
	}
}

// Bridge.SubscribeAll gets each message of all replicas once, and none after
// its end.
func TestBridgeSubscribesToAllChannels(t *testing.T) {
	inBubble(t, 2, func(name string) channels.ChannelOptions {
		if strings.HasPrefix(name, "keep") {
			return channels.ChannelOptions{HistorySize: 10}
		}
		return channels.ChannelOptions{Presence: channels.PresenceEvents}
	}, func(r *replicas) {
		var got, other lines
		ctx, cancel := context.WithCancel(context.Background())
		bridge := r.hubs[0].Bridge(channels.Identity{})
		done := background(func() error {
			return bridge.SubscribeAll(ctx, func(channel string, m channels.Message) { got.add("%s%s%s", channel, m.Header, m.Body) })
		})
		ended := background(func() error {
			return bridge.SubscribeAll(context.Background(), func(channel string, m channels.Message) { other.add("%s%s", channel, m.Header) })
		})
		synctest.Wait()
		sub := subscription(r.t, r.hubs[0], "a", nil) // changes nothing
		say := func(i int, channel, header string) {
			publish(t, r.hubs[i], channel, header, "1")
			synctest.Wait()
		}
		say(0, "a", "x")
		say(1, "a", "y")
		say(1, "new", "z")
		say(1, "keep", "k")
		say(0, "keep", "l")
		require.Equal(t, []string{"ax1", "ay1", "newz1", "keepk1", "keepl1"}, got.list())
		cancel()
		require.NoError(t, <-done)
		say(1, "new", "after")
		require.Len(t, got.list(), 5)
		require.Len(t, other.list(), 6, "the other goes on")
		sub.Close()
		require.NoError(t, r.hubs[0].Shutdown(context.Background()))
		require.ErrorIs(t, <-ended, channels.ErrClosed)
	})
}

// A Bridge is somebody from the network: Authorize and Publishers hold.
func TestBridgeIsAuthorized(t *testing.T) {
	s := serve(t, channels.Options{
		Authorize: func(_ context.Context, r channels.Request) error {
			if r.Identity.ID != "program" {
				return fmt.Errorf("not you")
			}
			return nil
		},
		Channel: named(map[string]channels.ChannelOptions{"ours": {Publishers: channels.PublishersServer}}),
	})
	yes, no := s.hub.Bridge(channels.Identity{ID: "program"}), s.hub.Bridge(channels.Identity{ID: "x"})
	message := func() channels.Message { return channels.Message{Header: "h", Body: []byte("1")} }
	res, err := yes.Publish(t.Context(), "a", message())
	require.NoError(t, err)
	require.Equal(t, channels.Result{}, res)
	for _, c := range []struct {
		bridge  *channels.Bridge
		channel string
	}{{no, "a"}, {yes, "ours"}} {
		_, err = c.bridge.Publish(t.Context(), c.channel, message())
		require.ErrorIs(t, err, channels.ErrForbidden)
	}
	page, err := yes.Channels(t.Context(), channels.ChannelsQuery{Prefix: "a"})
	require.NoError(t, err)
	require.Equal(t, channels.ChannelsPage{Channels: []channels.ChannelInfo{{Name: "a", Publishes: 1}}}, page)
	info, err := yes.Channel(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, channels.ChannelInfo{Name: "a", Publishes: 1}, info)
	_, err = no.Channels(t.Context(), channels.ChannelsQuery{})
	require.ErrorIs(t, err, channels.ErrForbidden)
	_, err = no.Channels(t.Context(), channels.ChannelsQuery{Limit: -1})
	require.ErrorIs(t, err, channels.ErrForbidden, "the first thing that it is told")
	_, err = no.Channel(t.Context(), "a")
	require.ErrorIs(t, err, channels.ErrForbidden)
	_, err = yes.Channels(t.Context(), channels.ChannelsQuery{Limit: -1})
	require.ErrorIs(t, err, channels.ErrBadQuery)
	_, err = yes.Channel(t.Context(), "a b")
	require.ErrorIs(t, err, channels.ErrBadChannel)
}
