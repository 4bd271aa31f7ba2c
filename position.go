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

// next is the position right after p.
func (p Position) next() Position { return Position{p.Epoch, p.Offset + 1} }

// maxEpoch is the longest epoch, in bytes.
const maxEpoch = 64

// ParsePosition reads "epoch:offset", as clients send it in since and
// Last-Event-ID. The epoch may be empty: ":0" is before the first message.
func ParsePosition(s string) (Position, error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || i > maxEpoch {
		return Position{}, ErrBadQuery.saying("the position %.80q does not have the form epoch:offset, e.g. k3f9:12", s)
	}
	n, err := strconv.ParseUint(s[i+1:], 10, 64)
	if err != nil {
		return Position{}, ErrBadQuery.saying("the offset in the position %.80q is not a whole number", s)
	}
	if !isEpoch(s[:i]) {
		return Position{}, ErrBadQuery.saying("the epoch in the position %.80q has a space or a character beyond printable ASCII, which no epoch has", s)
	}
	return Position{Epoch: s[:i], Offset: n}, nil
}

// isEpoch reports whether s can be an epoch, or is empty.
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
	resetEpoch     = "epoch"      // the Store has lost the history, or its newest messages
	resetTrimmed   = "trimmed"    // the missed messages are no longer kept
	resetNoHistory = "no_history" // the channel keeps no history
)

// goOn says where a reader goes on in a log if it has everything up to at. The
// reader is a subscriber, or the channel for all subscribers that are in step with
// it. docs/positions.md derives the rule.
//
// The reader goes on after to. If messages between at and to are lost, reason is
// resetEpoch. known reports whether the log shares a beginning with the log that at
// is of; if not, to is before everything that is kept. If the log is absent (its
// page has no epoch), to is at. Messages that are no longer kept are another
// matter: see trimmed.
func goOn(at Position, log *store.Page) (to Position, reason string, known bool) {
	top := log.Top
	to, known = Position{Epoch: top.Epoch}, true
	switch {
	case top.Epoch == "":
		return at, "", false
	case at.Epoch == top.Epoch:
		to.Offset = at.Offset
	case at == Position{}: // it began before the log was born
	default:
		reason, known = resetEpoch, false
		for _, e := range log.Earlier {
			if e.Epoch == at.Epoch {
				known = true
				if to.Offset = min(at.Offset, e.Offset); to.Offset == at.Offset { // before the two epochs part
					reason = ""
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

// trimmed reports whether the Store no longer keeps the message after a position of
// the log. What is missing then lies before log.First.
func trimmed(at Position, log *store.Page) bool { return log.First > at.Offset+1 }
