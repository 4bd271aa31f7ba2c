package channels

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/channels-go/channels/internal/fanout"
	"github.com/channels-go/channels/internal/pattern"
	"github.com/channels-go/channels/internal/prefix"
	"github.com/channels-go/channels/mesh"
)

// The way of a message to the subscribers of patterns: publish.go and receive.go hand
// each message to feeds.pass once, when it is published here or arrives. There it
// finds the feeds that match.

// A feed is what this replica holds of one pattern: its subscribers. It has no order
// and no history, so what the mesh loses stays lost, and a message that a channel with
// history fetches from the Store does not come here.
type feed struct {
	pattern *pattern.Pattern
	policy  fanout.Policy
	group   fanout.Group
	users   int           // subscriptions, guarded by feeds.mu
	count   *atomic.Int64 // of all subscriptions of the hub

	mu   sync.Mutex // guards the field below
	subs []*subscription
}

// feeds are the patterns that have subscribers here. All its methods may be called
// concurrently.
type feeds struct {
	index prefix.Index[*feed] // by what their patterns begin with; changed under mu

	mu  sync.Mutex // guards the field below
	all map[string]*feed
}

// pass hands a message to the subscribers of all patterns that match its channel, and
// returns how many get it. Without patterns, it costs one atomic load; with patterns
// that begin differently, a look into an index (BenchmarkPublishBesidePatterns).
func (fs *feeds) pass(channel string, m *Message, except *client, start fanout.Start) (receivers int) {
	if fs.index.Empty() {
		return 0
	}
	fs.index.Find(channel, func(found []*feed) {
		for _, fd := range found {
			if fd.pattern.Match(channel) {
				f := newFeedFrame(fd, channel, m, except)
				f.Begin(start)
				receivers += fd.take(f)
			}
		}
	})
	return receivers
}

// receive is pass for a packet from another replica. ch is its channel here, or nil.
func (fs *feeds) receive(p *mesh.Packet, at time.Time, ch *channel, except *client, start fanout.Start) (receivers int) {
	if !fs.index.Has(p.Channel) {
		return 0
	}
	m := Message{Header: p.Header, Body: p.Body, Position: Position{p.Epoch, p.Offset}, Time: at}
	if ch != nil {
		m.Publisher = ch.opts.publisher(p.Info)
	} else { // if the channel hides it, the publisher's replica has left it out
		m.Publisher = decodePublisher(p.Info)
	}
	return fs.pass(p.Channel, &m, except, start)
}

// take queues a message for the feed's subscribers. One of a user's channel is for the
// app's own code only.
func (fd *feed) take(f *feedFrame) (receivers int) {
	inGoOnly := isUserChannel(f.from)
	fd.mu.Lock()
	defer fd.mu.Unlock()
	cast := fd.group.Cast(&f.Frame, len(fd.subs))
	for i, s := range fd.subs {
		fetchSome(fd.subs, i)
		if !f.isFrom(s) && (!inGoOnly || s.client.inGo()) {
			receivers++
			cast.To(s.out, fd.policy)
		}
	}
	cast.Done()
	return receivers
}

// attach makes s a subscriber of all that comes from now on. The frame, which may be
// nil, comes before that.
func (fd *feed) attach(s *subscription, welcome *fanout.Frame) {
	fd.mu.Lock()
	defer fd.mu.Unlock()
	if welcome != nil {
		s.out.Queue(welcome, s.client.policy())
	}
	s.feed, s.slot = fd, int32(len(fd.subs))
	fd.subs = append(fd.subs, s)
	fd.count.Add(1)
}

// detach ends a subscription.
func (fd *feed) detach(s *subscription) {
	fd.mu.Lock()
	defer fd.mu.Unlock()
	end := len(fd.subs) - 1
	fd.subs[s.slot] = fd.subs[end]
	fd.subs[s.slot].slot = s.slot
	fd.subs[end] = nil
	fd.subs = fd.subs[:end]
	s.slot = -1
	fd.count.Add(-1)
}

// useFeed returns the feed of a pattern, new if it was not there, and keeps it until
// leaveFeed.
func (h *Hub) useFeed(p *pattern.Pattern) (*feed, error) {
	if fd := h.feeds.use(p.String()); fd != nil {
		return fd, nil
	}
	opts, err := h.optionsFor(p.String())
	if err != nil {
		return nil, err
	}
	return h.putFeed(&feed{pattern: p, policy: opts.SlowSubscriber.policy(), group: h.fan.Group(), count: &h.stats.subscriptions})
}

func (fs *feeds) use(text string) *feed {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fd := fs.all[text]
	if fd != nil {
		fd.users++
	}
	return fd
}

// putFeed adds a feed, or returns the one that was added before it. The mesh is asked
// for what the pattern begins with.
func (h *Hub) putFeed(fd *feed) (*feed, error) {
	fs, text := &h.feeds, fd.pattern.String()
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if old := fs.all[text]; old != nil {
		old.users++
		return old, nil
	}
	if len(fs.all) >= h.opts.MaxPatterns {
		return nil, ErrTooManyChannels.saying("this replica has reached its limit of patterns (Options.MaxPatterns is %d); try again later", h.opts.MaxPatterns)
	}
	if err := h.prefixes.add(fd.pattern.Prefix()); err != nil {
		return nil, ErrMeshUnavailable.because(err)
	}
	if fs.all == nil {
		fs.all = make(map[string]*feed)
	}
	fd.users = 1
	fs.all[text] = fd
	fs.index.Add(fd.pattern.Prefix(), fd)
	return fd, nil
}

// leaveFeed undoes useFeed. With the last subscriber, the feed goes.
func (h *Hub) leaveFeed(fd *feed) {
	fs := &h.feeds
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fd.users--; fd.users > 0 {
		return
	}
	delete(fs.all, fd.pattern.String())
	fs.index.Remove(fd.pattern.Prefix(), fd)
	h.prefixes.remove(fd.pattern.Prefix())
}

// count returns how many patterns have subscribers.
func (fs *feeds) count() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return len(fs.all)
}
