// Package packet encodes the packets that travel between replicas, whatever
// carries them.
package packet

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/channels-go/channels/mesh"
)

// Version is the version of this package's encoding. A mesh sends it before any
// packets, and refuses packets of another version.
const Version = 1

// A packet is its kind, a bit for each field that it has, Seq, and then those
// fields in this order: numbers as varints; texts, the body and the info after
// their length. Origin is not encoded: the receiving mesh knows it.
const (
	hasChannel = 1 << iota
	hasTo
	hasHeader
	hasBody
	hasEpoch
	hasOffset
	hasSender
	hasInfo // the versions before it read over this field, and the first ones had a text in it, which no hub takes for an info
)

// A Trace goes behind its packet, as the Info of a trailer: a packet without a Seq to a
// replica that cannot be, since all bits of the one before are taken. The versions before
// it drop the trailer, as a packet that is not for them: zmqmesh because of its Seq, and
// the hubs behind redismesh because they do not know such a KindControl.
var trailer = []byte{byte(mesh.KindControl), hasTo | hasInfo, 0, 1, 0}

// ErrMalformed is returned for data that Append did not make.
var ErrMalformed = errors.New("packet: malformed")

// Append appends a packet without its Origin, and without a Trace that is too long.
func Append(dst []byte, p *mesh.Packet) []byte {
	var has byte
	for bit, set := range [...]bool{p.Channel != "", p.To != "", p.Header != "", len(p.Body) > 0, p.Epoch != "", p.Offset != 0, p.Sender != "", len(p.Info) > 0} {
		if set {
			has |= 1 << bit
		}
	}
	dst = append(dst, byte(p.Kind), has)
	dst = binary.AppendUvarint(dst, p.Seq)
	dst = appendText(dst, p.Channel)
	dst = appendText(dst, p.To)
	dst = appendText(dst, p.Header)
	dst = appendText(dst, p.Body)
	dst = appendText(dst, p.Epoch)
	if p.Offset != 0 {
		dst = binary.AppendUvarint(dst, p.Offset)
	}
	dst = appendText(dst, p.Sender)
	dst = appendText(dst, p.Info)
	if n := len(p.Trace); n > 0 && n <= mesh.MaxTraceBytes {
		dst = appendText(append(dst, trailer...), p.Trace)
	}
	return dst
}

// appendText appends s unless it is empty.
func appendText[T ~string | ~[]byte](dst []byte, s T) []byte {
	if len(s) == 0 {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// Texts makes the strings of packets. No string may share memory with its
// argument: a kept header would keep everything that was read together with it.
type Texts interface {
	// Channel is called once for each packet that has a channel.
	Channel(name []byte) string
	// Text is called for texts that many packets share: headers and epochs.
	Text(b []byte) string
}

// Kept implements Texts. It keeps one copy of each frequent text. The zero
// value is ready. It is for one goroutine.
type Kept struct{ texts map[string]string }

const (
	maxTexts = 1_024
	maxText  = 64 // bytes of a text that is kept
)

func (k *Kept) Channel(name []byte) string { return string(name) }

func (k *Kept) Text(b []byte) string {
	if len(b) > maxText {
		return string(b)
	}
	if s, ok := k.texts[string(b)]; ok { // does not allocate a string
		return s
	}
	if k.texts == nil || len(k.texts) >= maxTexts {
		k.texts = make(map[string]string)
	}
	s := string(b)
	k.texts[s] = s
	return s
}

// Next decodes the first packet of src into p and returns what follows it. The body, the
// info and the trace are parts of src with their capacity cut off, so appending to
// them does not overwrite what follows. No field is larger than src.
func Next(p *mesh.Packet, src []byte, texts Texts) (rest []byte, err error) {
	if rest, err = next(p, src, texts); err != nil || !bytes.HasPrefix(rest, trailer) {
		return rest, err
	}
	d := decoder{rest: rest[len(trailer):]}
	if trace := d.bytes(); len(trace) > 0 && len(trace) <= mesh.MaxTraceBytes {
		p.Trace = trace
	}
	if d.bad {
		return nil, ErrMalformed
	}
	return d.rest, nil
}

// next decodes a packet without its trailer.
func next(p *mesh.Packet, src []byte, texts Texts) (rest []byte, err error) {
	*p = mesh.Packet{}
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
	if has&hasInfo != 0 {
		p.Info = d.bytes()
	}
	if d.bad || p.Kind >= mesh.KindLost { // only the receiving mesh makes a KindLost
		return nil, ErrMalformed
	}
	return d.rest, nil
}

// decoder reads from the front of rest. After an error, it returns zeros.
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
