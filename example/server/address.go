package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"syscall"

	"github.com/channels-go/channels/internal/zmtp"
)

// addressFlag adds a flag for an address. An empty value counts as not given.
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

// listens checks an address to listen on.
func listens(address string) error { return checkAddress(address, zmtp.Address.CheckListen) }

// reachable checks an address that others connect to.
func reachable(address string) error { return checkAddress(address, zmtp.Address.CheckReach) }

func checkAddress(address string, check func(zmtp.Address) error) error {
	a, err := zmtp.ParseAddress(address)
	if err != nil {
		return fmt.Errorf("it must be tcp://HOST:PORT: %w", err)
	}
	return check(a)
}

// private reports whether an address to listen on can be reached only from this
// machine.
func private(address string) bool {
	a, err := zmtp.ParseAddress(address)
	return err == nil && a.Loopback()
}

// notListening adds the flag to an error about an address that cannot be
// listened on.
func notListening(flag string, err error) error {
	if e := (*net.OpError)(nil); errors.As(err, &e) {
		if errors.Is(e, syscall.EADDRINUSE) {
			return fmt.Errorf("%s: %w; choose another port", flag, e)
		}
		return fmt.Errorf("%s: %w", flag, e)
	}
	return err
}
