package zmqgateway

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/channels-go/channels"
)

// readers are the SUB sockets of a gateway, with their topics. Each channel that
// is asked for by its whole name is one subscription of the hub, with a
// goroutine. All that is asked for by a beginning shares one subscription.
//
// Lock order: readers.mu, then reader.mu.
type readers struct {
	gateway *Gateway

	mu       sync.RWMutex // guards the fields below
	all      map[*reader]bool
	topics   int // of all readers
	channels map[string]*wantedChannel
	prefixes map[string][]*reader
	lengths  [maxChannel + 2]int // how many of prefixes have each length
	stopAll  context.CancelFunc
	closed   bool
}

type wantedChannel struct {
	readers []*reader
	stop    context.CancelFunc
}

// maxChannel is the longest channel's name, in bytes. A longer topic matches
// nothing.
const maxChannel = channels.MaxNameBytes

var errGreedy = errors.New("zmqgateway: MaxTopics is reached, and this reader has the most subscriptions")

func newReaders(g *Gateway) *readers {
	return &readers{gateway: g, all: map[*reader]bool{}, channels: map[string]*wantedChannel{}, prefixes: map[string][]*reader{}}
}

func (rs *readers) count() int {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	return len(rs.all)
}

func (rs *readers) add(r *reader) bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.closed {
		return false
	}
	rs.all[r] = true
	return true
}

func (rs *readers) remove(r *reader) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.removeLocked(r)
}

func (rs *readers) removeLocked(r *reader) {
	for topic := range r.topics {
		rs.unsubscribeLocked(r, topic)
	}
	delete(rs.all, r)
}

// subscribe adds a topic to a reader. If there are as many topics as are
// allowed, the reader that has the most is disconnected: if it were the one that
// asks, a greedy reader could keep all others out.
func (rs *readers) subscribe(r *reader, topic string) error {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	g := rs.gateway
	if !rs.all[r] {
		return errGreedy // it has just been disconnected
	}
	if r.topics[topic] {
		return nil
	}
	if rs.topics >= g.opts.MaxTopics {
		most := r
		for other := range rs.all {
			if len(other.topics) > len(most.topics) {
				most = other
			}
		}
		if len(most.topics) <= len(r.topics)+1 {
			return errGreedy // otherwise the two would end each other in turn
		}
		rs.removeLocked(most)
		most.conn.end(errGreedy)
	}
	rs.topics++
	r.topics[topic] = true
	if channel, whole := strings.CutSuffix(topic, "\x00"); whole {
		w := rs.channels[channel]
		if w == nil {
			var ctx context.Context
			w = &wantedChannel{}
			ctx, w.stop = context.WithCancel(g.ctx)
			rs.channels[channel] = w
			rs.runLocked(func() error {
				return g.hub.Subscribe(ctx, channel, func(m channels.Message) { rs.deliver(channel, m) })
			})
		}
		w.readers = append(w.readers, r)
		return nil
	}
	if len(rs.prefixes) == 0 {
		var ctx context.Context
		ctx, rs.stopAll = context.WithCancel(g.ctx)
		rs.runLocked(func() error { return g.hub.SubscribeAll(ctx, rs.deliverMatching) })
	}
	if len(rs.prefixes[topic]) == 0 {
		rs.lengths[len(topic)]++
	}
	rs.prefixes[topic] = append(rs.prefixes[topic], r)
	return nil
}

// runLocked runs a subscription of the hub, which ends when no reader wants it
// any more, or with the gateway, which waits for it.
func (rs *readers) runLocked(subscription func() error) {
	if rs.closed {
		return
	}
	rs.gateway.running.Go(func() {
		if err := subscription(); err != nil && rs.gateway.ctx.Err() == nil {
			rs.gateway.log.Debug("gateway: a reader's subscription is for a name that cannot be a channel, or the hub has ended", "err", err)
		}
	})
}

func (rs *readers) unsubscribe(r *reader, topic string) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.unsubscribeLocked(r, topic)
}

func (rs *readers) unsubscribeLocked(r *reader, topic string) {
	if !r.topics[topic] {
		return
	}
	delete(r.topics, topic)
	rs.topics--
	if channel, whole := strings.CutSuffix(topic, "\x00"); whole {
		w := rs.channels[channel]
		if w.readers = without(w.readers, r); len(w.readers) == 0 {
			w.stop()
			delete(rs.channels, channel)
		}
		return
	}
	if left := without(rs.prefixes[topic], r); len(left) > 0 {
		rs.prefixes[topic] = left
		return
	}
	delete(rs.prefixes, topic)
	rs.lengths[len(topic)]--
	if len(rs.prefixes) == 0 {
		rs.stopAll()
	}
}

func without(all []*reader, r *reader) []*reader {
	return slices.DeleteFunc(all, func(other *reader) bool { return other == r })
}

// deliver queues a message for the readers that have asked for its channel by
// the whole name.
func (rs *readers) deliver(channel string, m channels.Message) {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	w := rs.channels[channel]
	if w == nil {
		return
	}
	b := encodeMessage(channel, m.Header, m.Body)
	for _, r := range w.readers {
		r.put(b)
	}
}

// deliverMatching queues a message for the readers that have asked for a
// beginning of its channel's name, once each. Those that have asked for the
// whole name, too, get it from deliver. It costs a look for each length of a
// beginning that somebody has asked for.
func (rs *readers) deliverMatching(channel string, m channels.Message) {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	var all [][]*reader
	for n := range min(len(channel), maxChannel) + 1 {
		if rs.lengths[n] > 0 {
			if found := rs.prefixes[channel[:n]]; len(found) > 0 {
				all = append(all, found)
			}
		}
	}
	if len(all) == 0 {
		return
	}
	w := rs.channels[channel]
	b := encodeMessage(channel, m.Header, m.Body)
	if w == nil && len(all) == 1 {
		for _, r := range all[0] {
			r.put(b)
		}
		return
	}
	served := map[*reader]bool{}
	if w != nil {
		for _, r := range w.readers {
			served[r] = true // by deliver
		}
	}
	for _, found := range all {
		for _, r := range found {
			if !served[r] {
				served[r] = true
				r.put(b)
			}
		}
	}
}

// leave gives all readers a moment to take what is queued, and disconnects them.
func (rs *readers) leave() {
	rs.mu.Lock()
	rs.closed = true
	all := slices.Collect(maps.Keys(rs.all))
	rs.mu.Unlock()
	for _, r := range all {
		r.leave()
	}
	ctx, cancel := context.WithTimeout(context.Background(), rs.gateway.pace.linger)
	defer cancel()
	late := 0
	for _, r := range all {
		select {
		case <-r.wrote:
		case <-ctx.Done():
			if r.close() {
				late++
			}
		}
	}
	if late > 0 {
		rs.gateway.log.Warn("gateway: closed before all readers had taken what was queued; the rest is dropped", "readers", late)
	}
}
