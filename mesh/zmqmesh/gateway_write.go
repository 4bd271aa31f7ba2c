package zmqmesh

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

var errBadToken = errors.New("zmqmesh: the message's last frame has to be the token")

// servePull publishes what a PUSH socket sends, one message after the other:
// while publishing is slow nothing is read, and the peer deals to others.
func (g *Gateway) servePull(c *gatewayConn) error {
	c.guard.ping = c.pong
	for {
		msg, err := c.RecvMsg()
		if err != nil {
			return ended(err)
		}
		frames, err := g.admit(msg.Frames)
		if err == nil && len(frames) != 3 {
			err = fmt.Errorf("zmqmesh: a message of %d frames; it must have a channel, a header and a body, and the token as a fourth where there is one", len(msg.Frames))
		}
		if err == nil {
			c.accepted()
			_, err = g.publish(frames)
		}
		if g.ctx.Err() != nil {
			return nil
		}
		if err != nil {
			g.reject(c, err)
		}
		c.done()
	}
}

// publish takes the three frames of a message.
func (g *Gateway) publish(f [][]byte) (answer []byte, err error) {
	answer, err = g.opts.Hub.Publish(g.ctx, strings.TrimSuffix(string(f[0]), "\x00"), fromLatin1(f[1]), f[2])
	if err == nil {
		g.published.Add(1)
	}
	return answer, err
}

// serveRep answers one request after the other.
func (g *Gateway) serveRep(c *gatewayConn) error {
	c.guard.ping = c.pong
	for {
		msg, err := c.RecvMsg()
		if err != nil {
			return ended(err)
		}
		envelope, request := openEnvelope(msg.Frames)
		if len(request) == 0 { // an empty message, with which PROBE_ROUTER says that a socket is there
			c.done()
			continue
		}
		answer, err := g.answer(request, c.accepted)
		if g.ctx.Err() != nil {
			return nil
		}
		if err != nil {
			g.reject(c, err)
		}
		out := append(slices.Clone(envelope), appendASCII(nil, answer))
		c.done() // nothing of the message but the envelope is kept while the peer reads
		if _, err := c.guard.Write(appendWire(nil, out...)); err != nil {
			return nil // it has gone, or reads nothing
		}
		if err := c.guard.flush(); err != nil {
			return nil
		}
	}
}

// maxEnvelope is more than any socket puts before a request: it is sent back
// without room having been taken for it.
const maxEnvelope = 4 << 10 // bytes

// openEnvelope splits off what has to be sent back: the names of those who have
// passed it on, and an empty frame, which a REQ socket puts first and a DEALER
// may. As anybody may be called "list", what is behind an empty frame is looked at
// first: where it is a request, what precedes is its envelope. Otherwise a verb
// at the beginning has none, so that its arguments may be empty.
func openEnvelope(frames [][]byte) (envelope, request [][]byte) {
	size, first := 0, -1
	for i, f := range frames {
		if size += len(f); size > maxEnvelope {
			break
		}
		if len(f) > 0 {
			continue
		}
		if isRequest(frames[i+1:]) {
			return frames[:i+1], frames[i+1:]
		}
		if first < 0 {
			first = i
		}
	}
	if first < 0 || isVerb(frames[0]) {
		return nil, frames
	}
	return frames[:first+1], frames[first+1:]
}

// isRequest returns whether frames are a verb with its arguments, and perhaps
// the token.
func isRequest(frames [][]byte) bool {
	if len(frames) == 0 {
		return false
	}
	switch n := len(frames) - 1; string(frames[0]) {
	case "publish":
		return n == 3 || n == 4
	case "list":
		return n <= 4
	case "channel":
		return n == 1 || n == 2
	}
	return false
}

func isVerb(b []byte) bool {
	switch string(b) {
	case "publish", "list", "channel":
		return true
	}
	return false
}

// answer does a request. The answer is to be sent with and without an error.
// It calls accepted before it does one of the right form.
func (g *Gateway) answer(request [][]byte, accepted func()) ([]byte, error) {
	f, err := g.admit(request)
	if err != nil {
		return failed("bad_token", err), err
	}
	verb := ""
	if len(f) > 0 {
		verb, f = string(f[0]), f[1:]
	}
	switch {
	case verb == "publish" && len(f) == 3:
		accepted()
		return g.publish(f)
	case verb == "list" && len(f) <= 3:
		accepted()
		var a [3]string
		for i := range f {
			a[i] = string(f[i])
		}
		return g.opts.Hub.Channels(g.ctx, a[0], a[1], a[2]), nil
	case verb == "channel" && len(f) == 1:
		accepted()
		return g.opts.Hub.Channel(g.ctx, strings.TrimSuffix(string(f[0]), "\x00")), nil
	}
	err = fmt.Errorf(`zmqmesh: a request is "publish", channel, header, body; or "list", prefix, limit, cursor (these may be left out); or "channel", name; this one is %.40q with %d more frames`, verb, len(f))
	return failed("bad_request", err), err
}

// failed is an error as HTTP answers it.
func failed(code string, err error) []byte {
	var answer struct {
		Status string `json:"status"`
		Error  struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	answer.Status, answer.Error.Code = "fail", code
	answer.Error.Message = strings.TrimPrefix(err.Error(), "zmqmesh: ")
	b, _ := json.Marshal(answer) // strings cannot fail
	return b
}

// pong answers a PING. It is called by the goroutine that reads, which alone
// writes, too; where it fails, so will the next read.
func (c *gatewayConn) pong(context []byte) {
	c.guard.Write(pongFrame(context))
	c.guard.flush()
}

// pingFrame asks for a PONG. Who understands the time to live, in tenths of a
// second, takes this side for dead when it has heard nothing for so long.
func pingFrame(ttl time.Duration) []byte {
	b := append([]byte{flagCommand, 5 + 2}, "\x04PING"...)
	return binary.BigEndian.AppendUint16(b, uint16(ttl/(100*time.Millisecond)))
}

func pongFrame(context []byte) []byte {
	b := append([]byte{flagCommand, byte(5 + len(context))}, "\x04PONG"...)
	return append(b, context...)
}
