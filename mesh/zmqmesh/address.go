package zmqmesh

import (
	"cmp"
	"fmt"
	"net"

	"github.com/channels-go/channels/internal/zmtp"
)

// checkReachable refuses an address that other machines cannot connect to: one
// without a host, for all interfaces, or without a port.
func checkReachable(what, address string) error {
	a, err := zmtp.ParseAddress(address)
	if err != nil {
		return fmt.Errorf("zmqmesh: %s has %.200q; it must be tcp://host:port: %w", what, address, err)
	}
	if err := a.CheckReach(); err != nil {
		return fmt.Errorf("zmqmesh: %s has %.200q, which nobody can connect to: %w", what, address, err)
	}
	return nil
}

// reachable is where others reach a listener: on all interfaces, at the machine's
// first address that is not loopback, IPv4 before IPv6; "" if there is none.
func reachable(l net.Addr) string {
	a, ok := l.(*net.TCPAddr)
	if !ok || !a.IP.IsUnspecified() {
		return "tcp://" + l.String()
	}
	found := ""
	nets, _ := net.InterfaceAddrs()
	for _, n := range nets {
		ip, ok := n.(*net.IPNet)
		if !ok || !ip.IP.IsGlobalUnicast() {
			continue
		}
		address := "tcp://" + net.JoinHostPort(ip.IP.String(), fmt.Sprint(a.Port))
		if ip.IP.To4() != nil {
			return address
		}
		found = cmp.Or(found, address)
	}
	return found
}
