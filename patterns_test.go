package channels_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/pattern"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/meshtest"
)

// subscribePattern subscribes from Go, and collects what comes.
func subscribePattern(t testing.TB, h *channels.Hub, text string) *subscriber {
	t.Helper()
	sub, err := h.SubscribePattern(context.Background(), text)
	require.NoError(t, err)
	t.Cleanup(sub.Close)
	return collect(sub)
}

// said is what a subscriber of a pattern has got: channel, header and body.
func (s *subscriber) said() []string {
	all := []string{}
	for _, m := range s.messages() {
		all = append(all, m.Channel+" "+m.Header+" "+string(m.Body))
	}
	return all
}

func TestPattern(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, channels.Options{Channel: func(name string) channels.ChannelOptions {
			if strings.HasPrefix(name, "chat.") {
				return channels.ChannelOptions{HistorySize: 10, Presence: channels.PresenceEvents}
			}
			return channels.ChannelOptions{}
		}})
		publish(t, hub, "chat.a", "before", "1") // no history
		s := subscribePattern(t, hub, "chat.*")
		letters := subscribePattern(t, hub, "*.[a-b]")
		one := subscribe(t, hub, "chat.a", nil)
		require.NotEqual(t, s.sub.ID(), letters.sub.ID())

		res := publish(t, hub, "chat.a", "x", `{"a":1}`)
		require.Equal(t, 3, res.Receivers)
		require.Equal(t, 1, publish(t, hub, "chat.c", "y", "2").Receivers, "nobody is subscribed to the channel itself")
		require.Equal(t, 1, publish(t, hub, "news.b", "z", "3").Receivers)
		require.Zero(t, publish(t, hub, "news.c", "z", "4").Receivers)
		publishWith(t, hub, "chat.a", msg("echo", "5"), channels.PublishOptions{Except: s.sub.ID()})
		publishWith(t, hub, "chat.a", msg("local", "6"), channels.PublishOptions{Local: true})
		synctest.Wait()
		require.Equal(t, []string{`chat.a x {"a":1}`, "chat.c y 2", "chat.a local 6"}, s.said())
		require.Equal(t, []string{`chat.a x {"a":1}`, "news.b z 3", "chat.a echo 5", "chat.a local 6"}, letters.said())
		require.Equal(t, []string{` x {"a":1}`, " echo 5", " local 6"}, one.said())
		require.Equal(t, res.Position, s.messages()[0].Position)
		require.Zero(t, s.messages()[2].Position)
		require.Nil(t, s.sub.Position())

		require.Equal(t, 2, hub.Stats().Patterns)
		page, err := hub.Channels(t.Context(), channels.ChannelsQuery{})
		require.NoError(t, err)
		for _, ch := range page.Channels {
			require.NotContains(t, ch.Name, "*")
		}
		letters.close()
		require.Equal(t, 2, publish(t, hub, "chat.a", "x", "7").Receivers)
		require.Equal(t, 1, hub.Stats().Patterns)
		s.close()
		require.NoError(t, s.end)
		require.Zero(t, publish(t, hub, "chat.c", "x", "8").Receivers)
		require.Zero(t, hub.Stats().Patterns)
		synctest.Wait()
		require.Zero(t, hub.Stats().Queued)
	})
}

func TestSubscribePatternRefuses(t *testing.T) {
	require.Equal(t, pattern.MaxBytes, channels.MaxNameBytes)
	hub := newHub(t, channels.Options{MaxPatterns: 2, Channel: func(name string) channels.ChannelOptions {
		if name == "contradiction*" {
			return channels.ChannelOptions{HistorySize: 1, SlowSubscriber: channels.SlowDropOldest}
		}
		return channels.ChannelOptions{}
	}})
	refused := func(text string) error {
		_, err := hub.SubscribePattern(t.Context(), text)
		return err
	}
	for text, says := range map[string]string{
		"":                       "a pattern has 1 to 200 bytes",
		strings.Repeat("*", 201): "a pattern has 1 to 200 bytes",
		"a b*":                   "a control character, a space or a /",
		"a/*":                    "a control character, a space or a /",
		"a\n*":                   "a control character, a space or a /",
		"a\xff*":                 "not valid UTF-8",
		"a[":                     "has no end",
	} {
		err := refused(text)
		require.ErrorIs(t, err, channels.ErrBadChannel, "%q", text)
		require.ErrorContains(t, err, says)
	}
	require.ErrorIs(t, refused("contradiction*"), channels.ErrInternal)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := hub.SubscribePattern(ended, "a*")
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, hub.Stats().Patterns)

	// Each pattern counts once, and no longer when its last subscriber has gone.
	one, two := subscribePattern(t, hub, "a*"), subscribePattern(t, hub, "b*")
	again := subscribePattern(t, hub, "a*")
	require.ErrorIs(t, refused("c*"), channels.ErrTooManyChannels)
	one.close()
	require.ErrorIs(t, refused("c*"), channels.ErrTooManyChannels)
	again.close()
	subscribePattern(t, hub, "c*")
	two.close()
	require.NoError(t, hub.Shutdown(t.Context()))
	require.ErrorIs(t, refused("a*"), channels.ErrClosed)
}

// A message that is published on any replica reaches the subscribers of patterns on
// all others, though nobody there is subscribed to its channel.
func TestPatternOnAllReplicas(t *testing.T) {
	inBubble(t, 3, history, func(r *replicas) {
		chat, all, news := subscribePattern(r.t, r.hubs[0], "chat.*"), subscribePattern(r.t, r.hubs[1], "*"), subscribePattern(r.t, r.hubs[2], "news.?")
		other := subscribePattern(r.t, r.hubs[0], "chat.a*")
		tap := lines{}
		ctx, cancel := context.WithCancel(context.Background())
		done := background(func() error {
			return r.hubs[1].Bridge(channels.Identity{}).SubscribeAll(ctx, func(channel string, m channels.Message) { tap.add("%s %s %s", channel, m.Header, m.Body) })
		})
		synctest.Wait()
		for i, ch := range []string{"chat.a", "news.1", "other"} {
			publish(t, r.hubs[i], ch, "x", fmt.Sprint(i))
			synctest.Wait()
			publish(t, r.hubs[(i+1)%3], ch, "y", fmt.Sprint(i))
			synctest.Wait()
		}
		everything := []string{"chat.a x 0", "chat.a y 0", "news.1 x 1", "news.1 y 1", "other x 2", "other y 2"}
		require.Equal(t, everything, all.said())
		require.Equal(t, everything[:2], chat.said())
		require.Equal(t, everything[:2], other.said())
		require.Equal(t, everything[2:4], news.said())
		require.Equal(t, everything, tap.list())

		// Those who want the same of the mesh do not take it from each other.
		other.close()
		cancel()
		require.NoError(t, <-done)
		publish(t, r.hubs[2], "chat.b", "z", "3")
		synctest.Wait()
		require.Equal(t, "chat.b z 3", chat.said()[2])
		require.Equal(t, "chat.b z 3", all.said()[6])
		require.Len(t, tap.list(), 6)
		all.close()
		seen := r.hubs[1].Stats()
		publish(t, r.hubs[2], "chat.b", "z", "4")
		synctest.Wait()
		require.Equal(t, seen.BadPackets, r.hubs[1].Stats().BadPackets)
		require.Len(t, all.said(), 7)
	})
}

// A repeated publish passes its message on again, for subscribers who have missed it.
// Those of patterns, who do not see positions, get it once.
func TestPatternGetsARepeatedPublishOnce(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		here, there := subscribePattern(r.t, r.hubs[0], "c*"), subscribePattern(r.t, r.hubs[1], "c*")
		missed := r.subscribe(1, "c", nil)
		r.meshes[0].mute.Store(true)
		publishWith(t, r.hubs[0], "c", msg("n", "1"), channels.PublishOptions{Key: "k"})
		r.meshes[0].mute.Store(false)
		require.True(t, publishWith(t, r.hubs[0], "c", msg("n", "1"), channels.PublishOptions{Key: "k"}).Duplicate)
		synctest.Wait()
		require.Len(t, missed.messages(), 1)
		require.Equal(t, []string{"c n 1"}, here.said())
		require.Empty(t, there.said(), "what the mesh loses stays lost")

		publishWith(t, r.hubs[0], "c", msg("n", "2"), channels.PublishOptions{Key: "l"})
		require.True(t, publishWith(t, r.hubs[1], "c", msg("n", "2"), channels.PublishOptions{Key: "l"}).Duplicate)
		synctest.Wait()
		require.Equal(t, []string{"c n 1", "c n 2"}, here.said())
		require.Equal(t, []string{"c n 2"}, there.said())
	})
}

// A mesh that loses and reorders is repaired for the subscribers of a channel. Those of
// patterns get each message as it arrives, once.
func TestPatternBesideRepair(t *testing.T) {
	const n = 300
	inBubble(t, 2, history, func(r *replicas) {
		s, whole := subscribePattern(r.t, r.hubs[1], "c*"), r.subscribe(1, "c", nil)
		r.net.SetFaults(meshtest.Faults{Drop: 0.1, Delay: 80 * time.Millisecond})
		for i := range n {
			publish(t, r.hubs[0], "c", "n", fmt.Sprint(i))
			time.Sleep(5 * time.Millisecond)
		}
		r.net.SetFaults(meshtest.Faults{})
		settle(10 * time.Second)
		wantAll(t, whole.messages(), 1, n)
		seen := map[uint64]bool{}
		last, late := uint64(0), 0
		for _, m := range s.messages() {
			require.False(t, seen[m.Position.Offset], "%d came twice", m.Position.Offset)
			require.Equal(t, fmt.Sprint(m.Position.Offset-1), string(m.Body))
			seen[m.Position.Offset] = true
			if m.Position.Offset < last {
				late++
			}
			last = m.Position.Offset
		}
		require.Greater(t, len(seen), n/2)
		require.Less(t, len(seen), n, "none was lost, so this shows nothing")
		require.Positive(t, late, "none came late, so this shows nothing")
	})
}

// A subscriber of a pattern that does not read holds nobody up, and what happens to it is
// what Options.Channel says of the pattern.
func TestPatternOfASlowSubscriber(t *testing.T) {
	for name, c := range map[string]struct {
		policy channels.SlowPolicy
		closed bool
		left   int
	}{
		"close":  {channels.SlowClose, true, 0},
		"oldest": {channels.SlowDropOldest, false, 5},
		"latest": {channels.SlowKeepLatest, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			hub := newHub(t, channels.Options{QueueBytes: 64 << 10, MaxMessageBytes: 16 << 10,
				Channel: named(map[string]channels.ChannelOptions{"c*": {SlowSubscriber: c.policy}})})
			slow, err := hub.SubscribePattern(t.Context(), "c*")
			require.NoError(t, err)
			t.Cleanup(slow.Close)
			quick, err := hub.SubscribePattern(t.Context(), "c*")
			require.NoError(t, err)
			t.Cleanup(quick.Close)
			for i := range 100 {
				ch := fmt.Sprint("c", i%3)
				publish(t, hub, ch, fmt.Sprint(i), `"`+long(8<<10)+`"`)
				m := next(t, quick)
				require.Equal(t, fmt.Sprint(i), m.Header)
				require.Equal(t, ch, m.Channel)
			}
			if c.closed {
				require.EqualValues(t, 1, hub.Stats().SlowClosed)
				var last error
				for _, err := range slow.Messages() {
					last = err
				}
				require.ErrorIs(t, last, channels.ErrSlowSubscriber)
			} else {
				require.Positive(t, hub.Stats().Dropped)
				n := 0
				for m, err := range slow.Messages() {
					require.NoError(t, err)
					if n++; m.Header == "99" {
						break
					}
				}
				require.GreaterOrEqual(t, n, c.left)
				require.LessOrEqual(t, n, 8)
			}
			slow.Close()
			quick.Close()
			require.Zero(t, hub.Stats().Queued)
		})
	}
}

// With the hub, its context or a call of the app, the subscription ends, and the replica
// asks the mesh for the pattern no longer.
func TestPatternEnds(t *testing.T) {
	for name, end := range map[string]struct {
		with func(hub *channels.Hub, id string, cancel func())
		err  error
	}{
		"shutdown":   {func(hub *channels.Hub, _ string, _ func()) { hub.Shutdown(context.Background()) }, channels.ErrClosed},
		"disconnect": {func(hub *channels.Hub, id string, _ func()) { disconnect(hub, id) }, channels.ErrDisconnected},
		"context":    {func(_ *channels.Hub, _ string, cancel func()) { cancel() }, context.Canceled},
		"unsubscribe": {func(hub *channels.Hub, id string, _ func()) {
			hub.UnsubscribeClient(context.Background(), id, "chat.*")
		}, channels.ErrUnsubscribed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				node := &recorder{Mesh: meshtest.NewNetwork(1).Join("self")}
				defer node.Close()
				hub := newHub(t, channels.Options{ReplicaID: "self", Mesh: node, Store: newMemory(t)})
				defer hub.Shutdown(context.Background())
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				sub, err := hub.SubscribePattern(ctx, "chat.*")
				require.NoError(t, err)
				s := collect(sub)
				publish(t, hub, "chat.a", "x", "1")
				synctest.Wait()
				end.with(hub, sub.ID(), cancel)
				synctest.Wait()
				require.Equal(t, []string{"chat.a x 1"}, s.said())
				<-s.done
				require.ErrorIs(t, s.end, end.err)
				require.Zero(t, hub.Stats().Patterns)
				require.Zero(t, hub.Stats().Connections)
				require.Equal(t, []string{"+chat.", "-chat."}, node.asked.list())
				sub.Close()
			})
		})
	}
}

// recorder is a mesh that notes the prefixes that it is asked for, and may refuse them.
type recorder struct {
	mesh.Mesh
	asked   lines
	refuses error
}

func (r *recorder) SubscribePrefix(prefix string) error {
	if r.refuses != nil {
		return r.refuses
	}
	r.asked.add("+%s", prefix)
	return r.Mesh.SubscribePrefix(prefix)
}

func (r *recorder) UnsubscribePrefix(prefix string) error {
	r.asked.add("-%s", prefix)
	return r.Mesh.UnsubscribePrefix(prefix)
}

// Patterns that begin alike ask the mesh once.
func TestPatternsAskTheMeshOnce(t *testing.T) {
	node := &recorder{Mesh: meshtest.NewNetwork(1).Join("self")}
	t.Cleanup(func() { node.Close() })
	hub := newHub(t, channels.Options{ReplicaID: "self", Mesh: node, Store: newMemory(t)})
	a, b, c := subscribePattern(t, hub, "chat.*"), subscribePattern(t, hub, "chat.[a-b]"), subscribePattern(t, hub, "chat.?.*")
	require.Equal(t, []string{"+chat."}, node.asked.take())
	a.close()
	c.close()
	require.Empty(t, node.asked.list())
	b.close()
	require.Equal(t, []string{"-chat."}, node.asked.take())

	node.refuses = errors.New("no network")
	_, err := hub.SubscribePattern(t.Context(), "chat.*")
	require.ErrorIs(t, err, channels.ErrMeshUnavailable)
	require.Zero(t, hub.Stats().Patterns)
	require.Zero(t, hub.Stats().Connections)
	node.refuses = nil
	subscribePattern(t, hub, "chat.*").close()
	require.Equal(t, []string{"+chat.", "-chat."}, node.asked.take())
}

// Whatever comes and goes at the same time, a subscriber that stays gets everything once
// and in order.
func TestPatternsAreConcurrent(t *testing.T) {
	const n = 500
	hub := newHub(t, channels.Options{})
	stays := subscribePattern(t, hub, "c.*")
	var busy sync.WaitGroup
	for i := range 4 {
		busy.Go(func() {
			for k := range n / 10 {
				sub, err := hub.SubscribePattern(context.Background(), fmt.Sprintf("c.%d*", (i+k)%3))
				if err == nil {
					sub.Close()
				}
			}
		})
	}
	for i := range n {
		publish(t, hub, fmt.Sprint("c.", i%5), fmt.Sprint(i), "1")
	}
	busy.Wait()
	stays.wait(t, n)
	for i, m := range stays.close() {
		require.Equal(t, fmt.Sprint(i), m.Header)
	}
	require.Zero(t, hub.Stats().Patterns)
}

// BenchmarkPublishBesidePatterns has what patterns that cannot match cost a publish: one
// atomic load if there are none, and otherwise a look into the index of what they begin
// with.
func BenchmarkPublishBesidePatterns(b *testing.B) {
	for _, n := range []int{0, 1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			hub := newHub(b, channels.Options{})
			for i := range n {
				subscribePattern(b, hub, fmt.Sprintf("chat.room%d.*", i))
			}
			sub, err := hub.Subscribe(context.Background(), "chat.lobby", nil)
			require.NoError(b, err)
			defer sub.Close()
			go func() {
				for range sub.Messages() {
				}
			}()
			m := msg("n", `{"text":"hello","n":17}`)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := hub.Publish(context.Background(), "chat.lounge", m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
