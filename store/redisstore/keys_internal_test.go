package redisstore

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// tagOf returns the part of a key that a Cluster hashes, by its specification.
func tagOf(key string) string {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			return tag
		}
	}
	return key
}

// All keys of a channel are in one slot, whatever its name. No two channels,
// replicas or idempotency keys share a key.
func TestKeysOfOneChannelAreInOneSlot(t *testing.T) {
	k := keys{"a:b"}
	seen := map[string]string{}
	take := func(key, what string) {
		require.Empty(t, seen[key], "%q is the key of %q and of %q", key, what, seen[key])
		seen[key] = what
	}
	for _, name := range []string{"", "%", "%25", "%7D", "x", "}", "{", "{}", "}{", "{x}", "x}:log", "x}:once:{k", "a{b}c", "\x00", "ж", "nodes"} {
		take(k.log(name), "log "+name)
		take(k.top(name), "top "+name)
		for _, key := range []string{"k", "}", "x}:log"} {
			take(k.once(name, key), "once "+name+key)
			require.Equal(t, tagOf(k.log(name)), tagOf(k.once(name, key)))
		}
		require.Equal(t, tagOf(k.log(name)), tagOf(k.top(name)))
		require.Equal(t, escapeTag(name), tagOf(k.log(name)))
		for _, key := range append(k.replica(name), k.card(name)) {
			take(key, "replica "+name)
			require.Equal(t, tagOf(k.node(name)), tagOf(key))
		}
	}
	take(k.nodes(), "nodes")
}

func TestPlacesAreApart(t *testing.T) {
	seen := map[string]bool{}
	for _, channel := range []string{"", "a", "a\x00", "a\x01", "a\x01\x01", "a\x01\x02", "a\x00b"} {
		for _, id := range []string{"", "b", "\x00", "\x01b"} {
			p := place(channel, id)
			require.False(t, seen[p], "%q %q", channel, id)
			seen[p] = true
			require.True(t, strings.HasPrefix(p, place(channel, "")))
		}
	}
}

func TestSlot(t *testing.T) {
	require.Equal(t, 0x31C3, slot("123456789")) // the specification's example
	require.Equal(t, 0, slot(""))
}
