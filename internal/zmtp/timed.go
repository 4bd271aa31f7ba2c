package zmtp

import (
	"errors"
	"fmt"
	"os"
	"time"
)

var (
	// ErrSilent ends Read if the peer has sent nothing for Rules.Silence.
	ErrSilent = errors.New("zmtp: the peer does not answer")
	// ErrTooSlow ends Read if a message was not complete in Rules.Whole.
	ErrTooSlow = errors.New("zmtp: a message took too long to come")
	// ErrStalled ends Write if the peer took nothing for [StallTimeout], although
	// something came from it in that time: otherwise it might just have died.
	ErrStalled = errors.New("zmtp: the peer reads nothing of what is sent to it")
)

// A timedReader is the connection beneath the read buffer. The handshake has one
// deadline as a whole. After it, each read has one, and each message if
// Rules.Whole is set.
type timedReader struct{ g *Guard }

func (t timedReader) Read(p []byte) (int, error) {
	g := t.g
	if !g.shaken {
		return g.Conn.Read(p)
	}
	if len(g.rest) > 0 {
		n := copy(p, g.rest)
		if g.rest = g.rest[n:]; len(g.rest) == 0 {
			g.rest = nil
		}
		return n, nil
	}
	until, last := g.until()
	if err := g.SetReadDeadline(until); err != nil {
		return 0, err
	}
	n, err := g.Conn.Read(p)
	for n == 0 && g.Patient && !g.within() && errors.Is(err, os.ErrDeadlineExceeded) {
		if g.Busy == nil || !g.Busy() {
			return 0, fmt.Errorf("%w: %w", ErrSilent, err)
		}
		if err := g.SetReadDeadline(time.Now().Add(g.Silence)); err != nil {
			return 0, err
		}
		n, err = g.Conn.Read(p)
	}
	if n > 0 {
		g.heard.Store(int64(time.Since(g.opened)))
	}
	if last && errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("%w: %w", ErrTooSlow, err)
	}
	return n, err
}

// within reports whether part of a message has come.
func (g *Guard) within() bool { return g.more || g.pass > 0 || g.r.Buffered() > 0 }

// until returns when the next bytes must have come, and whether the rest of the
// message must have come by then.
func (g *Guard) until() (until time.Time, last bool) {
	now, within := time.Now(), g.within()
	if g.Patient && !within {
		if g.Silence > 0 {
			return now.Add(g.Silence), false
		}
		return time.Time{}, false
	}
	until = now.Add(IdleTimeout)
	if g.Whole == nil || !within {
		return until, false
	}
	if g.begun.IsZero() {
		g.begun = now
	}
	if end := g.begun.Add(g.Whole.Of(g.sum)); end.Before(until) {
		return end, true
	}
	return until, false
}

// A timedWriter is the connection beneath the write buffer. A write may take as
// long as the peer takes something: a slow peer is not cut off, a stuck one is.
type timedWriter struct{ g *Guard }

func (t timedWriter) Write(p []byte) (int, error) {
	n, err := t.g.Conn.Write(p)
	if errors.Is(err, os.ErrDeadlineExceeded) && time.Since(t.g.opened)-time.Duration(t.g.heard.Load()) < StallTimeout {
		err = fmt.Errorf("%w: %w", ErrStalled, err)
	}
	return n, err
}
