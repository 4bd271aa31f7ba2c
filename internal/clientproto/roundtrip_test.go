package clientproto_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/clientproto"
)

// frame encodes messages into one frame.
func frame[M any](f clientproto.Format, encode func([]byte, clientproto.Format, M) []byte, all ...M) (b []byte) {
	for _, m := range all {
		b = clientproto.AppendToFrame(b, f, encode(nil, f, m))
	}
	return b
}

func read(t testing.TB, b []byte, f clientproto.Format) (all []*clientproto.Command) {
	for cmd, err := range clientproto.Commands(b, f, limits) {
		require.NoError(t, err, "%q", b)
		all = append(all, cmd)
	}
	return all
}

func readReplies(t testing.TB, b []byte, f clientproto.Format) (all []*clientproto.Reply) {
	for r, err := range clientproto.Replies(b, f) {
		require.NoError(t, err, "%q", b)
		all = append(all, r)
	}
	return all
}

func TestCommandsComeBack(t *testing.T) {
	for _, f := range formats {
		b := frame(f, clientproto.AppendCommand, commands...)
		before := bytes.Clone(b)
		require.Equal(t, commands, read(t, b, f), f)
		require.Equal(t, before, b, "the input was changed")
	}
}

func TestRepliesComeBack(t *testing.T) {
	for _, f := range formats {
		require.Equal(t, replies, readReplies(t, frame(f, clientproto.AppendReply, replies...), f), f)
	}
}

func TestAppendPublicationIsAppendPush(t *testing.T) {
	for _, f := range formats {
		for _, size := range []int{0, 1, 80, 127, 128, 129, 16300, 16384, 1 << 21} { // where lengths get longer
			p := somePublication
			p.Data, _ = json.Marshal(string(bytes.Repeat([]byte("x"), size)))
			for _, p := range []*clientproto.Publication{{Data: p.Data}, &p} {
				b := clientproto.AppendPublication([]byte("before"), f, "a", p)
				require.Equal(t, clientproto.AppendPush([]byte("before"), f, &clientproto.Push{Channel: "a", Pub: p}), b)
				got := readReplies(t, b[len("before"):], f)
				require.Equal(t, []*clientproto.Reply{{Push: &clientproto.Push{Channel: "a", Pub: p}}}, got)
			}
		}
	}
}

func TestAppendPublicationAllocatesNothing(t *testing.T) {
	for _, f := range formats {
		b := make([]byte, 0, 4096)
		require.Zero(t, testing.AllocsPerRun(100, func() { clientproto.AppendPublication(b, f, "room", &somePublication) }), f)
	}
}

func TestPingAndPongAreEmpty(t *testing.T) {
	for f, want := range map[clientproto.Format]string{clientproto.JSON: "{}", clientproto.Protobuf: "\x00"} {
		require.Equal(t, want, string(clientproto.AppendReply(nil, f, &clientproto.Reply{})))
		require.Equal(t, want, string(clientproto.AppendCommand(nil, f, &clientproto.Command{})))
		all := read(t, []byte(want), f)
		require.Len(t, all, 1)
		require.True(t, all[0].IsPong())
	}
	for _, cmd := range commands {
		require.False(t, cmd.IsPong())
	}
	require.False(t, read(t, []byte(`{"later":1}`), clientproto.JSON)[0].IsPong())
}

// TestJSON has the texts themselves, since round trips would not notice a wrong name.
func TestJSON(t *testing.T) {
	for want, r := range map[string]*clientproto.Reply{
		`{"id":1,"error":{"code":103,"message":"no","temporary":true}}`: {ID: 1, Error: &clientproto.Error{Code: 103, Message: "no", Temporary: true}},
		`{"id":2,"publish":{}}`: {ID: 2, Publish: &clientproto.PublishResult{}},
		`{"id":3,"presence_stats":{"num_clients":2,"num_users":1}}`:                                                          {ID: 3, PresenceStats: &clientproto.PresenceStatsResult{NumClients: 2, NumUsers: 1}},
		`{"id":4,"subscribe":{"epoch":"e","publications":[{"data":1},{"data":[]}],"offset":7,"was_recovering":true}}`:        {ID: 4, Subscribe: &clientproto.SubscribeResult{Epoch: "e", Offset: 7, WasRecovering: true, Publications: []clientproto.Publication{{Data: []byte(`1`)}, {Data: []byte(`[]`)}}}},
		`{"id":5,"presence":{"presence":{"c\"":{"user":"u","client":"c\"","conn_info":{},"chan_info":0}}}}`:                  {ID: 5, Presence: &clientproto.PresenceResult{Presence: map[string]*clientproto.ClientInfo{`c"`: {User: "u", Client: `c"`, ConnInfo: []byte(`{}`), ChanInfo: []byte(`0`)}}}},
		`{"push":{"channel":"a","pub":{"data":{"x":1},"info":{"user":"","client":"c"},"offset":3,"tags":{"header":"h"}}}}`:   {Push: &clientproto.Push{Channel: "a", Pub: &clientproto.Publication{Data: []byte(`{"x":1}`), Info: &clientproto.ClientInfo{Client: "c"}, Offset: 3, Tags: clientproto.Tags{Header: "h"}}}},
		`{"push":{"channel":"*","pub":{"data":null,"tags":{"header":"h","channel":"a"}}}}`:                                   {Push: &clientproto.Push{Channel: "*", Pub: &clientproto.Publication{Data: []byte(`null`), Tags: clientproto.Tags{Header: "h", Channel: "a"}}}},
		`{"id":6,"connect":{"client":"c","subs":{"a":{"recoverable":true}},"ping":25,"pong":true,"session":"s","node":"n"}}`: {ID: 6, Connect: &clientproto.ConnectResult{Client: "c", Ping: 25, Pong: true, Session: "s", Node: "n", Subs: map[string]*clientproto.SubscribeResult{"a": {Recoverable: true}}}},
		// The schema has these fields even if they are zero.
		`{"id":7,"presence":{"presence":{}}}`:                              {ID: 7, Presence: &clientproto.PresenceResult{}},
		`{"id":8,"presence_stats":{"num_clients":0,"num_users":0}}`:        {ID: 8, PresenceStats: &clientproto.PresenceStatsResult{}},
		`{"id":9,"history":{"publications":[],"epoch":"","offset":0}}`:     {ID: 9, History: &clientproto.HistoryResult{}},
		`{"push":{"channel":"a","join":{"info":{"user":"","client":""}}}}`: {Push: &clientproto.Push{Channel: "a", Join: &clientproto.Join{Info: &clientproto.ClientInfo{}}}},
	} {
		require.Equal(t, want, string(clientproto.AppendReply(nil, clientproto.JSON, r)))
	}
}

// TestNoLineBreaks: lines separate the messages in JSON, and are what an event stream
// consists of.
func TestNoLineBreaks(t *testing.T) {
	for in, want := range map[string]string{
		"{\n\"a\" :\r\n [1,\r2]}\n": `{"a":[1,2]}`,
		"\n1":                       `1`,
		`"\n\r"`:                    `"\n\r"`,
		"{ \"a\": 1 }":              `{ "a": 1 }`, // with no reason to be copied
		"{\n":                       `null`,       // not JSON, so the caller's fault
	} {
		p := somePublication
		p.Data = json.RawMessage(in)
		p.Info = &clientproto.ClientInfo{User: nasty, ConnInfo: p.Data, ChanInfo: p.Data}
		b := clientproto.AppendPublication(nil, clientproto.JSON, nasty, &p)
		require.NotContains(t, string(b), "\n")
		require.NotContains(t, string(b), "\r")
		got := readReplies(t, b, clientproto.JSON)
		require.Len(t, got, 1)
		require.Equal(t, nasty, got[0].Push.Channel)
		require.Equal(t, want, string(got[0].Push.Pub.Data))
		require.Equal(t, want, string(got[0].Push.Pub.Info.ChanInfo))
		require.Equal(t, in, string(p.Data), "the argument was changed")
	}
	for _, r := range replies {
		require.NotContains(t, string(clientproto.AppendReply(nil, clientproto.JSON, r)), "\n")
	}
}

// TestWrittenTextsAreUTF8: a client would refuse the whole frame for one bad byte.
func TestWrittenTextsAreUTF8(t *testing.T) {
	for _, f := range formats {
		b := clientproto.AppendReply(nil, f, &clientproto.Reply{ID: 1, Error: &clientproto.Error{Message: "a\xffb\xe2\x82"}})
		require.Equal(t, "a\uFFFDb\uFFFD", readReplies(t, b, f)[0].Error.Message)
	}
}
