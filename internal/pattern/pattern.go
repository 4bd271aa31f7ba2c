// Package pattern matches names with patterns, the globs of Redis:
//
//   - any number of bytes
//     ?       one byte
//     [abc]   one of these bytes; [a-z] has a range, and [^a] means any but these
//     \*      the byte itself
//
// Redis counts bytes, and so does this package: a character outside of ASCII has
// several, so "?" does not match it.
package pattern

import (
	"fmt"
	"strings"
)

// MaxBytes is the longest pattern, in bytes. It is also the longest name of a
// channel.
const MaxBytes = 200

// A Pattern does not change. Its methods may be called concurrently.
type Pattern struct {
	text string
	// parts are what stands before, between and after the stars. There is one
	// more than there are stars.
	parts []part
	least int // bytes of the shortest name that can match
}

// A part matches a run of so many bytes as it has itself.
type part struct {
	bytes string
	// sets are for those bytes that are no literals; the others have nil. If all
	// are literals, there are no sets.
	sets []*set
}

// A set is the bytes that one place takes.
type set [4]uint64

func (s *set) add(b byte)      { s[b/64] |= 1 << (b % 64) }
func (s *set) has(b byte) bool { return s[b/64]&(1<<(b%64)) != 0 }

var any = set{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}

// Compile parses a pattern. It refuses some that Redis takes, but that match other
// names than their authors mean: a class without its end, an empty one, one with
// characters outside of ASCII, and a backslash at the end.
func Compile(text string) (*Pattern, error) {
	if text == "" || len(text) > MaxBytes {
		return nil, fmt.Errorf("a pattern has 1 to %d bytes, this one has %d", MaxBytes, len(text))
	}
	p := &Pattern{text: text}
	var now builder
	star := false
	for rest := text; rest != ""; {
		c := rest[0]
		rest = rest[1:]
		if c == '*' {
			if !star {
				p.parts = append(p.parts, now.part())
			}
			star = true
			continue
		}
		star = false
		switch c {
		case '?':
			now.add('?', &any)
		case '[':
			class, after, err := parseClass(rest)
			if err != nil {
				return nil, fmt.Errorf("in the pattern %q, %w", text, err)
			}
			now.add('[', class)
			rest = after
		case '\\':
			if rest == "" {
				return nil, fmt.Errorf("the pattern %q ends with a backslash; the character that it is for must follow", text)
			}
			c, rest = rest[0], rest[1:]
			fallthrough
		default:
			now.add(c, nil)
		}
	}
	p.parts = append(p.parts, now.part())
	for i := range p.parts {
		p.least += len(p.parts[i].bytes)
	}
	return p, nil
}

// parseClass parses what stands behind "[", and returns what follows the class.
func parseClass(text string) (*set, string, error) {
	rest, not := strings.CutPrefix(text, "^")
	class, empty := new(set), true
	for {
		switch {
		case rest == "":
			return nil, "", fmt.Errorf("the class %q has no end; it needs a \"]\", and a \"[\" that begins no class is written \\[", "["+text)
		case rest[0] == ']' && empty:
			return nil, "", fmt.Errorf("a class is empty; name the characters that it takes, a \"]\" among them as \\]")
		case rest[0] == ']':
			if not {
				for i := range class {
					class[i] = ^class[i]
				}
			}
			return class, rest[1:], nil
		}
		low, high, n := rest[0], rest[0], 1
		switch {
		case low == '\\' && len(rest) > 1:
			low, high, n = rest[1], rest[1], 2
		case len(rest) > 2 && rest[1] == '-':
			low, high, n = min(low, rest[2]), max(low, rest[2]), 3
		}
		if high >= 0x80 {
			return nil, "", fmt.Errorf("the class %q has a character outside of ASCII; a class takes one byte, and such a character has several", "["+text)
		}
		for b := low; b <= high; b++ {
			class.add(b)
		}
		rest, empty = rest[n:], false
	}
}

// A builder gathers the bytes of a part.
type builder struct {
	bytes []byte
	sets  []*set
	mixed bool // not only literals
}

func (b *builder) add(c byte, takes *set) {
	b.bytes, b.sets, b.mixed = append(b.bytes, c), append(b.sets, takes), b.mixed || takes != nil
}

// part returns the part, and begins the next one.
func (b *builder) part() part {
	p := part{bytes: string(b.bytes)}
	if b.mixed {
		p.sets = b.sets
	}
	*b = builder{}
	return p
}

// String returns the pattern as it was compiled.
func (p *Pattern) String() string { return p.text }

// Prefix is what every name begins with that can match.
func (p *Pattern) Prefix() string {
	first := &p.parts[0]
	for i, s := range first.sets {
		if s != nil {
			return first.bytes[:i]
		}
	}
	return first.bytes
}

// Match reports whether the pattern matches a whole name. It never goes back
// behind a star: if a part can stand at several places, the first one leaves most to
// the parts after it. So it takes at most as many steps as the name has bytes, times
// those of the pattern (BenchmarkMatch).
func (p *Pattern) Match(name string) bool {
	if len(name) < p.least {
		return false
	}
	end := len(p.parts) - 1
	first, last := &p.parts[0], &p.parts[end]
	if !first.matches(name) {
		return false
	}
	if end == 0 {
		return len(name) == p.least
	}
	tail := len(name) - len(last.bytes)
	if !last.matches(name[tail:]) {
		return false
	}
	name = name[len(first.bytes):tail]
	for i := 1; i < end; i++ {
		at := p.parts[i].find(name)
		if at < 0 {
			return false
		}
		name = name[at+len(p.parts[i].bytes):]
	}
	return true
}

// matches reports whether a name, which is long enough, begins with the part.
func (t *part) matches(name string) bool {
	if t.sets == nil {
		return strings.HasPrefix(name, t.bytes)
	}
	for i, s := range t.sets {
		if s == nil && name[i] != t.bytes[i] || s != nil && !s.has(name[i]) {
			return false
		}
	}
	return true
}

// find returns the first place in a name where the part stands, or -1.
func (t *part) find(name string) int {
	if t.sets == nil {
		return strings.Index(name, t.bytes)
	}
	for i := 0; i+len(t.bytes) <= len(name); i++ {
		if t.matches(name[i:]) {
			return i
		}
	}
	return -1
}
