package zmqgateway

import (
	"cmp"
	"context"
	"crypto/sha256"
	"math"
	"net"
	"testing"
	"time"

	"github.com/channels-go/channels/internal/zmtp"
)

const SilentBeats = silentBeats

// Beat is the usual time between two PINGs.
var Beat = defaultPace.beat

var (
	AppendASCII = appendASCII
	ToLatin1    = toLatin1
	FromLatin1  = fromLatin1
)

// A Bridge stands for a hub.
type Bridge = bridge

// A Pace is how long a gateway waits: Whole and Crowded for a message of any size,
// Linger for readers when it closes. Beat is the time between two PINGs. What is 0
// is as usual.
type Pace struct{ Whole, Crowded, Beat, Linger time.Duration }

// NewPaced is New with another hub than Options.Hub, and with other times.
func NewPaced(hub Bridge, o Options, p Pace) (*Gateway, error) {
	set := defaultPace
	set.beat, set.linger = cmp.Or(p.Beat, set.beat), cmp.Or(p.Linger, set.linger)
	if p.Whole > 0 {
		set.whole = zmtp.Pace{Start: p.Whole, Rate: math.MaxInt}
	}
	if p.Crowded > 0 {
		set.crowded = zmtp.Pace{Start: p.Crowded, Rate: math.MaxInt}
	}
	g, err := open(o, hub, set)
	if err == nil {
		g.ctx.Done() // makes the channel: it must not be of the bubble that asks for it first
	}
	return g, err
}

// Handle serves a connection of a SUB, PUSH or REQ socket until it ends.
func Handle(g *Gateway, socket string, c net.Conn) error {
	e := map[string]*endpoint{"SUB": g.pub, "PUSH": g.pull, "REQ": g.rep}[socket]
	return g.handle(e, c, func() {})
}

// Answer is what a request gets, and the envelope that it is sent back in.
func Answer(t *testing.T, hub Bridge, token []byte, frames [][]byte) (envelope [][]byte, answer []byte) {
	g := &Gateway{opts: Options{Token: token}, hub: hub, token: sha256.Sum256(token), ctx: context.Background()}
	envelope, request := openEnvelope(frames)
	answer, _ = g.answer(request, func() {})
	return envelope, appendASCII(nil, answer)
}

// Unfinished is how much of MaxUnfinishedBytes is held.
func Unfinished(g *Gateway) int {
	used := 0
	for _, r := range []*room{g.strangers, g.known} {
		r.mu.Lock()
		used += r.used
		r.mu.Unlock()
	}
	return used
}

// Arriving counts the messages with room that have not come as a whole.
func Arriving(g *Gateway) (n int) {
	for _, r := range []*room{g.strangers, g.known} {
		r.mu.Lock()
		n += len(r.unfinished)
		r.mu.Unlock()
	}
	return n
}

// Entered counts the connections to Pull and Rep after their handshake.
func Entered(g *Gateway) (n int) {
	for _, e := range []*endpoint{g.pull, g.rep} {
		e.mu.Lock()
		n += len(e.open)
		e.mu.Unlock()
	}
	return n
}

// MessageTime is how long a message of this size may take.
func MessageTime(size int) time.Duration { return defaultPace.whole.Of(size) }
