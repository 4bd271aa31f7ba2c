// Package origin checks what a browser sends about the page that makes a
// request (its Origin) and about the server that it wants to reach (the Host).
package origin

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Forms lists the patterns that Check accepts, for error texts.
const Forms = `"https://host", "https://host:port", "https://*.host", "app://name", "file://", "null" and "*"`

// Check returns what is wrong with a pattern, as a text that follows "has".
func Check(pattern string) error {
	if pattern == "*" || pattern == "null" {
		return nil
	}
	scheme, rest, ok := strings.Cut(pattern, "://")
	switch {
	case !ok || !isScheme(scheme):
	case strings.ContainsFunc(rest, func(r rune) bool { return r >= 0x80 }):
		return fmt.Errorf(`%q; browsers send such a host in ASCII, as "xn--…"; write it in that form`, pattern)
	case !isWeb(scheme):
		// An app's own scheme (file://, app://., capacitor://localhost) is
		// compared unchanged: its rest need not be a host.
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

// isScheme reports whether s is a scheme by RFC 3986 section 3.1.
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

// Match reports whether a pattern that Check accepts matches an origin as
// browsers write it: scheme://host[:port], or null. An origin with anything
// else, such as a user or a path, does not come from a browser; only "*"
// matches it.
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
	return is(withoutDefaultPort(scheme, h), withoutDefaultPort(scheme, host))
}

// SameHost reports whether the page of an origin was served by this host, the
// Host of its request. Either may omit the scheme's default port. Over TLS, a
// page that was loaded without TLS is not the same: anyone on its network may
// have changed it.
func SameHost(origin, host string, overTLS bool) bool {
	scheme, from, ok := split(origin)
	if !ok || !isWeb(scheme) || overTLS && !equal(scheme, "https") {
		return false
	}
	from = withoutDefaultPort(scheme, from)
	return from != "" && equal(from, withoutDefaultPort(scheme, host))
}

// split splits an origin into scheme and host. It returns false if it has no
// scheme.
func split(origin string) (scheme, host string, ok bool) {
	scheme, host, ok = strings.Cut(origin, "://")
	ok = ok && isScheme(scheme) && !strings.ContainsFunc(host, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`/\?#@"<>`, r)
	})
	return scheme, host, ok
}

// equal compares names, of which one is in ASCII, without regard to case. Some
// other letters fold to ASCII, but these are longer.
func equal(a, b string) bool { return len(a) == len(b) && strings.EqualFold(a, b) }

// withoutDefaultPort removes the port that browsers omit from an origin.
func withoutDefaultPort(scheme, host string) string {
	switch {
	case equal(scheme, "http"):
		return strings.TrimSuffix(host, ":80")
	case equal(scheme, "https"):
		return strings.TrimSuffix(host, ":443")
	}
	return host
}

// Exposed lists the headers of a refusal that a page's script must be able to
// read: when to retry, and with which credentials and method.
const Exposed = "Retry-After, WWW-Authenticate, Allow"

// maxRequested bounds the total length of the header names that a preflight may
// ask for.
const maxRequested = 4 << 10

// Requested returns the headers that a preflight asks for, in a form for
// Access-Control-Allow-Headers. It returns false if there are none or if one is
// not a header name.
func Requested(h http.Header) (string, bool) {
	var names []string
	n := 0
	for name := range strings.SplitSeq(strings.Join(h.Values("Access-Control-Request-Headers"), ","), ",") {
		if name = strings.Trim(name, " \t"); name == "" {
			continue
		}
		if n += len(name); !IsToken(name) || n > maxRequested {
			return "", false
		}
		names = append(names, name)
	}
	return strings.Join(names, ", "), len(names) > 0
}

// IsToken reports whether s is a token by RFC 9110 section 5.6.2.
func IsToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}
