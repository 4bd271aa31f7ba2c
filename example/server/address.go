package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"strings"
)

// addressFlag adds a flag for an address, which may be empty as if it was not
// given.
func addressFlag(fs *flag.FlagSet, name string, to *string, check func(string) error, usage string) {
	fs.Func(name, usage, func(v string) error {
		if v != "" {
			if err := check(v); err != nil {
				return err
			}
		}
		*to = v
		return nil
	})
}

// listens refuses what is no address to listen on.
func listens(address string) error {
	_, _, err := splitAddress(address)
	return err
}

// reachable refuses what is no address for others to connect to.
func reachable(address string) error {
	host, port, err := splitAddress(address)
	if err == nil {
		err = connectable(host, port)
	}
	return err
}

// connectable refuses a host and a port that stand for many or for any.
func connectable(host string, port int) error {
	switch ip := net.ParseIP(host); {
	case host == "" || ip != nil && ip.IsUnspecified():
		return errors.New("it has to name one host, which others can connect to")
	case port == 0:
		return errors.New("it has to name the port; 0 is only to listen on")
	}
	return nil
}

func splitAddress(address string) (host string, port int, err error) {
	hostport, ok := strings.CutPrefix(address, "tcp://")
	if ok {
		host, port, err = splitHostPort(hostport)
	}
	if !ok || err != nil {
		return "", 0, errors.New("it has to be tcp://HOST:PORT")
	}
	return host, port, nil
}

func splitHostPort(hostport string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(hostport)
	if err == nil && p == "" {
		err = errors.New("there is no port")
	}
	if err == nil {
		port, err = net.LookupPort("tcp", p)
	}
	return host, port, err
}

// private says whether an address to listen on is only reached from this machine.
func private(address string) bool {
	host, _, err := splitAddress(address)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// notListening names the flag of an address that cannot be listened on.
func notListening(flag string, err error) error {
	if e := (*net.OpError)(nil); errors.As(err, &e) {
		return fmt.Errorf("%s: %w", flag, e)
	}
	return err
}
