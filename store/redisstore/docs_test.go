//go:build !windows

package redisstore_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store"
	"github.com/channels-go/channels/store/redisstore"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// useAll makes a Store write every kind of key and run every script.
func useAll(t *testing.T, s *redisstore.Store) {
	t.Helper()
	ctx := t.Context()
	_, err := s.Begin(ctx, "chat")
	require.NoError(t, err)
	for _, ttl := range []time.Duration{time.Millisecond, time.Hour} {
		_, err := s.Append(ctx, "chat", entry("x"), store.AppendOptions{Size: 5, TTL: ttl, Key: "k" + ttl.String(), KeyTTL: time.Minute})
		require.NoError(t, err)
		_, err = s.Append(ctx, "chat", entry("x"), store.AppendOptions{Size: 5, TTL: ttl, Key: "k" + ttl.String(), KeyTTL: time.Minute})
		require.NoError(t, err)
	}
	for _, newest := range []bool{false, true} {
		page, err := s.Range(ctx, "chat", store.Query{Limit: 5, Newest: newest})
		require.NoError(t, err)
		require.NotEmpty(t, page.Entries)
	}
	_, err = s.Tops(ctx, []string{"chat"})
	require.NoError(t, err)
	long := store.Report{Replica: store.Replica{ID: "gone"}, Full: true}
	for i := range 1500 {
		name := "c" + strings.Repeat("x", i%50) + string(rune('a'+i/50))
		long.Channels = append(long.Channels, store.Count{Channel: name, Subscribers: 1})
	}
	report(t, s, long)
	require.NoError(t, s.Forget(ctx, "gone"))
	member := store.PresenceChange{Channel: "chat", Member: store.Member{ID: "one-1", User: "ann", Info: json.RawMessage(`{}`)}}
	report(t, s, store.Report{Replica: store.Replica{ID: "one"}, Full: true, Channels: []store.Count{{Channel: "chat", Subscribers: 1}, {Channel: "d", Subscribers: 2}}, Members: []store.PresenceChange{member}})
	report(t, s, store.Report{Replica: store.Replica{ID: "one"}, Channels: []store.Count{{Channel: "d"}}})
	other := member
	other.Member.ID = "one-2"
	gone := other
	gone.Left = true
	require.NoError(t, s.UpdatePresence(ctx, "one", []store.PresenceChange{other, gone}))
	members, _, err := s.Members(ctx, "chat", 5)
	require.NoError(t, err)
	require.Equal(t, []store.Member{member.Member}, members)
	nodes, err := s.Replicas(ctx)
	require.NoError(t, err)
	require.Len(t, nodes, 1)
	list, err := s.Channels(ctx, "", "", 5)
	require.NoError(t, err)
	require.Equal(t, []store.Count{{Channel: "chat", Subscribers: 1}}, list)
	count, err := s.Channel(ctx, "chat")
	require.NoError(t, err)
	require.Equal(t, 1, count.Subscribers)
	for _, name := range []string{"one", "gone"} {
		_, err = s.Hold(ctx, name, store.Holding{Changes: []store.HoldChange{{Name: "a"}}, Full: true})
		require.NoError(t, err)
	}
	_, err = s.Hold(ctx, "gone", store.Holding{Changes: []store.HoldChange{{Name: "a", Released: true}, {Name: "b"}}})
	require.NoError(t, err)
	require.NoError(t, s.Forget(ctx, "gone"))
	held, err := s.Hold(ctx, "one", store.Holding{Inherits: true})
	require.NoError(t, err)
	require.Equal(t, 2, held.Total)
	_, err = s.Hold(ctx, "two", store.Holding{Changes: []store.HoldChange{{Name: "a"}}})
	require.NoError(t, err)
	_, err = s.Hold(ctx, "one", store.Holding{Changes: []store.HoldChange{{Name: "a", Released: true}}})
	require.NoError(t, err) // of which two has yet to hear
}

// The keys are as the package documentation describes.
func TestKeysAreAsDocumented(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	rows := regexp.MustCompile(`(?m)^//\t(channels:\S+) +(stream|string|sorted set|set|hash) `).FindAllStringSubmatch(string(doc), -1)
	require.Len(t, rows, 14)
	r := redistest.Start(t)
	useAll(t, open(t, r.Client()))

	ends := map[string]time.Duration{ // as in the last column
		"channels:log:{c}": time.Hour, "channels:top:{c}": 25 * time.Hour, "channels:once:{c}:KEY": time.Minute, "channels:nodes:{nodes}": 2 * time.Minute, "channels:card:{n}": store.ForgottenAfter,
		"channels:holds:{holds}": 2 * time.Minute, "channels:holders:{holds}": 2 * time.Minute, "channels:held:{holds}:N": 2 * time.Minute, "channels:news:{holds}:N": 2 * time.Minute,
	}
	c := r.Client()
	documented := map[string]bool{}
	for _, key := range strings.Fields(r.Do("KEYS", "*")) {
		found := ""
		for _, row := range rows {
			pattern := strings.NewReplacer(`\{c\}`, `\{chat\}`, `\{n\}`, `\{one\}`, "KEY", `k.*`, `s\}:N`, `s\}:(one|two)`).Replace(regexp.QuoteMeta(row[1]))
			if regexp.MustCompile("^" + pattern + "$").MatchString(key) {
				found = row[1]
				require.Equal(t, strings.ReplaceAll(row[2], "sorted set", "zset"), r.Do("TYPE", key), key)
			}
		}
		require.NotEmpty(t, found, "%s is not documented", key)
		documented[found] = true
		most := ends[found]
		if most == 0 {
			most = store.DeadAfter
		}
		ttl := c.PTTL(t.Context(), key).Val()
		require.LessOrEqual(t, ttl, most, key)
		require.Greater(t, ttl, most-30*time.Second, key)
		require.Positive(t, ttl, key)
	}
	require.Len(t, documented, len(rows), "every documented key exists")
}

// A user with the rights that the documentation lists can do everything.
func TestRightsAreAsDocumented(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	_, text, ok := strings.Cut(string(doc), "and the commands ")
	require.True(t, ok)
	text, _, _ = strings.Cut(text, "and those of the client")
	rights := []string{"ACL", "SETUSER", "app", "on", ">secret", "~channels:*", "-@all", "+hello", "+client", "+cluster", "+command", "+ping"}
	listed := regexp.MustCompile(`[A-Z]{3,}`).FindAllString(text, -1)
	for _, name := range listed {
		rights = append(rights, "+"+strings.ToLower(name))
	}
	used := []string{"EVAL", "EVALSHA"}
	scripts, err := filepath.Glob("lua/*.lua")
	require.NoError(t, err)
	for _, name := range scripts {
		script, err := os.ReadFile(name)
		require.NoError(t, err)
		for _, name := range regexp.MustCompile(`'([A-Z]{3,})'`).FindAllStringSubmatch(string(script), -1) {
			if !slices.Contains([]string{"LIMIT", "COUNT", "MAXLEN", "MINID", "KEEPTTL"}, name[1]) && !slices.Contains(used, name[1]) {
				used = append(used, name[1])
			}
		}
	}
	require.ElementsMatch(t, used, listed)
	r := redistest.Start(t)
	require.Equal(t, "OK", r.Do(rights...))
	s := open(t, r.Client(func(o *redis.Options) { o.Username, o.Password = "app", "secret" }))
	useAll(t, s)
	age(t, r, "chat", time.Hour)
	_, err = s.Tops(t.Context(), []string{"chat"})
	require.NoError(t, err)
	eventually(t, "it may postpone a log's end", func() bool { return left(t, r, "chat") > store.MetaTTL })

	other, err := redisstore.New(r.Client(func(o *redis.Options) { o.Username, o.Password = "app", "secret" }), redisstore.Options{Prefix: "other"})
	require.NoError(t, err)
	t.Cleanup(func() { other.Close() })
	_, err = other.Append(t.Context(), "c", entry("x"), plenty)
	require.ErrorContains(t, err, "has to be allowed the keys of this prefix")

	require.Equal(t, "OK", r.Do("ACL", "SETUSER", "app", "-info"))
	_, err = s.Append(t.Context(), "chat", entry("x"), plenty)
	require.ErrorContains(t, err, "INFO")
	require.NotErrorIs(t, err, store.ErrUnavailable)
}

func TestTwoPrefixesNeverMeet(t *testing.T) {
	r := redistest.Start(t)
	for _, prefix := range []string{"a", "a:log", "a:top", "b"} {
		s, err := redisstore.New(r.Client(), redisstore.Options{Prefix: prefix})
		require.NoError(t, err)
		t.Cleanup(func() { s.Close() })
		useAll(t, s) // must find only its own
		require.EqualValues(t, 3, mustAppend(t, s, "chat", "3").Offset)
	}
}

func TestNewRefuses(t *testing.T) {
	single := redis.NewClient(&redis.Options{})
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"one": "127.0.0.1:1"}})
	t.Cleanup(func() {
		single.Close()
		ring.Close()
	})
	for _, c := range []struct {
		client redis.UniversalClient
		prefix string
		says   string
	}{
		{nil, "", "the client is nil"},
		{(*redis.Client)(nil), "", "nil *redis.Client"},
		{(*redis.ClusterClient)(nil), "", "nil *redis.ClusterClient"},
		{ring, "", "two histories"},
		{struct{ *redis.Client }{single}, "", "it must be a *redis.Client"},
		{single, "a{b}", "Options.Prefix"},
		{single, strings.Repeat("x", 101), "Options.Prefix"},
		{single, "a*", "Options.Prefix"},
	} {
		_, err := redisstore.New(c.client, redisstore.Options{Prefix: c.prefix})
		require.ErrorContains(t, err, c.says)
	}
}
