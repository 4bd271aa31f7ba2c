package packet_test

import (
	"encoding/json"
	"math"
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
		Epoch: "e", Offset: 300, Seq: 128, Sender: "s", Trace: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
	{Channel: strings.Repeat("c", 200), Body: json.RawMessage(strings.Repeat("1", 1<<20))},
}

func TestPacketsComeBackAsTheyWere(t *testing.T) {
	var all []byte
	for i := range samples {
		all = packet.Append(all, &samples[i])
	}
	bytes, text := all, string(all)
	for _, want := range samples {
		var p mesh.Packet
		var err error
		p, bytes, err = packet.Next(bytes)
		require.NoError(t, err)
		require.Equal(t, want, p)
		p, text, err = packet.Next(text)
		require.NoError(t, err)
		require.Equal(t, want, p)
		_ = append(p.Body, "overwritten"...)
	}
	require.Empty(t, bytes)
	require.Empty(t, text)
}

func TestAppendingToABodySparesTheNextPacket(t *testing.T) {
	all := packet.Append(nil, &samples[2])
	all = packet.Append(all, &samples[2])
	p, rest, err := packet.Next(all)
	require.NoError(t, err)
	_ = append(p.Body, strings.Repeat("x", 50)...)
	p, _, err = packet.Next(rest)
	require.NoError(t, err)
	require.Equal(t, samples[2], p)
}

func TestMalformedPacketsAreRefused(t *testing.T) {
	whole := packet.Append(nil, &samples[2])
	for n := range whole {
		_, _, err := packet.Next(whole[:n])
		require.ErrorIs(t, err, packet.ErrMalformed, "cut after %d bytes", n)
	}
	for name, src := range map[string]string{
		"a loss, which is never sent":  "\x03\x00\x01",
		"a number of more than 64 bit": "\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
		"an endless number":            "\x00\x00" + strings.Repeat("\xff", 100),
		"a length beyond the end":      "\x00\x08\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01abc",
	} {
		_, _, err := packet.Next(src)
		require.ErrorIs(t, err, packet.ErrMalformed, name)
	}
}

func FuzzPacket(f *testing.F) {
	for i := range samples[:3] {
		f.Add(packet.Append(nil, &samples[i]))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, rest, err := packet.Next(b)
		q, tail, err2 := packet.Next(string(b))
		require.Equal(t, err, err2)
		if err != nil {
			return
		}
		require.Equal(t, p, q)
		require.Equal(t, string(rest), tail)
		again, left, err := packet.Next(packet.Append(nil, &p))
		require.NoError(t, err)
		require.Empty(t, left)
		require.Equal(t, len(p.Body), len(again.Body))
		p.Body, again.Body = nil, nil // an encoder that writes empty ones is read, too
		require.Equal(t, p, again)
	})
}
