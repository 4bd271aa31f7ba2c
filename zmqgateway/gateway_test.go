package zmqgateway_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-zeromq/zmq4"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/zmqgateway"
)

func TestOptions(t *testing.T) {
	hub := newHub(t, channels.Options{})
	for want, o := range map[string]zmqgateway.Options{
		"zmqgateway: Options.Hub is missing":                                  {Pub: "tcp://127.0.0.1:0"},
		"zmqgateway: Options has no address: set Pub, Pull or Rep":            {Hub: hub},
		"zmqgateway: Options.Token has 3 bytes; it must have 16 or more":      {Hub: hub, Pull: "tcp://127.0.0.1:0", Token: []byte("abc")},
		`zmqgateway: Options.Pull is "127.0.0.1:0"; it must be tcp://host:po`: {Hub: hub, Pull: "127.0.0.1:0"},
		`Options.Pub is "tcp://0.0.0.0:0", which others can reach`:            {Hub: hub, Pub: "tcp://0.0.0.0:0", Token: []byte("0123456789abcdef")},
		`Options.Pull is "tcp://:0", which others can reach: set Token`:       {Hub: hub, Pull: "tcp://:0"},
		`Options.Rep is "tcp://[::]:0", which others can reach`:               {Hub: hub, Rep: "tcp://[::]:0"},
		"Options.MaxMessageBytes is 5; it must be 1024 to 67108864":           {Hub: hub, Rep: "tcp://127.0.0.1:0", MaxMessageBytes: 5},
		"Options.MaxConnections is -1; it must be 1 to 4000":                  {Hub: hub, Rep: "tcp://127.0.0.1:0", MaxConnections: -1},
		"Options.MaxUnfinishedBytes is 9; it must be 2097152 to 107":          {Hub: hub, Rep: "tcp://127.0.0.1:0", MaxUnfinishedBytes: 9},
	} {
		_, err := zmqgateway.New(o)
		require.ErrorContains(t, err, want)
	}
	g := newGateway(t, nobody(hub), func(o *setup) { o.Pub, o.MaxMessageBytes = "", 64<<20 })
	pub, pull, _ := g.Addresses()
	require.Empty(t, pub)
	_, err := zmqgateway.New(zmqgateway.Options{Hub: hub, Pub: "tcp://127.0.0.1:0", Pull: pull})
	require.ErrorContains(t, err, "address already in use")
	open := newGateway(t, nobody(hub), func(o *setup) { o.Pull, o.Token = "tcp://:0", []byte("0123456789abcdef") })
	require.NoError(t, open.Close())
	require.NoError(t, open.Close())
}

func TestToken(t *testing.T) {
	const token = "0123456789abcdef"
	hub, g := start(t, withToken(token))
	sub, err := hub.Subscribe(t.Context(), "a", nil)
	require.NoError(t, err)
	push, req := dialPush(t, g), dialReq(t, g)
	push.send(t, "a\x00", "none", "1")
	push.send(t, "a\x00", "wrong", "1", "0123456789abcdeF")
	push.send(t, "a\x00", "short", "1", "")
	push.send(t, "a\x00", "right", "1", token)
	for m, err := range sub.Messages() {
		require.NoError(t, err)
		require.Equal(t, "right", m.Header)
		break
	}
	require.EqualValues(t, 3, g.Stats().Rejected)
	for _, refused := range [][]string{{"", "list"}, {"", "list", token[1:]}, {"", "channel", "a"}, {"", "publish", "a", "h", "1"}} {
		req.send(t, refused...)
		require.Equal(t, []string{"", `{"status":"fail","error":{"code":"bad_token","message":"the message's last frame has to be the token"}}`}, req.next(t))
	}
	req.send(t, "", "publish", "b", "h", "1", token)
	require.Equal(t, []string{"", `{"status":"ok"}`}, req.next(t))
	req.send(t, "", "list", "b", token)
	require.Equal(t, []string{"", `{"data":[{"channel_name":"b","cnt":0,"rpm":1}],"next":""}`}, req.next(t))
}

// PINGs are answered on each socket, with their context.
func TestAnswersPings(t *testing.T) {
	_, g := start(t)
	pub, pull, rep := g.Addresses()
	for address, typ := range map[string]zmq4.SocketType{pub: zmq4.Sub, pull: zmq4.Push, rep: zmq4.Dealer} {
		s := dialSocket(t, address, typ)
		require.NoError(t, s.SendCmd(zmq4.CmdPing, []byte("\x00\x01context")))
		pong, err := s.RecvCmd()
		require.NoError(t, err)
		require.Equal(t, zmq4.CmdPong, pong.Name)
		require.Equal(t, "context", string(pong.Body))
	}
}

func TestBounds(t *testing.T) {
	var log logbook
	hub, g := start(t, withLog(&log), func(o *setup) { o.MaxTopics, o.MaxConnections = 3, 2 })
	idle := dialSub(t, g)
	eventually(t, "it is there", func() bool { return g.Stats().Readers == 1 })
	idle.send(t, "\x00x") // does not make it known
	a := dialSub(t, g)
	eventually(t, "both are there", func() bool { return g.Stats().Readers == 2 })
	b := dialSub(t, g)
	idle.hungUp(t) // it made way
	eventually(t, "it is counted", func() bool { return g.Stats().Refused == 1 })
	eventually(t, "it is logged", func() bool { return log.Has("made way for a newcomer") })

	a.send(t, "\x01"+strings.Repeat("n", 202)) // matches no name, so it costs nothing
	a.send(t, "\x02ignored")
	a.send(t, "\x01x\x00")
	a.send(t, "\x01y\x00")
	a.send(t, "\x01z")
	a.ready(t, hub, "y")
	a.send(t, "\x01x\x00")
	a.send(t, "\x01too many")
	a.hungUp(t)
	eventually(t, "it is counted", func() bool { return g.Stats().Refused == 2 })
	a = dialSub(t, g)
	a.send(t, "\x01z")
	a.send(t, "\x01x\x00")
	a.send(t, "\x00z")
	a.send(t, "\x01y\x00")
	a.ready(t, hub, "y")
	b.send(t, "\x01b")
	b.ready(t, hub, "b")
	c := dialSub(t, g)
	c.hungUp(t) // nobody makes way
	eventually(t, "it is counted", func() bool { return g.Stats().Refused == 3 })
	publish(t, hub, "y", "still", "1")
	require.Equal(t, "still", a.next(t)[1])
}

// While publishing is slow, a PUSH socket is not read, so it has to wait.
func TestHoldsPublishersUp(t *testing.T) {
	let := make(chan struct{})
	g := newGateway(t, slowHub{let: let})
	s := dialPush(t, g)
	body := `"` + strings.Repeat("x", 1<<19) + `"`
	n := 0
	for err := error(nil); err == nil && n < 200; n++ {
		require.NoError(t, s.tcp.SetWriteDeadline(time.Now().Add(time.Second)))
		err = s.SendMsg(zmq4.NewMsgFrom([]byte("a"), []byte("h"), []byte(body)))
	}
	require.Less(t, n, 100, "so much is not read ahead")
	let <- struct{}{}
	let <- struct{}{} // the next one was read only then
	eventually(t, "both are counted", func() bool { return g.Stats().Published == 2 })
}

// The envelope that is sent back with an answer is small, because no room is kept
// for it.
func TestEnvelopeIsSmall(t *testing.T) {
	_, g := start(t)
	s := dialSocket(t, repOf(g), zmq4.Dealer)
	s.send(t, strings.Repeat("e", 4<<10), "", "list")
	require.Equal(t, []string{strings.Repeat("e", 4<<10), "", `{"data":[],"next":""}`}, s.next(t))
	s.send(t, strings.Repeat("e", 4<<10+1), "", "list")
	f := s.next(t)
	require.Len(t, f, 1)
	require.True(t, json.Valid([]byte(f[0])))
	require.Contains(t, f[0], "bad_request")
}

// Programs may be silent between messages for as long as they like, but one that
// stops within a message is disconnected.
func TestPatience(t *testing.T) {
	t.Parallel()
	_, g := start(t)
	silent, half := dialPush(t, g), dialPush(t, g)
	silent.send(t, "a", "first", "1")
	write(t, half.tcp, frame(1, "a"), []byte{1, 100, 'x'})
	requireHungUp(t, half.tcp) // after IdleTimeout; the other one is silent for as long
	silent.send(t, "a", "second", "2")
	eventually(t, "both are published", func() bool { return g.Stats().Published == 2 })
}
