// Package packet is how packets travel between replicas, whatever carries them.
package packet

import (
	"encoding/binary"
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
	hasTrace // of versions that had one; it is read over
)

// ErrMalformed is returned for what Append has not made.
var ErrMalformed = errors.New("packet: malformed")

// Append appends a packet without its Origin.
func Append(dst []byte, p *mesh.Packet) []byte {
	var has byte
	for bit, set := range [...]bool{p.Channel != "", p.To != "", p.Header != "", len(p.Body) > 0, p.Epoch != "", p.Offset != 0, p.Sender != ""} {
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
	return appendText(dst, p.Sender)
}

// appendText appends what is not empty.
func appendText(dst []byte, s string) []byte {
	if s == "" {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// Texts make the strings of packets. None may share memory with its argument,
// as what keeps a header would keep everything that was read together with it.
type Texts interface {
	// Channel is called once for each packet that has a channel.
	Channel(name []byte) string
	// Text is called for what many packets have in common: headers and epochs.
	Text(b []byte) string
}

// Kept are Texts that keep what comes often once. The zero value is ready. It
// is for one goroutine.
type Kept struct{ texts map[string]string }

const (
	maxTexts = 1_024
	maxText  = 64 // bytes of one that is kept
)

func (k *Kept) Channel(name []byte) string { return string(name) }

func (k *Kept) Text(b []byte) string {
	if len(b) > maxText {
		return string(b)
	}
	if s, ok := k.texts[string(b)]; ok { // makes no string
		return s
	}
	if k.texts == nil || len(k.texts) >= maxTexts {
		k.texts = make(map[string]string)
	}
	s := string(b)
	k.texts[s] = s
	return s
}

// Next reads the first packet of src and returns what is behind it. The body
// is part of src, and appending to it does not write into what is behind it.
// Nothing is larger than src.
func Next(src []byte, texts Texts) (p mesh.Packet, rest []byte, err error) {
	d := decoder{rest: src}
	p.Kind = mesh.Kind(d.byte())
	has := d.byte()
	p.Seq = d.number()
	if has&hasChannel != 0 {
		p.Channel = texts.Channel(d.bytes())
	}
	if has&hasTo != 0 {
		p.To = string(d.bytes())
	}
	if has&hasHeader != 0 {
		p.Header = texts.Text(d.bytes())
	}
	if has&hasBody != 0 {
		p.Body = d.bytes()
	}
	if has&hasEpoch != 0 {
		p.Epoch = texts.Text(d.bytes())
	}
	if has&hasOffset != 0 {
		p.Offset = d.number()
	}
	if has&hasSender != 0 {
		p.Sender = string(d.bytes())
	}
	if has&hasTrace != 0 {
		d.bytes()
	}
	if d.bad || p.Kind >= mesh.KindLost { // which a mesh makes for itself
		return mesh.Packet{}, nil, ErrMalformed
	}
	return p, d.rest, nil
}

// decoder reads from the front. Once something was wrong, it reads zeros.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) byte() byte {
	if len(d.rest) == 0 {
		d.bad = true
		return 0
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}

func (d *decoder) number() uint64 {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 {
		d.bad = true
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

func (d *decoder) bytes() []byte {
	n := d.number()
	if d.bad || n > uint64(len(d.rest)) {
		d.bad = true
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}
