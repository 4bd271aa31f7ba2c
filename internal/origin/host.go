package origin

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// CheckHost returns what is wrong with a host pattern, as a text that follows
// "has".
func CheckHost(pattern string) error {
	if pattern == "*" {
		return nil
	}
	name := strings.TrimPrefix(pattern, "*.")
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil && name == pattern {
		return nil // always accepted, so it does no harm
	}
	if !isName(name) {
		return fmt.Errorf(`%q; it may have "app.example.com", "*.example.com" and "*", without a scheme and a port, and in ASCII ("xn--…")`, pattern)
	}
	return nil
}

// Answers reports whether a server with these names answers to a Host header.
// It always answers to localhost, to names below it and to IP addresses: no
// website can give itself such a name. It also answers without a Host, since
// every browser sends one.
func Answers(names []string, host string) bool {
	name, ok := hostname(host)
	if !ok {
		return host == ""
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	name = strings.TrimSuffix(name, ".")
	answers := func(p string) bool { return is(strings.TrimSuffix(p, "."), name) }
	return slices.ContainsFunc(names, answers) || answers("localhost") || answers("*.localhost")
}

// is reports whether a pattern matches a name.
func is(pattern, name string) bool {
	if suffix, ok := strings.CutPrefix(pattern, "*."); ok {
		at := len(name) - len(suffix) - 1
		return at > 0 && name[at] == '.' && equal(name[at+1:], suffix)
	}
	return pattern == "*" || equal(pattern, name)
}

// hostname returns the name or address in a Host header, without the port and
// the brackets of IPv6. It returns false if host is not valid.
func hostname(host string) (string, bool) {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		name, port, ok := strings.Cut(inner, "]")
		if _, err := netip.ParseAddr(name); err != nil || !ok || port != "" && (port[0] != ':' || !isPort(port[1:])) {
			return "", false
		}
		return name, true
	}
	name, port, _ := strings.Cut(host, ":")
	return name, isName(name) && isPort(port)
}

// isName reports whether s is a host name in ASCII or an IPv4 address.
func isName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			if letter := c | 0x20; (letter < 'a' || letter > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}
