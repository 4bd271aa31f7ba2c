package hubtest

import (
	"bufio"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
)

// PassesCommandsOn checks that the commands of a session, whose stream is at one hub,
// reach it through another one, and that this one knows when the first has gone.
// options returns what a hub needs to work with the other one.
func PassesCommandsOn(t *testing.T, options func(id string) channels.Options) {
	t.Helper()
	o := options("b")
	a, b := Serve(t, options("a")), Serve(t, o)
	meet(t, a, b)
	stream := Request(t, t.Context(), b.HTTP.Client(), "POST", b.HTTP.URL+"/connection/http_stream", `{"id":1,"connect":{}}`)
	defer stream.Body.Close()
	lines := bufio.NewReader(stream.Body)
	next := func() string {
		for {
			line, err := lines.ReadString('\n')
			require.NoError(t, err)
			if line != "{}\n" { // a ping
				return line
			}
		}
	}
	var reply struct {
		Connect struct{ Session, Node string }
	}
	require.NoError(t, json.Unmarshal([]byte(next()), &reply))
	through := func(s *Server, frame string) int {
		body, err := json.Marshal(map[string]string{"session": reply.Connect.Session, "node": reply.Connect.Node, "data": frame})
		require.NoError(t, err)
		resp := Request(t, t.Context(), s.HTTP.Client(), "POST", s.HTTP.URL+"/emulation", string(body))
		Body(t, resp)
		return resp.StatusCode
	}
	basetest.Eventually(t, "the hub knows the other", func() bool { return through(a, "{}") == 204 })
	require.Equal(t, 204, through(a, `{"id":2,"subscribe":{"channel":"room"}}`))
	require.Contains(t, next(), `{"id":2,"subscribe":{`)
	require.Equal(t, 204, through(a, `{"id":3,"publish":{"channel":"room","data":"`+strings.Repeat("x", 20_000)+`"}}`+"\n"+`{"id":4,"publish":{"channel":"room","data":4}}`))
	require.Contains(t, next(), `"data":"xxx`)
	require.Contains(t, next(), `{"id":3,"publish":{`)
	require.Contains(t, next(), `"data":4`)
	require.Contains(t, next(), `{"id":4,"publish":{`)
	require.Equal(t, 204, through(b, `{"id":5,"unsubscribe":{"channel":"room"}}`))
	require.Contains(t, next(), `{"id":5,"unsubscribe":{`)

	require.NoError(t, b.Hub.Shutdown(t.Context()))
	require.Contains(t, next(), `{"push":{"disconnect":{"code":3001,`)
	require.NoError(t, o.Mesh.Close())
	basetest.Eventually(t, "the hub knows that the other has gone", func() bool { return through(a, "{}") == 404 })
}
