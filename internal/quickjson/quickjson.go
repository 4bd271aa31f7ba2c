// Package quickjson recognizes most valid JSON in a fraction of a parser's
// time. A hub checks each message where it comes in, and again if another
// replica sent it.
package quickjson

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// MaxDepth is the deepest nesting that [Valid] accepts.
const MaxDepth = 64

// Valid reports whether b is one JSON value (RFC 8259) in valid UTF-8, on one
// line, that nests at most [MaxDepth] levels deep. If it returns false, b may
// still be JSON with more lines or levels: use a parser then, which also tells
// what is wrong. Valid keeps nothing of b.
func Valid(b []byte) bool {
	var (
		i, depth int
		objects  uint64 // a bit for each open bracket, the innermost lowest: set for an object
		ascii    = true
	)
	for {
		// A value begins.
		i = spaces(b, i)
		if i >= len(b) {
			return false
		}
		switch c := b[i]; c {
		case '"':
			i = text(b, i+1, &ascii)
		case '{', '[':
			if depth == MaxDepth {
				return false
			}
			depth++
			objects <<= 1
			i = spaces(b, i+1)
			if c == '[' {
				if i < len(b) && b[i] != ']' {
					continue
				}
				break
			}
			objects |= 1
			if i < len(b) && b[i] != '}' {
				if i = name(b, i, &ascii); i < 0 {
					return false
				}
				continue
			}
		case 't':
			i = literal(b, i, "true")
		case 'f':
			i = literal(b, i, "false")
		case 'n':
			i = literal(b, i, "null")
		default:
			i = number(b, i)
		}
		if i < 0 {
			return false
		}
		// After a value, or within empty brackets.
		for next := false; !next; {
			i = spaces(b, i)
			if depth == 0 {
				return i == len(b) && (ascii || utf8.Valid(b))
			}
			if i >= len(b) {
				return false
			}
			object := objects&1 == 1
			switch c := b[i]; {
			case c == ',':
				i++
				if object {
					if i = name(b, spaces(b, i), &ascii); i < 0 {
						return false
					}
				}
				next = true
			case c == '}' && object, c == ']' && !object:
				i++
				depth--
				objects >>= 1
			default:
				return false
			}
		}
	}
}

// The functions below return the end of what they look for, or a negative
// number if it is not there.

func spaces(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t') {
		i++
	}
	return i
}

// name parses a string and a colon.
func name(b []byte, i int, ascii *bool) int {
	if i >= len(b) || b[i] != '"' {
		return -1
	}
	if i = text(b, i+1, ascii); i < 0 {
		return i
	}
	if i = spaces(b, i); i >= len(b) || b[i] != ':' {
		return -1
	}
	return i + 1
}

func literal(b []byte, i int, what string) int {
	if len(b)-i < len(what) || string(b[i:i+len(what)]) != what {
		return -1
	}
	return i + len(what)
}

func number(b []byte, i int) int {
	if i < len(b) && b[i] == '-' {
		i++
	}
	from := i
	if i = digits(b, i); i < 0 || b[from] == '0' && i > from+1 {
		return -1
	}
	if i < len(b) && b[i] == '.' {
		if i = digits(b, i+1); i < 0 {
			return i
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		if i++; i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		return digits(b, i)
	}
	return i
}

// digits parses one or more digits.
func digits(b []byte, i int) int {
	from := i
	for i < len(b) && '0' <= b[i] && b[i] <= '9' {
		i++
	}
	if i == from {
		return -1
	}
	return i
}

// Words of eight equal bytes.
const (
	ones     = 0x0101010101010101
	highs    = 0x80 * ones
	controls = 0x20 * ones // smaller bytes are control characters
	quotes   = '"' * ones
	escapes  = '\\' * ones
)

// zeros returns a word whose lowest set bit marks the first zero byte of x.
func zeros(x uint64) uint64 { return (x - ones) &^ x & highs }

// text parses the rest of a string, eight bytes at a time. It sets *ascii to
// false if it finds a byte outside of ASCII; the caller then checks the UTF-8
// of all of them together.
func text(b []byte, i int, ascii *bool) int {
	for i < len(b) {
		if len(b)-i >= 8 {
			w := binary.LittleEndian.Uint64(b[i:])
			if w&highs != 0 {
				*ascii = false
			}
			stop := (w-controls)&^w&highs | zeros(w^quotes) | zeros(w^escapes)
			if stop == 0 {
				i += 8
				continue
			}
			i += bits.TrailingZeros64(stop) / 8
		}
		switch c := b[i]; {
		case c == '"':
			return i + 1
		case c == '\\':
			if i = escape(b, i+1); i < 0 {
				return i
			}
		case c < ' ':
			return -1
		default:
			if c >= utf8.RuneSelf {
				*ascii = false
			}
			i++
		}
	}
	return -1
}

func escape(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	switch b[i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 1
	case 'u':
		if len(b)-i < 5 {
			return -1
		}
		for _, c := range b[i+1 : i+5] {
			if !('0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f') {
				return -1
			}
		}
		return i + 5
	}
	return -1
}
