package zmqmesh

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-zeromq/zmq4"

	"github.com/channels-go/channels/mesh/internal/packet"
)

// mechanism is the ZMTP security mechanism between replicas. It is our own, so
// that both sides prove the key inside the handshake, whose frames the guard
// bounds, and so that programs that are no replicas are refused by their greeting.
const mechanism = "CHANNELS"

const (
	nonceBytes = 32
	maxID      = 200 // bytes of an id in a hello; Options.ReplicaID allows less
)

// What a hello says about the key.
const (
	keyNone   = 0
	keyProves = 1 // it proves who connects, and seals nothing: an older version
	keySeals  = 2
)

// A hello is what each side says about itself: the version, whether there is a
// key, a nonce, the life of the process, the largest packet that it accepts, and
// the id.
type hello struct {
	keyed bool
	nonce [nonceBytes]byte
	life  uint64
	max   uint32
	id    string
}

func (h *hello) append(b []byte) []byte {
	var keyed byte = keyNone
	if h.keyed {
		keyed = keySeals
	}
	b = append(b, packet.Version, keyed)
	b = append(b, h.nonce[:]...)
	b = binary.BigEndian.AppendUint64(b, h.life)
	b = binary.BigEndian.AppendUint32(b, h.max)
	return append(b, h.id...)
}

func parseHello(b []byte) (h hello, err error) {
	const fixed = 2 + nonceBytes + 8 + 4
	if len(b) == 0 {
		return h, errors.New("the other side sends an empty hello")
	}
	if b[0] != packet.Version {
		return h, fmt.Errorf("the other side speaks version %d of the mesh's protocol, and this one only %d", b[0], packet.Version)
	}
	if len(b) < fixed || b[1] > keySeals {
		return h, errors.New("the other side sends a malformed hello")
	}
	if b[1] == keyProves {
		return h, errors.New("the other side has an older version, whose key does not protect what is sent: update it")
	}
	h.keyed = b[1] == keySeals
	h.nonce = [nonceBytes]byte(b[2:])
	h.life = binary.BigEndian.Uint64(b[2+nonceBytes:])
	h.max = binary.BigEndian.Uint32(b[2+nonceBytes+8:])
	h.id = string(b[fixed:])
	return h, checkHelloID(h.id)
}

func checkHelloID(id string) error {
	if id == "" || len(id) > maxID || !utf8.ValidString(id) || strings.ContainsFunc(id, unicode.IsControl) {
		return fmt.Errorf("the other side has the id %.210q; it must be 1 to %d bytes of UTF-8 without control characters", id, maxID)
	}
	return nil
}

// A shaker is the handshake of one connection, as the library's Security:
//
//	dialler  HELLO    hello
//	listener WELCOME  hello
//	dialler  INITIATE proof
//	listener READY    proof
//
// A proof is the HMAC of the role and of both hellos, so that a proof of another
// connection or of the other role is useless. The dialler proves itself first,
// because anybody can connect to a listener.
type shaker struct {
	own  hello // without nonce
	key  []byte
	peer hello // set by Handshake
	// judge is called with the other side's hello, before anything is proved. An
	// error refuses the connection.
	judge func(peer *hello) error
	done  bool
	// in and out are for what follows, from and to the other side. They are nil
	// if there is no key.
	in, out *seal
}

// An errTold is an error that the other side has sent.
type errTold struct{ reason string }

func (e errTold) Error() string { return fmt.Sprintf("zmqmesh: the replica refuses: %.400q", e.reason) }

// The reasons why a dialler does not want a connection after all. They are no
// faults. Their text goes over the wire.
const (
	reasonSelf      = "this is the same replica"
	reasonDuplicate = "there is a link already"
)

// Type tells the library, after the handshake, to pass messages on as they are,
// without copying them: links and peers seal and open messages themselves.
func (s *shaker) Type() zmq4.SecurityType {
	if s.done {
		return zmq4.NullSecurity
	}
	return mechanism
}

func (s *shaker) Encrypt(w io.Writer, b []byte) (int, error) { return w.Write(b) }
func (s *shaker) Decrypt(w io.Writer, b []byte) (int, error) { return w.Write(b) }

func (s *shaker) Handshake(c *zmq4.Conn, server bool) error {
	s.own.keyed = len(s.key) > 0
	rand.Read(s.own.nonce[:]) // never fails
	own := s.own.append(nil)
	shake := s.dial
	if server {
		shake = s.listen
	}
	if err := shake(c, own); err != nil {
		return err
	}
	s.done = true
	return nil
}

func (s *shaker) dial(c *zmq4.Conn, own []byte) error {
	if err := c.SendCmd(zmq4.CmdHello, own); err != nil {
		return err
	}
	theirs, err := expect(c, zmq4.CmdWelcome)
	if err != nil {
		return err
	}
	if err := s.meet(c, theirs); err != nil {
		return err
	}
	if err := c.SendCmd(zmq4.CmdInitiate, s.proof("dialler", own, theirs)); err != nil {
		return err
	}
	proof, err := expect(c, zmq4.CmdReady)
	if err != nil {
		return err
	}
	if !hmac.Equal(proof, s.proof("listener", own, theirs)) {
		return errors.New("zmqmesh: the replica does not know the key")
	}
	c.Peer.Meta["Socket-Type"] = string(zmq4.XPub)
	s.out, s.in, err = newSeals(s.key, own, theirs)
	return err
}

func (s *shaker) listen(c *zmq4.Conn, own []byte) error {
	theirs, err := expect(c, zmq4.CmdHello)
	if err != nil {
		return err
	}
	if err := s.meet(c, theirs); err != nil {
		return err
	}
	if err := c.SendCmd(zmq4.CmdWelcome, own); err != nil {
		return err
	}
	proof, err := expect(c, zmq4.CmdInitiate)
	if err != nil {
		return err
	}
	if !hmac.Equal(proof, s.proof("dialler", theirs, own)) {
		return tell(c, errors.New("the other side does not know the key"))
	}
	c.Peer.Meta["Socket-Type"] = string(zmq4.XSub)
	if s.in, s.out, err = newSeals(s.key, theirs, own); err != nil {
		return err
	}
	return c.SendCmd(zmq4.CmdReady, s.proof("listener", theirs, own))
}

// meet judges the other side's hello.
func (s *shaker) meet(c *zmq4.Conn, theirs []byte) (err error) {
	if s.peer, err = parseHello(theirs); err != nil {
		return tell(c, err)
	}
	if s.peer.keyed != s.own.keyed {
		return tell(c, errors.New("one side has a key and the other has none: give all replicas the same key"))
	}
	if err := s.judge(&s.peer); err != nil {
		return tell(c, err)
	}
	return nil
}

// proof is empty if there is no key.
func (s *shaker) proof(role string, dialler, listener []byte) []byte {
	if len(s.key) == 0 {
		return nil
	}
	mac := hmac.New(sha256.New, s.key)
	return sum(mac, []byte("channels mesh"), []byte(role), dialler, listener)
}

// sum hashes parts, each with its length, so that nothing can move from one to
// the next.
func sum(h hash.Hash, parts ...[]byte) []byte {
	for _, part := range parts {
		h.Write(binary.BigEndian.AppendUint16(nil, uint16(len(part))))
		h.Write(part)
	}
	return h.Sum(nil)
}

// tell tells the other side why it is refused.
func tell(c *zmq4.Conn, why error) error {
	reason := why.Error()
	_ = c.SendCmd(zmq4.CmdError, []byte(reason[:min(len(reason), 400)])) // if that fails, why is still the better error
	return why
}

// expect receives a command.
func expect(c *zmq4.Conn, name string) ([]byte, error) {
	cmd, err := c.RecvCmd()
	if err != nil {
		return nil, err
	}
	if cmd.Name == zmq4.CmdError {
		return nil, errTold{string(cmd.Body)}
	}
	if cmd.Name != name {
		return nil, fmt.Errorf("zmqmesh: the replica sent %.20q in the handshake instead of %s", cmd.Name, name)
	}
	return cmd.Body, nil
}
