// Package address tells clients apart by where they come from.
package address

import "net/netip"

// Network returns the network that counts as one client, of an address as
// [net/http.Request] gives it: an IPv4 address, or the 64 bits of an IPv6
// address that belong to one subscriber (RFC 6177). It is the zero Prefix,
// which is not valid, where remote is no address, as of a Unix socket.
func Network(remote string) netip.Prefix {
	var a netip.Addr
	if ap, err := netip.ParseAddrPort(remote); err == nil {
		a = ap.Addr()
	} else if a, err = netip.ParseAddr(remote); err != nil {
		return netip.Prefix{}
	}
	a = a.Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // the number fits
	return p
}
