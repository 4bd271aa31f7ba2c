package middleware_test

import (
	"context"
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
		{channels.Action("new"), "news", g, false},
		{channels.ActionSubscribe, "news", nil, false},
		{channels.ActionSubscribe, "news", "grants of another kind", false},
		{channels.ActionSubscribe, "news", middleware.Grants{}, false},
	} {
		err := middleware.Authorize(t.Context(), channels.Request{Action: c.action, Channel: c.channel, Identity: channels.Identity{Value: c.value}})
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
