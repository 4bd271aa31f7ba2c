package admin

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"net/http"
	"strings"
	"time"
)

// A session is a cookie that says until when it lasts, signed. The server keeps
// nothing, so that a session counts at every replica with the same token, and its end
// is known to the browser alone: logging out takes the cookie away.
type session struct {
	id  [8]byte // for the log
	end time.Time
}

const (
	sessionCookie = "channels_admin"
	csrfCookie    = "channels_admin_csrf"
	sessionBytes  = 8 + 8 + sha256.Size // the end in seconds, the id, the signature
)

// newSession returns a session and the value of its cookie.
func (a *Admin) newSession(now time.Time) (session, string) {
	s := session{end: now.Add(a.opts.SessionTime).Truncate(time.Second)}
	rand.Read(s.id[:])
	b := binary.BigEndian.AppendUint64(nil, uint64(s.end.Unix()))
	b = append(b, s.id[:]...)
	return s, base64.RawURLEncoding.EncodeToString(append(b, a.sign(b)...))
}

func (a *Admin) sign(b []byte) []byte {
	m := hmac.New(sha256.New, a.key[:])
	m.Write(b)
	return m.Sum(nil)
}

// readSession returns the session of a cookie that this page has signed and that has
// not ended.
func (a *Admin) readSession(value string, now time.Time) (session, bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(value)
	if err != nil || len(b) != sessionBytes {
		return session{}, false
	}
	if !hmac.Equal(b[16:], a.sign(b[:16])) {
		return session{}, false
	}
	s := session{end: time.Unix(int64(binary.BigEndian.Uint64(b)), 0)}
	copy(s.id[:], b[8:16])
	return s, now.Before(s.end)
}

// name is for the log.
func (s session) name(r *http.Request) string {
	return "session " + hex.EncodeToString(s.id[:]) + " from " + r.RemoteAddr
}

// isToken compares in constant time, and does not show the token's length either.
func (a *Admin) isToken(s string) bool {
	h := sha256.Sum256([]byte(s))
	return a.opts.Token != "" && subtle.ConstantTimeCompare(h[:], a.token[:]) == 1
}

// cookie returns a cookie for the folder that the page is in: without a Path, the
// browser takes that of the request, so that a proxy may serve the page elsewhere.
func cookie(r *http.Request, name, value string) *http.Cookie {
	return &http.Cookie{Name: name, Value: value, HttpOnly: true, Secure: overTLS(r), SameSite: http.SameSiteStrictMode}
}

// overTLS reports whether the browser came over TLS, perhaps to a proxy. Whoever claims
// that without being it only keeps a cookie from themselves.
func overTLS(r *http.Request) bool {
	return r.TLS != nil || strings.HasPrefix(r.Header.Get("Origin"), "https://") || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}

// csrf returns the token that requests of this browser must repeat in a header, and
// sets the cookie that it is compared with if there is none.
func csrf(w http.ResponseWriter, r *http.Request) string {
	if c, err := r.Cookie(csrfCookie); err == nil && isCSRF(c.Value) {
		return c.Value
	}
	var b [16]byte
	rand.Read(b[:])
	value := hex.EncodeToString(b[:])
	http.SetCookie(w, cookie(r, csrfCookie, value))
	return value
}

// isCSRF reports whether csrf can have made s.
func isCSRF(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 16
}
