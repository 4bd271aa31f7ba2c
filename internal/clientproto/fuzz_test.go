package clientproto_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/clientproto"
)

func seeds(f *testing.F) {
	for _, b := range broken {
		if len(b.frame) < 1000 {
			f.Add([]byte(b.frame))
		}
	}
	for _, format := range formats {
		f.Add(frame(format, clientproto.AppendCommand, commands...))
		f.Add(frame(format, clientproto.AppendReply, replies...))
	}
	f.Add([]byte("{\"id\":1,\"publish\":{\"channel\":\"a\",\"data\":{\n}}}\r\n\n{}\n"))
	f.Add([]byte("\x00\x02\x08\x01\x00"))
}

// FuzzJSONCommands: what is read can be written, and means the same, also in Protobuf.
func FuzzJSONCommands(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) { checkCommands(t, b, clientproto.JSON) })
}

func FuzzProtobufCommands(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) { checkCommands(t, b, clientproto.Protobuf) })
}

func checkCommands(t *testing.T, b []byte, f clientproto.Format) {
	before := bytes.Clone(b)
	n := 0
	for cmd, err := range clientproto.Commands(b, f, limits) {
		if cmd == nil {
			require.Error(t, err)
			break
		}
		n++
		for _, data := range dataOf(cmd) {
			require.True(t, *data == nil || json.Valid(*data) && utf8.Valid(*data), "%q", *data)
			*data = oneLine(*data)
		}
		cmd.Unknown = false // not written
		for _, f := range formats {
			again := clientproto.AppendCommand(nil, f, cmd)
			require.Equal(t, []*clientproto.Command{cmd}, read(t, again, f), "%q", again)
		}
	}
	require.LessOrEqual(t, n, limits.Commands)
	require.Equal(t, before, b)
	for range clientproto.Replies(b, f) { // must not panic
	}
	clientproto.ReadEmulation(b, f)
}

// dataOf returns all the data of a command.
func dataOf(cmd *clientproto.Command) (all []*json.RawMessage) {
	if r := cmd.Connect; r != nil {
		all = append(all, &r.Data)
		for _, s := range r.Subs {
			all = append(all, &s.Data)
		}
	}
	if r := cmd.Subscribe; r != nil {
		all = append(all, &r.Data)
	}
	if r := cmd.Publish; r != nil {
		all = append(all, &r.Data)
	}
	if r := cmd.Send; r != nil {
		all = append(all, &r.Data)
	}
	if r := cmd.RPC; r != nil {
		all = append(all, &r.Data)
	}
	return all
}

// oneLine returns JSON as it is written.
func oneLine(b json.RawMessage) json.RawMessage {
	if !bytes.ContainsAny(b, "\n\r") {
		return b
	}
	var c bytes.Buffer
	if json.Compact(&c, b) != nil {
		return json.RawMessage("null")
	}
	return c.Bytes()
}

// FuzzFrames: frames are cut where other readers of such streams cut them.
func FuzzFrames(f *testing.F) {
	seeds(f)
	f.Add([]byte("{}{}"))
	f.Add([]byte("{\"a\":\"}\\\"\\\\\"\n}\n\n [\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		lines := json.NewDecoder(bytes.NewReader(b))
		for one, err := range clientproto.Messages(b, clientproto.JSON) {
			if err != nil {
				break
			}
			var want json.RawMessage
			require.NoError(t, lines.Decode(&want), "%q", one)
			require.Equal(t, string(want), string(one))
		}

		rest := b
		for one, err := range clientproto.Messages(b, clientproto.Protobuf) {
			size, n := binary.Uvarint(rest)
			if err != nil {
				require.True(t, n <= 0 || size > uint64(len(rest)-n))
				return
			}
			require.Positive(t, n)
			rest = rest[n:]
			require.Equal(t, rest[:size], one)
			rest = rest[size:]
		}
		require.Empty(t, rest)
	})
}

// FuzzAppendPublication: whatever the hub sends, clients read it, and no frame falls
// apart into other ones.
func FuzzAppendPublication(f *testing.F) {
	f.Add("room", []byte(`{"a":1}`), "chat", "ann", uint64(1))
	f.Add(nasty, []byte("[\n1,\r\n\"\\n\"]\n"), nasty, nasty, uint64(1<<63))
	f.Add("\xff", []byte("{\n"), "\"", "}\n{}", uint64(0))
	f.Add("", []byte(strings.Repeat("1", 200)), "", "", uint64(300))
	f.Fuzz(func(t *testing.T, channel string, data []byte, header, user string, offset uint64) {
		p := &clientproto.Publication{Data: data, Info: &clientproto.ClientInfo{User: user}, Offset: offset, Tags: clientproto.Tags{Header: header}}
		b := clientproto.AppendPublication(nil, clientproto.JSON, channel, p)
		require.False(t, bytes.ContainsAny(b, "\n\r"), "%q", b)
		if len(data) > 0 && (!json.Valid(data) || !utf8.Valid(data)) {
			return
		}
		for _, f := range formats {
			b := clientproto.AppendPublication(nil, f, channel, p)
			all := readReplies(t, b, f)
			require.Len(t, all, 1)
			got := all[0].Push
			require.Equal(t, strings.ToValidUTF8(channel, "\uFFFD"), got.Channel)
			require.Equal(t, strings.ToValidUTF8(header, "\uFFFD"), got.Pub.Tags.Header)
			require.Equal(t, strings.ToValidUTF8(user, "\uFFFD"), got.Pub.Info.User)
			require.Equal(t, offset, got.Pub.Offset)
			if f == clientproto.JSON {
				require.Equal(t, string(bytes.Trim(oneLine(data), " \t")), string(got.Pub.Data))
			} else {
				require.Equal(t, string(data), string(got.Pub.Data))
			}
		}
	})
}
