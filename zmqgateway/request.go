package zmqgateway

import (
	"fmt"
	"slices"
	"strings"

	"github.com/channels-go/channels/internal/zmtp"
)

// serveRep answers one request after the other.
func (g *Gateway) serveRep(c *conn) error {
	c.guard.Ping = c.pong
	for {
		msg, err := c.RecvMsg()
		if err != nil {
			return ended(err)
		}
		envelope, request := openEnvelope(msg.Frames)
		if len(request) == 0 { // PROBE_ROUTER sends an empty message to say that a socket is there
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
		c.done() // only the envelope is kept while the peer reads
		if _, err := c.guard.Write(zmtp.AppendMessage(nil, out...)); err != nil {
			return nil // it has gone, or reads nothing
		}
		if err := c.guard.Flush(); err != nil {
			return nil
		}
	}
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
