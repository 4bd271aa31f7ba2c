package clientproto

import (
	"bytes"
	"encoding/json"
)

// appendName appends a name that needs no escaping, and what is around it. Only the
// first member of an object follows its bracket.
func appendName(b []byte, name string) []byte {
	b = append(comma(b), '"')
	b = append(b, name...)
	return append(b, '"', ':')
}

func comma(b []byte) []byte {
	if b[len(b)-1] == '{' {
		return b
	}
	return append(b, ',')
}

const hex = "0123456789abcdef"

// appendQuoted appends a JSON string. s has to be valid UTF-8.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	done := 0 // up to where s was appended
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[done:i]...)
		done = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		}
	}
	b = append(b, s[done:]...)
	return append(b, '"')
}

// appendOneLine appends JSON without line breaks. Those in strings are escaped
// already, so others are white space.
func appendOneLine(b, raw []byte) []byte {
	if bytes.IndexByte(raw, '\n') < 0 && bytes.IndexByte(raw, '\r') < 0 {
		return append(b, raw...)
	}
	buf := bytes.NewBuffer(b)
	if json.Compact(buf, raw) != nil { // it has appended nothing then
		return append(b, "null"...)
	}
	return buf.Bytes()
}
