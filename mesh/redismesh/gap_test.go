//go:build !windows

package redismesh_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// lostAfter reports whether a KindLost for the channel, or for all channels,
// came after the first n packets.
func (b *inbox) lostAfter(n int, channel string) bool {
	return slices.ContainsFunc(b.all()[n:], func(p mesh.Packet) bool {
		return p.Kind == mesh.KindLost && (p.Channel == "" || p.Channel == channel)
	})
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
					eventually(t, "publishing works", func() bool {
						return a.Publish(t.Context(), mesh.Packet{Channel: channel, Header: header}) == nil
					})
				}
				sent := func() {
					t.Helper()
					eventually(t, "everything is sent", func() bool { return a.Status().Peers[0].Queued == 0 })
				}
				if before {
					say("x", "m1")
					b.await(t, "m1 arrives", func(p mesh.Packet) bool { return p.Header == "m1" })
				}
				told := b.Status().Lost
				rb.Lead(s2.Addr)
				rb.Cut()
				eventually(t, "the subscriber has moved and got a KindLost", func() bool { return b.Status().Lost > told && channelsOf(s2) == 3 })

				say("x", "m2") // nobody receives it
				sent()
				count := len(b.all())
				ra.Lead(s2.Addr)
				ra.Cut()
				eventually(t, "the publisher has moved", func() bool { return channelsOf(s2) == 4 })
				for i := range n {
					say(fmt.Sprint("c", i), "h")
					if i%1000 == 0 {
						sent()
					}
				}
				eventually(t, "m3 arrives", func() bool { // sent again, if a busy machine has broken the link meanwhile
					say("x", "m3")
					sent()
					return b.has(func(p mesh.Packet) bool { return p.Header == "m3" })
				})
				require.False(t, b.has(func(p mesh.Packet) bool { return p.Header == "m2" }))
				eventually(t, "a KindLost reports the gap", func() bool { return b.lostAfter(count, "x") })
				require.Zero(t, a.Status().Dropped)
			})
		}
	}
}

// What a channel's frames tell about earlier ones outlives the connection.
func TestGapAcrossAReconnectIsTold(t *testing.T) {
	t.Parallel()
	s, c, m := follower(t)
	publish := func(number, previous uint64, header string) {
		t.Helper()
		publishRaw(t, c, rawFrame(7, number, previous, "z", header))
		m.await(t, header+" arrives", func(p mesh.Packet) bool { return p.Header == header })
	}
	told := func(p mesh.Packet) bool { return p.Kind == mesh.KindLost && p.Channel == "x" && p.Origin == "z" }
	reconnect := func() {
		t.Helper()
		before := m.Status().Lost
		s.Do("CLIENT", "KILL", "TYPE", "pubsub")
		eventually(t, "the mesh is back", func() bool { return m.Status().Lost > before && m.Status().Err == nil })
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
	eventually(t, "the mesh is up", func() bool { return m.Status().Err == nil })
	last, previous := frame()
	require.Zero(t, previous, "there was no earlier frame")
	for i := range 70_000 {
		require.NoError(t, m.Publish(t.Context(), mesh.Packet{Channel: fmt.Sprint("c", i)}))
		if i%20_000 == 0 {
			eventually(t, "everything is sent", func() bool { return m.Status().Peers[0].Queued == 0 })
		}
	}
	eventually(t, "everything is sent", func() bool { return m.Status().Peers[0].Queued == 0 })
	_, previous = frame()
	require.Equal(t, last, previous)
	require.Zero(t, m.Status().Dropped)
}

// A frame whose publisher has forgotten the one before may hide a gap. A
// KindLost reports that, but not for each of a million channels.
func TestForgottenFramesAreTold(t *testing.T) {
	t.Parallel()
	_, c, m := follower(t)
	told := func() (n int) {
		for _, p := range m.all() {
			if p.Kind == mesh.KindLost && p.Channel == "" && p.Origin == "z" {
				n++
			}
		}
		return n
	}
	publish := func(from, to int) {
		t.Helper()
		var frames []string
		for i := from; i <= to; i++ {
			frames = append(frames, rawFrame(7, uint64(i), math.MaxUint64, "z", fmt.Sprint(i)))
		}
		publishRaw(t, c, frames...)
		m.await(t, "they arrive", func(p mesh.Packet) bool { return p.Header == fmt.Sprint(to) })
	}
	publish(1, 1)
	require.Zero(t, told(), "this is its first frame, so earlier ones came before the subscription")
	publish(2, 2)
	require.Equal(t, 1, told(), "at once")
	publish(3, 1000)
	require.LessOrEqual(t, told(), 2, "and then not for each frame")
	eventually(t, "but once more at the end, for all", func() bool { return told() == 2 })
}
