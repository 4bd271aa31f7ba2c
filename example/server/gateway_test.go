package main

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-zeromq/zmq4"
	"github.com/go-zeromq/zmq4/security/null"
	"github.com/stretchr/testify/require"
)

func TestGatewayErrors(t *testing.T) {
	for says, c := range map[string]struct {
		args []string
		env  map[string]string
	}{
		"set one of them":                 {[]string{"-zmq-pub", "tcp://127.0.0.1:0"}, map[string]string{"CHANNELS_ZMQ_TOKEN": "0123456789abcdef"}},
		"16 or more":                      {[]string{"-zmq-pull", "tcp://127.0.0.1:0"}, map[string]string{"CHANNELS_ZMQ_TOKEN": "short"}},
		"there is no flag -zmq-token":     {[]string{"-zmq-token", "0123456789abcdef"}, nil},
		"-zmq-insecure is for -zmq-pub":   {[]string{"-zmq-insecure"}, nil},
		"that needs -zmq-insecure":        {[]string{"-zmq-pub", "tcp://0.0.0.0:1"}, nil},
		"-zmq-pull is tcp://:1, which":    {[]string{"-zmq-pull", "tcp://:1"}, nil},
		"-zmq-rep is tcp://[::]:1, which": {[]string{"-zmq-rep", "tcp://[::]:1"}, nil},
		"for flag -zmq-rep: it must be":   {[]string{"-zmq-rep", "127.0.0.1:1"}, nil},
		"need -zmq-token-file":            {[]string{"-zmq-pull", "tcp://127.0.0.1:0"}, map[string]string{"CHANNELS_JWT_SECRET": strings.Repeat("x", 32)}},
	} {
		wantRefused(t, c.env, c.args, says)
	}
	for _, fine := range [][]string{{"-zmq-pub", "tcp://0.0.0.0:1", "-zmq-insecure"}, {"-zmq-rep", "tcp://:1", "-zmq-token-file", file(t, "0123456789abcdef")}, {"-zmq-pub", ""}} {
		parsed(t, nil, fine...)
	}
}

// If other clients need a token, the gateway's token lets a program publish and
// list.
func TestGatewayToken(t *testing.T) {
	env := map[string]string{"CHANNELS_ZMQ_TOKEN": "0123456789abcdef", "CHANNELS_JWT_SECRET": strings.Repeat("x", 32)}
	addr, log := start(t, env, "-zmq-rep", "tcp://127.0.0.1:0", "-anonymous", "*")
	started := log.wait(t, "listening for ZeroMQ")
	rep := started["rep"].(string)
	require.NotContains(t, started, "pub", "sockets that do not listen are left out")
	ws := join(t, addr, "a")
	c, err := net.Dial("tcp", strings.TrimPrefix(rep, "tcp://"))
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	z, err := zmq4.Open(c, null.Security(), zmq4.Req, nil, false, nil)
	require.NoError(t, err)
	ask := func(frames ...string) string {
		m := zmq4.Msg{Frames: [][]byte{{}}}
		for _, f := range frames {
			m.Frames = append(m.Frames, []byte(f))
		}
		require.NoError(t, z.SendMsg(m))
		m, err := z.RecvMsg()
		require.NoError(t, err)
		return string(m.Frames[1])
	}
	require.Contains(t, ask("publish", "a", "h", "1"), `"bad_token"`)
	require.Equal(t, `{"status":"ok"}`, ask("publish", "a", "h", "2", "0123456789abcdef"))
	m := receive(t, ws)
	require.Equal(t, "2", string(m.Body))
	require.Contains(t, ask("list", "0123456789abcdef"), `"channel_name":"a"`)
}
