package redismesh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/channels-go/channels/mesh/internal/packet"
)

// A frame is what one PUBLISH carries: a version, what it is, who sent it, and
// for frameMessages packets up to its end. Integers of 8 bytes are big-endian.
//
//	version  1 byte
//	kind     1 byte
//	life     8 bytes: drawn at random by each New
//	number   8 bytes: rises with each frame that this life sends over one link
//	previous 8 bytes: the number of the frame before on the same name, 0 where
//	         there was none, all bits set where the sender has forgotten it
//	origin   1 byte of length, and the id of the replica
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
)

// forgotten is a frame's previous where the sender does not know it any more.
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

var errFrame = errors.New("it is no frame of a mesh")

// readFrame returns a frame, and the packets in it.
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
	f = frame{kind: frameKind(s[1]), life: number(s[2:]), number: number(s[10:]), previous: number(s[18:]), origin: s[frameFixed+1 : frameFixed+1+n]}
	switch f.kind {
	case frameMessages, frameProbe, frameLost:
		return f, s[frameFixed+1+n:], nil
	}
	return frame{}, "", errFrame
}

func number(s string) (n uint64) {
	for i := range 8 {
		n = n<<8 | uint64(s[i])
	}
	return n
}
