package hubtest

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Frame is one frame of a WebSocket as it came.
type Frame struct {
	First   byte // FIN, reserved bits and opcode
	Payload []byte
}

// The first byte of a frame, and its parts: RFC 6455 section 5.2.
const (
	RawText  = FinBit | OpText
	RawClose = FinBit | OpClose
	RawPing  = FinBit | OpPing
	RawPong  = FinBit | OpPong

	FinBit   = 0x80
	RSV1Bit  = 0x40
	OpText   = 0x1
	OpBinary = 0x2
	OpClose  = 0x8
	OpPing   = 0x9
	OpPong   = 0xA
)

// Masked builds a frame as a client sends it.
func Masked(first byte, payload []byte) []byte {
	b := []byte(FrameHeader(first, 0x80, uint64(len(payload))))
	key := [4]byte{0x12, 0x34, 0x56, 0x78}
	b = append(b, key[:]...)
	for i, p := range payload {
		b = append(b, p^key[i%4])
	}
	return b
}

// WSFrame is Masked for texts.
func WSFrame(first byte, payload string) string { return string(Masked(first, []byte(payload))) }

// FrameHeader is a frame's header, whose length n need not be true; mask is 0x80 or 0.
func FrameHeader(first, mask byte, n uint64) string {
	switch {
	case n < 126:
		return string([]byte{first, mask | byte(n)})
	case n <= 0xffff:
		return string(binary.BigEndian.AppendUint16([]byte{first, mask | 126}, uint16(n)))
	}
	return string(binary.BigEndian.AppendUint64([]byte{first, mask | 127}, n))
}

// ReadFrame reads a server's frame, which is never masked.
func ReadFrame(br *bufio.Reader) (Frame, error) {
	var head [2]byte
	if _, err := io.ReadFull(br, head[:]); err != nil {
		return Frame{}, err
	}
	n := uint64(head[1])
	if size := map[uint64]int{126: 2, 127: 8}[n]; size > 0 { // then the length follows
		var length [8]byte
		if _, err := io.ReadFull(br, length[8-size:]); err != nil {
			return Frame{}, err
		}
		n = binary.BigEndian.Uint64(length[:])
	}
	if head[1] == 126 && n < 126 || head[1] == 127 && n < 1<<16 {
		return Frame{}, fmt.Errorf("the length %d in more bytes than it needs: head %x", n, head) // RFC 6455 section 5.2
	}
	if n > 64<<20 {
		return Frame{}, fmt.Errorf("a frame of %d bytes: head %x", n, head)
	}
	f := Frame{head[0], make([]byte, n)}
	_, err := io.ReadFull(br, f.Payload)
	return f, err
}

// DeflateOffer is the line of a handshake that offers to compress.
const DeflateOffer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"

// Deflated compresses a message as RFC 7692 section 7.2.1 says.
func Deflated(text string, level int) string {
	var b bytes.Buffer
	z, err := flate.NewWriter(&b, level)
	if err != nil {
		panic(err)
	}
	io.WriteString(z, text) // a Buffer does not fail
	z.Flush()
	return strings.TrimSuffix(b.String(), "\x00\x00\xff\xff")
}

// Inflate is the message that a compressed one holds.
func Inflate(t *testing.T, b []byte) []byte {
	t.Helper()
	text, err := io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(b), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))))
	require.NoError(t, err)
	return text
}
