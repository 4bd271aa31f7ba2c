package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/internal/proctest"
)

// pythonClient is a running example/python.
type pythonClient struct {
	*proctest.Process
	t        *testing.T
	stdin    io.Writer
	out, err basetest.Log
}

func runPython(t *testing.T, addr, channel, token string) *pythonClient {
	t.Helper()
	cmd := exec.Command(findPython(t), "../example/python/client.py", "ws://"+addr+"/connection/websocket", channel, token)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	c := &pythonClient{t: t, stdin: stdin}
	cmd.Stdout, cmd.Stderr = &c.out, &c.err
	c.Process = proctest.Run(t, cmd)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("it wrote:\n%s%s", c.out.String(), c.err.String())
		}
	})
	return c
}

// findPython returns a python3 that has the package websockets: the system's, or the
// one in the PATH.
func findPython(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(name, "-c", "import websockets").Run() == nil {
			return name
		}
	}
	require.FailNow(t, "no python3 has the package websockets: `make test` installs it")
	return ""
}

func (c *pythonClient) publishes(line string) {
	c.t.Helper()
	_, err := io.WriteString(c.stdin, line+"\n")
	require.NoError(c.t, err)
}

// wrote waits until these lines are all that the client has written.
func (c *pythonClient) wrote(lines ...string) {
	c.t.Helper()
	want := strings.Join(lines, "\n") + "\n"
	basetest.Eventually(c.t, "the client writes "+want, func() bool { return c.out.String() == want })
}

// A client that uses nothing but what docs/protocol.md says connects, subscribes,
// publishes, and gets what it missed.
func TestThePythonClient(t *testing.T) {
	t.Parallel()
	subscribed := make(chan struct{}, 9)
	server := hubtest.Serve(t, channels.Options{
		OnSubscribe: func(context.Context, channels.Client, string) { subscribed <- struct{}{} },
		Channel:     func(string) channels.ChannelOptions { return channels.ChannelOptions{HistorySize: 5} },
		Authenticate: func(_ context.Context, token string, _ json.RawMessage) (channels.Identity, error) {
			if token != "secret" {
				return channels.Identity{}, channels.ErrForbidden
			}
			return channels.Identity{ID: "ann"}, nil
		},
	})
	network := basetest.NewRelay(t, server.HTTP.Listener.Addr().String())
	say := func(body string) {
		t.Helper()
		_, err := server.Hub.Publish(t.Context(), "news", hubtest.Msg("say", body))
		require.NoError(t, err)
	}
	c := runPython(t, network.Addr, "news", "secret")
	said := func(body string) string { return `{"body": ` + body + `, "header": "say", "user": null}` }
	own := func(text string) string { return `{"body": "` + text + `", "header": "message", "user": "ann"}` }
	<-subscribed
	say(`{"n": 1}`)
	c.publishes("안녕")
	all := []string{said(`{"n": 1}`), own("안녕")}
	c.wrote(all...)

	// What is published while it is cut off comes once, and so does what it publishes.
	network.Part()
	say("2")
	c.publishes("from the tunnel")
	say("3")
	network.Lead(server.HTTP.Listener.Addr().String())
	all = append(all, said("2"), said("3"), own("from the tunnel"))
	c.wrote(all...)

	// If it misses more than the channel keeps, it is told.
	network.Part()
	for n := range 9 {
		say(fmt.Sprint(n))
	}
	network.Lead(server.HTTP.Listener.Addr().String())
	all = append(all, `{"missed": true}`)
	c.wrote(all...)
	say(`"after"`)
	c.wrote(append(all, said(`"after"`))...)

	refused := runPython(t, network.Addr, "news", "wrong")
	basetest.Eventually(t, "the client ends", refused.Ended)
	require.Equal(t, "refused: invalid token (3500)\n", refused.err.String())
}
