package middleware

import (
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/exact"
)

// tokenClaims are the claims that are read from a token.
type tokenClaims struct {
	jwt.RegisteredClaims
	Info     json.RawMessage `json:"info"`
	Channels *Grants         `json:"channels"`
	Channel  json.RawMessage `json:"channel"` // of a ticket; nil if there is no such claim
}

// UnmarshalJSON requires exact names. Package encoding/json would take "Sub"
// for "sub", and the last of two equal names.
func (c *tokenClaims) UnmarshalJSON(b []byte) error {
	type claims tokenClaims // without this method
	return exact.Unmarshal(b, (*claims)(c))
}

// maxExpiry is the last second of the year 9999. A later time overflows
// time.Time and would seem to be long past.
const maxExpiry = 253402300799

// defaultLeeway is JWTOptions.Leeway if it is not set.
const defaultLeeway = 5 * time.Second

// verify returns the identity that a token stands for.
func (t *Tokens) verify(token string) (channels.Identity, error) {
	c, expires, err := t.parse(token)
	id := channels.Identity{ID: c.Subject, Expires: expires}
	switch {
	case err != nil:
		return channels.Identity{}, err
	case c.Channel != nil:
		return channels.Identity{}, badToken(`it is a ticket, since it has the claim "channel"; send it with the subscription, and connect with the user's own token`)
	}
	if string(c.Info) != "null" {
		id.Info = c.Info
	}
	grants := t.opts.Default
	if c.Channels != nil {
		grants = *c.Channels
		if err := grants.check(); err != nil {
			return channels.Identity{}, badToken(`in its claim "channels", %v`, err)
		}
	}
	id.Value = grants
	return id, nil
}

// parse returns the claims of a valid token, and until when it is valid; the zero
// time is for ever.
func (t *Tokens) parse(token string) (c tokenClaims, expires time.Time, err error) {
	switch {
	case token == "":
		return c, expires, badToken("it is empty")
	case len(token) > maxTokenBytes:
		return c, expires, badToken("it has %d bytes; it may have up to %d", len(token), maxTokenBytes)
	}
	if _, err := t.parser.ParseWithClaims(token, &c, t.keysFor); err != nil {
		return c, expires, t.tokenError(err, &c)
	}
	switch {
	case c.Subject == "" && !t.opts.AllowNoSubject:
		return c, expires, badToken(`it lacks the claim "sub", the user's id`)
	case strings.HasPrefix(c.Subject, serverID), strings.HasPrefix(c.Subject, gatewayID):
		return c, expires, badToken(`its "sub" begins with %q, which is for API keys, or %q, which is for gateways`, serverID, gatewayID)
	}
	for _, claim := range []struct {
		name string
		time *jwt.NumericDate
	}{{"exp", c.ExpiresAt}, {"nbf", c.NotBefore}, {"iat", c.IssuedAt}} {
		if claim.time == nil {
			continue
		}
		if s := claim.time.Unix(); s < 0 || s > maxExpiry {
			return c, expires, badToken("its %q is not a time in seconds since 1970, up to the year 9999", claim.name)
		}
	}
	if c.ExpiresAt != nil {
		expires = c.ExpiresAt.Add(t.opts.Leeway)
	}
	return c, expires, nil
}

// tokenError tells the sender of a token what is wrong with it.
func (t *Tokens) tokenError(err error, c *tokenClaims) error {
	if e := (*json.UnmarshalTypeError)(nil); errors.As(err, &e) && e.Field != "" {
		return badToken("its %.100q is of the wrong type: a JSON %s", e.Field, e.Value)
	}
	if e := (*exact.NameError)(nil); errors.As(err, &e) {
		return badToken("%v", e)
	}
	if errors.Is(err, jwt.ErrTokenRequiredClaimMissing) {
		return badToken("it lacks %s", strings.Join(t.missing(c), " and "))
	}
	for _, c := range []struct {
		is   error
		says string
	}{
		{jwt.ErrTokenMalformed, "it is not a JSON Web Token, or a claim has the wrong type or appears twice"},
		{jwt.ErrTokenUnverifiable, "this server has no key for its algorithm and key ID"},
		{jwt.ErrTokenSignatureInvalid, "its signature was made by none of this server's keys, or with another algorithm"},
		{jwt.ErrTokenNotValidYet, "it is not valid yet"},
		{jwt.ErrTokenInvalidIssuer, "this server does not trust its issuer"},
		{jwt.ErrTokenInvalidAudience, "it is for another audience"},
	} {
		if errors.Is(err, c.is) {
			return badToken("%s", c.says)
		}
	}
	if errors.Is(err, jwt.ErrTokenExpired) {
		return channels.ErrExpired
	}
	return ErrBadToken
}

// missing describes the claims that this server requires and the token lacks.
func (t *Tokens) missing(c *tokenClaims) (claims []string) {
	if c.ExpiresAt == nil && !t.opts.AllowNoExpiry {
		claims = append(claims, `"exp", its expiry`)
	}
	if c.Issuer == "" && t.opts.Issuer != "" {
		claims = append(claims, `"iss", its issuer`)
	}
	if strings.Join(c.Audience, "") == "" && t.opts.Audience != "" {
		claims = append(claims, `"aud", its audience`)
	}
	return claims
}
