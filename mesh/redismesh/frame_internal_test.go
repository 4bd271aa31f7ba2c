package redismesh

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/internal/packet"
)

func FuzzFrame(f *testing.F) {
	p := mesh.Packet{Channel: "c", Header: "h", Body: []byte(`{"x":1}`), Epoch: "e", Offset: 7, Seq: 9, Sender: "s", Info: []byte(`{"client":"c"}`), Trace: []byte("00-0af7-01")}
	for _, kind := range []frameKind{frameMessages, frameProbe, frameLost, 0} {
		f.Add(string(packet.Append(appendFrame(nil, frame{kind, 1, 2, 3, "origin"}), &p)))
	}
	f.Add("\x02m")
	f.Fuzz(func(t *testing.T, s string) {
		fr, packets, err := readFrame(s)
		if err != nil {
			return
		}
		require.Equal(t, s, string(appendFrame(nil, fr))+packets)
		for b := []byte(packets); len(b) > 0; {
			rest, err := packet.Next(new(mesh.Packet), b, new(packet.Kept))
			if err != nil {
				return
			}
			require.Less(t, len(rest), len(b))
			b = rest
		}
	})
}

func TestMalformedFrames(t *testing.T) {
	whole := appendFrame(nil, frame{frameMessages, 1, 2, 3, "origin"})
	for n := range whole {
		_, _, err := readFrame(string(whole[:n]))
		require.Error(t, err, "cut after %d bytes", n)
	}
	whole[0]++
	_, _, err := readFrame(string(whole))
	require.ErrorContains(t, err, "version is 2; this replica understands 1")
}
