package clientproto_test

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/channels-go/channels/internal/clientproto"
)

func TestReadJSON(t *testing.T) {
	publish := &clientproto.PublishRequest{Channel: "a", Data: json.RawMessage(`{ "x":1}`)}
	for in, want := range map[string][]*clientproto.Command{
		`{"id":1,"publish":{"channel":"a","data":{ "x":1}}}`:                                        {{ID: 1, Publish: publish}},
		"\n\n {\"id\":1}\r\n{\"id\":2}\n\n\t{}\n \n":                                                {{ID: 1}, {ID: 2}, {}},
		"{\n\"id\":\n1,\"publish\" :{\"data\":{ \"x\":1},\"channel\":\"a\"}\n} \n{}":                {{ID: 1, Publish: publish}, {}},
		`{"i\u0064":1,"ID":2,"Id":3,"":4,"publish":{"channel":"\u0061","data":{ "x":1},"x":[]}}`:    {{ID: 1, Publish: publish, Unknown: true}},
		`{"id":null,"publish":null,"connect":{"token":null,"subs":{"a":null},"data":null}}`:         {{Connect: &clientproto.ConnectRequest{Subs: map[string]*clientproto.SubscribeRequest{"a": {}}, Data: json.RawMessage(`null`)}}},
		`{"id":4294967295,"history":{"since":{"offset":18446744073709551615},"limit":-2147483648}}`: {{ID: 4294967295, History: &clientproto.HistoryRequest{Since: &clientproto.StreamPosition{Offset: 18446744073709551615}, Limit: -2147483648}}},
		`{"id":1,"later":{"channel":"a"}}`:                                                          {{ID: 1, Unknown: true}},
		`{"id":1,"subscribe":{"channel":"a","tf":{"op":"and","nodes":[{}]},"recover":false}}`:       {{ID: 1, Subscribe: &clientproto.SubscribeRequest{Channel: "a", Filter: true}}},
		`{"id":1,"subscribe":{"channel":"\ud800","tf":null}}`:                                       {{ID: 1, Subscribe: &clientproto.SubscribeRequest{Channel: "\uFFFD"}}},
	} {
		require.Equal(t, want, read(t, []byte(in), clientproto.JSON), in)
	}
}

// broken are frames whose error comes after some good commands, and what it says.
var broken = []struct {
	frame, says string
	good        int
}{
	{"", "the frame has no command", 0},
	{" \n\r\n", "the frame has no command", 0},
	{"{}\n{\"id\":1,\n\"publish\":}\n{}", "command 2: it is not valid JSON at byte 20: ", 1},
	{"{}\n{", "command 2: it is not valid JSON at byte 1: unexpected end", 1},
	{"{} {}", "command 1: a line feed has to follow", 0},
	{"{}}", "command 1: a line feed has to follow", 0},
	{"}", "command 1: it is not valid JSON", 0},
	{"[]", "command 1: it has to be a JSON object", 0},
	{"null", "command 1: it has to be a JSON object", 0},
	{"\ufeff{}", "command 1: it is not valid JSON at byte 1", 0},
	{"{\"rpc\":{\"method\":\"\xff\"}}", "command 1: it is not valid UTF-8", 0},
	{"{\"rpc\":{\"data\":\"\xed\xa0\x80\"}}", "command 1: it is not valid UTF-8", 0},
	{`{"rpc":{"data":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}}`, "command 1: it nests more than 1000 levels deep", 0},
	{`{"id":"1"}`, "command 1: id has to be a whole number from 0 to 4294967295", 0},
	{`{"id":4294967296}`, "command 1: id has to be a whole number from 0 to 4294967295", 0},
	{`{"id":-1}`, "command 1: id has to be a whole number", 0},
	{`{"id":1.0}`, "command 1: id has to be a whole number", 0},
	{`{"id":1e0}`, "command 1: id has to be a whole number", 0},
	{`{"subscribe":{"offset":18446744073709551616}}`, "command 1: subscribe.offset has to be a whole number from 0 to 18446744073709551615", 0},
	{`{"connect":{"subs":{"a":{"epoch":1}}}}`, "command 1: connect.subs.epoch has to be a string", 0},
	{`{"connect":{"subs":{"a":[]}}}`, "command 1: connect.subs has to be an object", 0},
	{`{"connect":{"subs":[]}}`, "command 1: connect.subs has to be an object", 0},
	{`{"connect":"x"}`, "command 1: connect has to be an object", 0},
	{`{"history":{"limit":2147483648}}`, "command 1: history.limit has to be a whole number from -2147483648 to 2147483647", 0},
	{`{"history":{"reverse":"true"}}`, "command 1: history.reverse has to be true or false", 0},
	{`{"id":1,"i\u0064":1}`, "command 1: id appears twice", 0},
	{`{"publish":{"data":1,"data":1}}`, "command 1: publish.data appears twice", 0},
	{`{"publish":{},"publish":{}}`, "command 1: publish appears twice", 0},
	{`{"connect":{"subs":{"a":{},"\u0061":{}}}}`, "command 1: connect.subs has a key twice", 0},
	{`{"publish":{` + strings.Repeat(`"x":0,`, 101) + `"channel":"a"}}`, "command 1: publish: more than 100 fields", 0},
	{strings.Repeat("{}\n", 17), "more than the 16 commands", 16},
	{`{"connect":{"subs":{` + manySubs(17) + `}}}`, "command 1: connect.subs has more than the 16 entries", 0},
}

func manySubs(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`,"` + strings.Repeat("a", i) + `":{}`)
	}
	return b.String()[1:]
}

func TestBrokenJSON(t *testing.T) {
	for _, b := range broken {
		requireBroken(t, []byte(b.frame), clientproto.JSON, b.says, b.good)
	}
}

func requireBroken(t *testing.T, frame []byte, f clientproto.Format, says string, good int) {
	t.Helper()
	n := 0
	var broken error
	for cmd, err := range clientproto.Commands(frame, f, limits) {
		require.NoError(t, broken, "it goes on after an error: %q", frame)
		if broken = err; cmd == nil {
			require.ErrorContains(t, err, says, "%.200q", frame)
			continue
		}
		require.NoError(t, err)
		n++
	}
	require.Error(t, broken, "%.200q", frame)
	require.Equal(t, good, n, "%.200q", frame)
}

// wire makes Protobuf by hand.
type wire []byte

func (w wire) int(num protowire.Number, v uint64) wire {
	return protowire.AppendVarint(protowire.AppendTag(w, num, protowire.VarintType), v)
}

func (w wire) bytes(num protowire.Number, v string) wire {
	return protowire.AppendString(protowire.AppendTag(w, num, protowire.BytesType), v)
}

// frame is one that consists of the message.
func (w wire) frame() []byte { return protowire.AppendBytes(nil, w) }

func TestReadProtobuf(t *testing.T) {
	sub := string(wire{}.bytes(1, "a"))
	for _, c := range []struct {
		in   wire
		want *clientproto.Command
	}{
		{wire{}, &clientproto.Command{}},
		{wire{}.int(1, 5), &clientproto.Command{ID: 5}},
		{wire{}.int(1, 5).int(1, 6), &clientproto.Command{ID: 6}},                         // the last one counts
		{wire{}.int(1, 1<<32+5), &clientproto.Command{ID: 5}},                             // cut
		{wire{}.int(1, 5).bytes(20, "later"), &clientproto.Command{ID: 5, Unknown: true}}, // a later request
		{protowire.AppendFixed64(protowire.AppendTag(protowire.AppendFixed32(protowire.AppendTag(nil, 30, protowire.Fixed32Type), 7), 31, protowire.Fixed64Type), 7), &clientproto.Command{Unknown: true}},
		{wire{}.bytes(5, sub).bytes(5, string(wire{}.int(7, 9))), &clientproto.Command{Subscribe: &clientproto.SubscribeRequest{Channel: "a", Offset: 9}}}, // merged
		{wire{}.bytes(5, string(wire{}.bytes(13, "\xff"))), &clientproto.Command{Subscribe: &clientproto.SubscribeRequest{Filter: true}}},
		{wire{}.bytes(10, string(wire{}.int(7, 1<<64-1))), &clientproto.Command{History: &clientproto.HistoryRequest{Limit: -1}}},
		{wire{}.bytes(7, string(wire{}.bytes(2, ""))), &clientproto.Command{Publish: &clientproto.PublishRequest{}}},
		{wire{}.bytes(7, string(wire{}.bytes(2, "\n[1]\n"))), &clientproto.Command{Publish: &clientproto.PublishRequest{Data: json.RawMessage("\n[1]\n")}}},
		{wire{}.bytes(4, string(wire{}.bytes(3, "").bytes(3, string(wire{}.bytes(1, "x").bytes(2, sub))))), &clientproto.Command{Connect: &clientproto.ConnectRequest{Subs: map[string]*clientproto.SubscribeRequest{"": {}, "x": {Channel: "a"}}}}},
	} {
		require.Equal(t, []*clientproto.Command{c.want}, read(t, c.in.frame(), clientproto.Protobuf), "%x", c.in)
	}
}

func TestBrokenProtobuf(t *testing.T) {
	many, subs := wire{}, wire{}
	for range 101 {
		many = many.int(19, 1)
	}
	for i := range 17 {
		subs = subs.bytes(3, string(wire{}.bytes(1, strings.Repeat("a", i))))
	}
	for _, c := range []struct {
		frame []byte
		says  string
		good  int
	}{
		{nil, "the frame has no command", 0},
		{[]byte{0, 0, 5, 8, 1}, "command 3: its length is wrong", 2},
		{[]byte{0x80}, "command 1: its length is wrong", 0},
		{[]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "command 1: its length is wrong", 0},
		{[]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), "command 1: its length is wrong", 0},
		{make([]byte, 17), "more than the 16 commands", 16},
		{wire{8}.frame(), "command 1: it is not valid Protobuf", 0},
		{wire{0, 0}.frame(), "command 1: it is not valid Protobuf", 0},
		{wire(protowire.AppendTag(nil, 16, protowire.StartGroupType)).frame(), "command 1: there is a group", 0},
		{wire(protowire.AppendTag(nil, 16, 7)).frame(), "command 1: there is a group, or an unknown wire type", 0},
		{wire{}.bytes(1, "x").frame(), "command 1: id has the wire type 2 instead of 0", 0},
		{wire{}.int(4, 1).frame(), "command 1: connect has the wire type 0 instead of 2", 0},
		{wire{}.bytes(5, "\x0a\x05a").frame(), "command 1: subscribe: it is not valid Protobuf", 0},
		{wire{}.bytes(5, string(wire{}.bytes(1, "\xff"))).frame(), "command 1: subscribe.channel is not valid UTF-8", 0},
		{wire{}.bytes(4, string(wire{}.bytes(3, string(wire{}.bytes(1, "\xff"))))).frame(), "command 1: connect.subs.key is not valid UTF-8", 0},
		{wire{}.bytes(4, string(wire{}.bytes(3, "").bytes(3, ""))).frame(), "command 1: connect.subs has a key twice", 0},
		{wire{}.bytes(4, string(subs)).frame(), "command 1: connect.subs has more than the 16 entries", 0},
		{many.frame(), "command 1: more than 100 fields", 0},
	} {
		requireBroken(t, c.frame, clientproto.Protobuf, c.says, c.good)
	}
}

// TestBadDataIsNotABrokenFrame: the commands around one whose data is not JSON count.
func TestBadDataIsNotABrokenFrame(t *testing.T) {
	for _, data := range []string{"x", "{", "\xff", "\"\xff\"", "[1] [2]", strings.Repeat("[", 20000)} {
		bad := string(wire{}.bytes(1, "a").bytes(2, data))
		frame := append(append(wire{}.int(1, 1).frame(), wire{}.int(1, 2).bytes(7, bad).frame()...), wire{}.int(1, 3).frame()...)
		var all []*clientproto.Command
		for cmd, err := range clientproto.Commands(frame, clientproto.Protobuf, limits) {
			all = append(all, cmd)
			if cmd.ID == 2 {
				require.ErrorContains(t, err, "the field data has to be a JSON value, in Protobuf too: it ")
			} else {
				require.NoError(t, err)
			}
		}
		require.Equal(t, []*clientproto.Command{{ID: 1}, {ID: 2, Publish: &clientproto.PublishRequest{Channel: "a"}}, {ID: 3}}, all)
	}
}

func TestOnlyDataSharesMemory(t *testing.T) {
	for _, f := range formats {
		b := clientproto.AppendCommand(nil, f, &clientproto.Command{ID: 1, RPC: &clientproto.RPCRequest{Method: "method", Data: json.RawMessage(`"data"`)}})
		rpc := read(t, b, f)[0].RPC
		require.Equal(t, len(rpc.Data), cap(rpc.Data), "an append would write into the input")
		clear(b)
		require.Equal(t, "method", rpc.Method)
		require.Equal(t, make([]byte, 6), []byte(rpc.Data), "it was copied")
	}
}

// TestReadingAllocatesInProportion: 64 KiB that are made to cost much.
func TestReadingAllocatesInProportion(t *testing.T) {
	const size = 64 << 10
	fill := func(s string) string { return strings.Repeat(s, size/len(s)) }
	for name, c := range map[string]struct {
		f     clientproto.Format
		frame []byte
	}{
		"empty commands":       {clientproto.Protobuf, make([]byte, size)},
		"empty lines":          {clientproto.JSON, []byte(fill("{}\n"))},
		"unknown fields":       {clientproto.Protobuf, wire(fill("\xf8\x01\x00")).frame()},
		"unknown names":        {clientproto.JSON, []byte("{" + fill(`"ab":0,`) + `"id":1}`)},
		"escaped names":        {clientproto.JSON, []byte("{" + fill(`"\u0061":0,`) + `"id":1}`)},
		"empty subs":           {clientproto.Protobuf, wire{}.bytes(4, fill("\x1a\x00")).frame()},
		"brackets":             {clientproto.JSON, []byte(fill("["))},
		"a length of 2 to 63":  {clientproto.Protobuf, []byte("\xff\xff\xff\xff\xff\xff\xff\xff\x7f")},
		"repeated small texts": {clientproto.Protobuf, wire{}.bytes(4, fill("\x0a\x01a")).frame()},
		"repeated bad data":    {clientproto.Protobuf, wire{}.bytes(7, fill("\x12\x01x")).frame()},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range clientproto.Commands(c.frame, c.f, limits) {
		}
		runtime.ReadMemStats(&after)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4*size), name)
	}
}

func TestReadEmulation(t *testing.T) {
	want := &clientproto.EmulationRequest{Node: "n", Session: "s", Data: []byte("{\"id\":1}\n{}")}
	got, err := clientproto.ReadEmulation([]byte(` {"node":"n","session":"s","data":"{\"id\":1}\n{}"}`+"\n"), clientproto.JSON)
	require.NoError(t, err)
	require.Equal(t, want, got)
	got, err = clientproto.ReadEmulation(wire{}.bytes(1, "n").bytes(2, "s").bytes(3, string(want.Data)), clientproto.Protobuf)
	require.NoError(t, err)
	require.Equal(t, want, got)

	for _, bad := range []string{``, ` `, `{`, `[]`, `{} {}`, `{"data":{}}`, `{"node":1}`, "{\"node\":\"\xff\"}"} {
		_, err := clientproto.ReadEmulation([]byte(bad), clientproto.JSON)
		require.Error(t, err, "%q", bad)
	}
	for _, bad := range []string{"\x0a", "\x0a\x05a", "\x0a\x01\xff", "\x08\x01"} {
		_, err := clientproto.ReadEmulation([]byte(bad), clientproto.Protobuf)
		require.Error(t, err, "%q", bad)
	}
}
