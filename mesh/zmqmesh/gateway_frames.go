package zmqmesh

import (
	"encoding/binary"
	"encoding/json"
	"unicode/utf16"
	"unicode/utf8"
)

// appendWire appends a message as ZMTP has it, which is the same for all peers.
func appendWire(b []byte, frames ...[]byte) []byte {
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

// wireMessage is a channel's message as readers get it.
func wireMessage(channel, header string, body json.RawMessage) []byte {
	h := toLatin1(header)
	a := appendASCII(nil, body)
	b := make([]byte, 0, 3*9+len(channel)+1+len(h)+len(a))
	return appendWire(b, append([]byte(channel), 0), h, a)
}

// appendASCII appends JSON with everything above U+007F escaped. It can only
// stand in strings. What is not UTF-8 becomes U+FFFD.
func appendASCII(dst []byte, b json.RawMessage) []byte {
	from := 0
	for i := 0; i < len(b); {
		if b[i] < utf8.RuneSelf {
			i++
			continue
		}
		dst = append(dst, b[from:i]...)
		r, n := utf8.DecodeRune(b[i:])
		i += n
		from = i
		if r < 0x10000 {
			dst = appendEscape(dst, r)
		} else {
			high, low := utf16.EncodeRune(r)
			dst = appendEscape(appendEscape(dst, high), low)
		}
	}
	return append(dst, b[from:]...)
}

func appendEscape(dst []byte, r rune) []byte {
	const hex = "0123456789abcdef"
	return append(dst, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}

// toLatin1 has "?" for what Latin-1 has not.
func toLatin1(s string) []byte {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		if r > 0xff {
			r = '?'
		}
		b = append(b, byte(r))
	}
	return b
}

func fromLatin1(b []byte) string {
	s := make([]byte, 0, len(b))
	for _, c := range b {
		s = utf8.AppendRune(s, rune(c))
	}
	return string(s)
}
