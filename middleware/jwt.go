package middleware

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/exact"
)

// Refusals with 401, by [JWT] and [APIKey]. An expired token is refused with
// [channels.ErrExpired].
var (
	ErrNoToken   = &channels.Error{Code: "no_token", Status: http.StatusUnauthorized, Message: "this needs a token: in the header \"Authorization: Bearer TOKEN\", or in a WebSocket subprotocol \"bearer.TOKEN\" next to \"channels\""}
	ErrBadToken  = &channels.Error{Code: "bad_token", Status: http.StatusUnauthorized, Message: "the token is not valid"}
	ErrBadAPIKey = &channels.Error{Code: "bad_api_key", Status: http.StatusUnauthorized, Message: "the API key is not one of this server's"}
)

// JWTKey verifies tokens. Its type determines the algorithm:
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
	// [Authorize] then refuses everything, unless [Anonymous] grants rights. An
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
// KiB. It looks for a token in this order, and checks only the first that it
// finds:
//
//   - the header "Authorization: Bearer TOKEN";
//   - the WebSocket subprotocols, since a browser's script cannot set headers
//     for a WebSocket: new WebSocket(url, ["channels", "bearer." + token]). The
//     hub chooses "channels"; the token is neither sent back nor passed on;
//   - the cookie, if JWTOptions.Cookie names one. A browser's EventSource can
//     send nothing else.
//
// It never reads the URL, which ends up in logs. The claims become the
// request's [channels.Identity]: "sub" its ID, "info" its Info, "exp" (plus the
// leeway) its Expires, which also ends connections, and "channels" the [Grants]
// in its Value, for [Authorize]. The claim "nbf" is respected. Names of claims
// are case-sensitive, and none may appear twice. A "sub" that begins with
// "apikey:" or "zmq:" is refused, since it would pass for an API key or a
// gateway.
//
// Refusals have the status 401, WWW-Authenticate and the codes "no_token",
// "bad_token" and "expired". Three kinds of requests pass unchecked: those with
// an API key ([APIKey] around JWT), those for the paths /healthz and /readyz,
// and browsers' preflights, which carry no token. Anyone can send what looks
// like a preflight, so your own handlers behind JWT must refuse the method
// OPTIONS or check the Identity.
//
// An error names the wrong option and what is allowed.
func JWT(o JWTOptions) (func(http.Handler) http.Handler, error) {
	v := &tokenVerifier{opts: o, log: cmp.Or(o.Logger, slog.Default())}
	v.opts.Default = o.Default.clone()
	if err := v.init(); err != nil {
		return nil, err
	}
	return v.handler, nil
}

// A tokenVerifier is a JWT middleware. It is immutable.
type tokenVerifier struct {
	opts   JWTOptions
	keys   []verifyKey
	parser *jwt.Parser
	log    *slog.Logger
}

type verifyKey struct {
	id   string
	algs []string
	key  any
}

func (v *tokenVerifier) init() error {
	o := &v.opts
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
		v.keys = append(v.keys, verifyKey{k.ID, names, key})
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
	v.parser = jwt.NewParser(opts...)
	return nil
}

// algorithms returns the names of the only algorithm that a key is used with.
// The token does not choose it: otherwise a token could be signed with the
// public key as an HS256 secret.
func algorithms(key any) ([]string, error) {
	switch k := key.(type) {
	case []byte:
		if bytes.Contains(k, []byte("-----BEGIN")) {
			return nil, errors.New("is PEM text and would be taken for a secret of HS256; parse it, e.g. with x509.ParsePKIXPublicKey")
		}
		if len(k) < 32 {
			return nil, fmt.Errorf("is a secret of %d bytes; HS256 needs 32 or more (RFC 7518 section 3.2)", len(k))
		}
		return []string{"HS256"}, nil
	case *rsa.PublicKey:
		if k == nil || k.N == nil || k.N.BitLen() < 2048 {
			return nil, errors.New("is an RSA key of less than 2048 bits; RS256 needs 2048 or more")
		}
		return []string{"RS256"}, nil
	case *ecdsa.PublicKey:
		if k == nil || k.Curve != elliptic.P256() {
			return nil, errors.New("is an ECDSA key whose curve is not P-256; ES256 needs that")
		}
		if k.X == nil || k.Y == nil {
			return nil, errors.New("is an ECDSA key without a point")
		}
		return []string{"ES256"}, nil
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("is an Ed25519 key of %d bytes; it must have %d", len(k), ed25519.PublicKeySize)
		}
		return []string{edDSA, ed25519Name}, nil
	}
	return nil, fmt.Errorf("is a %T; it must be a []byte (HS256), *rsa.PublicKey (RS256), *ecdsa.PublicKey (ES256) or ed25519.PublicKey (Ed25519)", key)
}

// cloneKey copies a key that algorithms has accepted.
func cloneKey(key any) (any, error) {
	if b, ok := key.([]byte); ok {
		return bytes.Clone(b), nil
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	return x509.ParsePKIXPublicKey(der)
}

func (v *tokenVerifier) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if id, ok := channels.IdentityFrom(r.Context()); ok && isServer(id) || isProbe(r) || isPreflight(r) {
			next.ServeHTTP(w, r)
			return
		}
		tokens, err := v.find(r)
		found := len(tokens) > 0
		if err == nil && !found && !v.opts.Optional {
			err = v.noToken()
		}
		var id channels.Identity
		if err == nil && found {
			id, err = v.verifyOne(tokens)
		}
		switch {
		case err != nil:
			v.log.DebugContext(r.Context(), "refused", "by", "JWT", "remote", r.RemoteAddr, "err", err)
			unauthorized(w, r, err)
			return
		case found:
			noteUser(r.Context(), id.ID)
			r = r.WithContext(channels.WithIdentity(r.Context(), id))
			dropBearerProtocol(r)
		}
		next.ServeHTTP(w, r)
	})
}

func badToken(format string, args ...any) error {
	return &channels.Error{Code: ErrBadToken.Code, Status: ErrBadToken.Status, Message: "the token is not valid: " + fmt.Sprintf(format, args...)}
}

// noToken returns ErrNoToken with all places where a token may be.
func (v *tokenVerifier) noToken() error {
	e := *ErrNoToken
	if v.opts.Cookie != "" {
		e.Message += fmt.Sprintf(", or in the cookie %q", v.opts.Cookie)
	}
	return &e
}

// maxCookies is the maximum number of cookies of one name that are checked.
const maxCookies = 4

// find returns the request's token, or several if there are several cookies of
// the name: a browser also sends those that a sibling host has set.
func (v *tokenVerifier) find(r *http.Request) ([]string, error) {
	token, found, err := bearer(r.Header)
	if err == nil && !found {
		token, found, err = bearerSubprotocol(r.Header)
	}
	switch {
	case err != nil:
		return nil, err
	case found:
		return []string{token}, nil
	case v.opts.Cookie == "":
		return nil, nil
	}
	var tokens []string
	for _, c := range r.CookiesNamed(v.opts.Cookie) {
		if !slices.Contains(tokens, c.Value) {
			tokens = append(tokens, c.Value)
		}
	}
	if len(tokens) > maxCookies {
		return nil, badToken("the request has %d cookies %q; it may have up to %d", len(tokens), v.opts.Cookie, maxCookies)
	}
	return tokens, nil
}

// verifyOne returns the user of the valid tokens, which must all have the same
// one. If no token is valid, it returns the error of the first one, since
// browsers send the most specific cookie first.
func (v *tokenVerifier) verifyOne(tokens []string) (channels.Identity, error) {
	id, first := v.verify(tokens[0])
	valid := first == nil
	for _, token := range tokens[1:] {
		other, err := v.verify(token)
		switch {
		case err != nil:
		case !valid:
			id, valid = other, true
		case other.ID != id.ID || id.ID == "": // without a subject they may allow different things
			return channels.Identity{}, badToken("the request has cookies %q of two users: sign out and in again", v.opts.Cookie)
		}
	}
	if !valid {
		return channels.Identity{}, first
	}
	return id, nil
}

// tokenClaims are the claims that are read from a token.
type tokenClaims struct {
	jwt.RegisteredClaims
	Info     json.RawMessage `json:"info"`
	Channels *Grants         `json:"channels"`
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
func (v *tokenVerifier) verify(token string) (channels.Identity, error) {
	switch {
	case token == "":
		return channels.Identity{}, badToken("it is empty")
	case len(token) > maxTokenBytes:
		return channels.Identity{}, badToken("it has %d bytes; it may have up to %d", len(token), maxTokenBytes)
	}
	var c tokenClaims
	if _, err := v.parser.ParseWithClaims(token, &c, v.keysFor); err != nil {
		return channels.Identity{}, v.tokenError(err, &c)
	}
	id := channels.Identity{ID: c.Subject}
	switch {
	case c.Subject == "" && !v.opts.AllowNoSubject:
		return id, badToken(`it lacks the claim "sub", the user's id`)
	case strings.HasPrefix(c.Subject, serverID), strings.HasPrefix(c.Subject, gatewayID):
		return id, badToken(`its "sub" begins with %q, which is for API keys, or %q, which is for gateways`, serverID, gatewayID)
	}
	for _, claim := range []struct {
		name string
		time *jwt.NumericDate
	}{{"exp", c.ExpiresAt}, {"nbf", c.NotBefore}, {"iat", c.IssuedAt}} {
		if claim.time == nil {
			continue
		}
		if s := claim.time.Unix(); s < 0 || s > maxExpiry {
			return id, badToken("its %q is not a time in seconds since 1970, up to the year 9999", claim.name)
		}
	}
	if c.ExpiresAt != nil {
		id.Expires = c.ExpiresAt.Add(v.opts.Leeway)
	}
	if string(c.Info) != "null" {
		id.Info = c.Info
	}
	grants := v.opts.Default
	if c.Channels != nil {
		grants = *c.Channels
		if err := grants.check(); err != nil {
			return id, badToken(`in its claim "channels", %v`, err)
		}
	}
	id.Value = grants
	return id, nil
}

// keysFor returns the keys that may have signed a token.
func (v *tokenVerifier) keysFor(t *jwt.Token) (any, error) {
	if _, ok := t.Header["crit"]; ok {
		// RFC 7515 section 4.1.11: refuse unknown critical extensions.
		return nil, errors.New("it has critical extensions")
	}
	kid, named := t.Header["kid"]
	name, isText := kid.(string)
	if named && !isText {
		return nil, errors.New("its kid is not a string")
	}
	var set jwt.VerificationKeySet
	for _, k := range v.keys {
		if slices.Contains(k.algs, t.Method.Alg()) && (!named || k.id == "" || k.id == name) {
			set.Keys = append(set.Keys, k.key)
		}
	}
	if len(set.Keys) == 0 {
		return nil, errors.New("there is no key for its alg and kid")
	}
	return set, nil
}

// tokenError tells the sender of a token what is wrong with it.
func (v *tokenVerifier) tokenError(err error, c *tokenClaims) error {
	if e := (*json.UnmarshalTypeError)(nil); errors.As(err, &e) && e.Field != "" {
		return badToken("its %.100q is of the wrong type: a JSON %s", e.Field, e.Value)
	}
	if e := (*exact.NameError)(nil); errors.As(err, &e) {
		return badToken("%v", e)
	}
	if errors.Is(err, jwt.ErrTokenRequiredClaimMissing) {
		return badToken("it lacks %s", strings.Join(v.missing(c), " and "))
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
func (v *tokenVerifier) missing(c *tokenClaims) (claims []string) {
	if c.ExpiresAt == nil && !v.opts.AllowNoExpiry {
		claims = append(claims, `"exp", its expiry`)
	}
	if c.Issuer == "" && v.opts.Issuer != "" {
		claims = append(claims, `"iss", its issuer`)
	}
	if strings.Join(c.Audience, "") == "" && v.opts.Audience != "" {
		claims = append(claims, `"aud", its audience`)
	}
	return claims
}
