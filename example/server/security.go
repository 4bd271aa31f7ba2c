package main

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/exact"
	"github.com/channels-go/channels/middleware"
)

// security is who has access, and how fast. Secrets come from files or from the
// environment, since everyone on the machine can read a command line.
type security struct {
	jwt         middleware.JWTOptions
	apiKeys     []middleware.ServerKey
	anonymous   middleware.Grants // of clients without a token
	rates       middleware.RateLimitOptions
	proxies     []netip.Prefix
	logRequests bool
	zmqToken    []byte // of the gateway; see gateway.go

	failed error // why the last file could not be used; takeFailed returns it
}

// open reports whether neither tokens nor keys are required.
func (s *security) open() bool { return len(s.jwt.Keys) == 0 && len(s.apiKeys) == 0 }

// grant adds a flag for patterns as in tokens; see middleware.Grants.
func grant(fs *flag.FlagSet, name string, to *[]string, usage string) {
	list(fs, name, usage, func(pattern string) error {
		*to = append(*to, pattern)
		_, err := middleware.Anonymous(middleware.Grants{Subscribe: []string{pattern}})
		return err
	})
}

// file adds a flag for a file. Its errors do not show the value, as those of
// package flag do: someone may have given the secret itself.
func (s *security) file(fs *flag.FlagSet, name, usage string, add func([]byte) error) {
	fs.Func(name, usage, func(v string) error {
		if err := readFile(v, add); err != nil && s.failed == nil {
			s.failed = fmt.Errorf("-%s: %w", name, err)
		}
		return nil
	})
}

// takeFailed returns why a file could not be used, and resets it.
func (s *security) takeFailed() error {
	err := s.failed
	s.failed = nil
	return err
}

func (s *security) flags(fs *flag.FlagSet) {
	s.file(fs, "jwt-public-key", "`FILE` with a public key in PEM that verifies tokens (RS256, ES256 or EdDSA, depending on the key); repeatable", s.addJWTPublicKey)
	fs.StringVar(&s.jwt.Issuer, "jwt-issuer", "", "the `ISSUER` that tokens must have")
	fs.StringVar(&s.jwt.Audience, "jwt-audience", "", "the `AUDIENCE` that tokens must have")
	fs.StringVar(&s.jwt.Cookie, "jwt-cookie", "", "`NAME` of a cookie that may hold the token, for server-sent events in browsers")
	duration(fs, "jwt-leeway", &s.jwt.Leeway, 0, 5*time.Minute, 1, "0 to 5m, with a unit: 0s, 10s",
		"the `TIME` by which the clocks of the issuer and of this server may differ (default 5s; up to 5m)")
	boolFlag(fs, "jwt-allow-no-expiry", &s.jwt.AllowNoExpiry, "accept tokens without \"exp\", which are valid for ever")
	boolFlag(fs, "jwt-allow-no-subject", &s.jwt.AllowNoSubject, "accept tokens without \"sub\", which -rate-user cannot limit")
	grant(fs, "jwt-default-subscribe", &s.jwt.Default.Subscribe, "`PATTERN` of channels that a token without the claim \"channels\" may subscribe to; repeatable, separated by spaces in the environment")
	grant(fs, "jwt-default-publish", &s.jwt.Default.Publish, "`PATTERN` of channels that such a token may publish on; repeatable, separated by spaces in the environment")
	boolFlag(fs, "jwt-default-list", &s.jwt.Default.List, "let such a token list all channels")
	grant(fs, "anonymous", &s.anonymous.Subscribe, "`PATTERN` of channels that anyone may subscribe to without a token or key; * matches any text; repeatable, separated by spaces in the environment")
	grant(fs, "anonymous-publish", &s.anonymous.Publish, "`PATTERN` of channels that anyone may publish on without a token or key; repeatable, separated by spaces in the environment")
	boolFlag(fs, "anonymous-list", &s.anonymous.List, "let anyone list all channels without a token or key")
	number(fs, "rate-ipv6-prefix", &s.rates.IPv6Prefix, 32, 128, "`BITS` of an IPv6 address that make the network that counts as one address for -rate-address (default 64)")
	number(fs, "rate-entries", &s.rates.MaxEntries, 1<<10, 10_000_000, "`N`: how many addresses, users and connections the rates remember (default 65536)")
	for _, f := range []struct {
		name, what string
		rate       *middleware.Rate
	}{
		{"rate-address", "requests and messages of one address", &s.rates.Address},
		{"rate-user", "requests and messages of one user", &s.rates.User},
		{"rate-connection", "messages over one WebSocket", &s.rates.Connection},
	} {
		fs.Func(f.name, "`RATE[,BURST]` for "+f.what+": how many per second, and how many at once, e.g. 10,50 (default: no limit)", func(v string) (err error) {
			*f.rate, err = parseRate(v)
			return err
		})
	}
	list(fs, "trusted-proxy", "`NETWORK` of proxies whose X-Forwarded-For is trusted, e.g. 10.0.0.0/8; repeatable, separated by spaces in the environment", func(v string) error {
		p, err := netip.ParsePrefix(v)
		if err != nil {
			return fmt.Errorf("%q is not a network like 10.0.0.0/8, 192.0.2.7/32 or 2001:db8::/48", v)
		}
		s.proxies = append(s.proxies, p)
		return nil
	})
	boolFlag(fs, "log-requests", &s.logRequests, "log each request, and each connection when it ends")
}

// maxFile is the maximum size of a file with keys.
const maxFile = 1 << 20

// readFile calls add with the contents of a file. Its errors do not show the
// file's name.
func readFile(name string, add func([]byte) error) error {
	f, err := os.Open(name)
	if err != nil {
		return withoutName(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return withoutName(err)
	}
	if len(b) > maxFile {
		return fmt.Errorf("it has more than %d bytes, which is the limit", maxFile)
	}
	if err := checkText(b); err != nil { // also for keys and certificates in PEM, and JSON
		return err
	}
	return add(b)
}

func withoutName(err error) error {
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		err = e.Err
	}
	return fmt.Errorf("the file cannot be read: %w", err)
}

func (s *security) addJWTPublicKey(b []byte) error {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PUBLIC KEY" {
		return errors.New(`the file has no public key; it has to begin with "-----BEGIN PUBLIC KEY-----", as openssl pkey -pubout writes it`)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return fmt.Errorf("the public key cannot be read: %w", err)
	}
	s.jwt.Keys = append(s.jwt.Keys, middleware.JWTKey{Key: key})
	return nil
}

func (s *security) addAPIKeys(b []byte) error {
	var keys []struct {
		Name string `json:"name"`
		Key  string `json:"key"`
		middleware.Grants
	}
	if err := exact.UnmarshalKnown(b, &keys); err != nil {
		// Any other error may show a key that is in the wrong place.
		what := "the JSON does not have this form"
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			what = fmt.Sprintf("there is a syntax error up to byte %d", syntax.Offset)
		}
		return fmt.Errorf(`API keys have to be JSON like [{"name":"billing","key":"…","publish":["orders.*"],"subscribe":["orders.*"],"list":true}], with no other fields and none twice; %s`, what)
	}
	for _, k := range keys {
		s.apiKeys = append(s.apiKeys, middleware.ServerKey{Name: k.Name, Key: k.Key, Grants: k.Grants})
	}
	return nil
}

func parseRate(v string) (r middleware.Rate, err error) {
	rate, burst, hasBurst := strings.Cut(v, ",")
	if r.PerSecond, err = strconv.ParseFloat(rate, 64); err == nil && hasBurst {
		r.Burst, err = strconv.Atoi(burst)
	}
	if err != nil || !(r.PerSecond >= 0.001 && r.PerSecond <= 1_000_000) || hasBurst && (r.Burst < 1 || r.Burst > 1_000_000) {
		return r, errors.New("it has the form RATE or RATE,BURST, e.g. 10 or 0.5,20: 0.001 to 1000000 a second, and 1 to 1000000 at once")
	}
	return r, nil
}

// anybody reports whether clients without a token or key may do anything.
func (s *security) anybody() bool {
	return len(s.anonymous.Subscribe) > 0 || len(s.anonymous.Publish) > 0 || s.anonymous.List
}

// around sets the hub's hooks. It returns the middleware around its handler.
func (s *security) around(o *channels.Options, log *slog.Logger) (func(http.Handler) http.Handler, error) {
	var stack []func(http.Handler) http.Handler // the first outermost
	add := func(m func(http.Handler) http.Handler, err error) error {
		stack = append(stack, m)
		return err
	}
	for _, every := range []string{"*", "null"} {
		if s.jwt.Cookie != "" && slices.Contains(o.AllowedOrigins, every) {
			return nil, fmt.Errorf("-jwt-cookie does not go with -origin '%s', since every website could use its visitors' cookies: list the origins that you trust", every)
		}
	}
	var errs []error
	if len(s.proxies) > 0 {
		errs = append(errs, add(middleware.TrustProxies(s.proxies...)))
	}
	if s.logRequests {
		access := middleware.Log(middleware.LogOptions{Logger: log, Skip: func(r *http.Request) bool { return r.URL.Path == "/healthz" || r.URL.Path == "/readyz" }})
		o.OnConnect, o.OnDisconnect = access.OnConnect, access.OnDisconnect
		add(access.Handler, nil)
	}
	add(middleware.Recover(log), nil)
	limits := s.rates != middleware.RateLimitOptions{}
	tokens, keys := len(s.jwt.Keys) > 0, len(s.apiKeys) > 0
	if len(o.AllowedOrigins) > 0 && (tokens || keys || limits) { // so that scripts can read refusals
		origins := o.AllowedOrigins
		if slices.Contains(origins, "*") {
			origins = []string{"*"}
		}
		errs = append(errs, add(middleware.CORS(middleware.CORSOptions{Origins: origins})))
	}
	var limiter *middleware.Limiter
	if limits {
		var err error
		if limiter, err = middleware.RateLimit(s.rates); err != nil {
			return nil, err
		}
		o.OnReceive = limiter.OnReceive
	}
	if keys {
		k := middleware.APIKeyOptions{Keys: s.apiKeys, Logger: log}
		if s.rates.Address != (middleware.Rate{}) {
			k.Limiter = limiter
		}
		errs = append(errs, add(middleware.APIKey(k)))
	}
	if limits {
		add(limiter.ByAddress, nil)
	}
	switch {
	case tokens:
		jwt := s.jwt
		jwt.Logger, jwt.Optional = log, s.anybody()
		users, err := middleware.JWT(jwt)
		if err != nil {
			errs = append(errs, err)
			break
		}
		add(users.Handler, nil)
		o.Authenticate, o.Authorize = users.Authenticate, users.Authorize
	case !reflect.DeepEqual(s.jwt, middleware.JWTOptions{}):
		return nil, errors.New("-jwt-issuer, -jwt-audience, -jwt-cookie and the other -jwt flags need a key: -jwt-secret-file or -jwt-public-key")
	}
	if limits {
		add(limiter.ByUser, nil)
	}
	switch {
	case tokens || keys:
		if !tokens {
			o.Authorize = middleware.Authorize
		}
		errs = append(errs, add(middleware.Anonymous(s.anonymous)))
	case s.anybody():
		return nil, errors.New("-anonymous needs -jwt-secret-file, -jwt-public-key or -api-keys-file: without them, everyone may do everything")
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return func(h http.Handler) http.Handler {
		for _, m := range slices.Backward(stack) {
			h = m(h)
		}
		return h
	}, nil
}
