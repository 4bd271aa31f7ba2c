package connect

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func connects(t *testing.T, k kind) {
	s := serve(t, settings{})
	alice := s.open(k, "alice", nil)
	e := alice.online()
	require.NotEmpty(t, e.Client)
	require.Equal(t, k.transport, e.Transport)
	require.Equal(t, "alice", next(t, "a token", s.asked))

	// It leaves by itself, and may come again.
	alice.disconnect()
	alice.want("disconnected", "")
	require.Equal(t, leaving{"alice", nil}, next(t, "the end", s.left))
	again := alice.online()
	require.NotEqual(t, e.Client, again.Client)
	require.NoError(t, alice.publish("c", "1"))
}

func wrongToken(t *testing.T, k kind) {
	s := serve(t, settings{})
	nobody := s.open(k, "forged", nil)
	nobody.connect()
	e := nobody.want("disconnected", "")
	require.Equal(t, 3500, e.Code, e.Reason)
	require.Zero(t, nobody.count("connected", ""))
	require.Len(t, s.asked, 1, "it does not come again")
}

// expiredToken is of somebody who comes back with an old token.
func expiredToken(t *testing.T, k kind) {
	s := serve(t, settings{})
	alice := s.open(k, "alice expired", func(o *introduction) { o.Tokens = []string{"alice"} })
	alice.online()
	require.Equal(t, 1, alice.count("token", ""), "the SDK asks for another one")
	require.Equal(t, "alice expired", next(t, "the first token", s.asked))
	require.Equal(t, "alice", next(t, "the second token", s.asked))

	bob := s.open(k, "bob expired", func(o *introduction) { o.Tokens = []string{"bob expired"} })
	bob.connect()
	bob.want("disconnected", "") // since the app has no third one
	require.Zero(t, bob.count("connected", ""))
}

// refreshedToken has an SDK show another token before the first one ends.
func refreshedToken(t *testing.T, k kind) {
	s := serve(t, settings{})
	alice := s.open(k, "alice for 1s", func(o *introduction) { o.Tokens = []string{"alice for 1s", "alice"} })
	alice.online()
	alice.in("c", interest{})
	require.Equal(t, "alice for 1s", next(t, "the first token", s.asked))
	require.Equal(t, "alice for 1s", next(t, "the second token", s.asked))
	require.Equal(t, "alice", next(t, "the third token, after the first has ended", s.asked))
	require.NoError(t, alice.publish("c", "1"))
	alice.hears("c", "1")
	alice.stayed()
	require.Empty(t, s.left)
}

func disconnected(t *testing.T, k kind) {
	s := serve(t, settings{})
	alice, bob := s.open(k, "alice", nil), s.open(k, "bob", nil)
	alice.online()
	bob.online()
	s.replicas[0].dismiss("alice")
	e := alice.want("disconnected", "")
	require.Equal(t, 3503, e.Code, e.Reason)
	require.Equal(t, "alice", next(t, "the end", s.left).user)
	require.Equal(t, 1, alice.count("connecting", ""), "she stays away")
	require.NoError(t, bob.publish("c", "1"))
	bob.stayed()
}
