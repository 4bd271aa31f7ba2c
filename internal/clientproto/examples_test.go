package clientproto_test

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/clientproto"
)

var (
	formats = []clientproto.Format{clientproto.JSON, clientproto.Protobuf}
	limits  = clientproto.Limits{Commands: 16, Subs: 16}
)

// nasty is a text that needs care in JSON.
const nasty = "a\"\\/\b\f\n\r\t\x00\x1f\x7f<>&\u2028ü€😀"

var body = json.RawMessage(`{"a":[1,2.5e3,"\n\u00fc ü"],"b":null}`)

// The examples have a value in each field, which TestExamplesAreComplete checks.

var someInfo = &clientproto.ClientInfo{User: nasty, Client: "c1", ConnInfo: body, ChanInfo: json.RawMessage(`"x"`)}

var somePublication = clientproto.Publication{Data: body, Info: someInfo, Offset: math.MaxUint64, Tags: clientproto.Tags{Header: nasty, Channel: "room:1"}, Time: math.MinInt64}

var someSubscribe = &clientproto.SubscribeRequest{
	Channel: nasty, Token: "t", Recover: true, Epoch: "e", Offset: math.MaxUint64, Data: body,
	Positioned: true, Recoverable: true, JoinLeave: true, Filter: true, Flag: math.MaxInt64, Type: math.MinInt32,
}

var commands = []*clientproto.Command{
	{ID: math.MaxUint32},
	{ID: 1, Connect: &clientproto.ConnectRequest{Token: "t", Data: body, Name: "js", Version: "1", Subs: map[string]*clientproto.SubscribeRequest{nasty: someSubscribe, "b": {}}}},
	{ID: 2, Subscribe: someSubscribe},
	{ID: 3, Unsubscribe: &clientproto.UnsubscribeRequest{Channel: "a"}},
	{ID: 4, Publish: &clientproto.PublishRequest{Channel: "a", Data: body, Type: 1}},
	{ID: 5, Presence: &clientproto.PresenceRequest{Channel: "a"}},
	{ID: 6, PresenceStats: &clientproto.PresenceStatsRequest{Channel: "a"}},
	{ID: 7, History: &clientproto.HistoryRequest{Channel: "a", Limit: -1, Since: &clientproto.StreamPosition{Offset: 1 << 63, Epoch: "e"}, Reverse: true}},
	{ID: 8, Ping: &clientproto.PingRequest{}},
	{Send: &clientproto.SendRequest{Data: json.RawMessage(`null`)}},
	{ID: 9, RPC: &clientproto.RPCRequest{Data: body, Method: "m"}},
	{ID: 10, Refresh: &clientproto.RefreshRequest{Token: "t"}},
	{ID: 11, SubRefresh: &clientproto.SubRefreshRequest{Channel: "a", Token: "t", Type: 2}},
}

var replies = []*clientproto.Reply{
	{},
	{ID: 1, Error: &clientproto.Error{Code: 111, Message: nasty, Temporary: true}},
	{ID: 2, Connect: &clientproto.ConnectResult{
		Client: "c", Version: "v", Expires: true, TTL: math.MaxUint32, Data: body, Ping: 25, Pong: true, Session: "s", Node: "n", Time: math.MaxInt64,
		Subs: map[string]*clientproto.SubscribeResult{nasty: {Offset: 1}, "": {}},
	}},
	{ID: 3, Subscribe: &clientproto.SubscribeResult{
		Expires: true, TTL: 1, Recoverable: true, Epoch: "e", Publications: []clientproto.Publication{somePublication, {}, {Offset: 2}},
		Recovered: true, Offset: math.MaxUint64, Positioned: true, Data: body, WasRecovering: true,
	}},
	{ID: 4, Unsubscribe: &clientproto.UnsubscribeResult{}},
	{ID: 5, Publish: &clientproto.PublishResult{}},
	{ID: 6, Presence: &clientproto.PresenceResult{Presence: map[string]*clientproto.ClientInfo{"c1": someInfo, "c2": {}}}},
	{ID: 7, PresenceStats: &clientproto.PresenceStatsResult{NumClients: 2, NumUsers: 1}},
	{ID: 8, History: &clientproto.HistoryResult{Publications: []clientproto.Publication{{Data: body}}, Epoch: "e", Offset: 300}},
	{ID: 9, RPC: &clientproto.RPCResult{Data: body}},
	{ID: 10, Refresh: &clientproto.RefreshResult{Client: "c", Version: "v", Expires: true, TTL: 5}},
	{ID: 11, SubRefresh: &clientproto.SubRefreshResult{Expires: true, TTL: 5}},
	{Push: &clientproto.Push{Channel: nasty, Pub: &somePublication}},
	{Push: &clientproto.Push{Channel: "a", Join: &clientproto.Join{Info: someInfo}}},
	{Push: &clientproto.Push{Channel: "a", Leave: &clientproto.Leave{Info: someInfo}}},
	{Push: &clientproto.Push{Channel: "a", Unsubscribe: &clientproto.Unsubscribe{Code: 2500, Reason: "gap"}}},
	{Push: &clientproto.Push{Message: &clientproto.Message{Data: body}}},
	{Push: &clientproto.Push{Channel: "a", Subscribe: &clientproto.Subscribe{Recoverable: true, Epoch: "e", Offset: 1, Positioned: true, Data: body}}},
	{Push: &clientproto.Push{Disconnect: &clientproto.Disconnect{Code: 3001, Reason: "shutdown"}}},
	{Push: &clientproto.Push{Refresh: &clientproto.Refresh{Expires: true, TTL: 1}}},
}

// TestExamplesAreComplete: each field of each type is set in some example, so that the
// tests below and those in e2e concern all of them.
func TestExamplesAreComplete(t *testing.T) {
	set := map[string]bool{}
	look(reflect.ValueOf(commands), set)
	look(reflect.ValueOf(replies), set)
	require.Greater(t, len(set), 100)
	delete(set, "Command.Unknown") // never written
	for field, ok := range set {
		require.True(t, ok, field)
	}
}

// look notes which fields v has, and which of them are set.
func look(v reflect.Value, set map[string]bool) {
	switch v.Kind() {
	case reflect.Pointer:
		look(v.Elem(), set)
	case reflect.Slice:
		for i := range v.Len() {
			look(v.Index(i), set)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			look(v.MapIndex(key), set)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			name := fmt.Sprintf("%s.%s", v.Type().Name(), v.Type().Field(i).Name)
			set[name] = set[name] || !v.Field(i).IsZero()
			look(v.Field(i), set)
		}
	}
}
