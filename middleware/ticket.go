package middleware

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/channels-go/channels"
)

// Ticket makes a ticket: a token that allows one user to subscribe to one channel,
// beside what the user's own token allows. The client sends it with its
// subscription. The SDKs of the client protocol ask the app for one whenever they
// need it: their option is called getToken.
//
// Another program can make one too. It has the claims "sub", the user's id,
// "channel", and "exp", and also "iss" and "aud" if JWTOptions has an Issuer or an
// Audience. The claim "channel" makes a token a ticket: it does not say who its
// bearer is, and a token without that claim is not a ticket.
//
// Ticket signs with the first of JWTOptions.Keys that is a []byte. The others only
// verify: if there is no other, sign where the private key is. To be of any use, a
// ticket must expire later than now, and its user and channel be valid; otherwise
// Ticket returns an error.
func (t *Tokens) Ticket(user, channel string, expires time.Time) (string, error) {
	fail := func(err error) (string, error) {
		return "", fmt.Errorf("middleware: no ticket for the user %.100q and the channel %.210q: %w", user, channel, err)
	}
	claims := jwt.MapClaims{"channel": channel}
	for name, value := range map[string]string{"sub": user, "iss": t.opts.Issuer, "aud": t.opts.Audience} {
		if value != "" {
			claims[name] = value
		}
	}
	if !expires.IsZero() {
		claims["exp"] = expires.Unix()
		if !time.Now().Before(expires) {
			return fail(errors.New("it would have expired already"))
		}
	}
	for _, k := range t.keys {
		secret, ok := k.key.([]byte)
		if !ok {
			continue
		}
		token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims)
		if k.id != "" {
			token.Header["kid"] = k.id
		}
		signed, err := token.SignedString(secret)
		if err == nil {
			_, err = t.useTicket(signed, user, channel)
		}
		if err != nil {
			return fail(err)
		}
		return signed, nil
	}
	return fail(errors.New("JWTOptions.Keys has public keys only, which cannot sign; sign it where the private key is, or add a secret ([]byte)"))
}

// Authorize is for [channels.Options].Authorize. It allows what the function
// [Authorize] allows, and also what a ticket in Request.Token does: its user, and no
// other, may subscribe to its channel until it expires. A ticket does not count for a
// pattern. A token that comes with a subscription and is no valid ticket is refused,
// even if the subscription is allowed without it.
func (t *Tokens) Authorize(ctx context.Context, r channels.Request) error {
	granted := Authorize(ctx, r)
	if r.Token == "" || r.Action != channels.ActionSubscribe {
		return granted
	}
	if r.Pattern {
		return badToken("a ticket is for one channel, and this is a pattern")
	}
	expires, err := t.useTicket(r.Token, r.Identity.ID, r.Channel)
	if err != nil {
		return err
	}
	if granted != nil && r.Until != nil {
		r.Until(expires)
	}
	return nil
}

// useTicket verifies a ticket that a user shows for a channel. It returns until when
// it is valid; the zero time is for ever.
func (t *Tokens) useTicket(ticket, user, channel string) (time.Time, error) {
	c, expires, err := t.parse(ticket)
	if err != nil {
		return time.Time{}, err
	}
	var its *string
	switch {
	case c.Channel == nil:
		return time.Time{}, badToken(`it is not a ticket, since it lacks the claim "channel"`)
	case json.Unmarshal(c.Channel, &its) != nil || its == nil || channels.CheckName(*its) != nil:
		return time.Time{}, badToken(`its "channel" is not a channel's name`)
	case c.Channels != nil:
		return time.Time{}, badToken(`it has the claims "channel" of a ticket and "channels" of a user's token; it must be one of them`)
	case c.Subject != user:
		return time.Time{}, badToken("it is the ticket of another user")
	case *its != channel:
		return time.Time{}, badToken("it is a ticket for the channel %q", *its)
	}
	return expires, nil
}
