package redismesh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/channels-go/channels/internal/backoff"
	"github.com/channels-go/channels/internal/bell"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/internal/packet"
)

// Publish only queues. One goroutine for each link sends what has gathered, one
// pipeline after the other, so that the order is kept. Packets of one channel
// share a PUBLISH.
const (
	maxQueued      = 1 << 16  // packets that wait; a quarter for each lane of a Cluster
	maxQueuedBytes = 64 << 20 // their bytes, likewise; a single packet may have more
	batchPackets   = 4096     // of one pipeline
	batchBytes     = 1 << 20  // likewise, unless it has only one packet
	frameBytes     = 64 << 10 // of a PUBLISH with several packets

	// retryFor is how long a failing pipeline is retried. Receivers drop frames
	// that they already have.
	retryFor = 10 * time.Second
	retryMax = 500 * time.Millisecond

	// The number of names whose last frame the sender remembers, on a Cluster
	// for each lane. At least the last half of them is kept. An entry takes 16
	// bytes and its share of a map.
	maxPrevious     = 1 << 19
	maxPreviousLane = 1 << 16
)

// queue holds the packets that wait to be published over a link.
type queue struct {
	maxPackets, maxBytes int

	mu      sync.Mutex // guards the fields below
	entries []entry
	buf     []byte // the packets of entries, encoded
	packets int    // waiting, including those that the sender has taken
	bytes   int
	probe   bool      // a probe is to be sent
	wants   bool      // the prefixes that this replica wants are to be told
	lossy   bool      // packets were dropped, and the peers do not know yet
	down    error     // why Redis cannot be reached; nil if it can
	changed time.Time // when down last became nil, or stopped being nil
	closed  bool
	wake    bell.Bell
}

// entry is a packet that waits.
type entry struct {
	channel, to string
	end         int // offset in queue.buf where the packet ends
}

// publish queues a packet. It does not keep p.
func (l *link) publish(p *mesh.Packet) error {
	if len(p.Trace) > mesh.MaxTraceBytes {
		p.Trace = nil
	}
	q := &l.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	switch size := len(p.Body) + len(p.Channel) + len(p.To) + len(p.Header) + len(p.Epoch) + len(p.Sender) + len(p.Info) + len(p.Trace); {
	case q.closed:
		return mesh.ErrClosed
	case q.down != nil:
		return fmt.Errorf("redismesh: publish: %w", q.down)
	case size-len(p.Body) > maxRest:
		return fmt.Errorf("redismesh: publish: a packet has %d bytes besides its body; the limit is %d", size-len(p.Body), maxRest)
	case len(p.Body) > l.mesh.maxBody:
		return fmt.Errorf("redismesh: publish: the body has %d bytes; the limit is %d. To send larger ones, first raise Redis's client-output-buffer-limit for pubsub, beyond which Redis closes subscribers' connections, and then Options.MaxBodyBytes", len(p.Body), l.mesh.maxBody)
	case q.packets >= q.maxPackets || q.bytes >= q.maxBytes: // one body may exceed the limit, or large bodies would starve
		q.lossy = true
		l.mesh.dropped.Add(1)
		return nil
	}
	p.Seq = l.mesh.seq.Add(1) // under the lock: it rises in the order of the queue
	from := len(q.buf)
	channel, to := p.Channel, p.To
	if to == "" {
		p.Channel = "" // implied by the name that it is published on
	}
	q.buf = packet.Append(q.buf, p)
	q.entries = append(q.entries, entry{channel, to, len(q.buf)})
	q.packets++
	q.bytes += len(q.buf) - from
	q.wake.Ring()
	return nil
}

// tell changes what the sender has to do, and wakes it.
func (q *queue) tell(change func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	change()
	q.wake.Ring()
}

func (q *queue) setDown(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if (err == nil) != (q.down == nil) {
		q.changed = time.Now()
	}
	q.down = err
}

// health returns the bytes that wait, why nothing can be published, or nil, and
// since when that is so.
func (q *queue) health() (bytes int, changed time.Time, down error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes, q.changed, q.down
}

// A sender turns the queue into pipelines. Only its goroutine uses it.
type sender struct {
	*link
	number   uint64                 // of the last frame
	previous recent[uint64, uint64] // hash of a name to the number of its last frame
	seed     maphash.Seed
	conn     *conn     // nil: to be opened
	used     bool      // a connection has accepted frames
	looked   time.Time // when the Cluster was last asked for the slot's server
	groups   []group
	whole    []group        // without copies
	open     map[string]int // channel to its group, to which packets may be added
	next     []int          // by packet: the next packet of its group, or -1
	out      []byte
}

// group is the packets that go into one frame.
type group struct {
	name, channel string
	kind          frameKind
	number        uint64 // of the frame
	first, last   int    // of its packets
	packets       int
	bytes, length int // length is that of the frame in sender.out
}

// send publishes what is queued. New starts it. It ends when the queue is
// closed and empty, or with the mesh, and Close waits for it.
func (l *link) send() {
	select {
	case <-l.decided: // until then, the way to publish is unknown
	case <-l.mesh.ctx.Done():
		return
	}
	s := &sender{link: l, previous: recent[uint64, uint64]{max: maxPrevious}, seed: maphash.MakeSeed(), open: map[string]int{}}
	if l.mesh.cluster != nil {
		s.previous.max = maxPreviousLane
	}
	defer s.hangUp()
	probing := time.NewTicker(probePeriod)
	defer probing.Stop()
	q := &l.queue
	for ticks := 0; ; {
		select {
		case <-q.wake:
		case <-probing.C: // even while Redis is down, so that the sender reconnects by itself
			q.tell(func() { q.probe = true })
			if ticks++; ticks%toldPeriod == 0 {
				l.tellWantsAgain()
			}
			continue
		case <-l.mesh.ctx.Done():
			return
		}
		q.mu.Lock()
		entries, buf, say, last := q.entries, q.buf, news{q.probe, q.wants, q.lossy}, q.closed
		q.entries, q.buf, q.probe, q.wants, q.lossy = nil, nil, false, false, false
		q.mu.Unlock()
		s.sendAll(entries, buf, say)
		if last {
			return
		}
		q.mu.Lock()
		if q.entries == nil && cap(buf) <= 4*batchBytes {
			q.entries, q.buf = entries[:0], buf[:0]
		}
		q.mu.Unlock()
	}
}

// news are what the sender has to say besides packets.
type news struct{ probe, wants, lossy bool }

// sendAll sends in pipelines of bounded size. The news of a loss comes last.
func (s *sender) sendAll(entries []entry, buf []byte, say news) {
	ok, start := true, 0
	for at := 0; at < len(entries) || say != (news{}); {
		s.groups = s.groups[:0]
		n, end := 0, start
		for at+n < len(entries) && n < batchPackets && (n == 0 || entries[at+n].end-start <= batchBytes) {
			end = entries[at+n].end
			n++
		}
		s.group(entries[at:at+n], start)
		s.copies()
		if say.probe {
			s.groups = append(s.groups, group{name: s.own, kind: frameProbe})
		}
		if say.wants {
			s.groups = append(s.groups, group{name: s.all, kind: frameWants})
		}
		say.probe, say.wants = false, false
		if at += n; at == len(entries) && say.lossy {
			s.groups = append(s.groups, group{name: s.all, kind: frameLost})
			say.lossy = false
		}
		s.encode(entries[at-n:at], buf, start)
		unsent := s.groups
		if ok {
			unsent = s.sendBatch()
			ok = len(unsent) == 0 // otherwise Redis is down, and what waits for it is old
		}
		s.drop(unsent)
		s.queue.mu.Lock()
		s.queue.packets -= n
		s.queue.bytes -= end - start
		s.queue.mu.Unlock()
		start = end
	}
}

// drop gives up frames. The peers are told with the next batch.
func (s *sender) drop(groups []group) {
	n, lossy := 0, false
	for _, g := range groups {
		lossy = lossy || g.kind != frameProbe && g.kind != frameWants // which come again
		n += g.packets
	}
	s.mesh.dropped.Add(int64(n))
	s.queue.mu.Lock()
	s.queue.lossy = s.queue.lossy || lossy
	s.queue.mu.Unlock()
}

// group groups packets by channel. A packet to one replica stays alone, and
// later packets of its channel come after it.
func (s *sender) group(entries []entry, start int) {
	clear(s.open)
	s.next = s.next[:0]
	for i, e := range entries {
		size := e.end - start
		start = e.end
		s.next = append(s.next, -1)
		if e.to != "" {
			delete(s.open, e.channel)
			s.groups = append(s.groups, group{name: s.node(e.to), kind: frameMessages, first: i, last: i, packets: 1, bytes: size})
			continue
		}
		if k, ok := s.open[e.channel]; ok && s.groups[k].bytes+size <= frameBytes {
			g := &s.groups[k]
			s.next[g.last] = i
			g.last = i
			g.packets++
			g.bytes += size
			continue
		}
		s.open[e.channel] = len(s.groups)
		s.groups = append(s.groups, group{name: s.name(e.channel), channel: e.channel, kind: frameMessages, first: i, last: i, packets: 1, bytes: size})
	}
}

// encode numbers the frames and writes them into s.out.
func (s *sender) encode(entries []entry, buf []byte, start int) {
	if cap(s.out) > 4*batchBytes {
		s.out = nil
	}
	s.out = s.out[:0]
	var previous uint64
	for i := range s.groups {
		g := &s.groups[i]
		from := len(s.out)
		if g.kind != frameCopy { // which is as the frame before it
			s.number++
			name := maphash.String(s.seed, g.name)
			known := false
			if previous, known = s.previous.get(name); !known && s.previous.forgot {
				previous = forgotten
			}
			if g.kind == frameMessages {
				s.previous.set(name, s.number)
			}
		}
		g.number = s.number
		s.out = appendFrame(s.out, frame{g.kind, s.mesh.life, g.number, previous, s.mesh.replica})
		switch g.kind {
		case frameWants:
			for _, p := range s.mesh.prefixes.tell() {
				s.out = appendText(s.out, p)
			}
		case frameCopy:
			s.out = appendText(s.out, g.channel)
			fallthrough
		case frameMessages:
			for k := g.first; k >= 0; k = s.next[k] {
				from := start
				if k > 0 {
					from = entries[k-1].end
				}
				s.out = append(s.out, buf[from:entries[k].end]...)
			}
		}
		g.length = len(s.out) - from
	}
}

// sendBatch publishes the frames, and retries failures for a while. It returns
// the frames that it gave up.
func (s *sender) sendBatch() []group {
	frames := make([]any, len(s.groups))
	from := 0
	for i, g := range s.groups {
		frames[i] = s.out[from : from+g.length]
		from += g.length
	}
	began, pause := time.Now(), 20*time.Millisecond
	for sent := 0; ; {
		n, err := s.attempt(frames[sent:], s.groups[sent:])
		sent += n
		if n > 0 {
			began, pause = time.Now(), 20*time.Millisecond
		}
		if err == nil {
			s.queue.setDown(nil)
			return nil
		}
		s.queue.setDown(s.explain(err))
		if time.Since(began) > retryFor || !backoff.Pause(s.mesh.ctx, pause) {
			return s.groups[sent:]
		}
		pause = min(2*pause, retryMax)
	}
}

// attempt publishes frames in one pipeline. It returns how many of them are
// done: all up to the last one that Redis accepted. If it fails, it closes the
// connection.
func (s *sender) attempt(frames []any, groups []group) (done int, err error) {
	ctx, cancel := context.WithTimeout(s.mesh.ctx, connectWait) // for connecting; reads and writes have bounds of their own
	defer cancel()
	s.follow(ctx)
	if err := s.dial(ctx); err != nil {
		return 0, err
	}
	done, err = s.pipeline(ctx, frames, groups)
	if err != nil {
		s.hangUp()
		if s.mesh.cluster != nil {
			s.mesh.cluster.ReloadState(ctx) // the slot may have another server now
		}
	}
	return done, err
}

// dial opens a connection if there is none. Frames that the previous connection
// accepted may not have reached subscribers that are at another server by now,
// so the peers get a KindLost.
func (s *sender) dial(ctx context.Context) error {
	if s.conn != nil {
		return nil
	}
	// The first command dials. connect then sends HELLO and checks the role.
	c, err := s.connect(ctx)
	if err != nil {
		return err
	}
	if err := roleIn(hello(ctx, c.client)); err != nil {
		_ = c.client.Close()
		return err
	}
	s.conn = c
	s.sends(c.remote())
	if s.used {
		s.used = false
		s.queue.tell(func() { s.queue.lossy = true })
	}
	return nil
}

// follow closes the connection if another server is the master now, even if the
// old one does not refuse frames.
func (s *sender) follow(ctx context.Context) {
	moved := s.moved.Swap(false)
	if s.conn == nil {
		return
	}
	if s.mesh.cluster != nil && time.Since(s.looked) >= probePeriod {
		s.looked = time.Now()
		now, err := s.server(ctx)
		moved = moved || err == nil && now != s.conn.server
	}
	if moved {
		s.hangUp()
	}
}

func (s *sender) hangUp() {
	if s.conn != nil {
		_ = s.conn.client.Close()
		s.conn = nil
	}
}

func (s *sender) pipeline(ctx context.Context, frames []any, groups []group) (done int, err error) {
	verb := "publish"
	if s.sharded.Load() {
		verb = "spublish"
	}
	pipe := s.conn.client.Pipeline()
	cmds := make([]*redis.IntCmd, len(frames))
	probe, size := -1, 0
	for i := range frames {
		size += groups[i].length
		cmds[i] = redis.NewIntCmd(ctx, verb, groups[i].name, frames[i])
		if groups[i].kind == frameProbe {
			probe = i
			s.probeLeaves(groups[i].number)
		}
		_ = pipe.Process(ctx, cmds[i]) // only queues the command
	}
	var role *redis.MapStringInterfaceCmd
	if probe >= 0 { // once a second: check that it is still the master
		role = hello(ctx, pipe)
	}
	s.conn.allow(size)
	_, execErr := pipe.Exec(ctx)
	failed := func(c *redis.IntCmd) bool { return c.Err() != nil }
	if execErr != nil && !slices.ContainsFunc(cmds, failed) && (role == nil || role.Err() == nil) {
		return 0, execErr // nothing was sent: the server refused the client
	}
	if role != nil && errors.Is(roleIn(role), errReplica) {
		// Frames sent since the last probe may have reached no subscriber.
		s.used = true
		s.fail(errReplica)
		return 0, errReplica
	}
	for i, cmd := range cmds {
		if cmd.Err() == nil {
			done = i + 1
		}
		err = cmp.Or(err, cmd.Err())
	}
	for i, cmd := range cmds[:done] { // resent now, it would come too late and be refused
		if cmd.Err() != nil {
			s.drop(groups[i : i+1])
		}
	}
	s.used = s.used || done > 0
	if probe >= 0 && probe < done && cmds[probe].Err() == nil {
		s.probeTaken(groups[probe].number)
	}
	if done == len(cmds) && (role != nil && roleIn(role) == nil || execErr == nil) {
		return done, nil
	}
	return done, cmp.Or(err, execErr)
}

// errAway is the initial error, before the first connection.
var errAway = errors.New("there is no connection to Redis yet")
