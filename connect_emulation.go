package channels

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/channels-go/channels/internal/clientproto"
	"github.com/channels-go/channels/mesh"
)

// serveEmulation is POST /emulation: a frame of commands for a session that has only a
// stream down. The load balancer may bring it to any replica, so it names the session's.
// Who knows the session's key is its client. The answer does not say whether there is
// such a session, which another replica may have: that, and what became of the commands,
// comes on the stream.
func (h *Hub) serveEmulation(w http.ResponseWriter, r *http.Request, _ string, _ url.Values) error {
	format := formatOf(sendsProtobuf(r))
	most := h.opts.batchBytes()
	bound := most + envelopeBytes
	if format == clientproto.JSON {
		bound += most // the frame is a text, and most of what it quotes is escaped
	}
	err := h.body(w, r, bound, func(b []byte) error {
		req, err := clientproto.ReadEmulation(b, format)
		switch {
		case err != nil:
			return ErrBadMessage.saying("this is not a request of the client protocol's emulation, {session, node, data}: %v", err)
		case len(req.Data) > most:
			return ErrTooLarge.saying("the frame of commands has more than %d bytes; "+sendLess, most)
		case !h.calls.Enter():
			return ErrClosed
		}
		defer h.calls.Leave()
		if req.Node == h.opts.ReplicaID {
			return h.bring(r.Context(), req)
		}
		return h.forward(r.Context(), req)
	})
	if err != nil {
		return err
	}
	boundAnswer(w, h.opts.WriteTimeout)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// bring hands a session here its commands. It waits while too many wait already.
func (h *Hub) bring(ctx context.Context, req *clientproto.EmulationRequest) error {
	s := h.streamed.find(req.Session)
	if s == nil {
		return nil
	}
	frame := bytes.Clone(req.Data)
	full := s.receive(frame)
	if full == nil {
		return nil
	}
	defer s.waiting.Add(-1)
	if s.waiting.Add(1) > maxWaiting { // each holds its frame
		return errOverloaded.saying("too many requests wait for this session already; try again later")
	}
	timeout := time.NewTimer(roomTimeout)
	defer timeout.Stop()
	for full != nil {
		select {
		case <-full:
			full = s.receive(frame)
		case <-ctx.Done():
			return errGone
		case <-timeout.C:
			return errOverloaded.saying("the commands that came before take too long; try again later")
		}
	}
	return nil
}

const (
	// roomTimeout is how long a request may wait for those before it.
	roomTimeout = 10 * time.Second
	// maxWaiting bounds the requests of one session that wait for room.
	maxWaiting = 8
)

// forward passes commands on to the replica that has their session. Only that replica
// knows whether there is such a session, so what strangers can have this one send is
// bounded.
func (h *Hub) forward(ctx context.Context, req *clientproto.EmulationRequest) error {
	switch {
	case h.mesh == nil || !h.others.knows(req.Node, h.mesh.Status()):
		return errNoSession
	case len(req.Session) > maxSessionKey:
		return nil // which no session has
	}
	if l, ok := h.mesh.(mesh.Limiter); ok && len(req.Data) > l.MaxBody() {
		return ErrTooLarge.saying("the frame of commands has more than the %d bytes that one replica can send another; send less at once", l.MaxBody())
	}
	if size := int64(len(req.Data)) + forwardCost; h.forwarded.Add(size) > max(maxForwarded, 2*int64(h.opts.batchBytes())) {
		return errOverloaded.saying("too many commands come to this replica for sessions on others; try again later")
	}
	ctx, cancel := context.WithTimeout(ctx, canaryPeriod)
	defer cancel()
	p := mesh.Packet{Kind: mesh.KindControl, To: req.Node, Header: controlCommands, Sender: req.Session, Body: req.Data}
	if err := h.guard("the mesh", func() error { return h.mesh.Publish(ctx, p) }); err != nil {
		return ErrMeshUnavailable.because(err)
	}
	return nil
}

const (
	// maxForwarded bounds what is passed on within a second, in bytes. Each frame
	// counts as forwardCost more.
	maxForwarded = 16 << 20
	forwardCost  = 1 << 10
	// maxSessionKey bounds the keys of sessions. This version's have 26 bytes.
	maxSessionKey = 128
)

// takeCommands takes what another replica has passed on for a session here. It never
// waits.
func (h *Hub) takeCommands(p mesh.Packet) {
	s := h.streamed.find(p.Sender)
	if s == nil || len(p.Body) > h.opts.batchBytes() {
		return // its stream has ended, which the client sees
	}
	if s.receive(bytes.Clone(p.Body)) != nil {
		s.session.end(endSlow, errTooSlow.saying("the client sends commands faster than they can be carried out"))
	}
}

// A streamTable has the sessions whose commands come beside a stream, by their keys.
// All its methods may be called concurrently.
type streamTable struct {
	mu    sync.Mutex // guards byKey
	byKey map[string]*stream
}

func (t *streamTable) add(s *stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byKey[s.session.key] = s
}

func (t *streamTable) remove(s *stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byKey, s.session.key)
}

// find returns the session with a key, or nil.
func (t *streamTable) find(key string) *stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byKey[key]
}

// receive queues a frame of the client's, and has a goroutine take what is queued if
// there is none yet. If there is no room, it returns a channel that is closed when there
// may be some.
func (s *stream) receive(frame []byte) (full <-chan struct{}) {
	start, full := s.up.add(frame)
	if full != nil {
		return full
	}
	s.received.bytes.Add(int64(len(frame)))
	s.alive.Store(true)
	if start && !s.hub.fan.Conns.Run(s.takeAll) { // shut down meanwhile
		s.up.stop()
	}
	return nil
}

// takeAll takes what is queued. Its goroutine is one of the fan-out's Conns, and ends
// when nothing is left.
func (s *stream) takeAll() {
	for frame, ok := s.up.next(); ok; frame, ok = s.up.next() {
		if ended, _ := s.Ended(); ended { // a client that was told to go does no more
			continue
		}
		err := s.hub.guard("a connection", func() error { return s.takeOne(frame) })
		if errors.As(err, new(*panicked)) {
			s.End(farewell(ErrInternal, closeInternal), err, true)
		}
		s.Flush()
	}
}

func (s *stream) takeOne(frame []byte) error {
	if s.session.format == clientproto.JSON && !utf8.Valid(frame) {
		s.session.end(endBadRequest, errBadFrame.saying("the frame is not UTF-8"))
		return nil
	}
	return s.session.take(frame)
}

// An upstream holds the frames that have come for a session and wait for those before
// them. All its methods may be called concurrently.
type upstream struct {
	limit int            // in bytes
	idle  sync.WaitGroup // one while a goroutine takes the frames

	mu     sync.Mutex // guards the fields below
	frames [][]byte
	bytes  int
	taking bool
	closed bool
	room   chan struct{} // not nil while somebody waits for room
}

// upCost is about what a frame that waits costs besides its bytes.
const upCost = 128

func newUpstream(limit int) *upstream { return &upstream{limit: limit} }

// add queues a frame. With start, the caller has a goroutine call next until there is
// nothing more, or calls stop. If there is no room, full is closed when there may be some.
func (u *upstream) add(frame []byte) (start bool, full <-chan struct{}) {
	u.mu.Lock()
	defer u.mu.Unlock()
	cost := len(frame) + upCost
	switch {
	case u.closed:
		return false, nil
	case u.bytes > 0 && u.bytes+cost > u.limit:
		if u.room == nil {
			u.room = make(chan struct{})
		}
		return false, u.room
	}
	u.frames = append(u.frames, frame)
	u.bytes += cost
	if start = !u.taking; start {
		u.taking = true
		u.idle.Add(1)
	}
	return start, nil
}

// next returns the frame that came first. If there is none, the caller's turn is over.
func (u *upstream) next() (frame []byte, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.frames) == 0 {
		u.stopLocked()
		return nil, false
	}
	frame = u.frames[0]
	u.frames[0] = nil
	if u.frames = u.frames[1:]; len(u.frames) == 0 {
		u.frames = nil // an idle session keeps little
	}
	u.bytes -= len(frame) + upCost
	u.roomLocked()
	return frame, true
}

// stop ends the caller's turn.
func (u *upstream) stop() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stopLocked()
}

func (u *upstream) stopLocked() {
	u.taking = false
	u.idle.Done()
}

func (u *upstream) roomLocked() {
	if u.room != nil {
		close(u.room)
		u.room = nil
	}
}

// close forgets what waits, and waits for the frame that is being taken.
func (u *upstream) close() {
	u.mu.Lock()
	u.closed, u.frames, u.bytes = true, nil, 0
	u.roomLocked()
	u.mu.Unlock()
	u.idle.Wait()
}
