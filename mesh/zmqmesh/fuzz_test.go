package zmqmesh_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/internal/packet"
	"github.com/channels-go/channels/mesh/zmqmesh"
)

// FuzzPacket feeds a mesh anything as the packets of another replica, as its
// questions and as its hello.
func FuzzPacket(f *testing.F) {
	var some []byte
	for i, p := range []mesh.Packet{
		{Channel: "x", Header: "h", Body: []byte(`{"a":1}`), Epoch: "e", Offset: 7, Sender: "s", Info: []byte(`{"client":"c"}`)},
		{Channel: "x", Header: "h", Body: []byte(`1`), Trace: []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")},
		{To: "fuzz", Channel: "y", Kind: mesh.KindControl}, {To: "other"}, {Channel: "y"}, {},
	} {
		p.Seq = uint64(i + 1)
		some = packet.Append(some, &p)
		f.Add(packet.Append(nil, &p))
	}
	f.Add(some)
	f.Add([]byte("\x01channel\x00"))
	f.Add(append([]byte{packet.Version, 1}, bytes.Repeat([]byte("i"), 60)...))
	f.Add([]byte("\x00\x08\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	m := newMesh(f, "fuzz", quiet)
	require.NoError(f, m.Subscribe("x"))
	in := receive(f, m)
	probe := packet.Append(nil, &mesh.Packet{Seq: 1, Header: "probe"})
	eventually(f, "packets arrive", func() bool {
		require.NoError(f, zmqmesh.Packets(m, probe))
		return in.count(message("probe")) > 0
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		in.clear()
		before := append([]byte{}, b...)
		_ = zmqmesh.Packets(m, b)
		for _, p := range in.clear() {
			require.Equal(t, "peer", p.Origin)
			require.Less(t, p.Kind, mesh.KindLost)
			require.True(t, p.To == "fuzz" || p.To == "" && (p.Channel == "x" || p.Channel == ""), "%+v", p)
			require.LessOrEqual(t, len(p.Body)+len(p.Header)+len(p.Channel)+len(p.Epoch)+len(p.Sender)+len(p.Info)+len(p.Trace), len(b))
			for i := range p.Body {
				p.Body[i] = 0
			}
			clear(p.Info)
			clear(p.Trace)
		}
		require.Equal(t, before, b, "what is delivered shares memory with other packets")
		_ = zmqmesh.Ask(m, b)
		if again, err := zmqmesh.ParseHello(b); err == nil {
			require.Equal(t, b, again)
		}
	})
}
