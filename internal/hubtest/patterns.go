package hubtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/mesh"
)

// Patterns checks that the subscribers of patterns get what another replica publishes,
// once and in order, over the meshes that open opens.
func Patterns(t *testing.T, open func(id string) mesh.Mesh) {
	st := NewMemory(t)
	hub := func(id string) *channels.Hub {
		return NewHub(t, channels.Options{ReplicaID: id, Mesh: open(id), Store: st, Channel: func(name string) channels.ChannelOptions {
			if strings.HasPrefix(name, "chat.kept") {
				return channels.ChannelOptions{HistorySize: 100}
			}
			return channels.ChannelOptions{}
		}})
	}
	from, to := hub("from"), hub("to")
	all, rooms := collectPattern(t, to, "chat.*"), collectPattern(t, to, "ch*.room[0-4]")
	one, err := to.Subscribe(t.Context(), "chat.room1", nil)
	require.NoError(t, err)
	t.Cleanup(one.Close)
	say := func(channel string, n int) {
		t.Helper()
		_, err := from.Publish(t.Context(), channel, channels.Message{Header: fmt.Sprint(n), Body: []byte("1")})
		require.NoError(t, err)
	}
	names := []string{"chat.room1", "chat.room9", "chat.kept", "chat.x.y"}
	// Each channel may go another way: on a Cluster, through another lane.
	ready := map[string]*patternMessages{"chat.last": all, "chx.room4": rooms}
	for _, channel := range names {
		ready[channel] = all
	}
	for channel, p := range ready {
		basetest.Eventually(t, "the pattern is known", func() bool {
			from.Publish(context.Background(), channel, channels.Message{Header: "ready", Body: []byte("1")}) // Redis may not answer yet
			return p.ready(channel)
		})
	}
	const n = 100
	for i := range n {
		for _, channel := range append([]string{"chat", "other"}, names...) {
			say(channel, i)
		}
	}
	say("chat.last", 0)
	say("chx.room4", 0)
	basetest.Eventually(t, "the last messages arrive", func() bool { return len(all.all("chat.last")) > 0 && len(rooms.all("chx.room4")) > 0 })
	var want []string
	for i := range n {
		want = append(want, fmt.Sprint(i))
	}
	for _, channel := range names {
		basetest.Eventually(t, "all messages arrive", func() bool { return len(all.all(channel)) >= n })
		require.Equal(t, want, all.all(channel), channel)
	}
	basetest.Eventually(t, "all messages arrive", func() bool { return len(rooms.all("chat.room1")) >= n })
	require.Equal(t, want, rooms.all("chat.room1"))
	for _, channel := range []string{"chat", "other"} {
		require.Empty(t, all.all(channel))
		require.Empty(t, rooms.all(channel))
	}
	require.Empty(t, rooms.all("chat.room9"))

	// The one ends, and the other goes on.
	rooms.sub.Close()
	seen := len(rooms.all("chat.room1"))
	say("chat.room1", n)
	basetest.Eventually(t, "the next message arrives", func() bool { return len(all.all("chat.room1")) == n+1 })
	require.Len(t, rooms.all("chat.room1"), seen)
}

// patternMessages are the headers of what has come to a subscription, by channel.
type patternMessages struct {
	sub *channels.Subscription

	mu    sync.Mutex // guards the fields below
	got   map[string][]string
	known map[string]bool
}

// collectPattern subscribes to a pattern until the test ends.
func collectPattern(t *testing.T, h *channels.Hub, pattern string) *patternMessages {
	t.Helper()
	sub, err := h.SubscribePattern(context.Background(), pattern)
	require.NoError(t, err)
	p := &patternMessages{sub: sub, got: map[string][]string{}, known: map[string]bool{}}
	var reading sync.WaitGroup
	reading.Go(func() { // ends with the subscription
		for m := range sub.Messages() {
			p.mu.Lock()
			if m.Header == "ready" {
				p.known[m.Channel] = true
			} else {
				p.got[m.Channel] = append(p.got[m.Channel], m.Header)
			}
			p.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		sub.Close()
		reading.Wait()
	})
	return p
}

func (p *patternMessages) ready(channel string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known[channel]
}

func (p *patternMessages) all(channel string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got[channel])
}
