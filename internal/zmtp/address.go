package zmtp

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// An Address is the host and port of tcp://HOST:PORT.
type Address struct {
	Host string // empty for all interfaces
	Port int    // 0 for a free one
}

// ParseAddress reads "tcp://HOST:PORT". The host "*" means all interfaces, the
// port "*" a free one. The error says only what is wrong; callers add where it
// stands and what is allowed.
func ParseAddress(s string) (Address, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	switch {
	case !ok:
		return Address{}, errors.New("there is no tcp:// before it")
	case scheme != "tcp":
		return Address{}, fmt.Errorf("%.20q is not supported, only tcp", scheme)
	}
	return ParseHostPort(rest)
}

// ParseListen reads an address to listen on.
func ParseListen(s string) (Address, error) {
	a, err := ParseAddress(s)
	if err == nil {
		err = a.CheckListen()
	}
	return a, err
}

// ParseHostPort reads "HOST:PORT", as ParseAddress does.
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
	if net.ParseIP(name) == nil && strings.ContainsFunc(host, notInName) {
		return a, fmt.Errorf("the host %.40q is neither *, an IP address nor a name", host)
	}
	a.Host = host
	return a, nil
}

func notInName(r rune) bool {
	return r <= ' ' || r >= 0x7f || strings.ContainsRune("*/\\:@?#%,[]\"'", r)
}

// CheckListen refuses the name of an interface, which ZeroMQ allows in an
// address to listen on. Here it would be looked up like the name of a host.
func (a Address) CheckListen() error {
	if a.Host == "" || a.Host == "localhost" || net.ParseIP(a.Host) != nil {
		return nil
	}
	if _, err := net.InterfaceByName(a.Host); err == nil {
		return fmt.Errorf("%q is the name of an interface, which is not supported: write its IP address, or *", a.Host)
	}
	return nil
}

// CheckReach returns an error if others cannot connect to the address.
func (a Address) CheckReach() error {
	switch ip := net.ParseIP(a.Host); {
	case a.Host == "" || ip != nil && (ip.IsUnspecified() || ip.IsMulticast()):
		return errors.New("it has to name one host, which others can connect to")
	case a.Port == 0:
		return errors.New("it has to name the port; * and 0 are only to listen on")
	}
	return nil
}

// Loopback reports whether only this machine can reach the address.
func (a Address) Loopback() bool {
	ip := net.ParseIP(a.Host)
	return a.Host == "localhost" || ip != nil && ip.IsLoopback()
}

// HostPort is the address as package net wants it.
func (a Address) HostPort() string { return net.JoinHostPort(a.Host, strconv.Itoa(a.Port)) }
