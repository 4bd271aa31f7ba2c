package zmqgateway

import (
	"context"
	"crypto/sha256"
	"math"
	"testing"
	"time"

	"github.com/channels-go/channels/internal/zmtp"
)

const SilentBeats = silentBeats

var (
	AppendASCII = appendASCII
	ToLatin1    = toLatin1
	FromLatin1  = fromLatin1
)

// A Bridge stands for a hub.
type Bridge = bridge

// NewOver is New with another hub than Options.Hub.
func NewOver(hub Bridge, o Options) (*Gateway, error) { return open(o, hub, defaultPace) }

// NewHurried is NewOver where a message has this much time at most, and this much
// while others wait, whatever its size.
func NewHurried(hub Bridge, o Options, whole, crowded time.Duration) (*Gateway, error) {
	return open(o, hub, pace{zmtp.Pace{Start: whole, Rate: math.MaxInt}, zmtp.Pace{Start: crowded, Rate: math.MaxInt}, defaultPace.beat})
}

// NewBeating is NewOver with another time between two PINGs.
func NewBeating(hub Bridge, o Options, beat time.Duration) (*Gateway, error) {
	p := defaultPace
	p.beat = beat
	return open(o, hub, p)
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
