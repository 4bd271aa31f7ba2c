package zmqgateway_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-zeromq/zmq4"
	"github.com/go-zeromq/zmq4/security/null"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/zmtp/zmtptest"
	"github.com/channels-go/channels/mesh/zmqmesh"
	"github.com/channels-go/channels/store"
	"github.com/channels-go/channels/zmqgateway"
)

// Short names for what all tests of ZMTP share.
var (
	eventually    = zmtptest.Eventually
	greeting      = zmtptest.Greeting
	frame         = zmtptest.Frame
	ready         = zmtptest.Ready
	readFrame     = zmtptest.ReadFrame
	dialFrom      = zmtptest.DialFrom
	requireHungUp = zmtptest.RequireHungUp
	isTimeout     = zmtptest.IsTimeout
	heap          = zmtptest.Heap
)

type logbook = zmtptest.Log

const patience = zmtptest.Patience

// newHub has history on channels whose names begin with "keep.".
func newHub(t testing.TB, o channels.Options) *channels.Hub {
	t.Helper()
	o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	o.Channel = func(name string) channels.ChannelOptions {
		if strings.HasPrefix(name, "keep.") {
			return channels.ChannelOptions{HistorySize: 1000}
		}
		return channels.ChannelOptions{}
	}
	hub, err := channels.New(o)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, hub.Shutdown(ctx))
	})
	return hub
}

func memory(t *testing.T) store.Store {
	m, err := store.NewMemory(store.MemoryOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

// newMesh opens a mesh of replicas.
func newMesh(t testing.TB, id string, log *slog.Logger) *zmqmesh.Mesh {
	t.Helper()
	m, err := zmqmesh.New(zmqmesh.Options{ReplicaID: id, Listen: "tcp://127.0.0.1:0", Logger: log})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

// options are those of a gateway with all three sockets, but for the hub.
func options(t testing.TB) zmqgateway.Options {
	return zmqgateway.Options{Pub: "tcp://127.0.0.1:0", Pull: "tcp://127.0.0.1:0", Rep: "tcp://127.0.0.1:0",
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

// newGateway opens a gateway with all three sockets.
func newGateway(t testing.TB, hub *channels.Hub, change func(*zmqgateway.Options)) *zmqgateway.Gateway {
	t.Helper()
	o := options(t)
	o.Hub = hub
	if change != nil {
		change(&o)
	}
	g, err := zmqgateway.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.Close()) })
	return g
}

// nobody is a hub as a gateway without an Identity sees it.
func nobody(hub *channels.Hub) zmqgateway.Bridge { return hub.Bridge(channels.Identity{}) }

// A socket is a ZeroMQ socket of our own, for what libzmq would not do.
type socket struct {
	*zmq4.Conn
	tcp net.Conn
}

func dialSocket(t testing.TB, address string, typ zmq4.SocketType) *socket {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(address, "tcp://"))
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
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
	require.NoError(t, s.SendMsg(m))
}

// next is the next message, as texts.
func (s *socket) next(t testing.TB) (frames []string) {
	t.Helper()
	m, err := s.RecvMsg()
	require.NoError(t, err)
	for _, f := range m.Frames {
		frames = append(frames, string(f))
	}
	return frames
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

func requireGatewayWorks(t *testing.T, hub *channels.Hub, g *zmqgateway.Gateway) {
	t.Helper()
	pub, pull, rep := g.Addresses()
	s, p, r := dialSocket(t, pub, zmq4.Sub), dialSocket(t, pull, zmq4.Push), dialSocket(t, rep, zmq4.Req)
	s.send(t, "\x01works\x00")
	s.ready(t, hub, "works")
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
