// Package packet is how packets travel between replicas, whatever carries them.
package packet

import (
	"encoding/binary"
	"encoding/json"
	"errors"

	"github.com/channels-go/channels/mesh"
)

// Version is of all that this package encodes. Who carries packets sends it
// ahead of them, and refuses those of another one.
const Version = 1

// A packet is its kind, the fields that it has as bits, Seq, and then those
// fields in this order: numbers as varints, text and the body behind their
// length. Origin is not among them: who carries packets knows it.
const (
	hasChannel = 1 << iota
	hasTo
	hasHeader
	hasBody
	hasEpoch
	hasOffset
	hasSender
	hasTrace
)

// ErrMalformed is returned for what Append has not made.
var ErrMalformed = errors.New("packet: malformed")

// Append appends a packet without its Origin.
func Append(dst []byte, p *mesh.Packet) []byte {
	var has byte
	for bit, set := range [...]bool{p.Channel != "", p.To != "", p.Header != "", len(p.Body) > 0, p.Epoch != "", p.Offset != 0, p.Sender != "", p.Trace != ""} {
		if set {
			has |= 1 << bit
		}
	}
	dst = append(dst, byte(p.Kind), has)
	dst = binary.AppendUvarint(dst, p.Seq)
	dst = appendText(dst, p.Channel)
	dst = appendText(dst, p.To)
	dst = appendText(dst, p.Header)
	if len(p.Body) > 0 {
		dst = binary.AppendUvarint(dst, uint64(len(p.Body)))
		dst = append(dst, p.Body...)
	}
	dst = appendText(dst, p.Epoch)
	if p.Offset != 0 {
		dst = binary.AppendUvarint(dst, p.Offset)
	}
	dst = appendText(dst, p.Sender)
	return appendText(dst, p.Trace)
}

// appendText appends what is not empty.
func appendText(dst []byte, s string) []byte {
	if s == "" {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// Next reads the first packet of src and returns what is behind it. Nothing is
// larger than src: of a string, the text of the packet is part of it and the
// body is copied; of bytes, the body is part of them and the text is copied.
func Next[T string | []byte](src T) (p mesh.Packet, rest T, err error) {
	d := decoder[T]{rest: src}
	p.Kind = mesh.Kind(d.byte())
	has := d.byte()
	p.Seq = d.number()
	if has&hasChannel != 0 {
		p.Channel = string(d.bytes())
	}
	if has&hasTo != 0 {
		p.To = string(d.bytes())
	}
	if has&hasHeader != 0 {
		p.Header = string(d.bytes())
	}
	if has&hasBody != 0 {
		p.Body = body(d.bytes())
	}
	if has&hasEpoch != 0 {
		p.Epoch = string(d.bytes())
	}
	if has&hasOffset != 0 {
		p.Offset = d.number()
	}
	if has&hasSender != 0 {
		p.Sender = string(d.bytes())
	}
	if has&hasTrace != 0 {
		p.Trace = string(d.bytes())
	}
	if d.bad || p.Kind >= mesh.KindLost { // which a mesh makes for itself
		return mesh.Packet{}, rest, ErrMalformed
	}
	return p, d.rest, nil
}

// body is such that appending to it never writes into what is behind it.
func body[T string | []byte](b T) json.RawMessage {
	raw := []byte(b)
	return raw[:len(raw):len(raw)]
}

// decoder reads from the front. Once something was wrong, it reads zeros.
type decoder[T string | []byte] struct {
	rest T
	bad  bool
}

func (d *decoder[T]) byte() byte {
	if len(d.rest) == 0 {
		d.bad = true
		return 0
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}

func (d *decoder[T]) number() (n uint64) {
	for shift := 0; shift < 64 && !d.bad; shift += 7 {
		b := d.byte()
		if shift == 63 && b > 1 {
			break // more than 64 bits
		}
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return n
		}
	}
	d.bad = true
	return 0
}

func (d *decoder[T]) bytes() (b T) {
	n := d.number()
	if d.bad || n > uint64(len(d.rest)) {
		d.bad = true
		return b
	}
	b, d.rest = d.rest[:n], d.rest[n:]
	return b
}
