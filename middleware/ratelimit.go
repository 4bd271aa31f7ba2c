package middleware

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/address"
)

// ErrRateLimited refuses requests and messages that come too fast. Test for it
// with errors.Is.
var ErrRateLimited = &channels.Error{Code: "rate_limited", Status: http.StatusTooManyRequests, Message: "too much at once; try again later"}

// Rate is a maximum rate. The zero Rate is no limit.
type Rate struct {
	// PerSecond is the mean: 0.001 to 1,000,000.
	PerSecond float64
	// Burst is how many may come at once after a pause: 1 to 1,000,000.
	// Default: PerSecond, rounded up.
	Burst int
}

// RateLimitOptions configures [RateLimit]. At least one Rate must be set.
type RateLimitOptions struct {
	// Address limits the HTTP requests from a client's address (handshakes,
	// streams and publishes) and its messages over all WebSockets. For IPv6, it
	// limits a network: see IPv6Prefix. The address is Request.RemoteAddr.
	// Behind a proxy, put [TrustProxies] around the limiter, or all clients
	// share one limit. If RemoteAddr is not an IP address, as for a Unix
	// socket, Address limits nothing: put [TrustUnixSocket] around it.
	Address Rate
	// IPv6Prefix is how many bits of an IPv6 address make the network that
	// counts as one client. Default 64, the smallest network that a client has;
	// 32 to 128. A site may have a /56 or a /48, and so 256 or 65,536 limits.
	// With 56 or 48 it has one, shared by everyone at that site.
	IPv6Prefix int
	// User limits the HTTP requests of an Identity.ID and its messages over all
	// WebSockets. It does not limit requests without an Identity.ID.
	User Rate
	// Connection limits the messages over one WebSocket.
	Connection Rate
	// MaxEntries is how many addresses are remembered, and how many users,
	// connections and addresses that sent wrong API keys. Each takes about 300
	// bytes. Beyond it, the entry that was used the longest time ago is
	// forgotten and starts anew. So a flood from more networks than MaxEntries
	// blocks no one, but passes. Choose more than the number of clients that
	// come in the time that a bucket needs to refill, Burst / PerSecond.
	// Against an attacker with many IPv6 networks, a shorter IPv6Prefix does
	// more. Default 65,536; 1,024 to 10,000,000.
	MaxEntries int
}

// RateLimit returns a new Limiter. An error names the wrong option and what is
// allowed.
func RateLimit(o RateLimitOptions) (*Limiter, error) {
	o.MaxEntries = cmp.Or(o.MaxEntries, 1<<16)
	if o.MaxEntries < 1<<10 || o.MaxEntries > 10_000_000 {
		return nil, fmt.Errorf("middleware: RateLimitOptions.MaxEntries is %d; it must be 1024 to 10000000", o.MaxEntries)
	}
	o.IPv6Prefix = cmp.Or(o.IPv6Prefix, 64)
	if o.IPv6Prefix < 32 || o.IPv6Prefix > 128 {
		return nil, fmt.Errorf("middleware: RateLimitOptions.IPv6Prefix is %d; it must be 32 to 128", o.IPv6Prefix)
	}
	if o.Address == (Rate{}) && o.User == (Rate{}) && o.Connection == (Rate{}) {
		return nil, errors.New("middleware: RateLimitOptions limits nothing; set Address, User or Connection")
	}
	for _, f := range []struct {
		name string
		rate *Rate
	}{{"Address", &o.Address}, {"User", &o.User}, {"Connection", &o.Connection}} {
		if err := f.rate.check(f.name); err != nil {
			return nil, err
		}
	}
	return &Limiter{
		ipv6:       o.IPv6Prefix,
		address:    newBuckets[netip.Prefix](o.Address, o.MaxEntries),
		wrongKeys:  newBuckets[netip.Prefix](o.Address, o.MaxEntries),
		user:       newBuckets[string](o.User, o.MaxEntries),
		connection: newBuckets[string](o.Connection, o.MaxEntries),
	}, nil
}

// check checks a rate and sets its default.
func (r *Rate) check(name string) error {
	switch {
	case *r == (Rate{}):
		return nil
	case !(r.PerSecond >= 0.001 && r.PerSecond <= 1_000_000): // NaN too
		return fmt.Errorf("middleware: RateLimitOptions.%s.PerSecond is %v; it must be 0.001 to 1000000", name, r.PerSecond)
	case r.Burst < 0 || r.Burst > 1_000_000:
		return fmt.Errorf("middleware: RateLimitOptions.%s.Burst is %d; it must be 1 to 1000000", name, r.Burst)
	case r.Burst == 0:
		r.Burst = int(math.Ceil(r.PerSecond))
	}
	return nil
}

// A Limiter refuses requests and messages that come too fast, with 429,
// Retry-After and the code "rate_limited". All methods may be called
// concurrently. Each limit is a token bucket in this process's memory: behind a
// load balancer, each replica counts on its own.
//
// Each request and each message takes one token. A batch takes one for each of
// its messages, if [Limiter.OnReceive] is set as the hub's hook; messages
// without a token are refused individually, in the results.
//
// A Limiter never limits requests with a valid API key ([APIKey] around it),
// requests for /healthz and /readyz, and messages of the app's own Go code. It
// does not limit by address if Request.RemoteAddr is not an IP address.
type Limiter struct {
	ipv6               int // bits
	address, wrongKeys *buckets[netip.Prefix]
	user, connection   *buckets[string]
}

// ByAddress limits requests by the client's address. Put it around [JWT].
func (l *Limiter) ByAddress(next http.Handler) http.Handler {
	return limit(l.address, addressPaid{}, "requests from this address", next, func(r *http.Request, _ channels.Identity) (netip.Prefix, bool) {
		key := address.NetworkBits(r.RemoteAddr, l.ipv6)
		return key, key.IsValid() // it is not for a Unix socket: all clients would share one limit
	})
}

// limit takes a token for each request that has a key.
func limit[K comparable](b *buckets[K], paid any, what string, next http.Handler, keyOf func(*http.Request, channels.Identity) (key K, ok bool)) http.Handler {
	if b == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, _ := channels.IdentityFrom(r.Context())
		key, ok := keyOf(r, id)
		if !ok || isServer(id) || isProbe(r) {
			next.ServeHTTP(w, r)
			return
		}
		if wait := b.take(key); wait > 0 {
			tooMany(w, r, what, wait)
			return
		}
		p := &prepaid{more: func() time.Duration { return b.take(key) }}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), paid, p)))
	})
}

// mayTryKey returns 0, or how long an address that sent wrong API keys must
// wait before it may send another key.
func (l *Limiter) mayTryKey(r *http.Request) time.Duration {
	if l == nil {
		return 0
	}
	return l.wrongKeys.wait(address.NetworkBits(r.RemoteAddr, l.ipv6))
}

// wrongKey records that an address sent a wrong API key.
func (l *Limiter) wrongKey(r *http.Request) {
	if l == nil {
		return
	}
	if key := address.NetworkBits(r.RemoteAddr, l.ipv6); key.IsValid() {
		l.wrongKeys.take(key)
	}
}

// ByUser limits requests by Identity.ID. Put it inside the middleware that
// authenticates users.
func (l *Limiter) ByUser(next http.Handler) http.Handler {
	return limit(l.user, userPaid{}, "requests of this user", next, func(_ *http.Request, id channels.Identity) (string, bool) {
		return userKey(id.ID), id.ID != ""
	})
}

// OnReceive is for [channels.Options].OnReceive. It limits messages over a
// WebSocket by connection, user and address, and the messages of a batch. It
// runs before they are parsed, so invalid messages count too. A refused message
// gets an error frame with the code "rate_limited", and the connection stays.
// Your own hook may call it and add checks.
func (l *Limiter) OnReceive(ctx context.Context, c channels.Client) error {
	if isServer(c.Identity) {
		return nil
	}
	if c.ID != "" {
		if wait := l.connection.take(c.ID); wait > 0 {
			return limited("messages over this connection", wait)
		}
	}
	// A running request has already taken a token for its first message. For a
	// WebSocket, the request has ended.
	var wait time.Duration
	if paid, _ := ctx.Value(userPaid{}).(*prepaid); paid != nil {
		wait = paid.take()
	} else if c.Identity.ID != "" {
		wait = l.user.take(userKey(c.Identity.ID))
	}
	if wait > 0 {
		return limited("messages of this user", wait)
	}
	if l.address == nil {
		return nil
	}
	if paid, _ := ctx.Value(addressPaid{}).(*prepaid); paid != nil {
		wait = paid.take()
	} else if key := address.NetworkBits(c.RemoteAddr, l.ipv6); key.IsValid() {
		wait = l.address.take(key)
	}
	if wait > 0 {
		return limited("messages from this address", wait)
	}
	return nil
}

// prepaid is the token that an HTTP request has already taken: its first
// message takes none.
type prepaid struct {
	used atomic.Bool
	more func() time.Duration
}

type (
	addressPaid struct{}
	userPaid    struct{}
)

func (p *prepaid) take() time.Duration {
	if !p.used.Swap(true) {
		return 0
	}
	return p.more()
}

// userKey returns the ID, or its hash if it is long, to bound memory.
func userKey(id string) string {
	if len(id) <= 64 {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return string(sum[:])
}

// seconds returns a duration in whole seconds, rounded up, for Retry-After.
func seconds(wait time.Duration) int64 { return int64(math.Ceil(wait.Seconds())) }

func limited(what string, wait time.Duration) error {
	return &channels.Error{Code: ErrRateLimited.Code, Status: ErrRateLimited.Status, Message: fmt.Sprintf("too many %s; try again in %d s", what, seconds(wait))}
}

func tooMany(w http.ResponseWriter, r *http.Request, what string, wait time.Duration) {
	w.Header().Set("Retry-After", strconv.FormatInt(seconds(wait), 10))
	channels.WriteError(w, r, limited(what, wait))
}
