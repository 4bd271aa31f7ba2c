package middleware_test

import (
	"context"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/middleware"
)

func TestAuthorizePerAction(t *testing.T) {
	g := middleware.Grants{Subscribe: []string{"news", "chat.*"}, Publish: []string{"chat.1"}}
	list := middleware.Grants{List: true}
	for _, c := range []struct {
		action  channels.Action
		channel string
		value   any
		ok      bool
	}{
		{channels.ActionSubscribe, "news", g, true},
		{channels.ActionSubscribe, "chat.2", g, true},
		{channels.ActionSubscribe, "other", g, false},
		{channels.ActionHistory, "chat.2", g, true},
		{channels.ActionHistory, "other", g, false},
		{channels.ActionPresence, "news", g, true},
		{channels.ActionPresence, "other", g, false},
		{channels.ActionPublish, "chat.1", g, true},
		{channels.ActionPublish, "chat.2", g, false},
		{channels.ActionPublish, "news", g, false},
		{channels.ActionList, "", g, false},
		{channels.ActionList, "news", g, false},
		{channels.ActionList, "", list, true},
		{channels.ActionList, "other", list, true},
		{channels.ActionSubscribe, "news", list, false},
		{channels.ActionSubscribe, "@user:ann", g, true},
		{channels.ActionHistory, "@user:ann", middleware.Grants{}, true},
		{channels.ActionPresence, "@user:ann", g, true},
		{channels.ActionSubscribe, "@user:ann", nil, false},
		{channels.ActionSubscribe, "@user:bob", g, false},
		{channels.ActionPublish, "@user:ann", g, false},
		{channels.ActionList, "@user:ann", g, false},
		{channels.Action("new"), "news", g, false},
		{channels.ActionSubscribe, "news", nil, false},
		{channels.ActionSubscribe, "news", "grants of another kind", false},
		{channels.ActionSubscribe, "news", middleware.Grants{}, false},
	} {
		err := middleware.Authorize(t.Context(), channels.Request{Action: c.action, Channel: c.channel, Identity: channels.Identity{ID: "ann", Value: c.value}})
		if c.ok {
			require.NoError(t, err, "%+v", c)
		} else {
			require.ErrorIs(t, err, channels.ErrForbidden, "%+v", c)
		}
	}
}

func may(pattern, name string) bool {
	return middleware.Authorize(context.Background(), channels.Request{Action: channels.ActionPublish, Channel: name,
		Identity: channels.Identity{Value: middleware.Grants{Publish: []string{pattern}}}}) == nil
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		ok            bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"a", "ab", false}, {"ab", "a", false}, {"A", "a", false},
		{"*", "a", true}, {"*", "chat.1", true}, {"**", "a", true},
		{"chat.*", "chat.1", true}, {"chat.*", "chat.", true}, {"chat.*", "chat", false}, {"chat.*", "chatx1", false}, {"chat.*", "xchat.1", false},
		{"*.1", "chat.1", true}, {"*.1", "chat.11", false}, {"*.1", "chat.1.1", true},
		{"a*b*c", "abc", true}, {"a*b*c", "a.b.b.c", true}, {"a*b*c", "acb", false}, {"a*a", "a", false},
		{"a*b", "a한b", true}, {"[a]", "[a]", true}, {"[a]", "a", false}, {`a\b`, `a\b`, true}, {".", "x", false},
	} {
		require.Equal(t, c.ok, may(c.pattern, c.name), "%q %q", c.pattern, c.name)
	}
}

// mayAll reports whether a grant allows everything that a pattern of Redis matches.
func mayAll(grant, glob string) bool {
	return middleware.Authorize(context.Background(), channels.Request{Action: channels.ActionSubscribe, Channel: glob, Pattern: true,
		Identity: channels.Identity{Value: middleware.Grants{Subscribe: []string{grant}}}}) == nil
}

// A pattern is allowed where every channel that it can match is.
func TestGrantsOfPatterns(t *testing.T) {
	for _, c := range []struct {
		grant, glob string
		ok          bool
	}{
		{"*", "*", true}, {"*", "chat.*", true}, {"*", "?", true}, {"*", "[a-z]", true}, {"*", `\*`, true}, {"*", "[", true}, {"*", "", true},
		{"chat.*", "chat.*", true}, {"chat.*", "chat.1*", true}, {"chat.*", "chat.?", true}, {"chat.*", "chat.[a-z]*", true}, {"chat.*", "chat.", true},
		{"chat.*", "*", false}, {"chat.*", "chat*", false}, {"chat.*", "?hat.*", false}, {"chat.*", "[c]hat.*", false}, {"chat.*", "ch*t.*", false},
		{"chat.*", "chat?*", false}, {"chat.*", "chat[.]*", false}, {"chat.*", "*chat.*", false}, {"chat.1", "chat.*", false}, {"chat.1", "chat.?", false},
		{"*.1", "chat.*.1", true}, {"*.1", "*.1", true}, {"*.1", "*.?", false}, {"*.1", "*1", false}, {"*.1", "*.1*", false},
		{"a*b*c", "a*b*c", true}, {"a*b*c", "a*c", false}, {"a*c", "a*b*c", true}, {"a*c", "a?[^b]c", true}, {"**", "*", true}, {"a**", "a*", true},
		{"*a*", "?a?", true}, {"*a*", "??", false},
		// names, not patterns, in a grant
		{"[ab]*", "[ab]*", false}, {"[ab]", "[ab]", false}, {`a\*`, `a\*`, false},
		// what one can read in more than one way
		{"a*", `a\b*`, true}, {"ab*", `a\b*`, false}, {`a\b*`, `a\b*`, false}, {"a*c", `a\bc`, false}, {"a*", "a[b", true}, {"a*c", "a[bc", false},
		{"a*c", "a[]c", false}, {"a*c", "a[]]c", false}, {"a*c", "a[^]c", false}, {"a*c", "a[^]]c", false}, {"a*c", "a[[]c", false}, {"a*c", "a[*]c", false}, {"a*c", `a[\]]c`, false},
		{"a*]", "a*[b-]]", false}, {"a*]", "a*[b-c]]", true}, {"a*", "a[b-]]*", true},
		{"a*c", "a[^b-d]c", true}, {"a한*", "a한[가-힣]", true}, {"a한*", "a?*", false},
	} {
		require.Equal(t, c.ok, mayAll(c.grant, c.glob), "%q %q", c.grant, c.glob)
	}
	ann := channels.Request{Action: channels.ActionSubscribe, Channel: "a*", Pattern: true,
		Identity: channels.Identity{Value: middleware.Grants{Subscribe: []string{"a?", "b*", "a*"}, Publish: []string{"*"}}}}
	require.NoError(t, middleware.Authorize(t.Context(), ann))
	ann.Channel = "c*"
	require.ErrorIs(t, middleware.Authorize(t.Context(), ann), channels.ErrForbidden, "the right to publish is another one")
}

// words returns all texts of up to n of these letters.
func words(letters string, n int) []string {
	all := []string{""}
	for from := 0; n > 0; n-- {
		to := len(all)
		for _, w := range all[from:to] {
			for _, l := range letters {
				all = append(all, w+string(l))
			}
		}
		from = to
	}
	return all
}

// Every grant is compared with every pattern by trying all short texts. "z" is in
// neither, so it stands for all other letters: the answer is exact for patterns
// without a set, and never too generous for those with one.
func TestGrantsOfPatternsByTrying(t *testing.T) {
	texts := words("abz", 4) // as long as the longest pattern
	regexpOf := func(glob string) *regexp.Regexp {
		return regexp.MustCompile(`^` + strings.NewReplacer("*", ".*", "?", ".").Replace(glob) + `$`)
	}
	random := rand.New(rand.NewPCG(1, 2))
	some := func(of []string, n int) string {
		s := ""
		for range 1 + random.IntN(n) {
			s += of[random.IntN(len(of))]
		}
		return s
	}
	allowed, refused := 0, 0
	for range 4000 {
		grant, glob := some([]string{"a", "b", "*"}, 4), some([]string{"a", "b", "*", "*", "?", "[ab]", "[a]", "[^a]", "[a-z]"}, 4)
		matches, covers := regexpOf(glob), regexpOf(grant)
		covered := true
		for _, text := range texts {
			if matches.MatchString(text) && !covers.MatchString(text) {
				covered = false
				break
			}
		}
		got := mayAll(grant, glob)
		if strings.Contains(glob, "[") {
			require.False(t, got && !covered, "the grant %q allows %q", grant, glob)
		} else {
			require.Equal(t, covered, got, "the grant %q and %q", grant, glob)
		}
		if got {
			allowed++
		} else {
			refused++
		}
	}
	require.Greater(t, allowed, 200)
	require.Greater(t, refused, 200)
}

func TestGrantsAreChecked(t *testing.T) {
	for _, p := range []string{"", "a b", "a/b", "a?", "a\n", ".", "\xff", string(make([]byte, 201))} {
		_, err := middleware.Anonymous(middleware.Grants{Publish: []string{"ok", p}})
		require.ErrorContains(t, err, "publish has the pattern", "%q", p)
	}
	_, err := middleware.Anonymous(middleware.Grants{Subscribe: []string{"*", "a.*", "한", "[a]"}})
	require.NoError(t, err)
}

// Anonymous leaves an identity that is already known as it is.
func TestAnonymousKeepsIdentities(t *testing.T) {
	m := must(middleware.Anonymous(middleware.Grants{Subscribe: []string{"news"}}))
	a := try(m(whoami), "GET", "/", "")
	require.Contains(t, a.body, `"subscribe":["news"]`)
	a = try(stack(whoami, hs256(middleware.JWTOptions{}), m), "GET", "/", "", "Authorization", "Bearer "+token("ann", nil))
	require.Contains(t, a.body, `"subscribe":["chat.*"]`)
}
