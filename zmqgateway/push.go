package zmqgateway

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/zmtp"
)

// servePull publishes what a PUSH socket sends, one message after the other.
// While publishing is slow nothing is read, so that its PUSH socket turns
// to the other replicas that it is connected to.
func (g *Gateway) servePull(c *conn) error {
	c.guard.Ping = c.pong
	for {
		msg, err := c.RecvMsg()
		if err != nil {
			return ended(err)
		}
		frames, err := g.admit(msg.Frames)
		if err == nil && len(frames) != 3 {
			err = fmt.Errorf("zmqgateway: a message has %d frames; it must have three (channel, header, body), and the token as a fourth if one is set", len(msg.Frames))
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
	var timeout net.Error
	switch {
	case errors.Is(err, zmtp.ErrSilent):
		return nil
	case errors.As(err, &timeout) && timeout.Timeout():
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return nil
	}
	return err
}
