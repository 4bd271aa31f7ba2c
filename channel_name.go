package channels

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/channels-go/channels/internal/pattern"
)

// MaxNameBytes is the longest channel name, in bytes of UTF-8.
const MaxNameBytes = 200

// CheckName returns nil for a valid channel name: 1 to [MaxNameBytes] bytes
// of UTF-8 with no control characters, spaces, "/", "*" or "?". The names "."
// and ".." are refused too, because no URL path can carry them. Without "*" and "?",
// no name can be taken for a pattern (see [Hub.SubscribePattern]).
func CheckName(name string) error {
	switch {
	case name == "":
		return ErrBadChannel.saying("a channel name must not be empty")
	case len(name) > MaxNameBytes:
		return ErrBadChannel.saying("a channel name has at most %d bytes, this one has %d", MaxNameBytes, len(name))
	case name == "." || name == "..":
		return ErrBadChannel.saying("%q is not a channel name, since no URL path can carry it", name)
	}
	for i, r := range name {
		switch {
		case r == utf8.RuneError:
			if _, size := utf8.DecodeRuneInString(name[i:]); size == 1 {
				return ErrBadChannel.saying("the channel name %q is not valid UTF-8", name)
			}
		case r == '/' || r == '*' || r == '?', isSpaceOrControl(r):
			return ErrBadChannel.saying("the channel name %q has %q in it; names have no control characters, spaces, /, * or ?", name, r)
		}
	}
	return nil
}

// isPattern reports whether what a client gives as a channel's name is a pattern: it
// has a character that no name has.
func isPattern(name string) bool {
	return strings.IndexByte(name, '*') >= 0 || strings.IndexByte(name, '?') >= 0
}

// compilePattern parses a pattern: 1 to [MaxNameBytes] bytes of UTF-8, with what may
// stand in names and what package pattern gives a meaning. It keeps no memory of text.
func compilePattern(text string) (*pattern.Pattern, error) {
	if !utf8.ValidString(text) {
		return nil, ErrBadChannel.saying("the pattern %.210q is not valid UTF-8", text)
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return r == '/' || isSpaceOrControl(r) }); i >= 0 {
		return nil, ErrBadChannel.saying("the pattern %.210q has a control character, a space or a / in it, which no channel name has", text)
	}
	p, err := pattern.Compile(strings.Clone(text))
	if err != nil {
		return nil, ErrBadChannel.saying("%v", err)
	}
	return p, nil
}

func isSpaceOrControl(r rune) bool {
	if r < 0x7f {
		return r <= ' '
	}
	return unicode.IsControl(r) || unicode.Is(unicode.Z, r) || r == '\ufeff'
}
