package packet_test

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/internal/packet"
)

var samples = []mesh.Packet{
	{},
	{Kind: mesh.KindControl, Seq: math.MaxUint64, Offset: math.MaxUint64},
	{Kind: mesh.KindPresence, Channel: "a", To: "b", Header: "grüße \U0001F44B", Body: json.RawMessage(`{"x":1}`),
		Epoch: "e", Offset: 300, Seq: 128, Sender: "s", Info: []byte("\x00 info\xff")},
	{Info: []byte("i"), Seq: 1},
	{Channel: strings.Repeat("c", 200), Body: json.RawMessage(strings.Repeat("1", 1<<20))},
}

func TestPacketsComeBackAsTheyWere(t *testing.T) {
	var all []byte
	for i := range samples {
		all = packet.Append(all, &samples[i])
	}
	var texts packet.Kept
	for range 2 { // first the texts are new, then they are kept
		rest := bytes.Clone(all)
		for _, want := range samples {
			before := rest
			var p mesh.Packet
			var err error
			p, rest, err = packet.Next(rest, &texts)
			require.NoError(t, err)
			require.Equal(t, want, p)
			_ = append(p.Body, "overwritten"...)
			require.Equal(t, want, p, "the info follows the body")
			_ = append(p.Info, "overwritten"...)
			p.Body, p.Info = nil, nil
			clear(before[:len(before)-len(rest)])
			want.Body, want.Info = nil, nil
			require.Equal(t, want, p, "a text shares memory with the input")
		}
		require.Empty(t, rest)
	}
}

// The info is where the first versions had a text, and the later ones have a field that
// they read over: it is behind all others, and nothing else has changed.
func TestTheInfoIsWhereOtherVersionsReadOver(t *testing.T) {
	with, without := samples[2], samples[2]
	without.Info = nil
	b := packet.Append(nil, &without)
	require.Zero(t, b[1]&(1<<7))
	b[1] |= 1 << 7
	b = append(b, "\x07\x00 info\xff"...)
	require.Equal(t, packet.Append(nil, &with), b)
	p, rest, err := packet.Next(append(b, packet.Append(nil, &samples[1])...), new(packet.Kept))
	require.NoError(t, err)
	require.Equal(t, with, p)
	p, rest, err = packet.Next(rest, new(packet.Kept))
	require.NoError(t, err)
	require.Equal(t, samples[1], p)
	require.Empty(t, rest)
}

func TestKeptIsBounded(t *testing.T) {
	var k packet.Kept
	for i := range 100_000 {
		s := strings.Repeat("x", i%100) + strconv.Itoa(i)
		require.Equal(t, s, k.Text([]byte(s)))
	}
	require.Less(t, k.Len(), 1025)
	require.Zero(t, testing.AllocsPerRun(100, func() { k.Text([]byte("99999")) }))
}

func TestMalformedPacketsAreRefused(t *testing.T) {
	whole := packet.Append(nil, &samples[2])
	for n := range whole {
		_, _, err := packet.Next(whole[:n], new(packet.Kept))
		require.ErrorIs(t, err, packet.ErrMalformed, "cut after %d bytes", n)
	}
	for name, src := range map[string]string{
		"a loss, which is never sent":  string([]byte{byte(mesh.KindLost), 0, 1}),
		"a number of more than 64 bit": "\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
		"an endless number":            "\x00\x00" + strings.Repeat("\xff", 100),
		"a length beyond the end":      "\x00\x08\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01abc",
	} {
		_, _, err := packet.Next([]byte(src), new(packet.Kept))
		require.ErrorIs(t, err, packet.ErrMalformed, name)
	}
}

func FuzzPacket(f *testing.F) {
	for i := range samples[:4] {
		f.Add(packet.Append(nil, &samples[i]))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, rest, err := packet.Next(b, new(packet.Kept))
		if err != nil {
			return
		}
		again, left, err := packet.Next(packet.Append(nil, &p), new(packet.Kept))
		require.NoError(t, err)
		require.Empty(t, left)
		require.Less(t, len(rest), len(b))
		require.Equal(t, len(p.Body), len(again.Body))
		require.Equal(t, len(p.Info), len(again.Info))
		p.Body, again.Body, p.Info, again.Info = nil, nil, nil, nil // empty fields that another encoder wrote are accepted
		require.Equal(t, p, again)
	})
}
