package redismesh

import (
	"sync"
	"time"

	"github.com/channels-go/channels/internal/bell"
)

// subs are the channels that a link subscribes to.
type subs struct {
	mu       sync.Mutex // guards the fields below
	channels map[string]*sub
	pending  []string  // channels whose want has changed
	early    int       // those of pending that were there when the link connected
	asked    int       // subscriptions that Redis has not confirmed yet
	up       bool      // all channels of early are active
	fenced   bool      // the link's own name was asked for, behind the channels of early
	answered time.Time // when Redis last confirmed one, or when it began to owe a confirmation
	wake     bell.Bell
}

// sub is a channel. It is forgotten when it is not wanted and Redis owes no
// answer for it.
type sub struct {
	want    bool
	pending bool
	sent    bool // the last command sent to Redis for it was a subscription
	asked   int  // subscriptions that Redis has not confirmed yet

	// The number of the last frame, by life. It outlives the connection: a
	// frame may be published on a server that this replica has already left.
	frames recent[uint64, uint64]
}

const (
	askAtOnce  = 1024  // names in one command
	maxAsked   = 16384 // without Redis's answer, since its output buffer is bounded too
	maxPerName = 1024  // lives that are remembered for one channel, at least half of them
)

func (l *link) want(channel string, want bool) {
	s := &l.subs
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.channels[channel]
	if c == nil {
		if !want {
			return
		}
		c = &sub{}
		s.channels[channel] = c
	}
	if want && !c.want { // frames that came before are no gap
		c.frames = recent[uint64, uint64]{max: maxPerName}
	}
	c.want = want
	if !c.pending && c.want != c.sent {
		c.pending = true
		s.pending = append(s.pending, channel)
		s.wake.Ring()
	}
}

// restart marks all channels to be asked for on a new connection.
func (s *subs) restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending, s.asked, s.up, s.fenced, s.answered = s.pending[:0], 0, false, false, time.Now()
	for name, c := range s.channels {
		if !c.want {
			delete(s.channels, name)
			continue
		}
		c.pending, c.sent, c.asked = true, false, 0
		s.pending = append(s.pending, name)
	}
	s.early = len(s.pending)
}

// take returns the channels to subscribe to and to unsubscribe from next. fence
// is true once, when all channels of early were taken.
func (s *subs) take() (enter, leave []string, fence bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked < maxAsked {
		n := min(len(s.pending), askAtOnce)
		for _, name := range s.pending[:n] {
			c := s.channels[name]
			c.pending = false
			switch {
			case c.want && !c.sent:
				c.sent = true
				c.asked++
				if s.asked++; s.asked == 1 {
					s.answered = time.Now()
				}
				enter = append(enter, name)
			case !c.want && c.sent:
				c.sent = false
				leave = append(leave, name)
			}
			s.forgetLocked(name, c)
		}
		s.pending = s.pending[n:]
		if len(s.pending) == 0 {
			s.pending = nil
		}
		s.early -= n
	}
	fence = s.early <= 0 && !s.fenced
	s.fenced = s.fenced || fence
	return enter, leave, fence
}

func (s *subs) forgetLocked(name string, c *sub) {
	if !c.want && !c.sent && c.asked == 0 && !c.pending {
		delete(s.channels, name)
	}
}

// askedSince returns since when Redis has owed an answer without giving one, or
// zero if it owes none. A link that is not up waits for the answer to its own
// name.
func (s *subs) askedSince() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up && s.asked == 0 {
		return time.Time{}
	}
	return s.answered
}

func (s *subs) setUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up = true
}

// confirm handles Redis's answer to a subscription. It reports whether the
// channel has become active on a link that was already up.
func (s *subs) confirm(channel string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answered = time.Now()
	c := s.channels[channel]
	if c == nil || c.asked == 0 {
		return false
	}
	c.asked--
	if s.asked--; s.asked == maxAsked-1 {
		s.wake.Ring()
	}
	s.forgetLocked(channel, c)
	return c.want && c.sent && c.asked == 0 && s.up
}

// verdict is what a channel's frame tells about the frames before it.
type verdict int

const (
	unwanted verdict = iota
	complete
	gap      // a frame before it is missing, or may be, since its life was forgotten
	doubtful // the sender no longer knows its frame before this one
)

func (s *subs) follow(channel string, f frame) verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.channels[channel]
	if c == nil || !c.want {
		return unwanted
	}
	last, seen := c.frames.get(f.life)
	fresh := !seen && !c.frames.forgot // earlier frames were published before the subscription
	c.frames.set(f.life, f.number)
	switch {
	case fresh:
		return complete
	case f.previous == forgotten:
		return doubtful
	case f.previous > last:
		return gap
	}
	return complete
}
