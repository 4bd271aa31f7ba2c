package middleware

import (
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

// ErrRateLimited refuses what comes too fast; errors.Is tells it from others.
var ErrRateLimited = &channels.Error{Code: "rate_limited", Status: http.StatusTooManyRequests, Message: "too much at once; try again later"}

// Rate is how fast something may come. The zero Rate is no limit.
type Rate struct {
	// PerSecond is the mean: 0.001 to 1,000,000.
	PerSecond float64
	// Burst is how much may come at once, after a pause: 1 to 1,000,000.
	// Default: PerSecond, rounded up.
	Burst int
}

// RateLimitOptions configure [RateLimit]. At least one Rate is to be set.
type RateLimitOptions struct {
	// Address limits the HTTP requests of a client's address: handshakes,
	// streams and publishes, and its messages over all WebSockets. For IPv6, the network counts, see IPv6Prefix.
	// The address is Request.RemoteAddr: behind a proxy, put [TrustProxies]
	// around it, or all clients share one limit. Where it is no address, as
	// over a Unix socket, nothing is limited by it: put [TrustUnixSocket]
	// around it.
	Address Rate
	// IPv6Prefix is how many bits of an IPv6 address make the network that
	// counts as one client. Default 64, the least that a client has; 32 to
	// 128. A site may have a /56 or a /48, and so 256 or 65,536 limits: with
	// 56 or 48 it has one, and so have all who share that site.
	IPv6Prefix int
	// User limits the HTTP requests, and the messages over all WebSockets,
	// of an Identity.ID. Who has none is not limited by it.
	User Rate
	// Connection limits the messages that are sent over one WebSocket.
	Connection Rate
	// MaxEntries bounds how many addresses are remembered, and how many that
	// have shown wrong API keys, users, and connections, each taking about 300
	// bytes. Past it, the one that was heard of the longest time ago is
	// forgotten, and begins anew: a flood from more networks than this locks
	// nobody out, but passes. Choose more than the clients that come in the
	// time in which a bucket fills up, Burst / PerSecond; against whoever has
	// many IPv6 networks, a shorter IPv6Prefix does more. Default 65,536;
	// 1,024 to 10,000,000.
	MaxEntries int
}

// RateLimit makes a Limiter. An error names the option that is wrong, and what
// is allowed.
func RateLimit(o RateLimitOptions) (*Limiter, error) {
	if o.MaxEntries == 0 {
		o.MaxEntries = 1 << 16
	}
	if o.MaxEntries < 1<<10 || o.MaxEntries > 10_000_000 {
		return nil, fmt.Errorf("middleware: RateLimitOptions.MaxEntries is %d; it may be 1024 to 10000000", o.MaxEntries)
	}
	if o.IPv6Prefix == 0 {
		o.IPv6Prefix = 64
	}
	if o.IPv6Prefix < 32 || o.IPv6Prefix > 128 {
		return nil, fmt.Errorf("middleware: RateLimitOptions.IPv6Prefix is %d; it may be 32 to 128", o.IPv6Prefix)
	}
	if o.Address == (Rate{}) && o.User == (Rate{}) && o.Connection == (Rate{}) {
		return nil, errors.New("middleware: RateLimitOptions limit nothing; set Address, User or Connection")
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

// check checks a rate, and sets its default.
func (r *Rate) check(name string) error {
	switch {
	case *r == (Rate{}):
		return nil
	case !(r.PerSecond >= 0.001 && r.PerSecond <= 1_000_000): // NaN too
		return fmt.Errorf("middleware: RateLimitOptions.%s.PerSecond is %v; it may be 0.001 to 1000000", name, r.PerSecond)
	case r.Burst < 0 || r.Burst > 1_000_000:
		return fmt.Errorf("middleware: RateLimitOptions.%s.Burst is %d; it may be 1 to 1000000", name, r.Burst)
	case r.Burst == 0:
		r.Burst = int(math.Ceil(r.PerSecond))
	}
	return nil
}

// A Limiter refuses what comes too fast, with 429, Retry-After and the code
// "rate_limited". Its methods may be called by many goroutines at the same
// time. Each limit is a token bucket, in memory, for this process alone:
// behind a load balancer, each replica counts for itself.
//
// Each request and each message takes one. A batch takes one for each of its
// messages, if [Limiter.OnReceive] is set as the hub's hook; those for which
// there is none are refused by themselves, in the results.
//
// Never limited are requests with a valid API key ([APIKey] around it), those of
// /healthz and /readyz, and messages of the app's own Go code; and by address,
// those whose Request.RemoteAddr is no address.
type Limiter struct {
	ipv6               int // bits
	address, wrongKeys *buckets[netip.Prefix]
	user, connection   *buckets[string]
}

// ByAddress limits requests by the client's address. It goes around [JWT].
func (l *Limiter) ByAddress(next http.Handler) http.Handler {
	if l.address == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, _ := channels.IdentityFrom(r.Context())
		if isServer(id) || isProbe(r) {
			next.ServeHTTP(w, r)
			return
		}
		key := address.NetworkBits(r.RemoteAddr, l.ipv6)
		if !key.IsValid() { // over a Unix socket: all would share one limit
			next.ServeHTTP(w, r)
			return
		}
		if wait := l.address.take(key); wait > 0 {
			tooMany(w, r, "requests from this address", wait)
			return
		}
		p := &prepaid{more: func() time.Duration { return l.address.take(key) }}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), addressPaid{}, p)))
	})
}

// mayTryKey returns 0, or after what time an address that has shown wrong API
// keys may show one again.
func (l *Limiter) mayTryKey(r *http.Request) time.Duration {
	if l == nil {
		return 0
	}
	return l.wrongKeys.wait(address.NetworkBits(r.RemoteAddr, l.ipv6))
}

// wrongKey notes that an address has shown a wrong API key.
func (l *Limiter) wrongKey(r *http.Request) {
	if l == nil {
		return
	}
	if key := address.NetworkBits(r.RemoteAddr, l.ipv6); key.IsValid() {
		l.wrongKeys.take(key)
	}
}

// ByUser limits requests by Identity.ID. It goes inside of what finds out the
// user.
func (l *Limiter) ByUser(next http.Handler) http.Handler {
	if l.user == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, _ := channels.IdentityFrom(r.Context())
		if id.ID == "" || isServer(id) || isProbe(r) {
			next.ServeHTTP(w, r)
			return
		}
		key := userKey(id.ID)
		if wait := l.user.take(key); wait > 0 {
			tooMany(w, r, "requests of this user", wait)
			return
		}
		p := &prepaid{more: func() time.Duration { return l.user.take(key) }}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), userPaid{}, p)))
	})
}

// OnReceive is for [channels.Options].OnReceive: it limits messages over a
// WebSocket by connection, user and address, and the messages of a batch, before
// they are read: what is wrong counts as well. What is refused gets an error
// frame with the code "rate_limited", and the connection stays. A hook of the
// app's own may call it and go on from there.
func (l *Limiter) OnReceive(ctx context.Context, c channels.Client) error {
	if isServer(c.Identity) {
		return nil
	}
	if c.ID != "" {
		if wait := l.connection.take(c.ID); wait > 0 {
			return limited("messages over this connection", wait)
		}
	}
	// What a request has taken already is paid for; a WebSocket's has ended.
	if paid, _ := ctx.Value(userPaid{}).(*prepaid); paid != nil {
		if wait := paid.take(); wait > 0 {
			return limited("messages of this user", wait)
		}
	} else if c.Identity.ID != "" {
		if wait := l.user.take(userKey(c.Identity.ID)); wait > 0 {
			return limited("messages of this user", wait)
		}
	}
	if l.address == nil {
		return nil
	}
	if paid, _ := ctx.Value(addressPaid{}).(*prepaid); paid != nil {
		if wait := paid.take(); wait > 0 {
			return limited("messages from this address", wait)
		}
	} else if key := address.NetworkBits(c.RemoteAddr, l.ipv6); key.IsValid() {
		if wait := l.address.take(key); wait > 0 {
			return limited("messages from this address", wait)
		}
	}
	return nil
}

// prepaid is what an HTTP request has taken from a bucket: its first message
// is paid for.
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

// userKey is the ID, or its hash where it is long, since memory is bounded.
func userKey(id string) string {
	if len(id) <= 64 {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return string(sum[:])
}

// seconds is a time in whole seconds, rounded up, as Retry-After has it.
func seconds(wait time.Duration) int64 { return int64(math.Ceil(wait.Seconds())) }

func limited(what string, wait time.Duration) error {
	return &channels.Error{Code: ErrRateLimited.Code, Status: ErrRateLimited.Status, Message: fmt.Sprintf("too many %s; try again in %d s", what, seconds(wait))}
}

func tooMany(w http.ResponseWriter, r *http.Request, what string, wait time.Duration) {
	w.Header().Set("Retry-After", strconv.FormatInt(seconds(wait), 10))
	channels.WriteError(w, r, limited(what, wait))
}
