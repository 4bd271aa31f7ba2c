package channels_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// lineClient is a client of the client protocol without a transport. Each line is a
// reply.
type lineClient struct {
	*channels.Receiver
	t     *testing.T
	lines []string // that were read, and not looked at
	over  bool
	cause error
}

// comes is a new connection. identity is what a middleware says of it, or nil.
func comes(t *testing.T, h *channels.Hub, identity *channels.Identity) *lineClient {
	c := &lineClient{Receiver: channels.Arrive(h, identity, false), t: t}
	t.Cleanup(func() {
		if !c.over {
			go c.readToEnd()
		}
	})
	return c
}

// hello is a user's connection, whose connect was answered.
func hello(t *testing.T, h *channels.Hub, user string) *lineClient {
	t.Helper()
	c := comes(t, h, &channels.Identity{ID: user})
	c.send(`{"id":1,"connect":{}}`)
	c.want(`{"id":1,"connect":{"client":"` + c.ID() + `"`)
	return c
}

// subscribedTo is one that is subscribed to channels.
func subscribedTo(t *testing.T, h *channels.Hub, user string, names ...string) *lineClient {
	t.Helper()
	c := hello(t, h, user)
	for i, name := range names {
		c.subscribe(100+i, name)
	}
	return c
}

func (c *lineClient) send(frame string) {
	c.t.Helper()
	require.NoError(c.t, c.Send(frame))
}

// subscribe subscribes to a channel, and wants that to succeed.
func (c *lineClient) subscribe(id int, channel string) {
	c.t.Helper()
	c.send(fmt.Sprintf(`{"id":%d,"subscribe":{"channel":%q}}`, id, channel))
	c.want(fmt.Sprintf(`{"id":%d,"subscribe":{`, id))
}

// unsubscribe ends a subscription, from the client's side.
func (c *lineClient) unsubscribe(id int, channel string) {
	c.t.Helper()
	c.send(fmt.Sprintf(`{"id":%d,"unsubscribe":{"channel":%q}}`, id, channel))
	c.want(fmt.Sprintf(`{"id":%d,"unsubscribe":{}}`, id))
}

// next is the next reply, or what ended the connection. It answers pings.
func (c *lineClient) next() string {
	c.t.Helper()
	line := c.nextLine()
	for line == "{}" {
		c.send("{}")
		line = c.nextLine()
	}
	return line
}

// publicationTime is left out of what a lineClient reads: TestMessagesHaveATime looks at it.
var publicationTime = regexp.MustCompile(`,"time":\d+`)

// nextLine is next that also returns pings, and answers none.
func (c *lineClient) nextLine() string {
	c.t.Helper()
	for len(c.lines) == 0 {
		require.False(c.t, c.over, "the connection has ended: %v", c.cause)
		text, cause, ok := c.Read()
		c.over, c.cause = !ok, cause
		for line := range strings.Lines(text) {
			c.lines = append(c.lines, publicationTime.ReplaceAllString(strings.TrimSuffix(line, "\n"), ""))
		}
	}
	line := c.lines[0]
	c.lines = c.lines[1:]
	return line
}

// want wants the next replies to have these in them, in this order.
func (c *lineClient) want(parts ...string) {
	c.t.Helper()
	for _, part := range parts {
		require.Contains(c.t, c.next(), part)
	}
}

// wantError wants the next reply to be an error.
func (c *lineClient) wantError(id, code int) {
	c.t.Helper()
	require.Regexp(c.t, fmt.Sprintf(`^{"id":%d,"error":{"code":%d,"message":"[^"]`, id, code), c.next())
}

// refused sends a command with the id 7, and wants the error.
func (c *lineClient) refused(code int, request string) {
	c.t.Helper()
	c.send(`{"id":7,` + request + `}`)
	c.wantError(7, code)
}

// wantEnd wants the connection to end with a code and a cause, after what else may come.
func (c *lineClient) wantEnd(code int, cause string) {
	c.t.Helper()
	line := c.nextLine()
	for !strings.Contains(line, `"disconnect"`) {
		line = c.nextLine()
	}
	require.Contains(c.t, line, fmt.Sprintf(`{"push":{"disconnect":{"code":%d,"reason":"`, code))
	require.True(c.t, c.over)
	require.Empty(c.t, c.lines)
	require.Equal(c.t, cause, reasonCode(c.cause), "%v", c.cause)
}

func (c *lineClient) readToEnd() {
	for ok := !c.over; ok; {
		_, c.cause, ok = c.Read()
	}
	c.over = true
}
