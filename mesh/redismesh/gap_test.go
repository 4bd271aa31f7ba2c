//go:build !windows

package redismesh_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// lostAfter reports whether a KindLost for the channel, or for all channels,
// came after the first n packets.
func (b *inbox) lostAfter(n int, channel string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.got[n:] {
		if p.Kind == mesh.KindLost && (p.Channel == "" || p.Channel == channel) {
			return true
		}
	}
	return false
}

func (b *inbox) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.got)
}

// Two replicas move from one server to another, the subscriber first. A
// KindLost reports what is published in between, whatever was published before
// or since.
func TestGapBetweenServersIsTold(t *testing.T) {
	for name, before := range map[string]bool{"a channel with earlier messages": true, "a channel without": false} {
		for others, n := range map[string]int{"": 0, ", and 5,000 others": 5000} {
			t.Run(name+others, func(t *testing.T) {
				t.Parallel()
				s1, s2 := redistest.Start(t), redistest.Start(t)
				ra, rb, client := relays(t, s1)
				b, a := newInbox(t, client("b"), "p", "b"), open(t, client("a"), "p", "a")
				b.active(t, "x")
				say := func(channel, header string) {
					t.Helper()
					redistest.Eventually(t, "publishing works", func() bool {
						return a.Publish(t.Context(), mesh.Packet{Channel: channel, Header: header}) == nil
					})
				}
				sent := func() {
					t.Helper()
					redistest.Eventually(t, "everything is sent", func() bool { return a.Status().Peers[0].Queued == 0 })
				}
				if before {
					say("x", "m1")
					b.await(t, "m1 arrives", func(p mesh.Packet) bool { return p.Header == "m1" })
				}
				told := b.Status().Lost
				rb.Lead(s2)
				rb.Cut()
				redistest.Eventually(t, "the subscriber has moved and got a KindLost", func() bool { return b.Status().Lost > told && channelsOf(s2) == 3 })

				say("x", "m2") // nobody receives it
				sent()
				count := b.count()
				ra.Lead(s2)
				ra.Cut()
				redistest.Eventually(t, "the publisher has moved", func() bool { return channelsOf(s2) == 4 })
				for i := range n {
					say(fmt.Sprint("c", i), "h")
					if i%1000 == 0 {
						sent()
					}
				}
				redistest.Eventually(t, "m3 arrives", func() bool { // sent again, if a busy machine has broken the link meanwhile
					say("x", "m3")
					sent()
					return b.has(func(p mesh.Packet) bool { return p.Header == "m3" })
				})
				require.False(t, b.has(func(p mesh.Packet) bool { return p.Header == "m2" }))
				redistest.Eventually(t, "a KindLost reports the gap", func() bool { return b.lostAfter(count, "x") })
				require.Zero(t, a.Status().Dropped)
			})
		}
	}
}

// What a channel's frames tell about earlier ones outlives the connection.
func TestGapAcrossAReconnectIsTold(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	c := s.Client()
	m := newInbox(t, c, "p", "a")
	m.active(t, "x")
	publish := func(number, previous uint64, header string) {
		t.Helper()
		require.NoError(t, c.Publish(t.Context(), "p:mesh:{18}:c:x", rawFrame(7, number, previous, "z", header)).Err())
		m.await(t, header+" arrives", func(p mesh.Packet) bool { return p.Header == header })
	}
	told := func(p mesh.Packet) bool { return p.Kind == mesh.KindLost && p.Channel == "x" && p.Origin == "z" }
	reconnect := func() {
		t.Helper()
		before := m.Status().Lost
		s.Do("CLIENT", "KILL", "TYPE", "pubsub")
		redistest.Eventually(t, "the mesh is back", func() bool { return m.Status().Lost > before && m.Status().Err == nil })
	}
	publish(1, 0, "m1")
	reconnect()
	publish(2, 1, "m2")
	require.False(t, m.has(told), "nothing is missing")
	reconnect()
	publish(9, 5, "m9")
	require.True(t, m.has(told), "number 5 is missing")
}

// A publisher remembers its last frame on a channel after 70,000 others.
func TestPublisherOnManyChannels(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	sub := s.Client().Subscribe(t.Context(), "p:mesh:{18}:c:x")
	t.Cleanup(func() { sub.Close() })
	_, err := sub.Receive(t.Context())
	require.NoError(t, err)
	m := open(t, s.Client(), "p", "a")
	frame := func() (number, previous uint64) {
		require.NoError(t, m.Publish(t.Context(), mesh.Packet{Channel: "x"}))
		msg, err := sub.ReceiveMessage(t.Context())
		require.NoError(t, err)
		b := []byte(msg.Payload)
		return binary.BigEndian.Uint64(b[10:]), binary.BigEndian.Uint64(b[18:])
	}
	redistest.Eventually(t, "the mesh is up", func() bool { return m.Status().Err == nil })
	last, previous := frame()
	require.Zero(t, previous, "there was no earlier frame")
	for i := range 70_000 {
		require.NoError(t, m.Publish(t.Context(), mesh.Packet{Channel: fmt.Sprint("c", i)}))
		if i%20_000 == 0 {
			redistest.Eventually(t, "everything is sent", func() bool { return m.Status().Peers[0].Queued == 0 })
		}
	}
	redistest.Eventually(t, "everything is sent", func() bool { return m.Status().Peers[0].Queued == 0 })
	_, previous = frame()
	require.Equal(t, last, previous)
	require.Zero(t, m.Status().Dropped)
}

// A frame whose publisher has forgotten the one before may hide a gap. A
// KindLost reports that, but not for each of a million channels.
func TestForgottenFramesAreTold(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	c := s.Client()
	m := newInbox(t, c, "p", "a")
	m.active(t, "x")
	told := func() (n int) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, p := range m.got {
			if p.Kind == mesh.KindLost && p.Channel == "" && p.Origin == "z" {
				n++
			}
		}
		return n
	}
	publish := func(from, to int) {
		t.Helper()
		_, err := c.Pipelined(t.Context(), func(pipe redis.Pipeliner) error {
			for i := from; i <= to; i++ {
				pipe.Publish(t.Context(), "p:mesh:{18}:c:x", rawFrame(7, uint64(i), math.MaxUint64, "z", fmt.Sprint(i)))
			}
			return nil
		})
		require.NoError(t, err)
		m.await(t, "they arrive", func(p mesh.Packet) bool { return p.Header == fmt.Sprint(to) })
	}
	publish(1, 1)
	require.Zero(t, told(), "this is its first frame, so earlier ones came before the subscription")
	publish(2, 2)
	require.Equal(t, 1, told(), "at once")
	publish(3, 1000)
	require.LessOrEqual(t, told(), 2, "and then not for each frame")
	redistest.Eventually(t, "but once more at the end, for all", func() bool { return told() == 2 })
}
