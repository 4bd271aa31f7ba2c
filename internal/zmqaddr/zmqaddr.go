// Package zmqaddr reads addresses as ZeroMQ writes them, tcp://HOST:PORT, so that
// everything that takes one understands the same and says the same.
package zmqaddr

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// An Address is a host and a port.
type Address struct {
	Host string // empty for all interfaces
	Port int    // 0 for a free one
}

// Parse reads "tcp://HOST:PORT". "*" is all interfaces as a host, and a free one
// as a port. The error is what is wrong with it.
func Parse(s string) (Address, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	switch {
	case !ok:
		return Address{}, errors.New("there is no tcp:// before it")
	case scheme != "tcp":
		return Address{}, fmt.Errorf("%.20q is not supported, only tcp", scheme)
	}
	return ParseHostPort(rest)
}

// ParseHostPort reads "HOST:PORT".
func ParseHostPort(s string) (a Address, err error) {
	host, port, err := net.SplitHostPort(s)
	switch {
	case err != nil:
		var at *net.AddrError
		if errors.As(err, &at) {
			return a, errors.New(at.Err)
		}
		return a, err
	case port == "":
		return a, errors.New("there is no port")
	case strings.Contains(host, ";"):
		return a, errors.New("a source address before a semicolon is not supported")
	}
	if port != "*" {
		if a.Port, err = net.LookupPort("tcp", port); err != nil {
			return a, fmt.Errorf("the port %.40q is neither * nor 0 to 65535", port)
		}
	}
	if host == "*" {
		host = ""
	}
	name, _, _ := strings.Cut(host, "%") // a zone
	if net.ParseIP(name) == nil && strings.ContainsFunc(host, notOfName) {
		return a, fmt.Errorf("the host %.40q is neither *, an IP address nor a name", host)
	}
	a.Host = host
	return a, nil
}

func notOfName(r rune) bool {
	return r <= ' ' || r >= 0x7f || strings.ContainsRune("*/\\:@?#%,[]\"'", r)
}

// CheckListen says what is wrong with an address to listen on that is not seen
// by its form: ZeroMQ takes the name of an interface, which a resolver would be
// asked for here.
func (a Address) CheckListen() error {
	if a.Host == "" || a.Host == "localhost" || net.ParseIP(a.Host) != nil {
		return nil
	}
	if _, err := net.InterfaceByName(a.Host); err == nil {
		return fmt.Errorf("%q is the name of an interface, which is not supported: write its IP address, or *", a.Host)
	}
	return nil
}

// CheckReach says why others cannot connect to an address.
func (a Address) CheckReach() error {
	switch ip := net.ParseIP(a.Host); {
	case a.Host == "" || ip != nil && (ip.IsUnspecified() || ip.IsMulticast()):
		return errors.New("it has to name one host, which others can connect to")
	case a.Port == 0:
		return errors.New("it has to name the port; * and 0 are only to listen on")
	}
	return nil
}

// Loopback returns whether it is only reached from this machine.
func (a Address) Loopback() bool {
	ip := net.ParseIP(a.Host)
	return a.Host == "localhost" || ip != nil && ip.IsLoopback()
}

// HostPort is for package net.
func (a Address) HostPort() string { return net.JoinHostPort(a.Host, strconv.Itoa(a.Port)) }
