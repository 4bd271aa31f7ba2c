package zmtp

import (
	"errors"
	"fmt"
)

// readGreeting checks those parts of the greeting whose faults the library would
// not explain, each as soon as it has come: a peer that speaks another protocol
// may be waiting for an answer. The library checks the rest.
func (g *Guard) readGreeting() error {
	for _, n := range []int{1, 10, 11} {
		b, err := g.r.Peek(n)
		if err != nil {
			return g.cut(err)
		}
		if err := judgeGreeting(b); err != nil {
			return err
		}
	}
	b, err := g.r.Peek(greetingBytes)
	if err != nil {
		return g.cut(err)
	}
	g.minor = b[11]
	var want [20]byte
	copy(want[:], g.Mechanism)
	if got := [20]byte(b[12:32]); got != want {
		return fmt.Errorf("zmtp: the peer's security mechanism is %q; it must be %s", b[12:32], g.Mechanism)
	}
	g.greeted = true
	g.pass = greetingBytes
	return nil
}

// judgeGreeting says what is wrong with the first bytes of a greeting.
func judgeGreeting(b []byte) error {
	const needs = "this port needs ZMTP 3"
	switch first := b[0]; {
	case first == 0x16: // a TLS record of the handshake
		return errors.New("zmtp: the peer speaks TLS, and this port does not; it needs plain ZMTP 3")
	case first == 1: // the length of an empty identity
		return errors.New("zmtp: the peer speaks ZMTP 1 (libzmq before 3.0); " + needs)
	case first != 0xff:
		return fmt.Errorf("zmtp: the peer does not speak ZeroMQ's protocol, as its first byte is %q; "+needs, first)
	case len(b) >= 10 && b[9] != 0x7f:
		return errors.New("zmtp: the peer speaks ZMTP 1 (libzmq before 3.0), or not ZeroMQ's protocol; " + needs)
	case len(b) >= 11 && b[10] < 3:
		return fmt.Errorf("zmtp: the peer speaks ZMTP %d (libzmq before 4.0); "+needs, min(b[10]+1, 2))
	}
	return nil
}
