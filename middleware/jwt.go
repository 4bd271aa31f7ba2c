package middleware

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/doors"
)

// Refusals with 401, by [JWT] and [APIKey]. An expired token is refused with
// [channels.ErrExpired].
var (
	ErrNoToken   = &channels.Error{Code: "no_token", Status: http.StatusUnauthorized, Message: "this needs a token: in the header \"Authorization: Bearer TOKEN\", or in a WebSocket subprotocol \"bearer.TOKEN\" next to \"channels\""}
	ErrBadToken  = &channels.Error{Code: "bad_token", Status: http.StatusUnauthorized, Message: "the token is not valid"}
	ErrBadAPIKey = &channels.Error{Code: "bad_api_key", Status: http.StatusUnauthorized, Message: "the API key is not one of this server's"}
)

// JWTKey verifies tokens, and the first []byte also signs tickets. Its type
// determines the algorithm:
//
//	[]byte              HS256; 32 bytes or more
//	*rsa.PublicKey      RS256; 2048 bits or more
//	*ecdsa.PublicKey    ES256; on the curve P-256
//	ed25519.PublicKey   Ed25519, and EdDSA, its name before RFC 9864
type JWTKey struct {
	// ID is the "kid" of the tokens that the key signs. A token with a kid is
	// checked with the keys of that ID and those without an ID; a token without
	// a kid is checked with all keys.
	ID  string
	Key any
}

// errNoCommandToken is ErrNoToken for a connect command.
var errNoCommandToken = &channels.Error{Code: ErrNoToken.Code, Status: ErrNoToken.Status, Message: "this needs a token in the connect command"}

// JWTOptions configures [JWT].
type JWTOptions struct {
	// Keys are 1 to 100. Use several to replace one without a break.
	Keys []JWTKey
	// Issuer and Audience, if set, must match a token's "iss" and be in its
	// "aud". Set Audience if the issuer's tokens are also for other services.
	// Default: neither is checked.
	Issuer, Audience string
	// Leeway is how far the clocks of the issuer and of this server may differ.
	// Default 5 s, so that a fresh token is not refused because the issuer's
	// clock is a second ahead. Up to 5 min; use 1 ns for practically none.
	Leeway time.Duration
	// Cookie is the name of the cookie that may hold the token. A browser also
	// sends its cookies with requests that other websites cause. The hub's own
	// check of the origin protects its endpoints against that, so list only
	// origins that you trust in Options.AllowedOrigins, and never "*" or
	// "null". Other routes need a protection of your own. A sibling host can
	// set a cookie of the same name, and a browser then sends both. Of up to 4
	// cookies, the valid one is used; if two are valid for two users, none is.
	// No other host can set a cookie whose name begins with "__Host-". Default:
	// no cookie is read.
	Cookie string
	// Optional lets requests without a token through, without an Identity.
	// Authorize then refuses everything, unless [Anonymous] grants rights. An
	// invalid token is still refused.
	Optional bool
	// AllowNoExpiry accepts tokens without "exp", which are valid for ever.
	AllowNoExpiry bool
	// AllowNoSubject accepts tokens without "sub". They belong to no particular
	// user, so [Limiter].ByUser cannot limit them.
	AllowNoSubject bool
	// Default is what a token without the claim "channels" allows. Default:
	// nothing.
	Default Grants
	// Logger logs each refused token at level debug, without the token.
	// Default: slog.Default().
	Logger *slog.Logger
}

// maxTokenBytes is the maximum length of a token. Servers and proxies accept
// headers of 8 KiB.
const maxTokenBytes = 8 << 10

// JWT authenticates users by signed JSON Web Tokens (RFC 7519) of at most 8
// KiB: over HTTP, with [Tokens.Handler], and in the commands of the client
// protocol, with [Tokens.Authenticate].
//
// The claims become the client's [channels.Identity]: "sub" its ID, "info" its
// Info, "exp" (plus the leeway) its Expires, which also ends connections, and
// "channels" the [Grants] in its Value, for [Tokens.Authorize]. The claim "nbf"
// is respected. Names of claims are case-sensitive, and none may appear twice. A
// "sub" that begins with "apikey:" or "zmq:" is refused, since it would pass for
// an API key or a gateway. A token with the claim "channel" is a ticket for that
// channel (see [Tokens.Ticket]), and says nothing about who its bearer is.
//
// An error names the wrong option and what is allowed.
func JWT(o JWTOptions) (*Tokens, error) {
	t := &Tokens{opts: o, log: cmp.Or(o.Logger, slog.Default())}
	t.opts.Default = o.Default.clone()
	if err := t.init(); err != nil {
		return nil, err
	}
	return t, nil
}

// Tokens verify users' tokens. They are immutable, so all their methods may be
// called concurrently. [JWT] makes them.
type Tokens struct {
	opts   JWTOptions
	keys   []verifyKey
	parser *jwt.Parser
	log    *slog.Logger
}

func (t *Tokens) init() error {
	o := &t.opts
	switch {
	case len(o.Keys) == 0 || len(o.Keys) > 100:
		return fmt.Errorf("middleware: JWTOptions.Keys has %d keys; it may have 1 to 100", len(o.Keys))
	case o.Leeway < 0 || o.Leeway > 5*time.Minute:
		return fmt.Errorf("middleware: JWTOptions.Leeway is %v; it must be 0 to 5m0s", o.Leeway)
	case o.Cookie != "" && (&http.Cookie{Name: o.Cookie, Value: "x"}).Valid() != nil:
		return fmt.Errorf("middleware: JWTOptions.Cookie is %q, which is not a valid cookie name", o.Cookie)
	}
	o.Leeway = cmp.Or(o.Leeway, defaultLeeway)
	if err := o.Default.check(); err != nil {
		return fmt.Errorf("middleware: JWTOptions.Default: %w", err)
	}
	var algs []string
	for i, k := range o.Keys {
		names, err := algorithms(k.Key)
		if err != nil {
			return fmt.Errorf("middleware: JWTOptions.Keys[%d].Key (ID %q) %w", i, k.ID, err)
		}
		key, err := cloneKey(k.Key)
		if err != nil {
			return fmt.Errorf("middleware: JWTOptions.Keys[%d].Key (ID %q) is not a valid key: %w", i, k.ID, err)
		}
		t.keys = append(t.keys, verifyKey{k.ID, names, key})
		algs = append(algs, names...)
	}
	opts := []jwt.ParserOption{jwt.WithValidMethods(algs), jwt.WithLeeway(o.Leeway), jwt.WithStrictDecoding()}
	if !o.AllowNoExpiry {
		opts = append(opts, jwt.WithExpirationRequired())
	}
	if o.Issuer != "" {
		opts = append(opts, jwt.WithIssuer(o.Issuer))
	}
	if o.Audience != "" {
		opts = append(opts, jwt.WithAudience(o.Audience))
	}
	t.parser = jwt.NewParser(opts...)
	return nil
}

// Handler is the middleware. It looks for a token in this order, and checks only
// the first that it finds:
//
//   - the header "Authorization: Bearer TOKEN";
//   - the WebSocket subprotocols, since a browser's script cannot set headers
//     for a WebSocket: new WebSocket(url, ["channels", "bearer." + token]). The
//     hub chooses "channels"; the token is neither sent back nor passed on;
//   - the cookie, if JWTOptions.Cookie names one. A browser's EventSource can
//     send nothing else.
//
// It never reads the URL, which ends up in logs. Refusals have the status 401,
// WWW-Authenticate and the codes "no_token", "bad_token" and "expired".
//
// Three kinds of requests pass unchecked: those with an API key ([APIKey] around
// it), those for the paths /healthz, /readyz, /channels.js and /channels.d.ts, and
// browsers' preflights, which carry no token. Anyone can send what looks like a
// preflight, so your own handlers behind it must refuse the method OPTIONS or check
// the Identity.
//
// A request of the client protocol passes without a token, since the token comes
// in its connect command: for exactly the paths /connection/websocket,
// /connection/sse, /connection/http_stream and /emulation. The hub lets nobody in
// there before Options.Authenticate has verified that token; without an
// Authenticate, it refuses the request (see [channels.WithTokenDue]). Handlers of
// your own at these paths must check the Identity.
func (t *Tokens) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if id, ok := channels.IdentityFrom(r.Context()); ok && isServer(id) || isProbe(r) || isPreflight(r) || doors.Public(r.URL.EscapedPath()) {
			next.ServeHTTP(w, r)
			return
		}
		tokens, err := t.find(r)
		found := len(tokens) > 0
		due := !found && !t.opts.Optional && doors.Open(r.URL.EscapedPath())
		if err == nil && !found && !t.opts.Optional && !due {
			err = t.noToken()
		}
		var id channels.Identity
		if err == nil && found {
			id, err = t.verifyOne(tokens)
		}
		switch {
		case err != nil:
			t.log.DebugContext(r.Context(), "refused", "by", "JWT", "remote", r.RemoteAddr, "err", err)
			unauthorized(w, r, err)
			return
		case found:
			noteUser(r.Context(), id.ID)
			r = r.WithContext(channels.WithIdentity(r.Context(), id))
			dropBearerProtocol(r)
		case due:
			r = r.WithContext(channels.WithTokenDue(r.Context()))
		}
		next.ServeHTTP(w, r)
	})
}

// Authenticate is for [channels.Options].Authenticate. It verifies the token of a
// connect or refresh command as Handler verifies those over HTTP. Without a token
// it lets a client in only if JWTOptions.Optional is set, without rights. It does
// not look at the data.
func (t *Tokens) Authenticate(_ context.Context, token string, _ json.RawMessage) (channels.Identity, error) {
	switch {
	case token != "":
		return t.verify(token)
	case t.opts.Optional:
		return channels.Identity{}, nil
	}
	return channels.Identity{}, errNoCommandToken
}

func badToken(format string, args ...any) error {
	return &channels.Error{Code: ErrBadToken.Code, Status: ErrBadToken.Status, Message: "the token is not valid: " + fmt.Sprintf(format, args...)}
}

// noToken returns ErrNoToken with all places where a token may be.
func (t *Tokens) noToken() error {
	e := *ErrNoToken
	if t.opts.Cookie != "" {
		e.Message += fmt.Sprintf(", or in the cookie %q", t.opts.Cookie)
	}
	return &e
}

// maxCookies is the maximum number of cookies of one name that are checked.
const maxCookies = 4

// find returns the request's token, or several if there are several cookies of
// the name: a browser also sends those that a sibling host has set.
func (t *Tokens) find(r *http.Request) ([]string, error) {
	token, found, err := bearer(r.Header)
	if err == nil && !found {
		token, found, err = bearerSubprotocol(r.Header)
	}
	switch {
	case err != nil:
		return nil, err
	case found:
		return []string{token}, nil
	case t.opts.Cookie == "":
		return nil, nil
	}
	var tokens []string
	for _, c := range r.CookiesNamed(t.opts.Cookie) {
		if !slices.Contains(tokens, c.Value) {
			tokens = append(tokens, c.Value)
		}
	}
	if len(tokens) > maxCookies {
		return nil, badToken("the request has %d cookies %q; it may have up to %d", len(tokens), t.opts.Cookie, maxCookies)
	}
	return tokens, nil
}

// verifyOne returns the user of the valid tokens, which must all have the same
// one. If no token is valid, it returns the error of the first one, since
// browsers send the most specific cookie first.
func (t *Tokens) verifyOne(tokens []string) (channels.Identity, error) {
	id, first := t.verify(tokens[0])
	valid := first == nil
	for _, token := range tokens[1:] {
		other, err := t.verify(token)
		switch {
		case err != nil:
		case !valid:
			id, valid = other, true
		case other.ID != id.ID || id.ID == "": // without a subject they may allow different things
			return channels.Identity{}, badToken("the request has cookies %q of two users: sign out and in again", t.opts.Cookie)
		}
	}
	if !valid {
		return channels.Identity{}, first
	}
	return id, nil
}
