package middleware_test

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/middleware"
)

const (
	billingKey = "billing-key-0123456789"
	reportsKey = "reports-key-0123456789"
)

func apiKeys() wrapper {
	return must(middleware.APIKey(middleware.APIKeyOptions{Keys: []middleware.ServerKey{
		{Name: "billing", Key: billingKey, Grants: middleware.Grants{Publish: []string{"orders.*"}}},
		{Name: "reports", Key: reportsKey, Grants: middleware.Grants{Subscribe: []string{"*"}, List: true}},
	}}))
}

func TestAPIKey(t *testing.T) {
	s := serve(t, channels.Options{Authorize: middleware.Authorize}, apiKeys())
	for name, c := range map[string]struct {
		header []string
		status int
		code   string
	}{
		"X-API-Key":           {[]string{"X-API-Key", billingKey}, 200, ""},
		"Bearer":              {[]string{"Authorization", "Bearer " + billingKey}, 200, ""},
		"both":                {[]string{"X-API-Key", billingKey, "Authorization", "Bearer not.this"}, 200, ""},
		"another's":           {[]string{"X-API-Key", reportsKey}, 403, "forbidden"},
		"none":                {nil, 403, "forbidden"},
		"a wrong one":         {[]string{"X-API-Key", billingKey + "x"}, 401, "bad_api_key"},
		"a prefix":            {[]string{"X-API-Key", billingKey[:20]}, 401, "bad_api_key"},
		"a wrong bearer":      {[]string{"Authorization", "Bearer " + billingKey + "x"}, 401, "bad_api_key"},
		"an empty one":        {[]string{"X-API-Key", ""}, 401, "bad_api_key"},
		"a long one":          {[]string{"X-API-Key", strings.Repeat("x", 5000)}, 401, "bad_api_key"},
		"two":                 {[]string{"X-API-Key", billingKey, "X-API-Key", billingKey}, 401, "bad_api_key"},
		"a JWT":               {[]string{"Authorization", "Bearer a.b.c"}, 403, "forbidden"}, // not ours
		"another scheme":      {[]string{"Authorization", "Basic " + billingKey}, 403, "forbidden"},
		"a wrong one, in all": {[]string{"X-API-Key", "x", "Authorization", "Bearer " + billingKey}, 401, "bad_api_key"},
	} {
		a := s.publish("orders.1", "1", c.header...)
		require.Equal(t, c.status, a.status, "%s: %s", name, a.body)
		require.Equal(t, c.code, a.code(), name)
		if c.status == 401 {
			require.Equal(t, `Bearer realm="channels", error="invalid_token"`, a.header.Get("WWW-Authenticate"), name)
		}
	}
	for query, status := range map[string]int{"api_key": 400, "key": 400, "_key": 403} {
		require.Equal(t, status, s.do("POST", "/v1/channel/orders.1/publish?"+query+"="+billingKey, `{"header":"x","body":1}`).status, "a key in the URL is never accepted")
	}
	require.Equal(t, 403, s.publish("chat.1", "1", "X-API-Key", billingKey).status)
	require.Equal(t, 403, s.do("GET", "/v1/channel", "", "X-API-Key", billingKey).status)
	require.Equal(t, 200, s.do("GET", "/v1/channel", "", "X-API-Key", reportsKey).status)
}

// With APIKey around JWT, servers authenticate with a key and users with a
// token.
func TestAPIKeyAroundJWT(t *testing.T) {
	s := serve(t, channels.Options{Authorize: middleware.Authorize}, apiKeys(), hs256(middleware.JWTOptions{}))
	bearer := "Bearer " + token("ann", nil)
	require.Equal(t, 200, s.publish("orders.1", "1", "X-API-Key", billingKey).status)
	require.Equal(t, 200, s.publish("orders.1", "1", "Authorization", "Bearer "+billingKey).status)
	require.Equal(t, 200, s.publish("chat.1", "1", "Authorization", bearer).status)
	require.Equal(t, 403, s.publish("orders.1", "1", "Authorization", bearer).status)
	require.Equal(t, "no_token", s.publish("orders.1", "1").code())
	require.Equal(t, "bad_token", s.publish("orders.1", "1", "Authorization", "Bearer a.b.c").code())
	require.Equal(t, 200, s.publish("orders.1", "1", "X-API-Key", billingKey, "Authorization", bearer).status, "the key takes precedence")
	a := try(stack(whoami, apiKeys(), hs256(middleware.JWTOptions{})), "GET", "/", "", "X-API-Key", billingKey)
	require.Contains(t, a.body, `"id":"apikey:billing"`)
	// No user can have a name like an API key's, not even in the log.
	a = try(stack(whoami, apiKeys(), hs256(middleware.JWTOptions{})), "GET", "/", "", "Authorization", "Bearer "+token("apikey:billing", nil))
	require.Equal(t, 401, a.status)
	require.Contains(t, a.message(), `"sub" begins with "apikey:"`)
}

func TestAPIKeyOverAWebSocket(t *testing.T) {
	s := serve(t, channels.Options{Authorize: middleware.Authorize}, apiKeys(), hs256(middleware.JWTOptions{}))
	w := s.join("orders.1", "X-API-Key", reportsKey)
	require.Equal(t, 200, s.publish("orders.1", "1", "X-API-Key", billingKey).status)
	w.want(`{"header":"x","body":1}`)
	w.send(`{"header":"x","body":2}`)
	w.wantError("forbidden")
}

func TestAPIKeyOptions(t *testing.T) {
	one := func(name, key string) middleware.ServerKey { return middleware.ServerKey{Name: name, Key: key} }
	for says, keys := range map[string][]middleware.ServerKey{
		"Keys has 0 keys; it may have 1 to 1000":            nil,
		"Keys has 1001 keys":                                make([]middleware.ServerKey, 1001),
		`Keys[0].Name is ""; it must be 1 to 64`:            {one("", billingKey)},
		`Keys[0].Name is "a b"`:                             {one("a b", billingKey)},
		`Keys[1].Name is "a", which another key has too`:    {one("a", billingKey), one("a", reportsKey)},
		`Keys[1].Key, of "b", is the same as that of "a"`:   {one("a", billingKey), one("b", billingKey)},
		`Keys[0].Key, of "a", has 0 bytes; it must be 16 `:  {one("a", "")},
		`Keys[0].Key, of "a", has 15 bytes`:                 {one("a", "123456789012345")},
		`Keys[0].Key, of "a", has 257 bytes`:                {one("a", strings.Repeat("x", 257))},
		`Keys[0].Key, of "a", has 24 bytes; it must be 16 `: {one("a", "with.dots.0123456789abcd")},
		`Grants, of "a": publish has the pattern "a b"`:     {{Name: "a", Key: billingKey, Grants: middleware.Grants{Publish: []string{"a b"}}}},
	} {
		_, err := middleware.APIKey(middleware.APIKeyOptions{Keys: keys})
		require.ErrorContains(t, err, says)
		for _, k := range keys {
			if k.Key != "" {
				require.NotContains(t, err.Error(), k.Key)
			}
		}
	}
}

// A client may show only so many wrong keys per address. Right keys do not use
// up this limit, and do not help a client that has used it up either.
func TestAPIKeyLimitsWrongKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rs, log := newRecords()
		l := must(middleware.RateLimit(middleware.RateLimitOptions{Address: middleware.Rate{PerSecond: 0.5, Burst: 3}}))
		h := stack(whoami, must(middleware.APIKey(middleware.APIKeyOptions{
			Keys:    []middleware.ServerKey{{Name: "billing", Key: billingKey}},
			Limiter: l,
			Logger:  log,
		})), l.ByAddress)
		show := func(remote, key string) answer { return from(h, remote, "/", "X-API-Key", key) }
		const guess = "wrong-key-0123456789"
		for range 100 {
			require.Equal(t, 200, show("192.0.2.1:1", billingKey).status)
		}
		for range 3 {
			require.Equal(t, 401, show("192.0.2.1:1", guess).status)
		}
		require.Equal(t, 200, from(h, "192.0.2.1:1", "/").status, "this limit does not apply to requests without a key")
		for _, key := range []string{guess, billingKey} {
			a := show("192.0.2.1:2", key)
			require.Equal(t, 429, a.status)
			require.Equal(t, "rate_limited", a.code())
			require.Equal(t, "2", a.header.Get("Retry-After"))
		}
		require.Equal(t, 200, show("192.0.2.2:1", billingKey).status, "another address")
		a := from(h, "192.0.2.3:1", "/", "X-API-Key", guess, "X-API-Key", guess)
		require.Equal(t, 401, a.status)
		time.Sleep(2 * time.Second)
		require.Equal(t, 200, show("192.0.2.1:1", billingKey).status)
		require.Equal(t, 401, show("192.0.2.1:1", guess).status)
		require.Equal(t, 429, show("192.0.2.1:1", guess).status)
		for range 10 {
			require.Equal(t, 401, show("@", guess).status, "there are no addresses over a Unix socket")
		}
		require.NotContains(t, rs.String(), guess)
	})
}

// Each refused key is logged, without the key itself.
func TestAPIKeyLogsWhatItRefuses(t *testing.T) {
	rs := new(records)
	log := slog.New(slog.NewJSONHandler(rs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	l := must(middleware.RateLimit(middleware.RateLimitOptions{Address: middleware.Rate{PerSecond: 0.001, Burst: 2}}))
	h := must(middleware.APIKey(middleware.APIKeyOptions{Keys: []middleware.ServerKey{{Name: "billing", Key: billingKey}}, Limiter: l, Logger: log}))(whoami)
	const guess = "wrong-key-0123456789"
	try(h, "GET", "/", "")
	try(h, "GET", "/", "", "X-API-Key", billingKey)
	require.Empty(t, rs.Records())
	for i, says := range []string{"is not one of this server's", "2 headers", "too much"} {
		if i == 1 {
			try(h, "GET", "/", "", "X-API-Key", guess, "X-API-Key", guess)
		} else {
			try(h, "GET", "/", "", "X-API-Key", guess)
		}
		r := rs.Records()[i]
		require.Equal(t, "refused", r["msg"])
		require.Equal(t, "APIKey", r["by"])
		require.NotEmpty(t, r["remote"])
		require.Contains(t, r["err"], says)
	}
	require.NotContains(t, rs.String(), guess)
}

func TestAPIKeyNeedsALimiterOfAddresses(t *testing.T) {
	_, err := middleware.APIKey(middleware.APIKeyOptions{Keys: []middleware.ServerKey{{Name: "billing", Key: billingKey}},
		Limiter: must(middleware.RateLimit(middleware.RateLimitOptions{User: middleware.Rate{PerSecond: 1}}))})
	require.ErrorContains(t, err, "APIKeyOptions.Limiter has no rate for addresses")
}
