package admin_test

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/admin"
)

func TestSessionsEnd(t *testing.T) {
	page := serve(t, channels.Options{}, admin.Options{SessionTime: time.Hour}).page
	now := time.Now()
	require.True(t, page.IsSession(now, now))
	require.True(t, page.IsSession(now, now.Add(time.Hour-2*time.Second)))
	require.False(t, page.IsSession(now, now.Add(time.Hour)))
}

// A session counts at every replica with the same token, and at no other.
func TestSessionsOfOtherReplicas(t *testing.T) {
	a, b := serve(t, channels.Options{}, admin.Options{}).page, serve(t, channels.Options{}, admin.Options{}).page
	other := serve(t, channels.Options{}, admin.Options{Token: "another-token-for-tests"}).page
	require.True(t, b.Reads(a.Session()))
	require.False(t, other.Reads(a.Session()))
}

func FuzzSession(f *testing.F) {
	hub, err := channels.New(channels.Options{})
	require.NoError(f, err)
	page, err := admin.New(hub, admin.Options{Token: token})
	require.NoError(f, err)
	f.Cleanup(func() {
		page.Close()
		hub.Shutdown(f.Context())
	})
	f.Add("")
	f.Add(page.Session()[:30])
	f.Fuzz(func(t *testing.T, value string) {
		require.False(t, page.Reads(value)) // nobody guesses a signature
	})
}

// guesser is the nth address.
func guesser(n int) netip.Prefix {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(n))
	return netip.PrefixFrom(netip.AddrFrom4(b), 32)
}

func TestGuessesAreSlowedDown(t *testing.T) {
	var g admin.Guesses
	now := time.Now()
	for range 5 {
		require.Zero(t, g.Wait(guesser(1), now))
		g.Wrong(guesser(1), now)
	}
	require.Equal(t, 10*time.Second, g.Wait(guesser(1), now))
	require.Zero(t, g.Wait(guesser(2), now), "others do not wait")
	require.Equal(t, time.Second, g.Wait(guesser(1), now.Add(9*time.Second)))
	now = now.Add(10 * time.Second)
	require.Zero(t, g.Wait(guesser(1), now))
	g.Wrong(guesser(1), now)
	require.Equal(t, 10*time.Second, g.Wait(guesser(1), now), "one guess every 10 s")
	now = now.Add(time.Minute)
	for range 5 {
		require.Zero(t, g.Wait(guesser(1), now))
		g.Wrong(guesser(1), now)
	}
}

func TestGuessersAreBounded(t *testing.T) {
	var g admin.Guesses
	now := time.Now()
	for n := range 10 * admin.MaxGuessers {
		g.Wrong(guesser(n), now)
	}
	require.Equal(t, admin.MaxGuessers, g.Len())
}
