package middleware_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/middleware"
)

func prefixes(ss ...string) (ps []netip.Prefix) {
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

// seenThrough returns the RemoteAddr that a handler behind m sees.
func seenThrough(m wrapper, remote string, forwarded ...string) (got string) {
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = remote
	r.Header["X-Forwarded-For"] = forwarded
	m(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.RemoteAddr })).ServeHTTP(httptest.NewRecorder(), r)
	return got
}

func TestTrustProxies(t *testing.T) {
	m := must(middleware.TrustProxies(prefixes("10.0.0.1/8", "2001:db8::/32", "192.0.2.7/32")...))
	for name, c := range map[string]struct {
		remote    string
		forwarded []string
		want      string
	}{
		"no proxy":                         {"203.0.113.5:99", nil, "203.0.113.5:99"},
		"a client that makes up addresses": {"203.0.113.5:99", []string{"1.2.3.4"}, "203.0.113.5:99"},
		"one proxy":                        {"10.0.0.1:99", []string{"203.0.113.5"}, "203.0.113.5:0"},
		"one, with a port":                 {"10.0.0.1:99", []string{"203.0.113.5:1234"}, "203.0.113.5:1234"},
		"the client pretends more":         {"10.0.0.1:99", []string{"1.2.3.4, 10.9.9.9, 203.0.113.5"}, "203.0.113.5:0"},
		"two proxies":                      {"10.0.0.1:99", []string{"1.2.3.4, 203.0.113.5, 192.0.2.7"}, "203.0.113.5:0"},
		"two lines":                        {"10.0.0.1:99", []string{"1.2.3.4", "203.0.113.5", "192.0.2.7"}, "203.0.113.5:0"},
		"an empty line":                    {"10.0.0.1:99", []string{"203.0.113.5", ""}, "203.0.113.5:0"},
		"all trusted":                      {"10.0.0.1:99", []string{"10.1.1.1,10.2.2.2"}, "10.1.1.1:0"},
		"no header":                        {"10.0.0.1:99", nil, "10.0.0.1:99"},
		"nonsense":                         {"10.0.0.1:99", []string{"unknown"}, "10.0.0.1:99"},
		"nonsense in the middle":           {"10.0.0.1:99", []string{"203.0.113.5, _hidden, 192.0.2.7"}, "192.0.2.7:0"},
		"nothing in the middle":            {"10.0.0.1:99", []string{"203.0.113.5,, 192.0.2.7"}, "192.0.2.7:0"},
		"a comma at the end":               {"10.0.0.1:99", []string{"203.0.113.5,"}, "10.0.0.1:99"},
		"IPv6":                             {"[2001:db8::1]:99", []string{"2001:db9::5"}, "[2001:db9::5]:0"},
		"IPv6 in brackets":                 {"[2001:db8::1]:99", []string{"[2001:db9::5]"}, "[2001:db9::5]:0"},
		"IPv6 with a port":                 {"[2001:db8::1]:99", []string{"[2001:db9::5]:7"}, "[2001:db9::5]:7"},
		"IPv4 written as IPv6":             {"[::ffff:10.0.0.1]:99", []string{"::ffff:203.0.113.5"}, "203.0.113.5:0"},
		"a zone":                           {"10.0.0.1:99", []string{"fe80::1%eth0"}, "[fe80::1]:0"},
		"brackets around IPv4":             {"10.0.0.1:99", []string{"[203.0.113.5]"}, "10.0.0.1:99"},
		"half a bracket":                   {"10.0.0.1:99", []string{"[2001:db9::5"}, "10.0.0.1:99"},
		"a Unix socket":                    {"@", []string{"203.0.113.5"}, "@"},
		"no address at all":                {"", []string{"203.0.113.5"}, ""},
		"tabs and spaces":                  {"10.0.0.1:99", []string{" 1.2.3.4 ,\t203.0.113.5 "}, "203.0.113.5:0"},
		"too long for an address":          {"10.0.0.1:99", []string{strings.Repeat("1", 1<<20)}, "10.0.0.1:99"},
		"more proxies than passed":         {"10.0.0.1:99", []string{"203.0.113.5," + strings.Repeat("10.0.0.2,", 100) + "10.0.0.3"}, "10.0.0.2:0"},
	} {
		require.Equal(t, c.want, seenThrough(m, c.remote, c.forwarded...), name)
	}
}

// Over a Unix socket the proxy has no address. A client or proxy with an
// address is trusted only if its network is listed.
func TestTrustUnixSocket(t *testing.T) {
	alone, more := must(middleware.TrustUnixSocket()), must(middleware.TrustUnixSocket(prefixes("10.0.0.0/8")...))
	for name, c := range map[string]struct {
		m         wrapper
		remote    string
		forwarded []string
		want      string
	}{
		"the proxy":               {alone, "@", []string{"1.2.3.4, 203.0.113.5"}, "203.0.113.5:0"},
		"without a name":          {alone, "", []string{"203.0.113.5"}, "203.0.113.5:0"},
		"with a path":             {alone, "/run/proxy.sock", []string{"203.0.113.5:7"}, "203.0.113.5:7"},
		"no header":               {alone, "@", nil, "@"},
		"nonsense":                {alone, "@", []string{"203.0.113.5, unknown"}, "@"},
		"a proxy before it":       {more, "@", []string{"1.2.3.4, 203.0.113.5, 10.0.0.1"}, "203.0.113.5:0"},
		"one that is not listed":  {alone, "@", []string{"203.0.113.5, 10.0.0.1"}, "10.0.0.1:0"},
		"a client over TCP":       {more, "203.0.113.5:99", []string{"1.2.3.4"}, "203.0.113.5:99"},
		"a client with a zone":    {more, "[fe80::1%" + strings.Repeat("e", 99) + "]:99", []string{"1.2.3.4"}, "[fe80::1%" + strings.Repeat("e", 99) + "]:99"},
		"a listed proxy over TCP": {more, "10.0.0.1:99", []string{"203.0.113.5"}, "203.0.113.5:0"},
	} {
		require.Equal(t, c.want, seenThrough(c.m, c.remote, c.forwarded...), name)
	}
	_, err := middleware.TrustUnixSocket(prefixes("0.0.0.0/0")...)
	require.ErrorContains(t, err, "TrustUnixSocket: the network 0.0.0.0/0")
}

func TestTrustProxiesOptions(t *testing.T) {
	_, err := middleware.TrustProxies()
	require.ErrorContains(t, err, "1 network or more")
	for _, p := range append(prefixes("0.0.0.0/0", "::/0", "::ffff:10.0.0.0/104"), netip.Prefix{}) {
		_, err := middleware.TrustProxies(prefixes("10.0.0.0/8")[0], p)
		require.ErrorContains(t, err, p.String())
	}
}

// The documented configuration of nginx has the line without which a client
// chooses the address that is believed. In the table above, it is the case "the
// client pretends more".
func TestTheDocsTellNginxToAddTheAddress(t *testing.T) {
	page, err := os.ReadFile("../docs/operations.md")
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(page), "```nginx\n")
	require.True(t, ok)
	conf, _, _ := strings.Cut(rest, "```")
	require.Contains(t, conf, "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;")
}
