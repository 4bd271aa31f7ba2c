package admin

import (
	"crypto/subtle"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/address"
	"github.com/channels-go/channels/internal/origin"
)

// An operator is somebody who was let in.
type operator struct {
	name string    // for the log
	ends time.Time // when the session does; zero: it has no end of its own
	// program says that the token came with the request. No other website can have a
	// browser do that, so it needs no CSRF token.
	program bool
}

// refused returns an error for the page. Its codes are listed in docs/admin.md.
func refused(code string, status int, message string) *channels.Error {
	return &channels.Error{Code: code, Status: status, Message: message}
}

// refuse answers with an error as JSON, as the hub does.
func refuse(w http.ResponseWriter, r *http.Request, err error) { channels.WriteError(w, r, err) }

// who returns the operator that makes a request, or why nobody is let in.
func (a *Admin) who(r *http.Request) (operator, error) {
	now := time.Now()
	if a.opts.Authorize != nil {
		name, err := a.opts.Authorize(r)
		if err != nil {
			return operator{}, refused("forbidden", http.StatusForbidden, err.Error())
		}
		return operator{name: name}, nil
	}
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		if err := a.guess(r, strings.TrimSpace(token), now); err != nil {
			return operator{}, err
		}
		return operator{name: "token from " + r.RemoteAddr, program: true}, nil
	}
	c, err := r.Cookie(sessionCookie)
	if err == nil {
		if s, ok := a.readSession(c.Value, now); ok {
			return operator{name: s.name(r), ends: s.end}, nil
		}
	}
	return operator{}, refused("no_session", http.StatusUnauthorized, "nobody is logged in, or the session has ended; log in, or send the token as Authorization: Bearer")
}

// guess checks a token. The right one is let in whatever came from its address before:
// one broken script must not lock out everybody behind the same proxy. Its length and
// randomness are what makes guessing hopeless; the wait keeps the log short and tells
// the script.
func (a *Admin) guess(r *http.Request, token string, now time.Time) error {
	if a.isToken(token) {
		return nil
	}
	if wait := a.guesses.wrong(network(r), now); wait > 0 {
		return tooMany{wait}.error()
	}
	a.opts.Logger.Warn("admin: a wrong token", "remote", r.RemoteAddr)
	return refused("bad_token", http.StatusUnauthorized, "this is not the token")
}

// network is what counts as one who guesses.
func network(r *http.Request) netip.Prefix { return address.Network(r.RemoteAddr) }

// tooMany is for how long an address has to wait.
type tooMany struct{ wait time.Duration }

func (t tooMany) error() error {
	return refused("rate_limited", http.StatusTooManyRequests, "this is not the token, and too many wrong ones came from this address; the next one is looked at in "+strconv.Itoa(t.seconds())+" s")
}

func (t tooMany) seconds() int { return int(math.Ceil(t.wait.Seconds())) }

// fromHere checks that a request comes from the page. That is also for those that change
// nothing: another website cannot read the answers, but it could take all live tails.
func fromHere(r *http.Request) error {
	if !origin.IsOwn(r) {
		return refused("bad_origin", http.StatusForbidden, "the request comes from another website; behind a proxy, pass the Host on as the browser has sent it")
	}
	return nil
}

// repeats checks that the page has repeated the CSRF token of its cookie.
func repeats(r *http.Request) error {
	c, err := r.Cookie(csrfCookie)
	if err != nil || !isCSRF(c.Value) || subtle.ConstantTimeCompare([]byte(c.Value), []byte(r.Header.Get("X-CSRF-Token"))) != 1 {
		return refused("bad_csrf", http.StatusForbidden, "the header X-CSRF-Token is not that of the page; load it again")
	}
	return nil
}
