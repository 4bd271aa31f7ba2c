package channels

import (
	"strconv"
	"strings"

	"github.com/channels-go/channels/store"
)

// Position is a place in a channel's history: offsets count from 1 without
// gaps within an epoch. An epoch names one life of the history; no position
// ever means two messages. See [store.Position].
type Position struct {
	Epoch  string
	Offset uint64
}

// String returns the form that ParsePosition reads: "epoch:offset".
func (p Position) String() string {
	return p.Epoch + ":" + strconv.FormatUint(p.Offset, 10)
}

// next is the position right behind p.
func (p Position) next() Position { return Position{p.Epoch, p.Offset + 1} }

// maxEpoch bounds the epochs that are taken from clients, in bytes.
const maxEpoch = 64

// ParsePosition reads "epoch:offset", as clients send it in since and
// Last-Event-ID. The epoch may be empty: ":0" is before the first message.
func ParsePosition(s string) (Position, error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || i > maxEpoch {
		return Position{}, ErrBadQuery.saying("the position %.80q has not the form epoch:offset, e.g. k3f9:12", s)
	}
	n, err := strconv.ParseUint(s[i+1:], 10, 64)
	if err != nil {
		return Position{}, ErrBadQuery.saying("the offset in the position %.80q is not a whole number", s)
	}
	if !isEpoch(s[:i]) {
		return Position{}, ErrBadQuery.saying("the epoch in the position %.80q has a character that no epoch has", s)
	}
	return Position{Epoch: s[:i], Offset: n}, nil
}

// isEpoch tells whether s can be an epoch, or is empty.
func isEpoch(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(s) <= maxEpoch
}

// The reasons of a reset.
const (
	resetEpoch     = "epoch"      // messages that were acknowledged are lost, or all of the history is
	resetTrimmed   = "trimmed"    // what was missed is no longer kept
	resetNoHistory = "no_history" // the channel keeps none
)

// goOn is the rule by which everybody goes on in a log who has everything up
// to at: a subscriber, or the channel for those that are in step with it.
// docs/positions.md derives it.
//
// What comes next is behind to. Where something between at and to is lost,
// reason is resetEpoch. known tells whether the log as it is now shares a
// beginning with the one of at; where it does not, to is before all that is
// kept. An absent log (its page has no epoch) says nothing: to is at. What is
// not kept any more is another matter: see trimmed.
func goOn(at Position, log *store.Page) (to Position, reason string, known bool) {
	top := log.Top
	to, known = Position{Epoch: top.Epoch}, true
	switch {
	case top.Epoch == "":
		return at, "", false
	case at.Epoch == top.Epoch:
		to.Offset = at.Offset
	case at == Position{}: // it looked before the log was born
	default:
		reason, known = resetEpoch, false
		for _, e := range log.Earlier {
			if e.Epoch == at.Epoch {
				known = true
				if to.Offset = at.Offset; at.Offset <= e.Offset {
					reason = ""
				} else {
					to.Offset = e.Offset // where the two lives part
				}
				break
			}
		}
	}
	if to.Offset > top.Offset { // the Store has lost its last messages
		to.Offset, reason = top.Offset, resetEpoch
	}
	if reason != "" && trimmed(to, log) {
		to.Offset = log.First - 1 // so that there is one reset, not two
	}
	return to, reason, known
}

// trimmed tells whether the Store does not keep what follows a position of the
// log, so that only what lies before log.First can be missing.
func trimmed(at Position, log *store.Page) bool { return log.First > at.Offset+1 }
