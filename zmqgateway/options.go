package zmqgateway

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/zmtp"
)

// Options configure a Gateway. Hub and at least one address are required.
//
// An address is "tcp://host:port". The host "*", like "0.0.0.0" and none, means
// all interfaces, with IPv6; the port "*", like 0, a free one.
type Options struct {
	// Hub is what the programs read from and publish on.
	Hub *channels.Hub
	// Identity is what the hub's Authorize and hooks see of the programs: all
	// that know the Token, or all that reach the ports. Default: nobody, as over
	// HTTP without credentials.
	Identity channels.Identity

	// Pub is where SUB sockets read. Nothing authorises readers: whoever
	// reaches the port reads all channels. Beyond loopback it therefore needs
	// Insecure, even with a Token.
	Pub string
	// Pull is where PUSH sockets publish, without an answer.
	Pull string
	// Rep is where REQ and DEALER sockets publish, with an answer, and ask for
	// the list of channels and for one channel's numbers.
	Rep string

	// Token must be the last frame of each message to Pull and Rep. At least 16
	// bytes, best random ones. It is sent in the clear. Default: none, and no
	// such frame.
	Token []byte
	// Insecure allows Pub beyond loopback, and Pull and Rep beyond loopback
	// without a Token: anybody who reaches the ports reads, or publishes, on
	// all channels. Only for a network on which every program is trusted.
	Insecure bool

	// MaxMessageBytes bounds a message to Pull or Rep, with all its frames.
	// 1 KiB to 64 MiB; default 1 MiB. The hub has a bound of its own.
	MaxMessageBytes int
	// MaxUnfinishedBytes bounds the messages to Pull and Rep that are on their
	// way: announced, but not published yet. Half of it is for strangers (see
	// MaxConnections) and half for the others, so that these never wait for
	// strangers. Beyond it a message waits, and messages that took long to come
	// end with their connections. Messages of up to 8 KiB do not count and do
	// not wait: a small first message makes a stranger known.
	// 2 × MaxMessageBytes to 1 GiB; default 64 MiB, or 2 × MaxMessageBytes if
	// that is more.
	MaxUnfinishedBytes int
	// MaxConnections bounds the connections to each address. Each holds up to
	// 32 KiB besides MaxUnfinishedBytes, and a slow reader up to QueueBytes.
	// Beyond the bound, a newcomer takes the place of a stranger: the oldest
	// from the address that has the most strangers. A stranger is a connection
	// that has never subscribed, nor sent a message or request of the right
	// form, with the token if there is one. If there is no stranger, the
	// newcomer is refused. Default 500; at most 4,000.
	MaxConnections int
	// MaxTopics bounds the subscriptions of all SUB sockets together: each
	// channel among them is a subscriber of the hub. Beyond it the socket that
	// has the most is disconnected, but never one with MaxTopics/MaxConnections
	// or fewer. Default 10,000.
	MaxTopics int
	// QueueBytes bounds what waits for one SUB socket. Anything more is dropped
	// for that socket, and counted. Default 8 MiB; at least 64 KiB.
	QueueBytes int

	// Logger gets what was refused, and why; at most one record a second of
	// each kind. Default slog.Default().
	Logger *slog.Logger
}

const minToken = 16 // bytes

func (o *Options) setDefaults() {
	o.MaxMessageBytes = cmp.Or(o.MaxMessageBytes, 1<<20)
	o.MaxUnfinishedBytes = cmp.Or(o.MaxUnfinishedBytes, max(64<<20, 2*o.MaxMessageBytes))
	o.MaxConnections = cmp.Or(o.MaxConnections, 500)
	o.MaxTopics = cmp.Or(o.MaxTopics, 10_000)
	o.QueueBytes = cmp.Or(o.QueueBytes, 8<<20)
	o.Logger = cmp.Or(o.Logger, slog.Default())
}

func (o *Options) check() error {
	if o.Pub == "" && o.Pull == "" && o.Rep == "" {
		return errors.New("zmqgateway: Options has no address: set Pub, Pull or Rep")
	}
	if len(o.Token) > 0 && len(o.Token) < minToken {
		return fmt.Errorf("zmqgateway: Options.Token has %d bytes; it must have %d or more", len(o.Token), minToken)
	}
	for _, a := range []struct {
		field, address string
		closed         bool
		cure           string
	}{
		{"Pub", o.Pub, o.Insecure, "set Insecure, if every program on that network may read all channels"},
		{"Pull", o.Pull, o.Insecure || len(o.Token) > 0, "set Token (or Insecure, if every program on that network is trusted)"},
		{"Rep", o.Rep, o.Insecure || len(o.Token) > 0, "set Token (or Insecure, if every program on that network is trusted)"},
	} {
		if a.address == "" {
			continue
		}
		at, err := zmtp.ParseListen(a.address)
		if err != nil {
			return fmt.Errorf("zmqgateway: Options.%s is %.200q; it must be tcp://host:port, where * is all interfaces or a free port: %w", a.field, a.address, err)
		}
		if !at.Loopback() && !a.closed {
			return fmt.Errorf("zmqgateway: Options.%s is %q, which others can reach: %s", a.field, a.address, a.cure)
		}
	}
	for _, n := range []struct {
		field      string
		is, lo, hi int
	}{
		{"MaxMessageBytes", o.MaxMessageBytes, 1 << 10, 64 << 20},
		{"MaxUnfinishedBytes", o.MaxUnfinishedBytes, 2 * o.MaxMessageBytes, 1 << 30},
		{"MaxConnections", o.MaxConnections, 1, 4_000},
		{"MaxTopics", o.MaxTopics, 1, 10_000_000},
		{"QueueBytes", o.QueueBytes, 64 << 10, 1 << 30},
	} {
		if n.is < n.lo || n.is > n.hi {
			return fmt.Errorf("zmqgateway: Options.%s is %d; it must be %d to %d", n.field, n.is, n.lo, n.hi)
		}
	}
	return nil
}
