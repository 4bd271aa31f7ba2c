// Package address identifies clients by their network address.
package address

import "net/netip"

// Network returns the network that counts as one client. remote is an address
// as in [net/http.Request]. The network is an IPv4 address, or the /64 network
// of an IPv6 address, the smallest that a client has. Its site may have a
// larger one, /48 to /56 (RFC 6177); see [NetworkBits]. If remote is not an IP
// address, as for a Unix socket, Network returns the zero Prefix, which is not
// valid.
func Network(remote string) netip.Prefix { return NetworkBits(remote, 64) }

// NetworkBits is Network with the given number of bits of an IPv6 address, 0 to
// 128.
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
	p, _ := a.Prefix(bits) // bits is always in range
	return p
}
