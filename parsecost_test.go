package channels_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// A few hundred bytes inflate to 10,000 escaped names. To unescape and remember
// each takes far longer than to inflate them, so that there is a bound.
func TestMessagesWithManyMembersAreRefused(t *testing.T) {
	s := serve(t, channels.Options{})
	members := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"\u0078%d":0,`, i)
		}
		return b.String()
	}
	message := func(n int) string { return "{" + members(n-2) + `"header":"h","body":1}` }
	post := func(body string) answer { return s.do("POST", "/v1/channel/a/publish", body) }
	require.Equal(t, 200, post(message(100)).status)
	post(message(101)).wantFail(t, 400, "bad_message")
	s.do("POST", "/v1/publish", "{"+members(99)+`"channels":["a"],"header":"h","body":1}`).wantFail(t, 400, "bad_message")
	a := s.do("POST", "/v1/publish", `{"messages":[{"channel":"a",`+message(101)[1:]+"]}")
	require.Contains(t, a.body, `"bad_message"`)

	ws := s.join("a", "")
	ws.send(message(101))
	require.Contains(t, string(ws.next().Body), `"bad_message"`)

	for name, c := range map[string]struct{ path, body, code string }{
		"names":            {"/v1/channel/a/publish", "{" + strings.Repeat(`"\n":0,`, 30_000) + `"header":"h","body":1}`, "bad_message"},
		"other names":      {"/v1/channel/a/publish", "{" + members(15_000) + `"header":"h","body":1}`, "bad_message"},
		"names of a batch": {"/v1/publish", "{" + strings.Repeat(`"\n":0,`, 200_000) + `"messages":[]}`, "bad_message"},
		"in a batch":       {"/v1/publish", `{"messages":[{` + members(80_000) + `"channel":"a"}]}`, "bad_message"},
	} {
		t.Run(name, func(t *testing.T) {
			mallocs := testing.AllocsPerRun(3, func() { require.Contains(t, s.do("POST", c.path, c.body).body, c.code) })
			require.Less(t, mallocs, 3_000.0)
		})
	}
}

// The longest header and the longest key pass in the longest form that JSON has.
func TestTheLongestHeaderAndKeyEscaped(t *testing.T) {
	s := serve(t, channels.Options{Channel: func(string) channels.ChannelOptions { return channels.ChannelOptions{HistorySize: 1} }})
	body := func(header, key int) string {
		return `{"header":"` + strings.Repeat(`\u0061`, header) + `","body":1,"key":"` + strings.Repeat(`\u0061`, key) + `"}`
	}
	require.Equal(t, 200, s.do("POST", "/v1/channel/a/publish", body(channels.MaxHeaderBytes, 200)).status)
	s.do("POST", "/v1/channel/a/publish", body(channels.MaxHeaderBytes+1, 200)).wantFail(t, 400, "bad_message")
	s.do("POST", "/v1/channel/a/publish", body(channels.MaxHeaderBytes, 201)).wantFail(t, 400, "bad_idempotency_key")
}

// What is too long for a channel's name does not come back with each result, six
// times as long where it has to be escaped.
func TestABatchDoesNotEchoLongNames(t *testing.T) {
	s := serve(t, channels.Options{})
	a := s.do("POST", "/v1/publish", `{"channels":["a","`+strings.Repeat("<", 200<<10)+`"],"header":"h","body":1}`)
	require.Equal(t, 200, a.status)
	require.Contains(t, a.body, `"bad_channel"`)
	require.Less(t, len(a.body), 4<<10)
}
