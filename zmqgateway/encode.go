package zmqgateway

import (
	"encoding/json"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/channels-go/channels/internal/zmtp"
)

// encodeMessage encodes a channel's message as readers get it.
func encodeMessage(channel, header string, body json.RawMessage) []byte {
	h := toLatin1(header)
	a := appendASCII(nil, body)
	b := make([]byte, 0, 3*zmtp.MaxHeader+len(channel)+1+len(h)+len(a))
	return zmtp.AppendMessage(b, append([]byte(channel), 0), h, a)
}

// appendASCII appends JSON with everything above U+007F escaped, which in JSON
// only stands in strings. What is not UTF-8 becomes U+FFFD.
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

// toLatin1 puts "?" for each character that Latin-1 does not have.
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
