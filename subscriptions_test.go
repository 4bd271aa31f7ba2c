package channels_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// many is a hub, and what its hooks were told.
type many struct {
	*channels.Hub
	t     *testing.T
	hooks lines
}

func newMany(t *testing.T) *many {
	m := &many{t: t}
	m.Hub = newHub(t, channels.Options{
		Channel: func(name string) channels.ChannelOptions {
			o := channels.ChannelOptions{Presence: channels.PresenceList}
			switch name[0] {
			case 'h':
				o.HistorySize = 100
			case 'e':
				o.Presence = channels.PresenceEvents
			}
			return o
		},
		Authorize:    forbids("forbidden"),
		OnConnect:    func(context.Context, channels.Client) error { m.hooks.add("connect"); return nil },
		OnSubscribe:  func(_ context.Context, _ channels.Client, channel string) { m.hooks.add("subscribe %s", channel) },
		OnDisconnect: func(_ channels.Client, cause error) { m.hooks.add("disconnect %s", reasonCode(cause)) },
	})
	return m
}

// connect lets a user's connection in with its first subscription.
func connect(t *testing.T, h *channels.Hub, user, channel string) *channels.Receiver {
	t.Helper()
	r, err := channels.Connect(h, user, channel)
	require.NoError(t, err)
	return r
}

func (m *many) publish(channel, body string) channels.Position {
	m.t.Helper()
	return publish(m.t, m.Hub, channel, "n", `"`+body+`"`).Position
}

// members is who is in a channel.
func (m *many) members(channel string) (ids []string) {
	m.t.Helper()
	ms, err := m.Presence(context.Background(), channel, 0)
	require.NoError(m.t, err)
	for _, one := range ms.Members {
		ids = append(ids, one.ID)
	}
	return ids
}

// wantRead expects some texts to come, in this order, and in as many reads as it takes.
func wantRead(t *testing.T, r *channels.Receiver, texts ...string) {
	t.Helper()
	got := ""
	for _, want := range texts {
		for !strings.Contains(got, want) {
			text, cause, ok := r.Read()
			require.True(t, ok, "%q is missing; it ended with %v and %q", want, cause, text)
			got += text
		}
		_, got, _ = strings.Cut(got, want)
	}
}

// wantEnd expects a text, and the connection's end.
func wantEnd(t *testing.T, r *channels.Receiver, text, code string) {
	t.Helper()
	got, cause, ok := r.Read()
	require.False(t, ok)
	require.Contains(t, got, text)
	require.Equal(t, code, reasonCode(cause))
}

func TestConnOfTwoSubscriptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMany(t)
		r := connect(t, m.Hub, "ann", "a")
		require.NoError(t, r.Subscribe("b", nil))
		require.ErrorIs(t, r.Subscribe("b", nil), channels.ErrBadMessage)
		require.ErrorIs(t, r.Subscribe("a", nil), channels.ErrBadMessage)
		require.ErrorIs(t, r.Subscribe("forbidden", nil), channels.ErrForbidden)
		require.ErrorIs(t, r.Subscribe("forbidden", nil), channels.ErrForbidden, "and not that it is subscribed")
		require.Equal(t, []string{"connect", "subscribe a", "subscribe b"}, m.hooks.take())
		require.Equal(t, []string{r.ID()}, m.members("a"))
		require.Equal(t, []string{r.ID()}, m.members("b"))
		m.publish("a", "one")
		m.publish("b", "two")
		wantRead(t, r, `"one"`, `"two"`)

		// One of two ends, and the connection stays.
		require.Equal(t, 1, unsubscribed(t, m.UnsubscribeUser, "ann", "a"))
		require.Empty(t, m.members("a"))
		require.Equal(t, []string{r.ID()}, m.members("b"))
		m.publish("a", "three")
		m.publish("b", "four")
		text, _, ok := r.Read()
		require.True(t, ok)
		require.NotContains(t, text, "three")
		require.Contains(t, text, "four")
		require.Zero(t, unsubscribed(t, m.UnsubscribeClient, r.ID(), "a"), "it has ended already")

		// It may be subscribed to again.
		require.NoError(t, r.Subscribe("a", nil))
		m.publish("a", "five")
		wantRead(t, r, `"five"`)
		require.Equal(t, 1, unsubscribed(t, m.UnsubscribeClient, r.ID(), "a"))

		// With the last one, the connection ends.
		require.Equal(t, 1, unsubscribed(t, m.UnsubscribeClient, r.ID(), "b"))
		wantEnd(t, r, `"unsubscribed"`, "unsubscribed")
		require.Empty(t, m.members("b"))
		require.Equal(t, []string{"subscribe a", "disconnect unsubscribed"}, m.hooks.take())
		require.ErrorIs(t, r.Subscribe("c", nil), channels.ErrUnsubscribed)
		require.Empty(t, m.members("c"))
	})
}

func TestConnOfTwoSubscriptionsIsDisconnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMany(t)
		r := connect(t, m.Hub, "ann", "e1")
		other := connect(t, m.Hub, "eve", "e2")
		require.NoError(t, r.Subscribe("e2", nil))
		wantRead(t, other, `"join"`, `"eve"`, `"join"`, `"ann"`)
		require.Equal(t, 1, disconnected(t, m.DisconnectUser, "ann"), "connections, not subscriptions")
		wantEnd(t, r, `"disconnected"`, "disconnected")
		require.Empty(t, m.members("e1"))
		wantRead(t, other, `"leave"`, `"ann"`)
		require.Equal(t, []string{other.ID()}, m.members("e2"))
		disconnected(t, m.DisconnectUser, "eve")
		wantEnd(t, other, `"disconnected"`, "disconnected")
	})
}

func TestConnOfTwoSubscriptionsCatchesUpInEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMany(t)
		first, second := m.publish("h1", "1.1"), m.publish("h2", "2.1")
		m.publish("h2", "2.2")
		r := connect(t, m.Hub, "ann", "a")
		require.NoError(t, r.Subscribe("h1", &first))
		require.NoError(t, r.Subscribe("h2", &second))
		wantRead(t, r, `"2.2"`)
		m.publish("h1", "1.2")
		m.publish("h2", "2.3")
		m.publish("a", "live")
		wantRead(t, r, `"1.2"`, `"2.3"`, `"live"`)
		unsubscribed(t, m.UnsubscribeUser, "ann", "h2")
		require.NoError(t, r.Subscribe("h2", &channels.Position{Epoch: "?"}))
		wantRead(t, r, `"reset"`)
		readToEnd(r)
		require.NoError(t, m.Drain(context.Background()))
	})
}

func TestConnSubscribesWhileItIsUnsubscribed(t *testing.T) {
	ctx := context.Background()
	m := newMany(t)
	r := connect(t, m.Hub, "ann", "a")
	end := readToEnd(r)
	unsubscribe := func(int) { m.UnsubscribeUser(ctx, "ann", "b") }
	stop1, stop2 := repeatedly(unsubscribe), repeatedly(unsubscribe)
	for range 300 {
		if err := r.Subscribe("b", nil); err != nil {
			var e *channels.Error
			require.ErrorAs(t, err, &e)
			require.Contains(t, []string{"unsubscribed", "bad_message"}, e.Code)
		}
		m.publish("b", "x")
	}
	stop1()
	stop2()
	disconnected(t, m.DisconnectUser, "ann")
	<-end
	require.Contains(t, m.hooks.take(), "disconnect disconnected")
	for _, name := range []string{"a", "b"} {
		require.Empty(t, m.members(name))
		info, err := m.Channel(ctx, name)
		require.NoError(t, err)
		require.Zero(t, info.Subscribers)
	}
}

// readToEnd reads until the connection has left the hub.
func readToEnd(r *channels.Receiver) (end <-chan error) {
	return background(func() (cause error) {
		for ok := true; ok; {
			_, cause, ok = r.Read()
		}
		return cause
	})
}

func TestDrainOfTwoSubscriptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMany(t)
		r := connect(t, m.Hub, "ann", "a")
		require.NoError(t, r.Subscribe("b", nil))
		done := background(func() error { return m.Drain(context.Background()) })
		synctest.Wait()
		text, cause, ok := r.Read()
		for ok {
			var more string
			more, cause, ok = r.Read()
			text += more
		}
		require.Equal(t, 1, strings.Count(text, `"reconnect"`), "once for the connection")
		require.Equal(t, "draining", reasonCode(cause))
		require.NoError(t, <-done)
		require.Empty(t, m.members("a"))
		require.Empty(t, m.members("b"))
		_, err := channels.Connect(m.Hub, "ann", "a")
		require.ErrorIs(t, err, channels.ErrDraining)
		require.Equal(t, []string{"connect", "subscribe a", "subscribe b", "disconnect draining"}, m.hooks.take())
	})
}

func TestSlowOfTwoSubscriptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		options := named(map[string]channels.ChannelOptions{"latest": {SlowSubscriber: channels.SlowKeepLatest}})
		hub := newHub(t, channels.Options{MaxMessageBytes: 1 << 10, QueueBytes: 4 << 10, Channel: options})
		r := connect(t, hub, "ann", "latest")
		for range 10 {
			publish(t, hub, "latest", "n", `"`+strings.Repeat("x", 900)+`"`)
		}
		require.Zero(t, hub.Stats().SlowClosed)
		require.NoError(t, r.Subscribe("each", nil))
		for range 200 {
			r.Answer()
		}
		require.EqualValues(t, 1, hub.Stats().SlowClosed, "one of its channels drops nothing, so an answer is not dropped either")
		wantEnd(t, r, `"slow_subscriber"`, "slow_subscriber")
	})
}

// A connection whose first subscription is ended while its second one is asked
// for, and refused, has none left, and ends.
func TestConnLosesItsOnlySubscriptionWhileAnotherIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, answer := make(chan struct{}), make(chan error)
		hub := newHub(t, channels.Options{Authorize: func(_ context.Context, r channels.Request) error {
			if r.Channel != "b" {
				return nil
			}
			close(asked)
			return <-answer
		}})
		r := connect(t, hub, "ann", "a")
		subscribed := background(func() error { return r.Subscribe("b", nil) })
		<-asked
		require.Equal(t, 1, unsubscribed(t, hub.UnsubscribeUser, "ann", "a"))
		answer <- channels.ErrForbidden
		require.ErrorIs(t, <-subscribed, channels.ErrForbidden)
		wantEnd(t, r, `"unsubscribed"`, "unsubscribed")
	})
}
