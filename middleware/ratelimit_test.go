package middleware_test

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/middleware"
)

// asUser takes the user's ID from a header.
func asUser(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u := r.Header.Get("X-User"); u != "" {
			r = r.WithContext(channels.WithIdentity(r.Context(), channels.Identity{ID: u}))
		}
		next.ServeHTTP(w, r)
	})
}

func TestLimitByAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := must(middleware.RateLimit(middleware.RateLimitOptions{Address: middleware.Rate{PerSecond: 0.5, Burst: 2}}))
		h := l.ByAddress(whoami)
		get := func(remote string) int { return from(h, remote, "/").status }
		require.Equal(t, 200, get("192.0.2.1:1"))
		require.Equal(t, 200, get("192.0.2.1:2"), "the port does not count")
		a := from(h, "192.0.2.1:3", "/")
		require.Equal(t, 429, a.status)
		require.Equal(t, "rate_limited", a.code())
		require.Equal(t, "2", a.header.Get("Retry-After"))
		require.Contains(t, a.message(), "try again in 2 s")
		require.Equal(t, 200, get("192.0.2.2:1"), "another's does")
		require.Equal(t, 200, from(h, "192.0.2.1:1", "/healthz").status)

		time.Sleep(1500 * time.Millisecond)
		a = from(h, "192.0.2.1:3", "/")
		require.Equal(t, 429, a.status)
		require.Equal(t, "1", a.header.Get("Retry-After"), "rounded up")
		time.Sleep(500 * time.Millisecond)
		require.Equal(t, 200, get("192.0.2.1:1"), "as Retry-After said")
		require.Equal(t, 429, get("192.0.2.1:1"))
		time.Sleep(time.Hour)
		require.Equal(t, []int{200, 200, 429}, []int{get("192.0.2.1:1"), get("192.0.2.1:1"), get("192.0.2.1:1")}, "tokens accumulate only up to the burst")
	})
}

// A client can have a whole /64 of IPv6 addresses, so it counts as one.
func TestLimitByIPv6Network(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := must(middleware.RateLimit(middleware.RateLimitOptions{Address: middleware.Rate{PerSecond: 0.001}}))
		h := l.ByAddress(whoami)
		require.Equal(t, 200, from(h, "[2001:db8:0:1::1]:1", "/").status)
		require.Equal(t, 429, from(h, "[2001:db8:0:1:ffff::2]:1", "/").status)
		require.Equal(t, 200, from(h, "[2001:db8:0:2::1]:1", "/").status)
		require.Equal(t, 200, from(h, "[::ffff:192.0.2.1]:1", "/").status)
		require.Equal(t, 429, from(h, "192.0.2.1:1", "/").status, "the same address, mapped to IPv4")
	})
}

// A site can have more than a /64; IPv6Prefix sets what counts as one client.
func TestLimitByIPv6Prefix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for bits, want := range map[int]int{0: 256, 32: 1, 48: 1, 56: 1, 60: 16, 64: 256, 128: 256} {
			l := must(middleware.RateLimit(middleware.RateLimitOptions{Address: middleware.Rate{PerSecond: 0.001}, IPv6Prefix: bits}))
			h, in := l.ByAddress(whoami), 0
			for i := range 256 {
				if from(h, fmt.Sprintf("[2001:db8:1:%x::1]:1", i), "/").status == 200 {
					in++
				}
			}
			require.Equal(t, want, in, "/%d", bits)
		}
	})
}

// Over a Unix socket there are no addresses, and all clients would share a
// limit.
func TestLimitIgnoresUnixSockets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := must(middleware.RateLimit(middleware.RateLimitOptions{Address: middleware.Rate{PerSecond: 0.001}}))
		h := l.ByAddress(whoami)
		for _, remote := range []string{"@", "", "/run/client.sock"} {
			for range 5 {
				require.Equal(t, 200, from(h, remote, "/").status)
			}
		}
		require.Zero(t, l.Len())
		h = stack(whoami, must(middleware.TrustUnixSocket()), l.ByAddress)
		for _, client := range []string{"203.0.113.1", "203.0.113.2"} {
			require.Equal(t, 200, from(h, "@", "/", "X-Forwarded-For", client).status)
			require.Equal(t, 429, from(h, "@", "/", "X-Forwarded-For", client).status)
		}
	})
}

func TestLimitBehindAProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := must(middleware.RateLimit(middleware.RateLimitOptions{Address: middleware.Rate{PerSecond: 1}}))
		h := stack(whoami, must(middleware.TrustProxies(prefixes("10.0.0.0/8")...)), l.ByAddress)
		require.Equal(t, 200, from(h, "10.0.0.1:1", "/", "X-Forwarded-For", "192.0.2.1").status)
		require.Equal(t, 200, from(h, "10.0.0.1:1", "/", "X-Forwarded-For", "192.0.2.2").status)
		require.Equal(t, 429, from(h, "10.0.0.1:1", "/", "X-Forwarded-For", "9.9.9.9, 192.0.2.2").status, "an address that the client made up does not count")
	})
}

func TestLimitByUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := must(middleware.RateLimit(middleware.RateLimitOptions{User: middleware.Rate{PerSecond: 1, Burst: 2}}))
		h := stack(whoami, asUser, l.ByAddress, l.ByUser)
		long := strings.Repeat("u", 3000)
		for _, user := range []string{"ann", "bob", long, long + "2"} {
			require.Equal(t, 200, from(h, "192.0.2.1:1", "/", "X-User", user).status)
			require.Equal(t, 200, from(h, "192.0.2.2:1", "/", "X-User", user).status)
			a := from(h, "192.0.2.3:1", "/", "X-User", user)
			require.Equal(t, 429, a.status)
			require.Equal(t, "1", a.header.Get("Retry-After"))
		}
		for range 10 {
			require.Equal(t, 200, from(h, "192.0.2.1:1", "/").status, "a request without a user")
		}
	})
}

// A limiter inside APIKey does not limit requests with an API key.
func TestLimitsAreNotForAPIKeys(t *testing.T) {
	r := middleware.Rate{PerSecond: 0.001}
	l := must(middleware.RateLimit(middleware.RateLimitOptions{Address: r, User: r, Connection: r}))
	s := serve(t, channels.Options{Authorize: middleware.Authorize, OnReceive: l.OnReceive}, apiKeys(), l.ByAddress, l.ByUser)
	for range 5 {
		require.Equal(t, 200, s.publish("orders.1", "1", "X-API-Key", billingKey).status)
	}
	require.Zero(t, l.Len())
	s.PublishGo("a", "1") // the app itself is not limited either
}

func TestLimitByConnection(t *testing.T) {
	l := must(middleware.RateLimit(middleware.RateLimitOptions{Connection: middleware.Rate{PerSecond: 0.001, Burst: 2}}))
	s := serve(t, channels.Options{OnReceive: l.OnReceive}, l.ByAddress, l.ByUser)
	for range 2 { // each connection has its own limit
		w := s.join("a")
		for range 2 {
			w.say(`{"header":"x","body":1}`)
		}
		w.send(`{"header":"x","body":1,"id":7}`)
		got, err := w.read()
		require.NoError(t, err)
		require.Regexp(t, `^{"header":"error","body":{"code":"rate_limited","msg":"too many messages over this connection; try again in \d+ s"},"id":7}$`, got)
		s.PublishGo("a", "2")
		w.want(`{"header":"m","body":2}`) // the connection stays open
	}
}

// A user's messages count across all connections of this user, and over HTTP.
func TestLimitMessagesOfAUser(t *testing.T) {
	l := must(middleware.RateLimit(middleware.RateLimitOptions{User: middleware.Rate{PerSecond: 0.001, Burst: 5}}))
	s := serve(t, channels.Options{OnReceive: l.OnReceive}, asUser, l.ByUser)
	one, two := s.join("a", "X-User", "ann"), s.join("b", "X-User", "ann") // 2
	for _, w := range []*ws{one, two} {                                    // 4
		w.say(`{"header":"x","body":1}`)
	}
	require.Equal(t, 200, s.publish("c", "1", "X-User", "ann").status) // 5, and not 6
	one.send(`{"header":"x","body":1}`)
	one.wantError("rate_limited")
	a := s.publish("c", "1", "X-User", "ann")
	require.Equal(t, 429, a.status)
	require.NotEmpty(t, a.header.Get("Retry-After"))
	require.Equal(t, 200, s.publish("c", "1", "X-User", "bob").status)
	require.Equal(t, 200, s.publish("c", "1").status)
}

// Each message in a batch counts.
func TestLimitBatches(t *testing.T) {
	r := middleware.Rate{PerSecond: 0.001, Burst: 3}
	const batch = `{"channels":["a","b","c","d","e"],"header":"x","body":1}`
	statuses := func(a answer) (got []string) {
		require.Equal(t, 200, a.status, a.body)
		var b struct {
			Results []struct {
				Status string
				Error  struct{ Code string }
			}
		}
		require.NoError(t, json.Unmarshal([]byte(a.body), &b))
		for _, r := range b.Results {
			got = append(got, r.Status+r.Error.Code)
		}
		return got
	}
	want := []string{"ok", "ok", "ok", "failrate_limited", "failrate_limited"}
	t.Run("address", func(t *testing.T) {
		l := must(middleware.RateLimit(middleware.RateLimitOptions{Address: r}))
		s := serve(t, channels.Options{OnReceive: l.OnReceive}, l.ByAddress)
		require.Equal(t, want, statuses(s.do("POST", "/v1/publish", batch)))
		require.Equal(t, 429, s.do("POST", "/v1/publish", batch).status)
	})
	t.Run("user", func(t *testing.T) {
		l := must(middleware.RateLimit(middleware.RateLimitOptions{User: r}))
		s := serve(t, channels.Options{OnReceive: l.OnReceive}, asUser, l.ByUser)
		require.Equal(t, want, statuses(s.do("POST", "/v1/publish", batch, "X-User", "ann")))
		require.Equal(t, 429, s.do("POST", "/v1/publish", batch, "X-User", "ann").status)
	})
	t.Run("user, with the hook alone", func(t *testing.T) {
		l := must(middleware.RateLimit(middleware.RateLimitOptions{User: r}))
		s := serve(t, channels.Options{OnReceive: l.OnReceive}, asUser)
		require.Equal(t, want, statuses(s.do("POST", "/v1/publish", batch, "X-User", "ann")))
		a := s.publish("a", "1", "X-User", "ann")
		require.Equal(t, "rate_limited", a.code())
		require.Equal(t, 429, a.status)
	})
}

// A limiter remembers no more addresses than MaxEntries, however many come. It
// forgets full ones as new ones arrive.
func TestLimiterMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := must(middleware.RateLimit(middleware.RateLimitOptions{Address: middleware.Rate{PerSecond: 1, Burst: 2}, MaxEntries: 1024}))
		h := l.ByAddress(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		for i := range 20_000 {
			from(h, fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255), "/")
			from(h, fmt.Sprintf("[2001:db8:%x:%x::1]:1", i>>8, i&255), "/")
		}
		require.Equal(t, 1024, l.Len())
		time.Sleep(time.Minute) // all buckets are full again
		for i := range 1024 {
			from(h, fmt.Sprintf("192.168.%d.%d:1", i>>8, i&255), "/")
		}
		require.Less(t, l.Len(), 1200)
		time.Sleep(time.Minute)
		for range 600 { // each new entry evicts two
			from(h, fmt.Sprintf("172.16.0.%d:1", time.Now().UnixNano()%2), "/")
			time.Sleep(time.Minute)
		}
		require.LessOrEqual(t, l.Len(), 1024)
	})
}

// An entry in use stays while others come and go.
func TestLimiterForgetsTheLeastUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := must(middleware.RateLimit(middleware.RateLimitOptions{Address: middleware.Rate{PerSecond: 0.001}, MaxEntries: 1024}))
		h := l.ByAddress(whoami)
		require.Equal(t, 200, from(h, "192.0.2.1:1", "/").status)
		for i := range 10_000 {
			from(h, fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255), "/")
			if i%5 == 0 {
				require.Equal(t, 429, from(h, "192.0.2.1:1", "/").status)
			}
		}
	})
}

func TestLimiterConcurrently(t *testing.T) {
	l := must(middleware.RateLimit(middleware.RateLimitOptions{Address: middleware.Rate{PerSecond: 0.001, Burst: 100}, MaxEntries: 1024}))
	h := l.ByAddress(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	var mu sync.Mutex
	passed := 0
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 100 {
				if from(h, "192.0.2.1:1", "/").status == 200 {
					mu.Lock()
					passed++
					mu.Unlock()
				}
				from(h, fmt.Sprintf("10.0.%d.%d:1", g, i), "/")
			}
		})
	}
	wg.Wait()
	require.Equal(t, 100, passed)
}

func TestRateLimitOptions(t *testing.T) {
	ok := middleware.Rate{PerSecond: 1}
	for says, o := range map[string]middleware.RateLimitOptions{
		"limits nothing; set Address, User or Connection": {},
		"MaxEntries is 1023; it must be 1024 to 10000000": {Address: ok, MaxEntries: 1023},
		"MaxEntries is -1":                                             {Address: ok, MaxEntries: -1},
		"MaxEntries is 10000001":                                       {Address: ok, MaxEntries: 10_000_001},
		"IPv6Prefix is 31; it must be 32 to 128":                       {Address: ok, IPv6Prefix: 31},
		"IPv6Prefix is 129":                                            {Address: ok, IPv6Prefix: 129},
		"IPv6Prefix is -1":                                             {Address: ok, IPv6Prefix: -1},
		"Address.PerSecond is 0; it must be 0.001 to 1000000":          {Address: middleware.Rate{Burst: 5}},
		"User.PerSecond is -1":                                         {User: middleware.Rate{PerSecond: -1}},
		"Connection.PerSecond is 0.0001":                               {Connection: middleware.Rate{PerSecond: 0.0001}},
		"Connection.PerSecond is +Inf":                                 {Connection: middleware.Rate{PerSecond: math.Inf(1)}},
		"Connection.PerSecond is NaN":                                  {Connection: middleware.Rate{PerSecond: math.NaN()}},
		"Connection.PerSecond is 1.000001e+06":                         {Connection: middleware.Rate{PerSecond: 1_000_001}},
		"Connection.Burst is -1; it must be 1 to 1000000":              {Connection: middleware.Rate{PerSecond: 1, Burst: -1}},
		"middleware: RateLimitOptions.Connection.Burst is 1000001; it": {Connection: middleware.Rate{PerSecond: 1, Burst: 1_000_001}},
	} {
		_, err := middleware.RateLimit(o)
		require.ErrorContains(t, err, says)
	}
}

func BenchmarkLimiter(b *testing.B) {
	l := must(middleware.RateLimit(middleware.RateLimitOptions{Connection: middleware.Rate{PerSecond: 1e6, Burst: 1e6}}))
	c := channels.Client{ID: "node-1"}
	b.ReportAllocs()
	for b.Loop() {
		l.OnReceive(b.Context(), c)
	}
}

// A refused message counts like a published one: the limit applies before the
// message is read.
func TestLimitRefusedMessages(t *testing.T) {
	for name, o := range map[string]middleware.RateLimitOptions{
		"connection": {Connection: middleware.Rate{PerSecond: 0.001, Burst: 5}},
		"user":       {User: middleware.Rate{PerSecond: 0.001, Burst: 6}},    // and one for the handshake
		"address":    {Address: middleware.Rate{PerSecond: 0.001, Burst: 6}}, // the same
	} {
		t.Run(name, func(t *testing.T) {
			l := must(middleware.RateLimit(o))
			s := serve(t, channels.Options{OnReceive: l.OnReceive}, asUser, l.ByAddress, l.ByUser)
			w := s.join("a", "X-User", "ann")
			for text, code := range map[string]string{
				`{"id":1}`: "bad_message", `{`: "bad_json", `{"header":"error","body":1}`: "reserved_header",
				`{"header":"x","body":1,"key":""}`: "bad_idempotency_key", `{"header":"x","body":1,"key":"k"}`: "no_history",
			} {
				w.send(text)
				w.wantError(code)
			}
			for _, text := range []string{`{"id":1}`, `{`, `{"header":"x","body":1,"id":"me"}`, `{"id":{`, `{"id":1e`, `[]`} {
				w.send(text)
				w.wantError("rate_limited")
			}
		})
	}
}

// Messages without an identity count for the address, however many WebSockets
// it opens.
func TestLimitMessagesOfAnAddress(t *testing.T) {
	l := must(middleware.RateLimit(middleware.RateLimitOptions{Address: middleware.Rate{PerSecond: 0.001, Burst: 6}}))
	s := serve(t, channels.Options{OnReceive: l.OnReceive}, l.ByAddress, l.ByUser)
	one, two := s.join("a"), s.join("b") // 2
	for _, w := range []*ws{one, two} {  // 4
		w.say(`{"header":"x","body":1}`)
	}
	require.Equal(t, 200, s.publish("c", "1").status) // 5, and not 6
	two.send(`{`)                                     // 6
	two.wantError("bad_json")
	one.send(`{"header":"x","body":1}`)
	one.wantError("rate_limited")
	require.Equal(t, 429, s.publish("c", "1").status)
}
