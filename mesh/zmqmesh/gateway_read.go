package zmqmesh

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// readers are the SUB sockets of a gateway, and what they want. A channel that
// is asked for by its whole name is a subscription of the hub, with a
// goroutine; for all that is asked for by a beginning, there is one together.
//
// Lock order: readers.mu, then reader.mu.
type readers struct {
	gateway *Gateway

	mu       sync.RWMutex // guards the fields below
	all      map[*reader]bool
	topics   int // of all readers
	channels map[string]*wantedChannel
	prefixes map[string][]*reader
	lengths  [maxChannel + 2]int // how many of prefixes are so long
	stopAll  context.CancelFunc
	closed   bool
}

type wantedChannel struct {
	readers []*reader
	stop    context.CancelFunc
}

// A reader is a SUB socket. One goroutine reads what it wants and one writes;
// both end with the connection.
type reader struct {
	gateway *Gateway
	guard   *guard
	wake    chan struct{} // holds one: there is something to write
	gone    chan struct{} // closed by close
	wrote   chan struct{} // closed when write has returned

	topics map[string]bool // that it subscribes to; guarded by readers.mu

	mu      sync.Mutex // guards the fields below
	queue   [][]byte   // shared with other readers: they are never changed
	bytes   int        // that wait, with what is being written
	pong    []byte     // the newest one
	beats   bool       // it understands PING
	leaving bool       // write ends when all is sent
	closed  bool
}

const (
	maxChannel  = 200 // bytes, of a channel's name: a longer topic matches nothing
	messageCost = 64  // bytes, that a message counts for in a queue besides its own
)

var errGreedy = errors.New("zmqmesh: all readers together subscribe to as many topics as may be, and this one to the most (MaxTopics)")

func (g *Gateway) servePub(c *gatewayConn) error {
	r := &reader{gateway: g, guard: c.guard, topics: map[string]bool{},
		wake: make(chan struct{}, 1), gone: make(chan struct{}), wrote: make(chan struct{})}
	c.guard.ping = r.answer
	c.guard.busy = r.busy
	c.guard.subscribe = func(topic []byte, on bool) error {
		ask := byte(askLeave)
		if on {
			ask = askSubscribe
		}
		return r.take(c, append([]byte{ask}, topic...))
	}
	if c.guard.minor >= 1 {
		r.expectBeats()
	}
	if !g.readers.add(r) {
		return nil
	}
	go r.write() // ends with the connection; this goroutine waits for it
	err := func() error {
		for {
			msg, err := c.RecvMsg()
			if err != nil {
				return ended(err)
			}
			if err := r.take(c, msg.Frames[0]); err != nil {
				return err
			}
		}
	}()
	r.mu.Lock()
	leaving := r.leaving
	r.mu.Unlock()
	if !leaving {
		r.close()
	}
	<-r.wrote
	g.readers.remove(r)
	return err
}

// take does what a SUB socket asks for.
func (r *reader) take(c *gatewayConn, ask []byte) error {
	subscribed, err := r.ask(ask)
	if subscribed && err == nil {
		c.accepted()
	}
	return err
}

// ended is nil where a peer has simply gone.
func ended(err error) error {
	var timeout net.Error
	switch {
	case errors.Is(err, errSilent):
		return nil
	case errors.As(err, &timeout) && timeout.Timeout():
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return nil
	}
	return err
}

// ask takes a subscription, or the end of one. What a SUB socket says besides
// is ignored, as ZeroMQ does.
func (r *reader) ask(b []byte) (subscribed bool, err error) {
	if len(b) == 0 || b[0] > askSubscribe || len(b) > 1+maxChannel+1 {
		return false, nil
	}
	rs, topic := &r.gateway.readers, string(b[1:])
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if b[0] != askSubscribe {
		rs.unwantLocked(r, topic)
		return false, nil
	}
	return true, rs.wantLocked(r, topic)
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
	if rs.all == nil {
		rs.all = map[*reader]bool{}
		rs.channels = map[string]*wantedChannel{}
		rs.prefixes = map[string][]*reader{}
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
		rs.unwantLocked(r, topic)
	}
	delete(rs.all, r)
}

// wantLocked subscribes a reader to a topic. Where there are as many topics as
// may be, the reader that has the most ends: if it were the one that asks, one
// greedy reader could keep all others out.
func (rs *readers) wantLocked(r *reader, topic string) error {
	g := rs.gateway
	if !rs.all[r] {
		return errGreedy // it has just been ended
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
			return errGreedy // the two would end each other in turn
		}
		rs.removeLocked(most)
		most.guard.end(errGreedy)
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
			rs.subscribeLocked(func() error {
				return g.opts.Hub.Subscribe(ctx, channel, func(header string, body json.RawMessage) { rs.deliver(channel, header, body) })
			})
		}
		w.readers = append(w.readers, r)
		return nil
	}
	if len(rs.prefixes) == 0 {
		var ctx context.Context
		ctx, rs.stopAll = context.WithCancel(g.ctx)
		rs.subscribeLocked(func() error { return g.opts.Hub.SubscribeAll(ctx, rs.deliverMatching) })
	}
	if len(rs.prefixes[topic]) == 0 {
		rs.lengths[len(topic)]++
	}
	rs.prefixes[topic] = append(rs.prefixes[topic], r)
	return nil
}

// subscribeLocked runs a subscription of the hub. It ends when nobody wants it
// any more, or with the gateway, which waits for it.
func (rs *readers) subscribeLocked(run func() error) {
	if rs.closed {
		return
	}
	rs.gateway.running.Go(func() {
		if err := run(); err != nil && rs.gateway.ctx.Err() == nil {
			rs.gateway.log.Debug("gateway: what a reader subscribes to never comes", "err", err)
		}
	})
}

// unwantLocked ends what wantLocked began.
func (rs *readers) unwantLocked(r *reader, topic string) {
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

// deliver is for who asked for a channel by its whole name.
func (rs *readers) deliver(channel, header string, body json.RawMessage) {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	w := rs.channels[channel]
	if w == nil {
		return
	}
	b := wireMessage(channel, header, body)
	for _, r := range w.readers {
		r.put(b)
	}
}

// deliverMatching is for who asked for a beginning of the channel's name, and
// not for the whole, too: each gets a message once. It costs a look for each
// length that somebody has asked for.
func (rs *readers) deliverMatching(channel, header string, body json.RawMessage) {
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
	b := wireMessage(channel, header, body)
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

// leave has all readers take what is queued, for a moment.
func (rs *readers) leave() {
	rs.mu.Lock()
	rs.closed = true
	all := make([]*reader, 0, len(rs.all))
	for r := range rs.all {
		all = append(all, r)
	}
	rs.mu.Unlock()
	for _, r := range all {
		r.leave()
	}
	late := time.NewTimer(gatewayLinger)
	defer late.Stop()
	for _, r := range all {
		select {
		case <-r.wrote:
		case <-late.C:
			late.Reset(0)
		}
	}
	for _, r := range all {
		r.close()
	}
}

// put queues a message, or drops it where there is no room.
func (r *reader) put(b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	cost := len(b) + messageCost
	if r.closed || r.leaving || r.bytes > 0 && r.bytes+cost > r.gateway.opts.QueueBytes {
		r.gateway.dropped.Add(1)
		return
	}
	r.bytes += cost
	r.queue = append(r.queue, b)
	r.wakeLocked()
}

func (r *reader) wakeLocked() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// expectBeats is for a reader that understands PING, which one of ZMTP 3.0 may
// take for a message. The goroutine that reads calls it.
func (r *reader) expectBeats() {
	r.guard.silence = silentBeats * r.gateway.beat
	r.mu.Lock()
	defer r.mu.Unlock()
	r.beats = true
}

// busy returns whether something waits to be sent.
func (r *reader) busy() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bytes > 0
}

// answer has a PING answered; the newest, where there are many.
func (r *reader) answer(context []byte) {
	r.expectBeats()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pong = pongFrame(context)
	r.wakeLocked()
}

// write sends what is queued, and PINGs, and flushes when nothing is left.
func (r *reader) write() {
	defer close(r.wrote)
	defer r.close()
	beat := time.NewTicker(r.gateway.beat)
	defer beat.Stop()
	due := false // is a PING
	for {
		r.mu.Lock()
		for len(r.queue) == 0 && r.pong == nil && !(due && r.beats) {
			leaving := r.leaving
			r.mu.Unlock()
			if err := r.guard.flush(); err != nil || leaving {
				return
			}
			select {
			case <-r.gone:
				return
			case <-r.wake:
			case <-beat.C:
				due = true
			}
			r.mu.Lock()
		}
		queue, control := r.queue, r.pong
		r.queue, r.pong = nil, nil
		select {
		case <-beat.C: // while there was always something to write
			due = true
		default:
		}
		if due && r.beats {
			control = append(control, pingFrame(silentBeats*r.gateway.beat)...)
		}
		due = false
		r.mu.Unlock()
		if _, err := r.guard.Write(control); err != nil {
			return
		}
		for i, b := range queue {
			if _, err := r.guard.Write(b); err != nil {
				r.gateway.dropped.Add(int64(len(queue) - i))
				return
			}
			r.mu.Lock()
			r.bytes -= len(b) + messageCost
			r.mu.Unlock()
		}
	}
}

// leave has write send what is queued, and then end.
func (r *reader) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leaving = true
	r.wakeLocked()
}

// close ends the connection.
func (r *reader) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.closed = true
	r.gateway.dropped.Add(int64(len(r.queue)))
	r.queue = nil
	close(r.gone)
	hangUp(r.guard.Conn)
}
