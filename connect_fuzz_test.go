package channels_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/clientproto"
)

// Whatever a client sends, the server answers with proper replies to the commands that
// came, or ends the connection, and nothing of the client is left.
func FuzzSession(f *testing.F) {
	for _, frame := range []string{
		`{"id":2,"subscribe":{"channel":"h","recover":true,"epoch":"x","offset":3}}` + "\n" + `{"id":3,"publish":{"channel":"h","data":[1,{"a":"ü"}]}}`,
		`{"id":2,"subscribe":{"channel":"e","join_leave":true}}` + "\n" + `{"id":3,"presence":{"channel":"e"}}` + "\n" + `{"id":4,"presence_stats":{"channel":"e"}}`,
		`{"id":2,"history":{"channel":"h","limit":-1,"reverse":true,"since":{"offset":7,"epoch":"x"}}}` + "\n{}",
		`{"id":2,"rpc":{"method":"publish","data":{"channel":"h","header":"x","body":null,"key":"k","local":false}}}`,
		`{"id":2,"rpc":{"method":"echo","data":"\ud800"}}` + "\n" + `{"send":{"data":1}}`,
		`{"id":2,"refresh":{"token":"eve"}}`, `{"id":2,"sub_refresh":{"channel":"h","token":"x"}}`, `{"id":2,"unsubscribe":{"channel":"h"}}`,
		`{"id":2,"subscribe":{"channel":"h*"}}` + "\n" + `{"id":3,"publish":{"channel":"h","data":1}}` + "\n" + `{"id":4,"subscribe":{"channel":"[^a-\\]]?"}}` + "\n" + `{"id":5,"unsubscribe":{"channel":"h*"}}`,
		`{"id":2,"connect":{}}`, `{"id":4294967296}`, `{"id":2,"subscribe":{"channel":"h","type":1,"tf":{}}}`,
	} {
		f.Add([]byte(frame), false)
		var b []byte
		for cmd, err := range clientproto.Commands([]byte(frame), clientproto.JSON, clientproto.Limits{Commands: 10, Subs: 10}) {
			if cmd != nil && err == nil {
				b = clientproto.AppendCommand(b, clientproto.Protobuf, cmd)
			}
		}
		f.Add(b, true)
	}
	hub, log := newFuzzHub(f, channels.Options{
		MaxSubscriptions: 4,
		Authenticate:     tokens,
		OnCall:           func(_ context.Context, c channels.Call) (json.RawMessage, error) { return c.Data, nil },
		Channel: func(name string) channels.ChannelOptions {
			switch name {
			case "h":
				return channels.ChannelOptions{HistorySize: 4}
			case "e":
				return channels.ChannelOptions{Presence: channels.PresenceEvents}
			}
			return channels.ChannelOptions{}
		},
	})
	f.Fuzz(func(t *testing.T, frame []byte, protobuf bool) {
		format := clientproto.JSON
		if protobuf {
			format = clientproto.Protobuf
		}
		ids, sends := map[uint32]int{1: 1}, map[uint32]bool{}
		for cmd := range clientproto.Commands(frame, format, clientproto.Limits{Commands: 1024, Subs: 4}) {
			switch {
			case cmd == nil || cmd.ID == 0:
			case cmd.Send != nil: // which has no reply
				sends[cmd.ID] = true
				fallthrough
			default:
				ids[cmd.ID]++
			}
		}
		r := channels.Arrive(hub, nil, protobuf)
		connect := clientproto.AppendCommand(nil, format, &clientproto.Command{ID: 1, Connect: &clientproto.ConnectRequest{Token: "ann"}})
		require.NoError(t, r.Send(string(connect)))
		require.NoError(t, r.Send(string(frame)))
		rest, ended := r.Leave()
		for reply, err := range clientproto.Replies(rest, format) {
			require.NoError(t, err)
			if reply.ID > 0 {
				ids[reply.ID]--
				require.GreaterOrEqual(t, ids[reply.ID], 0, "nobody asked %d", reply.ID)
			}
		}
		for id, n := range ids {
			require.True(t, n == 0 || ended || sends[id], "%d has no reply", id)
		}
		require.Zero(t, hub.Stats().Connections)
		require.NotContains(t, log.String(), "panic")
	})
}
