// Package address tells clients apart by where they come from.
package address

import "net/netip"

// Network returns the network that counts as one client, of an address as
// [net/http.Request] gives it: an IPv4 address, or the /64 network of an IPv6
// address, which is the least that one client has. Its site may have more: /48
// to /56 (RFC 6177), see [NetworkBits]. It is the zero Prefix, which is not
// valid, where remote is no address, as of a Unix socket.
func Network(remote string) netip.Prefix { return NetworkBits(remote, 64) }

// NetworkBits is Network with so many bits of an IPv6 address, 0 to 128.
func NetworkBits(remote string, ipv6 int) netip.Prefix {
	var a netip.Addr
	if ap, err := netip.ParseAddrPort(remote); err == nil {
		a = ap.Addr()
	} else if a, err = netip.ParseAddr(remote); err != nil {
		return netip.Prefix{}
	}
	a = a.Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = ipv6
	}
	p, _ := a.Prefix(bits) // the number fits
	return p
}
