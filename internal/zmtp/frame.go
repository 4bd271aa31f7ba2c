package zmtp

import (
	"encoding/binary"
	"time"
)

// The flags of a frame.
const (
	flagMore    = 1 // another frame of the same message follows
	flagLong    = 2 // the length has 8 bytes instead of 1
	flagCommand = 4
)

// The first byte of what a SUB or XSUB socket of ZMTP 3.0 sends. The topic
// follows.
const (
	AskCancel    = 0
	AskSubscribe = 1
)

// AppendMessage appends a message of these frames, as it goes over the wire.
// It is the same for every peer.
func AppendMessage(b []byte, frames ...[]byte) []byte {
	for i, f := range frames {
		var flags byte
		if i < len(frames)-1 {
			flags = flagMore
		}
		if len(f) < 256 {
			b = append(b, flags, byte(len(f)))
		} else {
			b = binary.BigEndian.AppendUint64(append(b, flags|flagLong), uint64(len(f)))
		}
		b = append(b, f...)
	}
	return b
}

// MaxHeader is the longest header of a frame, in bytes.
const MaxHeader = 9

// AppendPing appends a PING, which asks for a PONG. A peer that honours ttl,
// which counts in tenths of a second, gives this side up after that much silence.
func AppendPing(b []byte, ttl time.Duration) []byte {
	b = append(b, flagCommand, 5+2)
	b = append(b, "\x04PING"...)
	return binary.BigEndian.AppendUint16(b, uint16(ttl/(100*time.Millisecond)))
}

// AppendPong appends a PONG with the context of the PING that it answers, which
// has at most [MaxPing] bytes.
func AppendPong(b, context []byte) []byte {
	b = append(b, flagCommand, byte(5+len(context)))
	b = append(b, "\x04PONG"...)
	return append(b, context...)
}
