package admin

import (
	"container/list"
	"net/netip"
	"sync"
	"time"
)

const (
	// guessesAtOnce is how many wrong tokens of an address are logged and answered as
	// such, and guessEvery is how long it takes for each one after these.
	guessesAtOnce = 5
	guessEvery    = 10 * time.Second
	// maxGuessers bounds the addresses that are remembered. Beyond it, the one whose
	// last guess is longest ago is forgotten.
	maxGuessers = 1024
)

// guesses counts wrong tokens by address, so that nobody fills the log with them.
type guesses struct {
	mu   sync.Mutex // guards the fields below
	from map[netip.Prefix]*list.Element
	last list.List // of *guesser; in front the latest
}

type guesser struct {
	from netip.Prefix
	full time.Time // when all guesses are free again
}

// wait returns how long an address has to wait before its next wrong token counts as a
// first one.
func (g *guesses) wait(from netip.Prefix, now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waitLocked(from, now)
}

func (g *guesses) waitLocked(from netip.Prefix, now time.Time) time.Duration {
	e := g.from[from]
	if e == nil {
		return 0
	}
	return max(0, e.Value.(*guesser).full.Sub(now)-(guessesAtOnce-1)*guessEvery)
}

// wrong notes a wrong token, unless the address has to wait: then it returns for how
// long. It does both at once, since many may come at the same moment.
func (g *guesses) wrong(from netip.Prefix, now time.Time) (wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if wait = g.waitLocked(from, now); wait == 0 {
		g.wrongLocked(from, now)
	}
	return wait
}

func (g *guesses) wrongLocked(from netip.Prefix, now time.Time) {
	e := g.from[from]
	if e == nil {
		if g.from == nil {
			g.from = map[netip.Prefix]*list.Element{}
		}
		if len(g.from) >= maxGuessers {
			delete(g.from, g.last.Remove(g.last.Back()).(*guesser).from)
		}
		e = g.last.PushFront(&guesser{from: from, full: now})
		g.from[from] = e
	}
	g.last.MoveToFront(e)
	one := e.Value.(*guesser)
	if one.full.Before(now) {
		one.full = now
	}
	one.full = one.full.Add(guessEvery)
}
