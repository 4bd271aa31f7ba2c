package zmtp

import (
	"context"
	"crypto/tls"
	"net"

	"github.com/channels-go/channels/internal/steady"
)

// Dial connects to HOST:PORT, over TLS if config is not nil, for at most
// [ShakeTimeout].
func Dial(ctx context.Context, hostPort string, config *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, ShakeTimeout)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", hostPort)
	if err != nil || config == nil {
		return c, err
	}
	t := tls.Client(steady.NewConn(c), config)
	if err := t.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return t, nil
}

// secure is the listener's side of TLS.
func secure(c net.Conn, config *tls.Config) (net.Conn, error) {
	t := tls.Server(steady.NewConn(c), config)
	ctx, cancel := context.WithTimeout(context.Background(), ShakeTimeout)
	defer cancel()
	return t, t.HandshakeContext(ctx)
}

// beneath returns what is below TLS.
func beneath(c net.Conn) net.Conn {
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c
}

// HangUp closes a connection without TLS's closing alert, whose write might wait.
func HangUp(c net.Conn) { beneath(c).Close() }
