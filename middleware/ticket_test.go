package middleware_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/middleware"
)

// show has a user subscribe to a channel with a token. It returns until when the
// subscription is allowed.
func show(tokens *middleware.Tokens, user, channel, token string) (until []time.Time, err error) {
	err = tokens.Authorize(context.Background(), channels.Request{Action: channels.ActionSubscribe, Channel: channel, Token: token,
		Identity: channels.Identity{ID: user, Value: middleware.Grants{Subscribe: []string{"news"}}},
		Until:    func(t time.Time) { until = append(until, t) }})
	return until, err
}

func TestTicket(t *testing.T) {
	exp := time.Now().Add(time.Hour).Truncate(time.Second)
	for name, o := range map[string]middleware.JWTOptions{
		"plain":               {Keys: []middleware.JWTKey{{Key: secret}}},
		"issuer and audience": {Keys: []middleware.JWTKey{{Key: secret}}, Issuer: "us", Audience: "chat"},
		"named key":           {Keys: []middleware.JWTKey{{ID: "public", Key: signers().ed.Public().(ed25519.PublicKey)}, {ID: "now", Key: secret}, {ID: "old", Key: []byte("old " + string(secret))}}},
	} {
		t.Run(name, func(t *testing.T) {
			tokens := must(middleware.JWT(o))
			ticket := must(tokens.Ticket("ann", "room.1", exp))
			until, err := show(tokens, "ann", "room.1", ticket)
			require.NoError(t, err)
			require.Len(t, until, 1)
			require.True(t, exp.Add(5*time.Second).Equal(until[0]), "%v, with the leeway", until[0])

			_, err = show(tokens, "ann", "room.1", "")
			require.ErrorIs(t, err, channels.ErrForbidden, "without the ticket")
			_, err = show(tokens, "bob", "room.1", ticket)
			require.ErrorContains(t, err, "ticket of another user")
			_, err = show(tokens, "", "room.1", ticket)
			require.ErrorContains(t, err, "ticket of another user")
			_, err = show(tokens, "ann", "room.2", ticket)
			require.ErrorContains(t, err, `a ticket for the channel "room.1"`)
			require.ErrorIs(t, err, middleware.ErrBadToken)
		})
	}
	t.Run("claims", func(t *testing.T) {
		tokens := must(middleware.JWT(middleware.JWTOptions{Keys: []middleware.JWTKey{{ID: "k", Key: secret}}, Issuer: "us", Audience: "chat"}))
		parts := strings.Split(must(tokens.Ticket("ann", "room.1", exp)), ".")
		require.JSONEq(t, `{"alg":"HS256","typ":"JWT","kid":"k"}`, string(must(base64.RawURLEncoding.DecodeString(parts[0]))))
		require.JSONEq(t, fmt.Sprintf(`{"sub":"ann","channel":"room.1","exp":%d,"iss":"us","aud":"chat"}`, exp.Unix()), string(must(base64.RawURLEncoding.DecodeString(parts[1]))))
	})
}

// What the user's own token allows does not end with a ticket, but a ticket that is
// shown has to be valid.
func TestTicketBesideGrants(t *testing.T) {
	tokens := must(middleware.JWT(middleware.JWTOptions{Keys: []middleware.JWTKey{{Key: secret}}}))
	until, err := show(tokens, "ann", "news", must(tokens.Ticket("ann", "news", time.Now().Add(time.Hour))))
	require.NoError(t, err)
	require.Empty(t, until)
	_, err = show(tokens, "ann", "news", "x")
	require.ErrorIs(t, err, middleware.ErrBadToken)
	until, err = show(tokens, "ann", "news", "")
	require.NoError(t, err)
	require.Empty(t, until)

	// It allows to subscribe, and nothing else, and to no pattern.
	r := channels.Request{Channel: "room.1", Token: must(tokens.Ticket("ann", "room.1", time.Now().Add(time.Hour))), Identity: channels.Identity{ID: "ann"}}
	for _, r.Action = range []channels.Action{channels.ActionPublish, channels.ActionHistory, channels.ActionPresence, channels.ActionList} {
		require.ErrorIs(t, tokens.Authorize(t.Context(), r), channels.ErrForbidden, r.Action)
	}
	r.Action = channels.ActionSubscribe
	require.NoError(t, tokens.Authorize(t.Context(), r), "Until may be nil")
	r.Pattern = true
	require.ErrorIs(t, tokens.Authorize(t.Context(), r), middleware.ErrBadToken)
	require.ErrorIs(t, middleware.Authorize(t.Context(), r), channels.ErrForbidden, "the function reads no tickets")
}

func TestTicketRefused(t *testing.T) {
	tokens := must(middleware.JWT(middleware.JWTOptions{Keys: []middleware.JWTKey{{Key: secret}}}))
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	with := func(more claims) string { // a ticket that is valid but for this
		c := claims{"sub": "ann", "channel": "room.1", "exp": at(time.Hour)}
		for k, v := range more {
			if c[k] = v; v == nil {
				delete(c, k)
			}
		}
		return sign(jwt.SigningMethodHS256, secret, "", c)
	}
	_, err := show(tokens, "ann", "room.1", with(nil))
	require.NoError(t, err)
	_, err = show(tokens, "ann", "room.1", with(claims{"exp": at(-2 * time.Second), "nbf": at(3 * time.Second)}))
	require.NoError(t, err, "clocks may differ")
	raw := func(text string) string {
		return signed(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(text)))
	}
	hostile := claims{"sub": "ann", "channel": "room.1", "exp": at(time.Hour)}
	for name, c := range map[string]struct{ token, code, says string }{
		"a user's own token":        {token("ann", nil), "bad_token", `lacks the claim "channel"`},
		"of both kinds":             {with(claims{"channels": claims{"subscribe": []string{"*"}}}), "bad_token", "must be one of them"},
		"expired":                   {with(claims{"exp": at(-time.Minute)}), "expired", ""},
		"not yet":                   {with(claims{"nbf": at(time.Minute)}), "bad_token", "not valid yet"},
		"for ever":                  {with(claims{"exp": nil}), "bad_token", `lacks "exp"`},
		"of nobody":                 {with(claims{"sub": nil}), "bad_token", `lacks the claim "sub"`},
		"of an API key":             {with(claims{"sub": "apikey:ann"}), "bad_token", "for API keys"},
		"of another":                {with(claims{"sub": "Ann"}), "bad_token", "another user"},
		"another channel":           {with(claims{"channel": "room.10"}), "bad_token", "for the channel"},
		"a pattern":                 {with(claims{"channel": "*"}), "bad_token", "not a channel's name"},
		"no name":                   {with(claims{"channel": ""}), "bad_token", "not a channel's name"},
		"null":                      {with(claims{"channel": json.RawMessage("null")}), "bad_token", "not a channel's name"},
		"several":                   {with(claims{"channel": []string{"room.1"}}), "bad_token", "not a channel's name"},
		"two channels":              {raw(`{"sub":"ann","channel":"a","channel":"room.1","exp":9999999999}`), "bad_token", "appears twice"},
		"another case":              {raw(`{"sub":"ann","Channel":"room.1","exp":9999999999}`), "bad_token", `lacks the claim "channel"`},
		"algorithm none":            {sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "", hostile), "bad_token", ""},
		"another algorithm":         {sign(jwt.SigningMethodHS512, secret, "", hostile), "bad_token", ""},
		"another's signature":       {sign(jwt.SigningMethodHS256, []byte("another secret of at least 32 bytes"), "", hostile), "bad_token", "signature"},
		"not a JSON Web Token":      {"x", "bad_token", "not a JSON Web Token"},
		"huge":                      {strings.Repeat("a", 1<<20), "bad_token", "up to 8192"},
		"huge, and valid otherwise": {with(claims{"x": strings.Repeat("a", 8<<10)}), "bad_token", "up to 8192"},
	} {
		until, err := show(tokens, "ann", "room.1", c.token)
		var e *channels.Error
		require.ErrorAs(t, err, &e, name)
		require.Equal(t, c.code, e.Code, name)
		require.Contains(t, e.Message, c.says, name)
		require.Empty(t, until, name)
	}
}

// A ticket is no proof of who somebody is, over HTTP neither.
func TestTicketIsNoToken(t *testing.T) {
	tokens := must(middleware.JWT(middleware.JWTOptions{Keys: []middleware.JWTKey{{Key: secret}}, Default: middleware.Grants{Subscribe: []string{"*"}}, Cookie: "session"}))
	ticket := must(tokens.Ticket("ann", "room.1", time.Now().Add(time.Hour)))
	for _, header := range [][]string{{"Authorization", "Bearer " + ticket}, {"Cookie", "session=" + ticket}, {"Sec-WebSocket-Protocol", "channels, bearer." + ticket}} {
		a := try(tokens.Handler(whoami), "GET", "/", "", header...)
		require.Equal(t, 401, a.status)
		require.Equal(t, "bad_token", a.code())
		require.Contains(t, a.message(), "it is a ticket")
	}
}

// Ticket makes none that would be refused, and says why.
func TestTicketErrors(t *testing.T) {
	s, exp := signers(), time.Now().Add(time.Hour)
	tokens := must(middleware.JWT(middleware.JWTOptions{Keys: []middleware.JWTKey{{Key: secret}}}))
	for name, c := range map[string]struct {
		user, channel string
		expires       time.Time
		says          string
	}{
		"no user":         {"", "a", exp, `lacks the claim "sub"`},
		"an API key":      {"apikey:x", "a", exp, "for API keys"},
		"no name":         {"ann", "", exp, "not a channel's name"},
		"a pattern":       {"ann", "a*", exp, "not a channel's name"},
		"no expiry":       {"ann", "a", time.Time{}, `lacks "exp"`},
		"expired":         {"ann", "a", time.Now().Add(-time.Second), "expired already"},
		"after year 9999": {"ann", "a", time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), "up to the year 9999"},
		"a long user":     {strings.Repeat("a", 8<<10), "a", exp, "up to 8192"},
	} {
		ticket, err := tokens.Ticket(c.user, c.channel, c.expires)
		require.ErrorContains(t, err, c.says, name)
		require.ErrorContains(t, err, "middleware: no ticket", name)
		require.Empty(t, ticket, name)
	}
	public := must(middleware.JWT(middleware.JWTOptions{Keys: []middleware.JWTKey{{Key: &s.rsa.PublicKey}, {Key: &s.ecdsa.PublicKey}, {Key: s.ed.Public().(ed25519.PublicKey)}}}))
	_, err := public.Ticket("ann", "a", exp)
	require.ErrorContains(t, err, "public keys only, which cannot sign")
	ticket := sign(jwt.SigningMethodES256, s.ecdsa, "", claims{"sub": "ann", "channel": "a", "exp": exp.Unix()})
	_, err = show(public, "ann", "a", ticket)
	require.NoError(t, err, "another program signs them")

	// What users' tokens need not have, tickets need not have either. Without a user, it
	// is for those without one.
	lax := must(middleware.JWT(middleware.JWTOptions{Keys: []middleware.JWTKey{{Key: secret}}, AllowNoExpiry: true, AllowNoSubject: true}))
	ticket, err = lax.Ticket("", "a", time.Time{})
	require.NoError(t, err)
	until, err := show(lax, "", "a", ticket)
	require.NoError(t, err)
	require.Equal(t, []time.Time{{}}, until, "for ever")
	_, err = show(lax, "ann", "a", ticket)
	require.ErrorContains(t, err, "another user")
}
