package redismesh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/channels-go/channels/mesh/internal/packet"
)

// A frame is the payload of one PUBLISH: a header and, in frameMessages,
// packets up to the end. A frameCopy has the name of their channel first, and
// frameWants has prefixes instead; these are texts with 2 bytes of length.
// Integers are big-endian.
//
//	version  1 byte
//	kind     1 byte
//	life     8 bytes: drawn at random by each New
//	number   8 bytes: rises with each frame that this life sends over one link;
//	         a copy has the number of its frame
//	previous 8 bytes: the number of the frame before on the same name; 0 if
//	         there was none, all bits set if the sender has forgotten it
//	origin   1 byte of length, and the id of the sending replica
type frame struct {
	kind     frameKind
	life     uint64
	number   uint64
	previous uint64
	origin   string
}

type frameKind byte

const (
	frameMessages frameKind = 'm'
	frameProbe    frameKind = 'p' // from a replica to itself: is its subscription alive?
	frameLost     frameKind = 'l' // the sender has dropped packets
	frameCopy     frameKind = 'c' // of a frameMessages, for a replica that wants a prefix of the channel
	frameWants    frameKind = 'w' // all prefixes that the sender wants
)

// forgotten is a frame's previous if the sender no longer knows it.
const forgotten = math.MaxUint64

const (
	frameFixed = 1 + 1 + 3*8
	maxOrigin  = 64
)

func appendFrame(dst []byte, f frame) []byte {
	dst = append(dst, packet.Version, byte(f.kind))
	dst = binary.BigEndian.AppendUint64(dst, f.life)
	dst = binary.BigEndian.AppendUint64(dst, f.number)
	dst = binary.BigEndian.AppendUint64(dst, f.previous)
	dst = append(dst, byte(len(f.origin)))
	return append(dst, f.origin...)
}

var errFrame = errors.New("not a frame of this mesh")

// readFrame parses a frame. It returns the packets after its header.
func readFrame(s string) (f frame, packets string, err error) {
	if len(s) == 0 {
		return f, "", errFrame
	}
	if s[0] != packet.Version {
		return f, "", fmt.Errorf("its version is %d; this replica understands %d: run the same release on all replicas", s[0], packet.Version)
	}
	if len(s) < frameFixed+1 {
		return f, "", errFrame
	}
	n := int(s[frameFixed])
	if n == 0 || n > maxOrigin || len(s) < frameFixed+1+n {
		return f, "", errFrame
	}
	number := func(at int) uint64 { return binary.BigEndian.Uint64([]byte(s[at : at+8])) }
	f = frame{kind: frameKind(s[1]), life: number(2), number: number(10), previous: number(18), origin: s[frameFixed+1 : frameFixed+1+n]}
	switch f.kind {
	case frameMessages, frameProbe, frameLost, frameCopy, frameWants:
		return f, s[frameFixed+1+n:], nil
	}
	return frame{}, "", errFrame
}

// appendText appends a text of less than 64 KiB.
func appendText(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}

// cutText cuts a text off.
func cutText(s string) (text, rest string, ok bool) {
	if len(s) < 2 {
		return "", "", false
	}
	n := int(s[0])<<8 | int(s[1])
	if s = s[2:]; len(s) < n {
		return "", "", false
	}
	return s[:n], s[n:], true
}
