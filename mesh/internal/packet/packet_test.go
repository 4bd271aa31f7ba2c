package packet_test

import (
	"bytes"
	"encoding/hex"
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
	{Info: []byte("i"), Seq: 1, Trace: []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")},
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
			rest, err = packet.Next(&p, rest, &texts)
			require.NoError(t, err)
			require.Equal(t, want, p)
			_ = append(p.Body, "overwritten"...)
			require.Equal(t, want, p, "the info follows the body")
			_ = append(p.Info, "overwritten"...)
			require.Equal(t, want, p, "the trace follows the info")
			_ = append(p.Trace, "overwritten"...)
			p.Body, p.Info, p.Trace = nil, nil, nil
			clear(before[:len(before)-len(rest)])
			want.Body, want.Info, want.Trace = nil, nil, nil
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
	var p mesh.Packet
	rest, err := packet.Next(&p, append(b, packet.Append(nil, &samples[1])...), new(packet.Kept))
	require.NoError(t, err)
	require.Equal(t, with, p)
	rest, err = packet.Next(&p, rest, new(packet.Kept))
	require.NoError(t, err)
	require.Equal(t, samples[1], p)
	require.Empty(t, rest)
}

// These packets were recorded: before is what the version before traces made of them,
// and now is what this one makes if the first has a trace.
var recorded = []mesh.Packet{
	{Kind: mesh.KindMessage, Channel: "c", Header: "h", Body: json.RawMessage(`{"n":1}`), Epoch: "e", Offset: 300, Seq: 128, Sender: "s", Info: []byte(`{"client":"x"}`)},
	{Kind: mesh.KindControl, To: "b", Header: "canary", Body: json.RawMessage(`{"v":1}`), Seq: 129},
}

const (
	before = "00fd800101630168077b226e223a317d0165ac0201730e7b22636c69656e74223a2278227d020e810101620663616e617279077b2276223a317d"
	now    = "00fd800101630168077b226e223a317d0165ac0201730e7b22636c69656e74223a2278227d02820001003730302d30616637363531393136636434336464383434386562323131633830333139632d623761643662373136393230333333312d3031020e810101620663616e617279077b2276223a317d"
)

func TestPacketsOfOlderVersions(t *testing.T) {
	var again []byte
	rest := unhex(t, before)
	for _, want := range recorded {
		var p mesh.Packet
		var err error
		rest, err = packet.Next(&p, rest, new(packet.Kept))
		require.NoError(t, err)
		require.Equal(t, want, p)
		again = packet.Append(again, &p)
	}
	require.Empty(t, rest)
	require.Equal(t, before, hex.EncodeToString(again), "without traces, nothing has changed")
}

// The version before was given now, and its Next returned what is wanted here.
func TestOlderVersionsReadOverATrace(t *testing.T) {
	traced := recorded[0]
	traced.Trace = []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	require.Equal(t, now, hex.EncodeToString(packet.Append(packet.Append(nil, &traced), &recorded[1])))
	rest := unhex(t, now)
	for _, want := range []mesh.Packet{recorded[0], {Kind: mesh.KindControl, To: "\x00", Info: traced.Trace}, recorded[1]} {
		var p mesh.Packet
		var err error
		rest, err = packet.Older(&p, rest, new(packet.Kept))
		require.NoError(t, err)
		require.Equal(t, want, p)
	}
	require.Empty(t, rest)
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

// A trace that cannot be one is left out by both sides, and its packet comes.
func TestTracesThatAreTooLong(t *testing.T) {
	p := samples[3]
	p.Trace = bytes.Repeat([]byte("t"), mesh.MaxTraceBytes+1)
	long := packet.Append(nil, &p)
	p.Trace = nil
	bare := packet.Append(nil, &p)
	require.Equal(t, bare, long)
	trailer := func(trace int) []byte {
		return packet.Append(bytes.Clone(bare), &mesh.Packet{Kind: mesh.KindControl, To: "\x00", Info: make([]byte, trace)})
	}
	for n, want := range map[int]int{0: 0, 1: 1, mesh.MaxTraceBytes: mesh.MaxTraceBytes, mesh.MaxTraceBytes + 1: 0} {
		b := trailer(n)
		if n == 0 {
			b = append(bytes.Clone(bare), "\x02\x82\x00\x01\x00\x00"...) // which this version does not make
		}
		var got mesh.Packet
		rest, err := packet.Next(&got, append(b, bare...), new(packet.Kept))
		require.NoError(t, err)
		require.Len(t, got.Trace, want)
		require.Equal(t, bare, rest, n)
		got.Trace = nil
		require.Equal(t, p, got)
	}
	cut := trailer(10)
	_, err := packet.Next(new(mesh.Packet), cut[:len(cut)-1], new(packet.Kept))
	require.ErrorIs(t, err, packet.ErrMalformed)
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
		_, err := packet.Next(new(mesh.Packet), whole[:n], new(packet.Kept))
		require.ErrorIs(t, err, packet.ErrMalformed, "cut after %d bytes", n)
	}
	for name, src := range map[string]string{
		"a loss, which is never sent":  string([]byte{byte(mesh.KindLost), 0, 1}),
		"a number of more than 64 bit": "\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
		"an endless number":            "\x00\x00" + strings.Repeat("\xff", 100),
		"a length beyond the end":      "\x00\x08\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01abc",
	} {
		_, err := packet.Next(new(mesh.Packet), []byte(src), new(packet.Kept))
		require.ErrorIs(t, err, packet.ErrMalformed, name)
	}
}

func FuzzPacket(f *testing.F) {
	for i := range samples[:4] {
		f.Add(packet.Append(nil, &samples[i]))
	}
	f.Add([]byte("\x02\x82\x00\x01\x00\x01t\x02\x82\x00\x01\x00\x01t")) // a trailer behind nothing
	f.Fuzz(func(t *testing.T, b []byte) {
		var p, again mesh.Packet
		rest, err := packet.Next(&p, b, new(packet.Kept))
		if err != nil {
			return
		}
		left, err := packet.Next(&again, packet.Append(nil, &p), new(packet.Kept))
		require.NoError(t, err)
		require.Empty(t, left)
		require.Less(t, len(rest), len(b))
		require.Equal(t, len(p.Body), len(again.Body))
		require.Equal(t, len(p.Info), len(again.Info))
		require.Equal(t, p.Trace, again.Trace)
		require.LessOrEqual(t, len(p.Trace), mesh.MaxTraceBytes)
		p.Body, again.Body, p.Info, again.Info = nil, nil, nil, nil // empty fields that another encoder wrote are accepted
		require.Equal(t, p, again)
	})
}
