package zmqgateway

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zeromq/zmq4"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/sparingly"
	"github.com/channels-go/channels/internal/zmtp"
)

// A Gateway is where ZeroMQ programs connect: see the package's documentation.
// All its methods may be called concurrently.
type Gateway struct {
	opts  Options
	hub   bridge
	log   *slog.Logger
	token [sha256.Size]byte // of Options.Token
	pace  pace

	strangers, known *room // for the messages of these

	readers *readers
	pub     *endpoint // nil if there is none
	pull    *endpoint
	rep     *endpoint

	published, rejected, dropped, refused atomic.Int64
	warned                                sparingly.Turn // about a rejected message

	ctx     context.Context // of what programs have asked for
	cancel  context.CancelFunc
	running sync.WaitGroup // the accept loops, and the readers' subscriptions
	closing sync.Once
}

// bridge is what a gateway asks of the hub: a *channels.Bridge, or a test's own.
type bridge interface {
	Publish(ctx context.Context, channel string, m channels.Message) (channels.Result, error)
	Channels(ctx context.Context, q channels.ChannelsQuery) (channels.ChannelsPage, error)
	Channel(ctx context.Context, name string) (channels.ChannelInfo, error)
	Subscribe(ctx context.Context, channel string, deliver func(channels.Message)) error
	SubscribeAll(ctx context.Context, deliver func(channel string, m channels.Message)) error
}

// A pace is how long a gateway waits for programs.
type pace struct {
	whole   zmtp.Pace     // for a message
	crowded zmtp.Pace     // for a message while others wait for the room that it holds
	beat    time.Duration // between two PINGs to a reader
	linger  time.Duration // for readers that have not got everything when the gateway closes
}

var defaultPace = pace{
	whole:   zmtp.Pace{Start: 30 * time.Second, Rate: 64 << 10},
	crowded: zmtp.Pace{Start: time.Second, Rate: 1 << 20},
	beat:    30 * time.Second,
	linger:  time.Second,
}

// silentBeats is how many PINGs a reader may leave unanswered.
const silentBeats = 3

// Stats are a gateway's totals since it was opened.
type Stats struct {
	Readers   int   // SUB sockets that are connected now
	Published int64 // messages published through Pull and Rep
	Rejected  int64 // messages and requests to Pull and Rep that failed
	Dropped   int64 // messages not sent to a reader, because it reads too slowly or has gone
	Refused   int64 // connections that were turned away, or ended because of what they sent
}

// New opens a gateway. It fails if the options contradict each other or an
// address cannot be bound. Close frees what it holds, and comes before the hub's
// Shutdown.
func New(o Options) (*Gateway, error) {
	if o.Hub == nil {
		return nil, errors.New("zmqgateway: Options.Hub is missing")
	}
	return open(o, o.Hub.Bridge(o.Identity), defaultPace)
}

func open(o Options, hub bridge, p pace) (*Gateway, error) {
	o.setDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	g := &Gateway{opts: o, hub: hub, log: o.Logger, token: sha256.Sum256(o.Token), pace: p}
	g.readers = newReaders(g)
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.strangers, g.known = newRoom(o.MaxUnfinishedBytes/2, p.crowded), newRoom(o.MaxUnfinishedBytes/2, p.crowded)
	asking := zmtp.Limits{Frame: 1 << 10, Message: 1 << 10, Frames: 1}
	sending := zmtp.Limits{Frame: o.MaxMessageBytes, Message: o.MaxMessageBytes, Frames: 4}
	request := zmtp.Limits{Frame: o.MaxMessageBytes, Message: o.MaxMessageBytes, Frames: 16}
	var err error
	if g.pub, err = g.listen(o.Pub, zmq4.XPub, asking, g.servePub); err == nil {
		if g.pull, err = g.listen(o.Pull, zmq4.Pull, sending, g.serving(g.push)); err == nil {
			g.rep, err = g.listen(o.Rep, zmq4.Router, request, g.serving(g.reply))
		}
	}
	if err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

// Addresses returns what is bound, with the real port if a free one was asked
// for. A socket that does not exist has an empty address.
func (g *Gateway) Addresses() (pub, pull, rep string) {
	return g.pub.address(), g.pull.address(), g.rep.address()
}

// Stats is cheap and never waits.
func (g *Gateway) Stats() Stats {
	return Stats{Readers: g.readers.count(), Published: g.published.Load(), Rejected: g.rejected.Load(),
		Dropped: g.dropped.Load(), Refused: g.refused.Load()}
}

// The message goes to programs.
var errBadToken = errors.New("zmqgateway: the message's last frame has to be the token")

// admit checks the token of a message and takes it off.
func (g *Gateway) admit(frames [][]byte) ([][]byte, error) {
	if len(g.opts.Token) == 0 {
		return frames, nil
	}
	if n := len(frames) - 1; n >= 0 {
		if sum := sha256.Sum256(frames[n]); subtle.ConstantTimeCompare(sum[:], g.token[:]) == 1 {
			return frames[:n], nil
		}
	}
	return nil, errBadToken
}

// reject counts a message or request that failed. Anybody can cause that, so it
// is logged once a second at most.
func (g *Gateway) reject(c *conn, why error) {
	if n := g.rejected.Add(1); g.warned.Now(time.Second) {
		g.log.Warn("gateway: rejected a message", "from", c.guard.RemoteAddr().String(), "rejected", n, "err", why)
	}
}

// Close accepts nothing more, sends what is queued for at most a second, and
// ends all connections. A second Close does nothing.
func (g *Gateway) Close() error {
	g.closing.Do(func() {
		for _, e := range []*endpoint{g.pub, g.pull, g.rep} {
			if e != nil {
				e.Stop()
			}
		}
		g.cancel()
		for _, e := range []*endpoint{g.pull, g.rep} {
			if e != nil {
				e.Close()
			}
		}
		g.readers.leave()
		if g.pub != nil {
			g.pub.Close()
		}
		g.running.Wait()
	})
	return nil
}
