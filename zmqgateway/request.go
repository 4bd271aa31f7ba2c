package zmqgateway

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/zmtp"
)

// serving serves a PUSH, REQ or DEALER socket: it hands one message after the other
// to take, and sends what take returns, if anything. While publishing is slow
// nothing is read, so that a PUSH socket turns to the other replicas that it is
// connected to.
func (g *Gateway) serving(take func(c *conn, frames [][]byte) (reply []byte, err error)) func(*conn) error {
	return func(c *conn) error {
		c.guard.Ping = c.pong
		for {
			msg, err := c.RecvMsg()
			if err != nil {
				return ended(err)
			}
			reply, err := take(c, msg.Frames)
			if g.ctx.Err() != nil {
				return nil
			}
			if err != nil {
				g.reject(c, err)
			}
			c.done() // only the reply is kept while the peer reads
			if len(reply) == 0 {
				continue
			}
			if _, err = c.guard.Write(reply); err == nil {
				err = c.guard.Flush()
			}
			if err != nil {
				return nil // it has gone, or reads nothing
			}
		}
	}
}

// push publishes a message of a PUSH socket.
func (g *Gateway) push(c *conn, frames [][]byte) ([]byte, error) {
	f, err := g.admit(frames)
	if err == nil && len(f) != 3 {
		err = fmt.Errorf("zmqgateway: a message has %d frames; it must have three (channel, header, body), and the token as a fourth if one is set", len(frames))
	}
	if err == nil {
		c.accepted()
		_, err = g.publish(f)
	}
	return nil, err
}

// publish publishes a message of three frames.
func (g *Gateway) publish(f [][]byte) (channels.Result, error) {
	res, err := g.hub.Publish(g.ctx, strings.TrimSuffix(string(f[0]), "\x00"), channels.Message{Header: fromLatin1(f[1]), Body: f[2]})
	if err == nil {
		g.published.Add(1)
	}
	return res, err
}

// ended returns nil if err only says that the peer has gone.
func ended(err error) error {
	for _, gone := range []error{zmtp.ErrSilent, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, gone) {
			return nil
		}
	}
	return err
}

// reply answers a request of a REQ or DEALER socket.
func (g *Gateway) reply(c *conn, frames [][]byte) ([]byte, error) {
	envelope, request := openEnvelope(frames)
	if len(request) == 0 { // PROBE_ROUTER sends an empty message to say that a socket is there
		return nil, nil
	}
	answer, err := g.answer(request, c.accepted)
	return zmtp.AppendMessage(nil, append(slices.Clone(envelope), appendASCII(nil, answer))...), err
}

// maxEnvelope is more than any socket puts before a request. The envelope is sent
// back although no room was taken for it.
const maxEnvelope = 4 << 10 // bytes

// openEnvelope splits off the frames that must be sent back: the names of those
// who have passed the request on, and an empty frame, which a REQ socket puts
// before its request and a DEALER may.
//
// Anybody may be named "list", so what follows an empty frame is looked at first:
// if it is a request, everything before it is the envelope. Otherwise, frames
// that begin with a verb have no envelope, so that its arguments may be empty.
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

// arguments are how many frames follow a verb, with the token if there is one.
var arguments = map[string]struct{ least, most int }{"publish": {3, 4}, "list": {0, 4}, "channel": {1, 2}}

// isRequest reports whether frames are a verb with its arguments, and perhaps
// the token.
func isRequest(frames [][]byte) bool {
	if len(frames) == 0 {
		return false
	}
	n, is := arguments[string(frames[0])]
	return is && len(frames)-1 >= n.least && len(frames)-1 <= n.most
}

func isVerb(b []byte) bool {
	_, is := arguments[string(b)]
	return is
}

// answer carries out a request. There is an answer to send with and without an
// error. It calls accepted before it carries out a request of the right form.
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
		res, err := g.publish(f)
		return published(res, err), err
	case verb == "list" && len(f) <= 3:
		accepted()
		var a [3]string
		for i := range f {
			a[i] = string(f[i])
		}
		return g.list(a[0], a[1], a[2]), nil
	case verb == "channel" && len(f) == 1:
		accepted()
		return g.channel(strings.TrimSuffix(string(f[0]), "\x00")), nil
	}
	// The message goes to programs.
	err = fmt.Errorf(`zmqgateway: a request is "publish", channel, header, body; or "list", prefix, limit, cursor (these may be left out); or "channel", name; this one is %.40q with %d more frames`, verb, len(f))
	return failed("bad_request", err), err
}
