// Package origin matches the origins of web pages with patterns.
package origin

import (
	"fmt"
	"net/url"
	"strings"
)

// Check returns what is wrong with a pattern, in words that follow "has".
func Check(pattern string) error {
	if pattern == "*" {
		return nil
	}
	u, err := url.Parse(strings.Replace(pattern, "://*.", "://", 1))
	if err != nil || u.Scheme == "" || u.Hostname() == "" || strings.HasPrefix(u.Hostname(), ".") || u.Path != "" || strings.ContainsAny(pattern, "?#@") || strings.HasSuffix(pattern, ":") || strings.Contains(u.Host, "*") {
		return fmt.Errorf(`%q; it may have "https://host", "https://host:port", "https://*.host" and "*"`, pattern)
	}
	return nil
}

// Match matches scheme://host[:port], where the host may begin with "*.". What
// has more than an origin has, a user or a path, comes of no browser.
func Match(pattern string, u *url.URL) bool {
	if pattern == "*" {
		return true
	}
	if u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return false
	}
	scheme, host, _ := strings.Cut(pattern, "://")
	if !strings.EqualFold(scheme, u.Scheme) {
		return false
	}
	host, from := withoutDefaultPort(scheme, host), withoutDefaultPort(scheme, u.Host)
	if suffix, ok := strings.CutPrefix(host, "*"); ok {
		return len(from) > len(suffix) && strings.EqualFold(from[len(from)-len(suffix):], suffix)
	}
	return strings.EqualFold(host, from)
}

// withoutDefaultPort drops the port that browsers leave out of an origin.
func withoutDefaultPort(scheme, host string) string {
	switch strings.ToLower(scheme) {
	case "http":
		return strings.TrimSuffix(host, ":80")
	case "https":
		return strings.TrimSuffix(host, ":443")
	}
	return host
}
