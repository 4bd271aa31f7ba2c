package middleware

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/channels-go/channels/internal/address"
)

// maxHops is the maximum length of a chain of proxies.
const maxHops = 20

// TrustProxies sets Request.RemoteAddr to the client's address if the request
// came through a proxy in one of the networks. All inner handlers then see it:
// [RateLimit], [Log], and the hub's Client.RemoteAddr. The port is the one that
// the proxy named, or 0.
//
// The address comes from X-Forwarded-For. Each proxy appends the address that
// it saw, so the header is read from the right: the first address outside the
// networks is the client's. The client may have made up what is left of it. If
// the header is missing or has no valid address in that place, the address is
// that of the last proxy before. At most 20 proxies are passed.
//
// So each proxy must append to the header. A proxy that passes it on unchanged,
// as nginx does by default, lets every client choose its address:
//
//	proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
//
// List only the proxies' own networks: any host in them can claim any address.
// An error names the invalid network; a network of all addresses is refused
// too. If the proxy connects over a Unix socket, see [TrustUnixSocket].
func TrustProxies(networks ...netip.Prefix) (func(http.Handler) http.Handler, error) {
	if len(networks) == 0 {
		return nil, errors.New("middleware: TrustProxies needs 1 network or more, e.g. 10.0.0.0/8")
	}
	trusted, err := newProxies("TrustProxies", networks)
	if err != nil {
		return nil, err
	}
	return trusted.handler(false), nil
}

// TrustUnixSocket is [TrustProxies] for a server that a proxy reaches over a
// Unix socket. The peer of the socket has no address and is always trusted, so
// only the proxy must be able to open the socket. The networks, of which there
// may be none, are those of further proxies in front of it.
func TrustUnixSocket(networks ...netip.Prefix) (func(http.Handler) http.Handler, error) {
	trusted, err := newProxies("TrustUnixSocket", networks)
	if err != nil {
		return nil, err
	}
	return trusted.handler(true), nil
}

// proxies are the networks of trusted proxies.
type proxies []netip.Prefix

func newProxies(name string, networks []netip.Prefix) (proxies, error) {
	trusted := proxies(slices.Clone(networks))
	for i, p := range trusted {
		if !p.IsValid() || p.Bits() == 0 || p.Addr().Is4In6() {
			return nil, fmt.Errorf("middleware: %s: the network %v cannot be trusted; it must be one like 10.0.0.0/8, 192.0.2.7/32 or 2001:db8::/48", name, p)
		}
		trusted[i] = p.Masked()
	}
	return trusted, nil
}

// handler takes the client's address from the header if a proxy sent it. With
// socket, that is also a peer without an address; the server may listen on TCP, too.
func (p proxies) handler(socket bool) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if from, ok := parseHop(r.RemoteAddr); ok || socket && !address.Network(r.RemoteAddr).IsValid() {
				if client := p.client(from, r.Header.Values("X-Forwarded-For")); client != from {
					r = r.WithContext(r.Context()) // a copy
					r.RemoteAddr = client.String()
				}
			}
			next.ServeHTTP(w, r)
		})
	}
}

func (p proxies) trust(a netip.Addr) bool {
	return slices.ContainsFunc(p, func(n netip.Prefix) bool { return n.Contains(a) })
}

// client returns the address from which the client connected to the first
// trusted proxy. The zero from is a Unix socket, whose peer is trusted.
func (p proxies) client(from netip.AddrPort, forwarded []string) netip.AddrPort {
	rest := ""
	for range maxHops {
		if from.IsValid() && !p.trust(from.Addr()) {
			return from
		}
		for rest == "" { // the headers are the lines of one list
			if len(forwarded) == 0 {
				return from
			}
			rest = forwarded[len(forwarded)-1]
			forwarded = forwarded[:len(forwarded)-1]
		}
		i := strings.LastIndexByte(rest, ',')
		hop, ok := parseHop(strings.Trim(rest[i+1:], " \t"))
		if !ok {
			return from
		}
		from, rest = hop, rest[:max(i, 0)]
	}
	return from
}

// parseHop parses an address, with or without a port, in the forms that proxies
// write: 192.0.2.1, 192.0.2.1:80, 2001:db8::1, [2001:db8::1], [2001:db8::1]:80.
func parseHop(s string) (netip.AddrPort, bool) {
	if len(s) > 64 {
		return netip.AddrPort{}, false
	}
	hop, err := netip.ParseAddrPort(s)
	if err != nil {
		if inner, ok := strings.CutPrefix(s, "["); ok {
			if s, ok = strings.CutSuffix(inner, "]"); !ok || !strings.Contains(s, ":") {
				return netip.AddrPort{}, false
			}
		}
		a, err := netip.ParseAddr(s)
		if err != nil {
			return netip.AddrPort{}, false
		}
		hop = netip.AddrPortFrom(a, 0)
	}
	return netip.AddrPortFrom(hop.Addr().Unmap().WithZone(""), hop.Port()), true
}
