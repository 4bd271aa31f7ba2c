// Package origin judges what a browser says of the page that sends a request
// (its Origin) and of the server that it means (the Host).
package origin

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Forms are the patterns that Check takes, in words for an error.
const Forms = `"https://host", "https://host:port", "https://*.host", "app://name", "file://", "null" and "*"`

// Check returns what is wrong with a pattern, in words that follow "has".
func Check(pattern string) error {
	if pattern == "*" || pattern == "null" {
		return nil
	}
	scheme, rest, ok := strings.Cut(pattern, "://")
	switch {
	case !ok || !isScheme(scheme):
	case strings.ContainsFunc(rest, func(r rune) bool { return r >= 0x80 }):
		return fmt.Errorf(`%q; browsers send such a host in ASCII, as "xn--…"; write it so`, pattern)
	case !isWeb(scheme):
		// An app's own scheme (file://, app://., capacitor://localhost) is
		// compared as it stands: its rest need be no host.
		if u, err := url.Parse("http://x" + rest); err == nil && u.Path == "" && !strings.ContainsAny(strings.TrimPrefix(rest, "*."), "?#@*\\") {
			return nil
		}
	default:
		u, err := url.Parse(scheme + "://" + strings.TrimPrefix(rest, "*."))
		if err == nil && u.Hostname() != "" && !strings.HasPrefix(u.Hostname(), ".") && u.Path == "" && !strings.ContainsAny(pattern, "?#@\\") && !strings.HasSuffix(pattern, ":") && !strings.Contains(u.Host, "*") && isPort(u.Port()) {
			return nil
		}
	}
	return fmt.Errorf("%q; it may have %s", pattern, Forms)
}

// isScheme reports whether s is a scheme of RFC 3986 section 3.1.
func isScheme(s string) bool {
	for i, c := range []byte(s) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '+' && c != '-' && c != '.') {
			return false
		}
	}
	return s != ""
}

func isWeb(scheme string) bool {
	return equal(scheme, "http") || equal(scheme, "https")
}

func isPort(p string) bool {
	if p == "" {
		return true
	}
	n, err := strconv.Atoi(p)
	return err == nil && n >= 1 && n <= 65535
}

// Match tells whether a pattern that Check takes stands for an origin, as
// browsers write it: scheme://host[:port], or null. What has more than that, a
// user or a path, comes of no browser, and only "*" stands for it.
func Match(pattern, origin string) bool {
	if pattern == "*" {
		return true
	}
	scheme, host, ok := split(origin)
	if !ok {
		return pattern == "null" && origin == "null"
	}
	s, h, ok := strings.Cut(pattern, "://")
	if !ok || !equal(s, scheme) {
		return false
	}
	h, host = withoutDefaultPort(scheme, h), withoutDefaultPort(scheme, host)
	if suffix, ok := strings.CutPrefix(h, "*."); ok {
		at := len(host) - len(suffix) - 1
		return at > 0 && host[at] == '.' && equal(host[at+1:], suffix)
	}
	return equal(h, host)
}

// SameHost tells whether the page of an origin was served by this host, which
// is that of its request. The port may be left out of either where it is the
// scheme's default. Over TLS, a page without it is another's: anybody on its
// network may have written it.
func SameHost(origin, host string, overTLS bool) bool {
	scheme, from, ok := split(origin)
	if !ok || !isWeb(scheme) || overTLS && !equal(scheme, "https") {
		return false
	}
	from = withoutDefaultPort(scheme, from)
	return from != "" && equal(from, withoutDefaultPort(scheme, host))
}

// split takes an origin apart; false where it is none with a scheme.
func split(origin string) (scheme, host string, ok bool) {
	scheme, host, ok = strings.Cut(origin, "://")
	ok = ok && isScheme(scheme) && !strings.ContainsFunc(host, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`/\?#@"<>`, r)
	})
	return scheme, host, ok
}

// equal compares as strings.EqualFold does, but for ASCII only: there are other
// letters that fold to those of a name, and are not in it.
func equal(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// withoutDefaultPort drops the port that browsers leave out of an origin.
func withoutDefaultPort(scheme, host string) string {
	switch {
	case equal(scheme, "http"):
		return strings.TrimSuffix(host, ":80")
	case equal(scheme, "https"):
		return strings.TrimSuffix(host, ":443")
	}
	return host
}

// Exposed are the headers of a refusal that a page's script has to be able to
// read: when to come back, with what, and how.
const Exposed = "Retry-After, WWW-Authenticate, Allow"

// maxRequested bounds the names of headers that a preflight may ask for.
const maxRequested = 4 << 10

// Requested returns the headers for which a preflight asks, fit for an
// Access-Control-Allow-Headers; false where it asks for none, or for what is
// no header's name.
func Requested(h http.Header) (string, bool) {
	var names []string
	n := 0
	for _, v := range h.Values("Access-Control-Request-Headers") {
		for name := range strings.SplitSeq(v, ",") {
			if name = strings.Trim(name, " \t"); name == "" {
				continue
			}
			if n += len(name); !IsToken(name) || n > maxRequested {
				return "", false
			}
			names = append(names, name)
		}
	}
	return strings.Join(names, ", "), len(names) > 0
}

// IsToken reports whether s is a token of RFC 9110 section 5.6.2.
func IsToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}
