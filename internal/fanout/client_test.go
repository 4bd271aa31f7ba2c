package fanout

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var clientFormatsByName = map[string]Format{
	"json": ClientJSON, "protobuf": ClientProtobuf, "events": ClientEvents, "lines": ClientLines, "delimited": ClientDelimited,
}

// reply takes what stands around a reply off.
func reply(t *testing.T, as Format, b []byte) string {
	t.Helper()
	if as.overSocket() {
		var first byte
		first, b = payload(t, b)
		require.Equal(t, map[Format]byte{ClientJSON: 0x81, ClientProtobuf: 0x82}[as], first)
	}
	s := string(b)
	switch as {
	case ClientEvents:
		require.True(t, strings.HasPrefix(s, "data: ") && strings.HasSuffix(s, "\n\n"), s)
		s = s[6 : len(s)-2]
	case ClientLines:
		require.True(t, strings.HasSuffix(s, "\n"), s)
		s = s[:len(s)-1]
	}
	return s
}

func TestClientFrameOfAnyLength(t *testing.T) {
	for name, as := range clientFormatsByName {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{1, 124, 125, 126, 127, 128, 16383, 16384, 0xffff, 0x10000, 1 << 21} {
				want := strings.Repeat("x", n)
				f := NewReply(as, append(make([]byte, ReplyRoom), want...))
				require.Equal(t, want, reply(t, as, f.Bytes(as)))
				require.False(t, f.Last)
				f = text(nil, Said, "simple")
				f.Value = place(want)
				if as.Protobuf() {
					want = "pb:" + want
				}
				require.Equal(t, want, reply(t, as, f.Bytes(as)))
				require.Same(t, &f.Bytes(as)[0], &f.Bytes(as)[0], "it is encoded once")
			}
		})
	}
}

func TestClientFramesOfTheServersOwn(t *testing.T) {
	for name, as := range clientFormatsByName {
		t.Run(name, func(t *testing.T) {
			empty := "{}"
			if as.Protobuf() {
				empty = "\x00"
			}
			require.Equal(t, empty, reply(t, as, Ping.Bytes(as)), "a ping is an empty reply")
			require.Empty(t, text(nil, Said, "simple").Bytes(as), "without a Value it says nothing here")
			silent := text(nil, Said, "simple")
			silent.Value = place("")
			require.Empty(t, silent.Bytes(as))
			end := NewClose(1001, "draining")
			end.EndClients(3001, "shutdown")
			require.True(t, end.Last)
			_, p := payload(t, end.Bytes(WebSocket))
			require.Equal(t, "\x03\xe9draining", string(p))
			if as.overSocket() {
				_, p = payload(t, end.Bytes(as))
				require.Equal(t, "\x0b\xb9shutdown", string(p))
				require.Equal(t, "\x8a\x02hi", string(NewPong([]byte("hi")).Bytes(as)))
				require.Equal(t, "\x88\x00", string(NewLast([]byte("\x88\x00")).Bytes(as)), "the client's own close frame")
				return
			}
			require.Empty(t, NewPong([]byte("hi")).Bytes(as))
			end = NewClose(1001, "draining")
			end.EndClients(3001, "shutdown")
			end.Value = place("bye")
			require.Equal(t, map[bool]string{true: "pb:bye", false: "bye"}[as.Protobuf()], reply(t, as, end.Bytes(as)))
		})
	}
}
