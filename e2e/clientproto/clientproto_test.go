// Package clientproto_test compares the hub's codec of the client protocol with the
// protocol's own. Random messages go from one to the other and back.
package clientproto_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/centrifugal/protocol"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/clientproto"
)

// rounds is how many messages each test sends in each format. The race detector makes
// each cost ten times as much.
var rounds = flag.Uint64("rounds", 500, "how many messages each test sends in each format")

var formats = map[clientproto.Format]protocol.Type{
	clientproto.JSON:     protocol.TypeJSON,
	clientproto.Protobuf: protocol.TypeProtobuf,
}

// eachRound runs f with numbers that are the same in each run.
func eachRound(t *testing.T, f func(t *testing.T, r *rand.Rand, ours clientproto.Format, theirs protocol.Type)) {
	for ours, theirs := range formats {
		t.Run(ours.String(), func(t *testing.T) {
			for i := range *rounds {
				f(t, rand.New(rand.NewPCG(i, i)), ours, theirs)
				if t.Failed() {
					t.Fatalf("in round %d", i)
				}
			}
		})
	}
}

func random[T any](r *rand.Rand) *T {
	m := new(T)
	fill(r, reflect.ValueOf(m).Elem(), 0)
	return m
}

// TestTheirsReadsOurCommands, and what they write of it, we read as it was.
func TestTheirsReadsOurCommands(t *testing.T) {
	eachRound(t, func(t *testing.T, r *rand.Rand, f clientproto.Format, theirs protocol.Type) {
		var want []*clientproto.Command
		var frame []byte
		for range 1 + r.IntN(3) {
			cmd := random[clientproto.Command](r)
			cmd.Unknown = false // never written
			want = append(want, cmd)
			frame = clientproto.AppendToFrame(frame, f, clientproto.AppendCommand(nil, f, cmd))
		}
		read := theirCommands(t, frame, theirs)
		require.Len(t, read, len(want), "%q", frame)
		requireEqual(t, want, ourCommands(t, joinTheirs(t, theirs, read), f))
	})
}

// TestWeReadTheirCommands, and ignore what is not served.
func TestWeReadTheirCommands(t *testing.T) {
	eachRound(t, func(t *testing.T, r *rand.Rand, f clientproto.Format, theirs protocol.Type) {
		cmd := random[protocol.Command](r)
		ours := ourCommands(t, joinTheirs(t, theirs, []*protocol.Command{cmd}), f)
		require.Len(t, ours, 1)
		require.False(t, ours[0].Unknown)
		leaveServed(cmd)
		requireEqual(t, []*protocol.Command{cmd}, theirCommands(t, clientproto.AppendCommand(nil, f, ours[0]), theirs))
	})
}

// TestTheirsReadsOurReplies, and what they write of it, we read as it was.
func TestTheirsReadsOurReplies(t *testing.T) {
	eachRound(t, func(t *testing.T, r *rand.Rand, f clientproto.Format, theirs protocol.Type) {
		var want []*clientproto.Reply
		var texts [][]byte
		var frame []byte
		for range 1 + r.IntN(3) {
			reply := random[clientproto.Reply](r)
			want = append(want, reply)
			b := clientproto.AppendReply(nil, f, reply)
			if p := reply.Push; p != nil && p.Pub != nil && reflect.DeepEqual(reply, &clientproto.Reply{Push: &clientproto.Push{Channel: p.Channel, Pub: p.Pub}}) {
				require.Equal(t, b, clientproto.AppendPublication(nil, f, p.Channel, p.Pub))
			}
			texts = append(texts, b)
			frame = clientproto.AppendToFrame(frame, f, b)
		}
		read := theirReplies(t, frame, theirs)
		require.Len(t, read, len(want), "%q", frame)
		data := protocol.GetDataEncoder(theirs)
		for i, reply := range read {
			b, err := protocol.GetReplyEncoder(theirs).Encode(reply)
			require.NoError(t, err)
			if f == clientproto.JSON { // with the same zero values
				require.JSONEq(t, string(b), string(texts[i]))
			}
			require.NoError(t, data.Encode(b))
		}
		var got []*clientproto.Reply
		for reply, err := range clientproto.Replies(data.Finish(), f) {
			require.NoError(t, err)
			got = append(got, reply)
		}
		requireEqual(t, want, got)
	})
}

// TestTheirsReadsOurPublications: the one function that does not go through a Reply.
func TestTheirsReadsOurPublications(t *testing.T) {
	eachRound(t, func(t *testing.T, r *rand.Rand, f clientproto.Format, theirs protocol.Type) {
		p, channel := random[clientproto.Publication](r), randomText(r)
		read := theirReplies(t, clientproto.AppendPublication(nil, f, channel, p), theirs)
		require.Len(t, read, 1)
		require.Equal(t, channel, read[0].Push.Channel)
		got := read[0].Push.Pub
		require.Equal(t, p.Offset, got.Offset)
		require.Equal(t, p.Time, got.Time)
		require.Equal(t, p.Tags, clientproto.Tags{Header: got.Tags["header"], Channel: got.Tags["channel"]})
		require.Equal(t, p.Info == nil, got.Info == nil)
		if p.Info != nil {
			require.Equal(t, p.Info.User, got.Info.User)
			require.Equal(t, p.Info.Client, got.Info.Client)
			require.Equal(t, compact(p.Info.ConnInfo), compact(got.Info.ConnInfo))
			require.Equal(t, compact(p.Info.ChanInfo), compact(got.Info.ChanInfo))
		}
		require.Equal(t, compact(p.Data), compact(got.Data))
	})
}

// TestWeReadDamageAlike: where both codecs read a damaged frame in Protobuf, they read the
// same. (Ours ignores more fields, so damage there as well. In JSON, theirs takes "ID"
// for "id".)
func TestWeReadDamageAlike(t *testing.T) {
	both := uint64(0)
	for i := range 2 * *rounds {
		r := rand.New(rand.NewPCG(i, 7))
		cmd := random[protocol.Command](r)
		frame := joinTheirs(t, protocol.TypeProtobuf, []*protocol.Command{cmd})
		frame[r.IntN(len(frame))] ^= 1 << r.IntN(8)
		var ours []*clientproto.Command
		broken := false
		for cmd, err := range clientproto.Commands(frame, clientproto.Protobuf, anything) {
			broken = broken || err != nil
			ours = append(ours, cmd)
		}
		if broken {
			continue
		}
		d := protocol.NewProtobufCommandDecoder(frame)
		for _, cmd := range ours {
			theirs, err := d.Decode()
			if theirs == nil {
				require.NotErrorIs(t, err, io.EOF, "round %d: they see fewer commands in %q", i, frame)
				break
			}
			both++
			leaveServed(theirs)
			requireEqual(t, []*protocol.Command{theirs}, theirCommands(t, clientproto.AppendCommand(nil, clientproto.Protobuf, cmd), protocol.TypeProtobuf))
		}
	}
	require.Greater(t, both, *rounds/2, "too few were read at all")
}

func TestWeReadTheirEmulation(t *testing.T) {
	for i := range *rounds {
		r := rand.New(rand.NewPCG(i, i))
		want := &clientproto.EmulationRequest{Node: randomText(r), Session: randomText(r), Data: []byte(randomText(r) + "x")}
		theirs := &protocol.EmulationRequest{Node: want.Node, Session: want.Session, Data: want.Data}
		b, err := theirs.MarshalVT()
		require.NoError(t, err)
		got, err := clientproto.ReadEmulation(b, clientproto.Protobuf)
		require.NoError(t, err)
		require.Equal(t, want, got)

		theirs.Data, err = json.Marshal(string(want.Data))
		require.NoError(t, err)
		b, err = json.Marshal(theirs)
		require.NoError(t, err)
		got, err = clientproto.ReadEmulation(b, clientproto.JSON)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

var anything = clientproto.Limits{Commands: math.MaxInt, Subs: math.MaxInt}

func ourCommands(t *testing.T, frame []byte, f clientproto.Format) (all []*clientproto.Command) {
	for cmd, err := range clientproto.Commands(frame, f, anything) {
		require.NoError(t, err, "%q", frame)
		all = append(all, cmd)
	}
	return all
}

func theirCommands(t *testing.T, frame []byte, f protocol.Type) (all []*protocol.Command) {
	d := protocol.GetCommandDecoder(f, frame)
	for {
		cmd, err := d.Decode()
		if cmd != nil {
			all = append(all, cmd)
		}
		if err == io.EOF {
			return all
		}
		require.NoError(t, err, "%q", frame)
	}
}

func theirReplies(t *testing.T, frame []byte, f protocol.Type) (all []*protocol.Reply) {
	var d protocol.ReplyDecoder = protocol.NewJSONReplyDecoder(frame)
	if f == protocol.TypeProtobuf {
		d = protocol.NewProtobufReplyDecoder(frame)
	}
	for {
		reply, err := d.Decode()
		if err == io.EOF {
			return all
		}
		require.NoError(t, err, "%q", frame)
		all = append(all, reply)
	}
}

// joinTheirs makes a frame of commands.
func joinTheirs(t *testing.T, f protocol.Type, all []*protocol.Command) []byte {
	var e protocol.CommandEncoder = protocol.NewJSONCommandEncoder()
	if f == protocol.TypeProtobuf {
		e = protocol.NewProtobufCommandEncoder() // with the lengths
	}
	var frame [][]byte
	for _, cmd := range all {
		b, err := e.Encode(cmd)
		require.NoError(t, err)
		frame = append(frame, b)
	}
	if f == protocol.TypeProtobuf {
		return bytes.Join(frame, nil)
	}
	return bytes.Join(frame, []byte{'\n'})
}

// leaveServed clears what is in the schema but not served.
func leaveServed(cmd *protocol.Command) {
	if r := cmd.Connect; r != nil {
		r.Headers, r.Flag, r.Profile, r.Dict = nil, 0, "", ""
		for channel, s := range r.Subs {
			if s == nil { // an entry without a value, which in Protobuf is an empty one
				r.Subs[channel] = &protocol.SubscribeRequest{}
			}
			leaveServedSub(s)
		}
	}
	leaveServedSub(cmd.Subscribe)
	if r := cmd.Publish; r != nil {
		r.Key, r.Removed = "", false
	}
	if r := cmd.SubRefresh; r != nil {
		r.Track, r.Untrack = nil, nil
	}
}

func leaveServedSub(r *protocol.SubscribeRequest) {
	if r == nil {
		return
	}
	r.Delta, r.Phase, r.Cursor, r.Limit, r.Asc = "", 0, "", 0, false
	if r.Tf != nil {
		r.Tf = &protocol.FilterNode{} // that there is one counts
	}
}

// requireEqual compares messages but for white space in JSON, which only one of the
// two codecs takes out.
func requireEqual(t *testing.T, want, got any) {
	t.Helper()
	require.Equal(t, plain(t, want), plain(t, got))
}

// plain returns v as JSON without types, and so without the private fields of
// generated types.
func plain(t *testing.T, v any) (p any) {
	b, err := json.Marshal(v)
	require.NoError(t, err)
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	require.NoError(t, d.Decode(&p))
	return p
}

func compact(b []byte) string {
	var c bytes.Buffer
	if len(b) > 0 && json.Compact(&c, b) != nil {
		return "not JSON: " + string(b)
	}
	return c.String()
}
