package zmqmesh

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
)

// sealBytes is how much longer a message is with its seal.
const sealBytes = 16

// keptScratch is the largest buffer that a seal keeps for the next message.
const keptScratch = 256 << 10

// errSeal ends a connection whose bytes are not those that the other side sent.
var errSeal = errors.New("zmqmesh: a message is not as the replica has sealed it: something on the way has added, changed, repeated or dropped one")

// A seal encrypts and authenticates the messages of one direction of a
// connection, with AES-GCM. Each message is sealed with its number, so that one
// that is added, changed, repeated, moved or left out fails to open, and so do all
// that follow. One goroutine uses it. A nil seal, that of a mesh without a key,
// leaves messages as they are. BenchmarkRaw has the cost.
type seal struct {
	aead    cipher.AEAD
	nonce   [12]byte // the number of the next message, in its last 8 bytes
	scratch []byte
}

// newSeals derives the keys for both directions of a connection from the mesh's
// key and from both hellos, whose nonces make the keys new for each connection.
func newSeals(key, dialler, listener []byte) (fromDialler, fromListener *seal, err error) {
	if len(key) == 0 {
		return nil, nil, nil
	}
	secret, err := hkdf.Extract(sha256.New, key, sum(sha256.New(), dialler, listener))
	if err != nil {
		return nil, nil, err
	}
	if fromDialler, err = newSeal(secret, "channels mesh, from the dialler"); err != nil {
		return nil, nil, err
	}
	fromListener, err = newSeal(secret, "channels mesh, from the listener")
	return fromDialler, fromListener, err
}

func newSeal(secret []byte, direction string) (*seal, error) {
	key, err := hkdf.Expand(sha256.New, secret, direction, 16)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	return &seal{aead: aead}, err
}

// next counts a message. There are never 2^64.
func (s *seal) next() {
	n := binary.BigEndian.Uint64(s.nonce[4:])
	binary.BigEndian.PutUint64(s.nonce[4:], n+1)
}

// close returns b sealed, in a buffer that the next call may reuse. It does not
// change b.
func (s *seal) close(b []byte) []byte {
	if s == nil {
		return b
	}
	out := s.aead.Seal(s.scratch[:0], s.nonce[:], b, nil)
	if s.next(); cap(out) <= keptScratch {
		s.scratch = out
	}
	return out
}

// closeOwn seals b in place. Nothing is copied if b has room for the seal.
func (s *seal) closeOwn(b []byte) []byte {
	if s == nil {
		return b
	}
	defer s.next()
	return s.aead.Seal(b[:0], s.nonce[:], b, nil)
}

// open returns the content of a sealed message, which it overwrites.
func (s *seal) open(b []byte) ([]byte, error) {
	if s == nil {
		return b, nil
	}
	b, err := s.aead.Open(b[:0], s.nonce[:], b, nil)
	if err != nil {
		return nil, errSeal
	}
	s.next()
	return b, nil
}
