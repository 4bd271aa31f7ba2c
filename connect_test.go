package channels_test

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/clientproto"
)

const connectPath = "/connection/websocket"

// sessionClient is a client of the client protocol over a WebSocket, which sends and
// reads raw frames.
type sessionClient struct {
	rawClient
	format clientproto.Format
}

// session opens a connection. connect has to be sent.
func (s *server) session(header ...string) *sessionClient {
	s.t.Helper()
	return &sessionClient{s.upgrade(connectPath, header...), clientproto.JSON}
}

func (s *server) protobufSession() *sessionClient {
	s.t.Helper()
	return &sessionClient{s.upgrade(connectPath, "Sec-WebSocket-Protocol: centrifuge-protobuf"), clientproto.Protobuf}
}

// connected opens a connection and sends its connect.
func (s *server) connected(header ...string) *sessionClient {
	s.t.Helper()
	c := s.session(header...)
	c.command(`{"id":1,"connect":{}}`)
	c.want(`{"id":1,"connect":{`)
	return c
}

// command sends a frame of commands in JSON.
func (c *sessionClient) command(frame string) {
	c.T.Helper()
	c.Send(wsFrame(finBit|opText, frame))
}

// reply is the next frame's payload. It answers pings.
func (c *sessionClient) reply() string {
	c.T.Helper()
	for {
		f := c.read()
		require.Equal(c.T, byte(rawText), f.First, "%q", f.Payload)
		if string(f.Payload) != "{}" {
			return string(f.Payload)
		}
		c.command("{}")
	}
}

// want wants the next replies to have these in them, in this order.
func (c *sessionClient) want(parts ...string) {
	c.T.Helper()
	for _, part := range parts {
		require.Contains(c.T, c.reply(), part)
	}
}

// wantError wants the next reply to be an error.
func (c *sessionClient) wantError(id, code int) {
	c.T.Helper()
	require.Regexp(c.T, fmt.Sprintf(`^{"id":%d,"error":{"code":%d,"message":"[^"]`, id, code), c.reply())
}

// wantClosed wants the connection to be closed with this code, after what else may come.
func (c *sessionClient) wantClosed(code uint16, reason string) {
	c.T.Helper()
	for {
		f := c.read()
		if f.First != rawClose {
			continue
		}
		require.Equal(c.T, code, binary.BigEndian.Uint16(f.Payload))
		require.Equal(c.T, reason, string(f.Payload[2:]))
		return
	}
}

// ask sends a command in the connection's format and returns the reply with its id.
func (c *sessionClient) ask(cmd *clientproto.Command) *clientproto.Reply {
	c.T.Helper()
	c.tell(cmd)
	return c.next()
}

func (c *sessionClient) tell(cmd *clientproto.Command) {
	c.T.Helper()
	first := byte(opText)
	if c.format == clientproto.Protobuf {
		first = opBinary
	}
	c.Send(wsFrame(finBit|first, string(clientproto.AppendCommand(nil, c.format, cmd))))
}

// next is the next reply.
func (c *sessionClient) next() *clientproto.Reply {
	c.T.Helper()
	want := byte(rawText)
	if c.format == clientproto.Protobuf {
		want = finBit | opBinary
	}
	for {
		f := c.read()
		require.Equal(c.T, want, f.First, "%q", f.Payload)
		for r, err := range clientproto.Replies(f.Payload, c.format) {
			require.NoError(c.T, err)
			if *r == (clientproto.Reply{}) {
				c.tell(&clientproto.Command{})
				continue
			}
			return r
		}
	}
}

func TestConnectSubscribePublishOverBothFormats(t *testing.T) {
	s := serve(t, channels.Options{ReplicaID: "r1"})
	for name, open := range map[string]func() *sessionClient{"json": func() *sessionClient { return s.session() }, "protobuf": s.protobufSession} {
		t.Run(name, func(t *testing.T) {
			c := open()
			r := c.ask(&clientproto.Command{ID: 1, Connect: &clientproto.ConnectRequest{Name: "test"}})
			require.NotNil(t, r.Connect)
			require.EqualValues(t, 1, r.ID)
			require.Equal(t, "r1", r.Connect.Node)
			require.True(t, strings.HasPrefix(r.Connect.Client, channels.IDPrefix(s.hub)))
			require.EqualValues(t, 25, r.Connect.Ping)
			require.True(t, r.Connect.Pong)
			require.False(t, r.Connect.Expires)
			require.Equal(t, 1, s.hub.Stats().Connections)

			r = c.ask(&clientproto.Command{ID: 2, Subscribe: &clientproto.SubscribeRequest{Channel: "a"}})
			require.Equal(t, &clientproto.Reply{ID: 2, Subscribe: &clientproto.SubscribeResult{}}, r)
			publish(t, s.hub, "a", "message", `{"n":1}`)
			require.Equal(t, &clientproto.Push{Channel: "a", Pub: &clientproto.Publication{Data: []byte(`{"n":1}`)}}, c.next().Push)
			publish(t, s.hub, "a", "other", `"ü"`)
			require.Equal(t, &clientproto.Push{Channel: "a", Pub: &clientproto.Publication{Data: []byte(`"ü"`), Tags: clientproto.Tags{Header: "other"}}}, c.next().Push)

			c.tell(&clientproto.Command{ID: 3, Publish: &clientproto.PublishRequest{Channel: "a", Data: []byte(`[3]`)}})
			require.Equal(t, `[3]`, string(c.next().Push.Pub.Data), "its own message comes before the reply")
			require.NotNil(t, c.next().Publish)
			r = c.ask(&clientproto.Command{ID: 4, Unsubscribe: &clientproto.UnsubscribeRequest{Channel: "a"}})
			require.NotNil(t, r.Unsubscribe)
			publish(t, s.hub, "a", "message", `4`)
			r = c.ask(&clientproto.Command{ID: 5, Presence: &clientproto.PresenceRequest{Channel: "a"}})
			require.EqualValues(t, 5, r.ID, "what was published meanwhile does not come")
			require.EqualValues(t, 108, r.Error.Code)
			c.Close()
			until(t, "the connection leaves", func() bool { return s.hub.Stats().Connections == 0 })
		})
	}
}

func TestConnectManyCommandsInOneFrame(t *testing.T) {
	s := serve(t, channels.Options{})
	c := s.session()
	frame := `{"id":1,"connect":{}}`
	for i := range 50 {
		frame += "\n" + `{"id":` + strconv.Itoa(i+2) + `,"subscribe":{"channel":"c` + strconv.Itoa(i) + `"}}`
	}
	c.command(frame)
	c.want(`{"id":1,"connect":`)
	for i := range 50 {
		require.Equal(t, `{"id":`+strconv.Itoa(i+2)+`,"subscribe":{}}`, c.reply())
	}
	for i := range 50 {
		publish(t, s.hub, "c"+strconv.Itoa(i), "message", "1")
		require.Equal(t, `{"push":{"channel":"c`+strconv.Itoa(i)+`","pub":{"data":1}}}`, c.reply())
	}
}

// A client that asks for it gets what waits in messages of several lines.
func TestConnectManyLines(t *testing.T) {
	const n = 10_000
	s := serve(t, channels.Options{QueueBytes: 64 << 20, PingPeriod: 10 * time.Minute}) // who does not read yet sends no pongs
	many := &sessionClient{s.upgrade(connectPath + "?lines=many"), clientproto.JSON}
	one := s.session()
	for _, c := range []*sessionClient{many, one} {
		c.command(`{"id":1,"connect":{}}`)
		c.want(`{"id":1,"connect":{`)
		c.command(`{"id":2,"subscribe":{"channel":"a"}}`)
		c.want(`{"id":2,"subscribe":{`)
	}
	for i := range n {
		_, err := s.hub.Publish(t.Context(), "a", msg("message", strconv.Itoa(i)))
		require.NoError(t, err)
	}
	for _, c := range []*sessionClient{many, one} {
		got, frames := 0, 0
		for ; got < n; frames++ {
			text := c.reply()
			require.LessOrEqual(t, len(text), 16<<10)
			for line := range strings.SplitSeq(text, "\n") {
				if line == "{}" { // a ping
					continue
				}
				require.Contains(t, line, fmt.Sprintf(`"data":%d}`, got))
				got++
			}
		}
		require.Equal(t, c == one, frames == n, "%d frames", frames)
	}
}
