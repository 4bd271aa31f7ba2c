package quickjson

import "bytes"

// Deeper reports whether JSON nests more than so many levels deep. If the input is not
// JSON and Deeper returns false, its valid beginning has at most twice as many levels.
// Deeper is quick for short input and for input with few brackets.
func Deeper(b []byte, levels int) bool {
	return len(b) > 2*levels && bytes.Count(b, []byte{'{'})+bytes.Count(b, []byte{'['}) > levels && depth(b) > levels
}

func depth(b []byte) (deepest int) {
	d, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted:
			if c == '\\' {
				i++
			} else if c == '"' {
				quoted = false
			}
		case c == '"':
			quoted = true
		case c == '{' || c == '[':
			d++
			deepest = max(deepest, d)
		case c == '}' || c == ']':
			d--
		}
	}
	return deepest
}
