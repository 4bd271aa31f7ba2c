package zmqmesh

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	AppendASCII = appendASCII
	ToLatin1    = toLatin1
	FromLatin1  = fromLatin1
)

// Answer is what a request gets, and the envelope that it is sent back in.
func Answer(t *testing.T, hub GatewayHub, token []byte, frames [][]byte) (envelope [][]byte, answer []byte) {
	g := &Gateway{opts: GatewayOptions{Hub: hub, Token: token}, token: sha256.Sum256(token), ctx: context.Background()}
	envelope, request := openEnvelope(frames)
	answer, _ = g.answer(request, func() {})
	return envelope, appendASCII(nil, answer)
}

// NewHurriedGateway is NewGateway where a message has this much time at most,
// and while others wait, whatever its size.
func NewHurriedGateway(o GatewayOptions, whole, crowded time.Duration) (*Gateway, error) {
	return newGateway(o, pace{whole, math.MaxInt}, pace{crowded, math.MaxInt}, readerBeat)
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

// Entered counts the connections to a gateway's Pull and Rep that have shaken hands.
func Entered(g *Gateway) (n int) {
	for _, e := range []*endpoint{g.pull, g.rep} {
		e.mu.Lock()
		n += len(e.open)
		e.mu.Unlock()
	}
	return n
}

// ServeListener accepts connections as a gateway does, and hangs up each, until
// the listener is closed and stop is called.
func ServeListener(ln net.Listener, log *slog.Logger) (stop func()) {
	l := newListener(ln, "gateway", nil, log, 10, new(atomic.Int64))
	var serving sync.WaitGroup
	serving.Go(func() { l.serve(func(net.Conn, func()) error { return nil }) })
	return func() {
		l.close()
		serving.Wait()
	}
}

// MessageTime is how long a message of this size may take.
func MessageTime(size int) time.Duration { return wholePace.of(size) }

// NewBeatingGateway is NewGateway with another time between two PINGs.
func NewBeatingGateway(o GatewayOptions, beat time.Duration) (*Gateway, error) {
	return newGateway(o, wholePace, crowdedPace, beat)
}

const SilentBeats = silentBeats
