package clientproto

import "google.golang.org/protobuf/encoding/protowire"

// A mark is where a message begins, after room for its length.
type mark struct{ start, room int }

// beginSized begins a message that has about so many bytes. If the guess is good,
// endSized has to move nothing.
func beginSized(b []byte, about int) ([]byte, mark) {
	room := protowire.SizeVarint(uint64(about))
	b = append(b, make([]byte, room)...)
	return b, mark{len(b), room}
}

// endSized writes the message's length before it.
func endSized(b []byte, m mark) []byte {
	size := len(b) - m.start
	need := protowire.SizeVarint(uint64(size))
	if more := need - m.room; more > 0 {
		b = append(b, make([]byte, more)...)
		copy(b[m.start+more:], b[m.start:m.start+size])
	} else if more < 0 {
		copy(b[m.start+more:], b[m.start:])
		b = b[:len(b)+more]
	}
	protowire.AppendVarint(b[:m.start-m.room], uint64(size)) // in place
	return b
}
