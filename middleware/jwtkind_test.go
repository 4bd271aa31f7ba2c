package middleware_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/middleware"
)

// TestJWTAlgorithmNames goes through the signature algorithms that IANA has
// registered for JSON Web Signatures. Each key verifies only its own algorithm,
// under every name of it.
func TestJWTAlgorithmNames(t *testing.T) {
	s := signers()
	registered := []string{"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "none",
		"EdDSA", "ES256K", "RS1", "ESB256", "ESB320", "ESB384", "ESB512", "Ed25519", "Ed448", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87"}
	for kind, c := range map[string]struct {
		key   any
		sign  func(text string) []byte
		names []string
	}{
		"a secret":     {secret, func(text string) []byte { return must(jwt.SigningMethodHS256.Sign(text, secret)) }, []string{"HS256"}},
		"RSA":          {&s.rsa.PublicKey, func(text string) []byte { return must(jwt.SigningMethodRS256.Sign(text, s.rsa)) }, []string{"RS256"}},
		"ECDSA, P-256": {&s.ecdsa.PublicKey, func(text string) []byte { return must(jwt.SigningMethodES256.Sign(text, s.ecdsa)) }, []string{"ES256"}},
		"Ed25519":      {s.ed.Public().(ed25519.PublicKey), func(text string) []byte { return must(s.ed.Sign(rand.Reader, []byte(text), crypto.Hash(0))) }, []string{"EdDSA", "Ed25519"}},
	} {
		m := must(middleware.JWT(middleware.JWTOptions{Keys: []middleware.JWTKey{{Key: c.key}}})).Handler
		for _, name := range append(registered, "ed25519", "EDDSA", "eddsa", "Ed25519ph") {
			text := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"alg":%q}`, name)) + "." +
				base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"sub":"ann","exp":%d}`, time.Now().Add(time.Hour).Unix()))
			a := try(m(whoami), "GET", "/", "", "Authorization", "Bearer "+text+"."+base64.RawURLEncoding.EncodeToString(c.sign(text)))
			want := 401
			if slices.Contains(c.names, name) {
				want = 200
			}
			require.Equal(t, want, a.status, "%s as %s: %s", kind, name, a.body)
		}
	}
}

// The clock of a login service may be slightly ahead or behind.
func TestJWTLeewayByDefault(t *testing.T) {
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for name, c := range map[string]struct {
		leeway time.Duration
		claims claims
		want   int
	}{
		"ahead":                  {0, claims{"nbf": at(3 * time.Second), "iat": at(3 * time.Second)}, 200},
		"behind":                 {0, claims{"exp": at(-2 * time.Second)}, 200},
		"far ahead":              {0, claims{"nbf": at(time.Minute)}, 401},
		"far behind":             {0, claims{"exp": at(-time.Minute)}, 401},
		"ahead, no leeway":       {1, claims{"nbf": at(30 * time.Second)}, 401},
		"behind, no leeway":      {1, claims{"exp": at(-2 * time.Second)}, 401},
		"far ahead, much leeway": {2 * time.Minute, claims{"nbf": at(time.Minute)}, 200},
	} {
		a := try(hs256(middleware.JWTOptions{Leeway: c.leeway})(whoami), "GET", "/", "", "Authorization", "Bearer "+token("ann", c.claims))
		require.Equal(t, c.want, a.status, "%s: %s", name, a.body)
	}
}

// A time out of range would wrap around to one long ago.
func TestJWTBadTimes(t *testing.T) {
	parts := strings.Split(token("ann", nil), ".")
	for _, claim := range []string{"exp", "nbf", "iat"} {
		for _, value := range []string{"1e308", "-1e308", "1e19", "9223372036854775807", "253402300800", "-1", "1e400", `"soon"`} {
			body := fmt.Sprintf(`{"sub":"ann","exp":%d,%q:%s}`, time.Now().Add(time.Hour).Unix(), claim, value)
			if claim == "exp" {
				body = fmt.Sprintf(`{"sub":"ann","exp":%s}`, value)
			}
			bearer := "Bearer " + signed(parts[0]+"."+base64.RawURLEncoding.EncodeToString([]byte(body)))
			require.Equal(t, 401, try(hs256(middleware.JWTOptions{})(whoami), "GET", "/", "", "Authorization", bearer).status, body)
		}
	}
}

// Another host of the same site can set a cookie of the same name. That neither
// locks the user out nor changes who the user is.
func TestJWTCookiesOfOneName(t *testing.T) {
	ann, again, bob := token("ann", nil), token("ann", claims{"info": 1}), token("bob", nil)
	expired, nobody := token("ann", claims{"exp": 1000}), token("", claims{"sub": nil})
	noOne := token("", claims{"sub": nil, "info": 1})
	m := hs256(middleware.JWTOptions{Cookie: "tok", AllowNoSubject: true})
	for name, c := range map[string]struct {
		cookies []string
		want    string // the user, or the error's code
	}{
		"one":                      {[]string{ann}, "ann"},
		"expired behind":           {[]string{ann, expired}, "ann"},
		"expired before":           {[]string{expired, ann}, "ann"},
		"garbage":                  {[]string{"garbage", ann, ""}, "ann"},
		"an empty one":             {[]string{"", ann}, "ann"},
		"the same twice":           {[]string{ann, ann}, "ann"},
		"two of one user":          {[]string{ann, again}, "ann"},
		"four":                     {[]string{"a", "b", "c", ann}, "ann"},
		"five":                     {[]string{"a", "b", "c", "d", ann}, "bad_token"},
		"five, of which two alike": {[]string{"a", "a", "b", "c", ann}, "ann"},
		"two users":                {[]string{ann, bob}, "bad_token"},
		"two users, with garbage":  {[]string{"x", bob, expired, ann}, "bad_token"},
		"two without a user":       {[]string{nobody, noOne}, "bad_token"},
		"one without a user":       {[]string{nobody, ann}, "bad_token"},
		"none, the first expired":  {[]string{expired, "garbage"}, "expired"},
		"none, the first garbage":  {[]string{"garbage", expired}, "bad_token"},
		"too long beside":          {[]string{strings.Repeat("a", 9000), ann}, "ann"},
	} {
		a := try(m(whoami), "GET", "/", "", "Cookie", "other=1; tok="+strings.Join(c.cookies, "; tok="))
		if a.status == http.StatusOK {
			require.Contains(t, a.body, `"id":"`+c.want+`"`, name)
		} else {
			require.Equal(t, c.want, a.code(), name)
		}
	}
}
