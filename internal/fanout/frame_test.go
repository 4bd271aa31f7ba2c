package fanout

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// A place is the Value of a test's frames.
type place string

func (p place) AppendID(b []byte) []byte { return append(b, p...) }

func (p place) Channel() string { return "" }

func (p place) AppendReply(b []byte, protobuf bool) []byte {
	if protobuf && len(p) > 0 {
		b = append(b, "pb:"...)
	}
	return append(b, p...)
}

// payload takes a WebSocket frame apart.
func payload(t *testing.T, b []byte) (first byte, p []byte) {
	t.Helper()
	n, head := int(b[1]), 2
	switch n {
	case 126:
		n, head = int(binary.BigEndian.Uint16(b[2:])), 4
		require.GreaterOrEqual(t, n, 126, "the shortest length is used")
	case 127:
		n, head = int(binary.BigEndian.Uint64(b[2:])), 10
		require.Greater(t, n, 0xffff, "the shortest length is used")
	}
	require.Len(t, b, head+n)
	return b[0], b[head:]
}

func TestFrameOfAnyLength(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 127, 0xffff, 0x10000} {
		want := strings.Repeat("x", n)
		first, got := payload(t, text(nil, Said, want).Bytes(WebSocket))
		require.EqualValues(t, 0x81, first)
		require.Equal(t, want, string(got))
	}
}

func TestFrameOfTheProtocol(t *testing.T) {
	require.Equal(t, "\x89\x00", string(Ping.Bytes(WebSocket)))
	require.Equal(t, "\x8a\x02hi", string(NewPong([]byte("hi")).Bytes(WebSocket)))
	f := NewClose(1001, strings.Repeat("y", 200))
	first, got := payload(t, f.Bytes(WebSocket))
	require.EqualValues(t, 0x88, first)
	require.Equal(t, "\x03\xe9"+strings.Repeat("y", 123), string(got))
	require.True(t, f.Last)
	require.Empty(t, f.Bytes(SSE))
	last := NewLast([]byte("\x88\x00"))
	require.True(t, last.Last)
	require.Equal(t, "\x88\x00", string(last.Bytes(Deflate)))
}

func TestFrameAsServerSentEvent(t *testing.T) {
	f := text(nil, Said, `{"a":1}`)
	require.Equal(t, "data: {\"a\":1}\n\n", string(f.Bytes(SSE)))
	f = text(nil, Said, `{"a":1}`)
	f.Value = place("e:7")
	require.Equal(t, "id: e:7\ndata: {\"a\":1}\n\n", string(f.Bytes(SSE)))
	f = text(nil, Said, `{"a":1}`)
	f.Value = place("")
	require.Equal(t, "data: {\"a\":1}\n\n", string(f.Bytes(SSE)), "without an id there is no line for it")
	f = &Frame{Kind: Place, Value: place("e:7")}
	require.Equal(t, "id: e:7\n\n", string(f.Bytes(SSE)))
	require.Empty(t, f.Bytes(WebSocket))
	f = text(nil, Said, "\"\u2028 \u2029 \u0085 ü\"")
	require.Equal(t, "data: \"\\u2028 \\u2029 \\u0085 ü\"\n\n", string(f.Bytes(SSE)))
	require.Equal(t, ":\n", string(Ping.Bytes(SSE)))
	h := NewHeartbeat("ping", []byte(`{"b":2}`))
	require.Equal(t, "event: ping\ndata: {\"b\":2}\n\n", string(h.Bytes(SSE)))
	require.Equal(t, "\x89\x00\x81\x07{\"b\":2}", string(h.Bytes(WebSocket)))
}

func TestFrameIsDeflatedOnce(t *testing.T) {
	e := New(Config{CompressBytes: 20})
	g := e.Group()
	want := strings.Repeat("abc ", 500)
	f := text(&g, Message, want)
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() { f.Bytes(Deflate) })
	}
	wait.Wait()
	require.EqualValues(t, 1, e.Deflated.Load())
	first, got := payload(t, f.Bytes(Deflate))
	require.EqualValues(t, 0xc1, first)
	plain, err := io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(got), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))))
	require.NoError(t, err)
	require.Equal(t, want, string(plain))
	require.Equal(t, "\x81", string(f.Bytes(WebSocket)[:1]), "others get it as it is")

	for _, f := range []*Frame{text(&g, Message, "short"), text(nil, Said, want), text(&g, Message, noise(64))} {
		require.Equal(t, f.Bytes(WebSocket), f.Bytes(Deflate))
	}
	require.EqualValues(t, 2, e.Deflated.Load(), "one that gets no shorter was tried")
}

// noise returns a text that deflate makes no shorter.
func noise(n int) (s string) {
	for i := uint32(1); len(s) < n; i++ {
		s += fmt.Sprintf("%c", 33+i*2654435761>>16%94)
	}
	return s
}
