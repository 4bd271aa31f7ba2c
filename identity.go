package channels

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// Identity says who a client is, as the app's own middleware found out.
type Identity struct {
	// ID names the user; several connections may share it. DisconnectUser
	// takes it, and presence shows it.
	ID string
	// Info is any JSON that presence shows to others beside the ID. What the
	// user's connections publish carries both, as its Publisher, if together they
	// have at most about 2,000 bytes; otherwise it carries the ID alone.
	Info json.RawMessage
	// Expires is when the identity's connections are closed, with the code
	// "expired" (close code 3000). A client of the client protocol that has shown a
	// token is told to send a new one at this time. It is closed (3005) 25 s later, and
	// so is one without a token. Zero: never.
	Expires time.Time
	// Value is for the app's own Authorize and hooks; it is never sent.
	Value any

	grace time.Duration // for how long it is good after Expires: a session may be refreshing it
}

func (i *Identity) expired() bool { return i.expiredFor(i.grace) }

// expiredFor reports whether the identity has expired that long ago.
func (i *Identity) expiredFor(d time.Duration) bool {
	return !i.Expires.IsZero() && time.Since(i.Expires) >= d
}

type identityKey struct{}

// WithIdentity returns a context that carries id. A middleware around
// hub.Handler passes it on with r.WithContext.
func WithIdentity(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, id)
}

// IdentityFrom returns the identity that WithIdentity put into ctx.
func IdentityFrom(ctx context.Context) (Identity, bool) {
	id, ok := ctx.Value(identityKey{}).(Identity)
	return id, ok
}

type tokenDueKey struct{}

// WithTokenDue returns a context that says that the client has yet to show a
// token. It is for a middleware that requires tokens, and lets the requests of the
// client protocol through without one, since it comes in the connect command. No
// Identity that another middleware gives counts for such a request. The hub refuses
// it with the code "no_token" if it is for anything else, or if there is no
// Options.Authenticate to verify the token.
func WithTokenDue(ctx context.Context) context.Context {
	return context.WithValue(ctx, tokenDueKey{}, true)
}

func tokenDue(ctx context.Context) bool { return ctx.Value(tokenDueKey{}) != nil }

// withoutIdentity returns a request for which no Identity has been given.
func withoutIdentity(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), identityKey{}, nil))
}
