package zmqgateway_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-zeromq/zmq4"
	"github.com/go-zeromq/zmq4/security/null"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/internal/zmtp/zmtptest"
	"github.com/channels-go/channels/mesh/zmqmesh"
	"github.com/channels-go/channels/zmqgateway"
)

// Short names for what all tests of ZMTP share.
var (
	eventually    = basetest.Eventually
	greeting      = zmtptest.Greeting
	frame         = zmtptest.Frame
	ready         = zmtptest.Ready
	readFrame     = zmtptest.ReadFrame
	dial          = zmtptest.Dial
	dialFrom      = zmtptest.DialFrom
	write         = zmtptest.Write
	requireHungUp = zmtptest.RequireHungUp
	isTimeout     = basetest.IsTimeout
	heap          = basetest.Heap
)

type logbook = basetest.Log

const patience = basetest.Patience

// newHub has history on channels whose names begin with "keep.".
func newHub(t testing.TB, o channels.Options) *channels.Hub {
	t.Helper()
	o.Channel = func(name string) channels.ChannelOptions {
		if strings.HasPrefix(name, "keep.") {
			return channels.ChannelOptions{HistorySize: 1000}
		}
		return channels.ChannelOptions{}
	}
	return hubtest.NewHub(t, o)
}

// newMesh opens a mesh of replicas.
func newMesh(t testing.TB, id string, log *slog.Logger) *zmqmesh.Mesh {
	t.Helper()
	m, err := zmqmesh.New(zmqmesh.Options{ReplicaID: id, Listen: "tcp://127.0.0.1:0", Logger: log})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

// A setup is what a test may change of a gateway.
type setup struct {
	zmqgateway.Options
	zmqgateway.Pace
}

type change = func(*setup)

// newGateway opens a gateway with all three sockets.
func newGateway(t testing.TB, hub zmqgateway.Bridge, changes ...change) *zmqgateway.Gateway {
	t.Helper()
	o := setup{Options: zmqgateway.Options{
		Pub: "tcp://127.0.0.1:0", Pull: "tcp://127.0.0.1:0", Rep: "tcp://127.0.0.1:0", Logger: zmtptest.Logger(t),
	}}
	for _, c := range changes {
		c(&o)
	}
	g, err := zmqgateway.NewPaced(hub, o.Options, o.Pace)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.Close()) })
	return g
}

// nobody is a hub as a gateway without an Identity sees it.
func nobody(hub *channels.Hub) zmqgateway.Bridge { return hub.Bridge(channels.Identity{}) }

// start opens a gateway to a new hub.
func start(t testing.TB, changes ...change) (*channels.Hub, *zmqgateway.Gateway) {
	t.Helper()
	hub := newHub(t, channels.Options{})
	return hub, newGateway(t, nobody(hub), changes...)
}

func withLog(log *logbook) change {
	return func(o *setup) { o.Logger = log.Logger() }
}

func withToken(token string) change {
	return func(o *setup) { o.Token = []byte(token) }
}

func withRoom(bytes int) change {
	return func(o *setup) { o.MaxUnfinishedBytes = bytes }
}

func pubOf(g *zmqgateway.Gateway) string {
	pub, _, _ := g.Addresses()
	return pub
}

func pullOf(g *zmqgateway.Gateway) string {
	_, pull, _ := g.Addresses()
	return pull
}

func repOf(g *zmqgateway.Gateway) string {
	_, _, rep := g.Addresses()
	return rep
}

func dialSub(t testing.TB, g *zmqgateway.Gateway) *socket { return dialSocket(t, pubOf(g), zmq4.Sub) }
func dialPush(t testing.TB, g *zmqgateway.Gateway) *socket {
	return dialSocket(t, pullOf(g), zmq4.Push)
}
func dialReq(t testing.TB, g *zmqgateway.Gateway) *socket { return dialSocket(t, repOf(g), zmq4.Req) }

// subscribe connects a SUB socket, and waits until it gets what is published on a
// channel that matches its topic.
func subscribe(t testing.TB, hub *channels.Hub, g *zmqgateway.Gateway, topic, channel string) *socket {
	t.Helper()
	s := dialSub(t, g)
	s.send(t, "\x01"+topic)
	s.ready(t, hub, channel)
	return s
}

// A socket is a ZeroMQ socket of our own, for what libzmq would not do.
type socket struct {
	*zmq4.Conn
	tcp net.Conn
}

func dialSocket(t testing.TB, address string, typ zmq4.SocketType) *socket {
	t.Helper()
	c := dial(t, address)
	z, err := zmq4.Open(c, null.Security(), typ, nil, false, nil)
	require.NoError(t, err)
	return &socket{z, c}
}

func (s *socket) send(t testing.TB, frames ...string) {
	t.Helper()
	var m zmq4.Msg
	for _, f := range frames {
		m.Frames = append(m.Frames, []byte(f))
	}
	s.tcp.SetDeadline(time.Now().Add(patience))
	require.NoError(t, s.SendMsg(m))
}

// next is the next message, as texts.
func (s *socket) next(t testing.TB) (frames []string) {
	t.Helper()
	s.tcp.SetDeadline(time.Now().Add(patience))
	m, err := s.RecvMsg()
	require.NoError(t, err)
	for _, f := range m.Frames {
		frames = append(frames, string(f))
	}
	return frames
}

// hungUp waits for the end of the connection. No message may come before it.
func (s *socket) hungUp(t testing.TB) {
	t.Helper()
	s.tcp.SetDeadline(time.Now().Add(patience))
	_, err := s.RecvMsg()
	require.Error(t, err)
	require.False(t, isTimeout(err), "the connection was not closed")
}

// ready publishes probes on a channel until the reader gets one, and leaves
// the probes out of what comes then.
func (s *socket) ready(t testing.TB, hub *channels.Hub, channel string) {
	t.Helper()
	stop := make(chan struct{})
	var probing sync.WaitGroup
	probing.Go(func() {
		for {
			publish(t, hub, channel, "probe", "0")
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	require.Equal(t, "probe", s.next(t)[1])
	close(stop)
	probing.Wait()
	publish(t, hub, channel, "begin", "0")
	for s.next(t)[1] != "begin" {
	}
}

func publish(t testing.TB, hub *channels.Hub, channel, header, body string) {
	_, err := hub.Publish(context.Background(), channel, channels.Message{Header: header, Body: json.RawMessage(body)})
	require.NoError(t, err)
}

// shaken is what a socket of this type has sent when it has shaken hands.
func shaken(typ string, then ...[]byte) []byte {
	return slices.Concat(greeting("NULL"), ready(typ), slices.Concat(then...))
}

// handle has a gateway serve one end of a pipe as a socket of this type, and
// returns the other end.
func handle(g *zmqgateway.Gateway, socket string) (peer net.Conn, served <-chan error) {
	ours, peer := net.Pipe()
	ended := make(chan error, 1)
	go func() { // ends with the connection
		defer ours.Close()
		ended <- zmqgateway.Handle(g, socket, ours)
	}()
	return peer, ended
}

func requireGatewayWorks(t *testing.T, hub *channels.Hub, g *zmqgateway.Gateway) {
	t.Helper()
	s, p, r := subscribe(t, hub, g, "works\x00", "works"), dialPush(t, g), dialReq(t, g)
	p.send(t, "works", "pushed", "1")
	require.Equal(t, []string{"works\x00", "pushed", "1"}, s.next(t))
	r.send(t, "", "publish", "works", "asked", "2")
	require.Equal(t, []string{"", `{"status":"ok"}`}, r.next(t))
	require.Equal(t, []string{"works\x00", "asked", "2"}, s.next(t))
	for _, c := range []*socket{s, p, r} {
		c.tcp.Close()
	}
}

// slowHub publishes only when the test lets it.
type slowHub struct {
	zmqgateway.Bridge
	let chan struct{}
}

func (s slowHub) Publish(ctx context.Context, _ string, _ channels.Message) (channels.Result, error) {
	select {
	case <-s.let:
		return channels.Result{}, nil
	case <-ctx.Done():
		return channels.Result{}, ctx.Err()
	}
}
