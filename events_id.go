package channels

import (
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
)

// positions are where a stream of several channels is in each of them. One goroutine uses
// them.
//
// As text they are the id of an event, which browsers send back in a header. Proxies have
// room for some kilobytes there, and names may be long, so the text has no names but a
// digest of them all: 1:DIGEST:POSITION,POSITION,… in the order of the names. A channel
// without a position is an empty text.
type positions struct {
	channels []string // sorted
	texts    []string // of their positions; "" is none
	index    map[string]int
	head     string
}

// maxPositions bounds their text, in bytes: nginx takes header lines of up to 8 KiB.
const maxPositions = 7000

func newPositions(channels []string) *positions {
	p := &positions{channels: slices.Sorted(slices.Values(channels)), index: make(map[string]int, len(channels))}
	p.texts = make([]string, len(channels))
	for i, name := range p.channels {
		p.index[name] = i
	}
	sum := sha256.Sum256([]byte(strings.Join(p.channels, "\n"))) // no name has a line feed
	p.head = "1:" + base64.RawURLEncoding.EncodeToString(sum[:6]) + ":"
	return p
}

// A comma separates positions, so in an epoch it is escaped. Stores of the kind that
// package store describes have none there.
var escapeComma = strings.NewReplacer("%", "%25", ",", "%2C")

// set says where the stream is in a channel. It reports whether the channel is one of
// them.
func (p *positions) set(channel string, at Position) bool {
	i, ok := p.index[channel]
	if ok {
		p.texts[i] = escapeComma.Replace(at.String())
	}
	return ok
}

// any reports whether there is a position.
func (p *positions) any() bool {
	return slices.ContainsFunc(p.texts, func(text string) bool { return text != "" })
}

// append appends the text.
func (p *positions) append(b []byte) []byte {
	b = append(b, p.head...)
	for i, text := range p.texts {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, text...)
	}
	return b
}

// positionRoom is what a position may come to in the life of a stream: an epoch of the
// shipped Stores, a billion messages, and the marks between. A log that has not begun is
// far shorter.
const positionRoom = len("I72ODULW75:1000000000,")

// room is how long the text may become.
func (p *positions) room() int {
	n := len(p.head)
	for _, text := range p.texts {
		if n++; text != "" {
			n += max(len(text), positionRoom-1)
		}
	}
	return n
}

// parse reads the text of positions in the same channels. It takes nothing but what append
// makes, and returns where to go on in each channel that has a position.
func (p *positions) parse(text string) (map[string]*Position, error) {
	list, ok := strings.CutPrefix(text, p.head)
	if !ok {
		return nil, ErrBadQuery.saying("%.40q… is no id of an event of this stream: ids are for the same channels only", text)
	}
	texts := strings.Split(list, ",")
	if len(texts) != len(p.channels) {
		return nil, ErrBadQuery.saying("the id has %d positions for %d channels", len(texts), len(p.channels))
	}
	all := make(map[string]*Position)
	for i, text := range texts {
		if text == "" {
			continue
		}
		plain, err := url.PathUnescape(text)
		if err != nil {
			return nil, ErrBadQuery.saying("%.80q in the id is not escaped correctly", text)
		}
		at, err := ParsePosition(plain)
		if err != nil {
			return nil, err
		}
		if escapeComma.Replace(at.String()) != text {
			return nil, ErrBadQuery.saying("%.80q in the id is no position as the hub writes it", text)
		}
		all[p.channels[i]] = &at
	}
	return all, nil
}
