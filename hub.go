package channels

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/channels-go/channels/internal/sparingly"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/store"
)

// A Hub holds the channels of one process and their subscribers. All its
// methods may be called by many goroutines at the same time.
//
// The way of a message: Publish checks it and asks the hooks; where the
// channel keeps history, the Store gives it a position; it goes to the mesh
// and to the channel's local subscribers, encoded once (frame.go). The
// channel puts what has positions in order (order.go) and queues the frame in
// each subscriber's outbox; writers (writer.go) drain the outboxes.
type Hub struct {
	opts  Options
	log   *slog.Logger
	store store.Store
	owned bool      // the store is the hub's own to close
	mesh  mesh.Mesh // nil in one process
	// discoverer is the mesh, where the hub has to tell it of its peers.
	discoverer mesh.Discoverer

	channels   channelTable
	clients    clientTable
	writers    []*writer
	spread     atomic.Uint32 // deals connections to writers
	report     reporter
	stats      counters
	queued     queuedBytes
	answering  atomic.Int64 // what of that are long answers
	admission  admission
	losses     losses
	unfinished unfinished
	vitals     vitals
	around     neighbours
	echoes     chan echo
	heartbeat  *frame // for those who want to see one
	taps       taps
	started    time.Time
	storeBad   atomic.Bool // the last report failed
	reported   atomic.Bool // there was a report
	// storeWarned is when a failing store was logged last, by uptime; 0 where
	// it has not been since it was well.
	storeWarned atomic.Int64
	apartWarned atomic.Bool
	meshWarned  sparingly.Turn // of a mesh that takes no messages
	twinWarned  sparingly.Turn // of another replica with this one's name
	badWarned   sparingly.Turn // of packets that are no messages
	entryWarned sparingly.Turn // of what the Store has and is none
	// Of a browser that was refused.
	hostWarned, originWarned sparingly.Turn
	foreign                  sync.Map // the types of ResponseWriters that were logged: see canStream
	// unfinishedWarned is when it was logged last that senders had to make way, by
	// uptime; the tick's alone.
	unfinishedWarned int64

	leaving  atomic.Bool   // not ready for newcomers any more
	hurry    chan struct{} // closed by skipDelay
	draining atomic.Bool   // nobody becomes a client any more
	// skipDelay ends Options.DrainDelay, now or in advance. It may be repeated.
	skipDelay func()

	calls gate // calls of the API that are under way
	tasks gate // goroutines that read from the store for subscribers
	conns gate // goroutines that belong to a connection
	loops gate // the hub's own goroutines
	// ctx ends with the hub; calls to the store and the mesh derive from it.
	ctx  context.Context
	stop context.CancelFunc

	shutdown    sync.Once
	down        chan struct{} // closed when all has ended
	shutdownErr error         // valid then
}

// New starts a hub. It refuses options that contradict each other. Shutdown
// frees what it holds.
func New(o Options) (*Hub, error) {
	o.setDefaults()
	o.AllowedOrigins, o.Hosts = slices.Clone(o.AllowedOrigins), slices.Clone(o.Hosts)
	if err := o.check(); err != nil {
		return nil, err
	}
	h := &Hub{opts: o, log: o.Logger, store: o.Store, mesh: o.Mesh, started: time.Now(), echoes: make(chan echo, maxEchoes), down: make(chan struct{}), hurry: make(chan struct{})}
	h.skipDelay = sync.OnceFunc(func() { close(h.hurry) })
	h.log = h.log.With("node", o.Node)
	h.discoverer, _ = o.Mesh.(mesh.Discoverer)
	h.losses.wake = make(chan struct{}, 1)
	h.vitals.reported = h.started
	h.unfinished = unfinished{limit: o.MaxUnfinishedBytes, grace: unfinishedGrace, claims: make(map[*claim]struct{})}
	if h.store == nil {
		m, err := store.NewMemory(store.MemoryOptions{})
		if err != nil {
			return nil, fmt.Errorf("channels: %w", err)
		}
		h.store, h.owned = m, true
	}
	h.ctx, h.stop = context.WithCancel(context.Background())
	h.clients.init(o.Node, o.PingPeriod)
	h.heartbeat = newHeartbeatFrame(o.PingPeriod)
	h.report.full = true // the store knows nothing of us yet
	h.writers = make([]*writer, runtime.GOMAXPROCS(0))
	for i := range h.writers {
		h.writers[i] = newWriter(h)
		h.loops.run(h.writers[i].run)
	}
	h.loops.run(h.tick)
	h.loops.run(h.reportEachSecond)
	if h.mesh != nil {
		h.loops.run(h.receive)
		h.loops.run(h.pulse)
	}
	h.loops.run(h.watchTops)
	return h, nil
}

// PublishOptions change how one message is published.
type PublishOptions struct {
	// Key makes repeating a publish safe: within 5 minutes, a message with
	// the same key on the same channel is not published again, and the
	// answer is that of the first. 1 to 200 bytes, printable ASCII. Only for
	// channels with history. The app's own Go code, each user, and all who
	// have no Identity.ID together, have keys of their own. With another
	// header or body (before OnPublish), the same key is ErrKeyReused.
	Key string
	// Local reaches this replica's subscribers only, and is not stored.
	Local bool
	// Except is the id of a connection that does not get the message: the
	// sender's, where it needs no echo. After a fault, when the message has to
	// be read from the Store, it may get it all the same.
	Except string
}

// keyTTL is how long idempotency keys are remembered.
const keyTTL = 5 * time.Minute

// Result is what happened to a published message.
type Result struct {
	Position  Position // zero where the channel keeps no history
	Stored    bool     // it is in the Store
	Duplicate bool     // its key was seen: nothing was published, Position is the first one's
	Receivers int      // subscribers on this replica whose queues it went to
}

// Publish sends a message to all subscribers of a channel, on all replicas.
// It does not keep or change m.Body. The app's own Go code is trusted: it is
// not asked for authorisation, but the OnPublish hook sees its messages.
//
// The errors are [ErrBadChannel], [ErrBadMessage], [ErrBadUTF8], [ErrTooLarge],
// [ErrReservedHeader], [ErrBadKey], [ErrKeyReused], [ErrNoHistory] (a key on a channel without
// history), [ErrStoreUnavailable], [ErrMeshUnavailable],
// [ErrInternal] (Options.Channel contradicts itself, or a hook panicked),
// [ErrClosed], the context's, and what OnPublish returns. After ErrStoreUnavailable a message
// may have been stored all the same (the answer was lost): repeat it with a Key.
func (h *Hub) Publish(ctx context.Context, channel string, m Message, opts ...PublishOptions) (Result, error) {
	var o PublishOptions
	switch len(opts) {
	case 0:
	case 1:
		o = opts[0]
	default:
		return Result{}, ErrBadMessage.saying("Publish takes one PublishOptions, not %d", len(opts))
	}
	body, err := checkBody(m.Body, h.opts.MaxMessageBytes)
	if err != nil {
		return Result{}, err
	}
	m.Body = body
	if h.opts.OnPublish != nil { // which may change it
		m.Body = append([]byte(nil), body...)
	}
	return h.publish(ctx, Publication{Channel: channel, Message: m}, o)
}

// publish is behind every way to publish. The body is valid; it is not kept.
func (h *Hub) publish(ctx context.Context, p Publication, o PublishOptions) (Result, error) {
	if !h.calls.enter() {
		return Result{}, ErrClosed
	}
	defer h.calls.leave()
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	if err := h.checkPublication(&p, o); err != nil {
		return Result{}, err
	}
	ch := h.channels.use(p.Channel)
	if ch != nil {
		defer ch.release()
	}
	// Who may not publish makes no channel either.
	candidate := ch
	if ch == nil {
		var err error
		if candidate, err = h.newChannel(p.Channel); err != nil {
			return Result{}, err
		}
	}
	if p.allowed && p.Identity.expired() { // while the message came
		return Result{}, ErrExpired
	}
	if p.Network && !p.allowed {
		if err := h.mayPublish(ctx, candidate.opts, &p); err != nil {
			return Result{}, err
		}
	}
	if o.Key != "" && (candidate.opts.HistorySize == 0 || o.Local) {
		return Result{}, ErrNoHistory.saying("an idempotency key needs a channel with history, and a message that is not Local; this is not so on %q", p.Channel)
	}
	var key ownKey
	if o.Key != "" {
		key = p.key(o.Key) // of what was sent, which OnPublish may change
	}
	if h.opts.OnPublish != nil {
		if err := h.onPublish(ctx, &p); err != nil {
			return Result{}, err
		}
	}
	kept := true
	if ch == nil {
		var err error
		if ch, err = h.put(candidate); err != nil {
			// The channels in use fill the table, so nobody here is subscribed
			// to this one: what is lost is its number of publishes.
			ch, kept = candidate, false
		} else {
			defer ch.release()
		}
	}
	m := Message{Header: p.Message.Header, Body: p.Message.Body}
	if max := ch.opts.MaxMessageBytes; max > 0 && len(m.Body) > max {
		return Result{}, ErrTooLarge.saying("a message on %q has at most %d bytes, this body has %d; "+sendLess, p.Channel, max, len(m.Body))
	}

	var res Result
	var err error
	if ch.opts.HistorySize > 0 && !o.Local {
		if res, err = h.append(ctx, ch, &m, key); err != nil {
			return res, err
		}
		if res.Duplicate {
			h.passAgain(ctx, ch, res.Position)
			return res, nil
		}
	}
	h.stats.published.Add(1)
	if kept && ch.countPublish() {
		f := newMessageFrame(ch, m)
		f.except = o.Except
		if res.Stored {
			res.Receivers = ch.arrive(f)
		} else {
			res.Receivers = ch.deliver(f)
		}
	}
	h.taps.pass(p.Channel, m.Header, m.Body)
	var meshErr error
	if h.mesh != nil && !o.Local {
		meshErr = h.mesh.Publish(ctx, mesh.Packet{Kind: mesh.KindMessage, Channel: p.Channel, Header: m.Header, Body: m.Body,
			Epoch: m.Position.Epoch, Offset: m.Position.Offset, Sender: o.Except})
	}
	if h.stats.pressed.Load() && h.stats.pressed.Swap(false) {
		// A queue is more than half full. Where processors are few, a busy
		// publisher keeps the writers from running: let them.
		runtime.Gosched()
	}
	if meshErr != nil {
		if !res.Stored {
			return res, ErrMeshUnavailable.because(meshErr)
		}
		// It is in the Store, where the other replicas will find it.
		h.warnMesh(p.Channel, meshErr)
	}
	return res, nil
}

// append gives the message its position.
func (h *Hub) append(ctx context.Context, ch *channel, m *Message, key ownKey) (Result, error) {
	ctx, cancel := h.storeContext(ctx)
	defer cancel()
	pos, dup, err := h.store.Append(ctx, ch.name, store.Entry{Header: m.Header, Body: m.Body}, store.AppendOptions{
		Size: ch.opts.HistorySize, TTL: ch.opts.HistoryTTL, Key: key.text, KeyTTL: keyTTL, Digest: key.digest})
	if errors.Is(err, store.ErrKeyReused) {
		return Result{}, ErrKeyReused
	}
	if err != nil {
		h.warnStore(err)
		// It may have been stored, and only the answer was lost: then the
		// subscribers are to have it.
		ch.mu.Lock()
		ch.fillLocked(toTop)
		ch.mu.Unlock()
		return Result{}, ErrStoreUnavailable.because(err)
	}
	m.Position = Position(pos)
	return Result{Position: m.Position, Stored: true, Duplicate: dup}, nil
}

// passAgain passes on the message that a key stands for, whose first publisher
// may have died, or lost the answer, between the Store and the subscribers.
// Those who have it see by its position that it came twice. It is read from the
// Store: the repetition may differ.
func (h *Hub) passAgain(ctx context.Context, ch *channel, at Position) {
	ctx, cancel := h.storeContext(ctx)
	defer cancel()
	page, err := h.readLog(ctx, ch.name, store.Query{After: at.Offset - 1, Limit: 1})
	if err != nil {
		h.warnStore(err) // the others find it by its position, in a few seconds
		return
	}
	if page.Top.Epoch != at.Epoch || len(page.Entries) == 0 || page.Entries[0].Offset != at.Offset {
		return // no longer kept
	}
	e := &page.Entries[0]
	ch.arrive(ch.encode(at.Epoch, e))
	if h.mesh == nil {
		return
	}
	err = h.mesh.Publish(ctx, mesh.Packet{Kind: mesh.KindMessage, Channel: ch.name, Header: e.Header, Body: e.Body, Epoch: at.Epoch, Offset: at.Offset})
	if err != nil {
		h.warnMesh(ch.name, err)
	}
}

// maxKeyBytes is the longest idempotency key.
const maxKeyBytes = 200

func (h *Hub) checkPublication(p *Publication, o PublishOptions) error {
	if err := CheckName(p.Channel); err != nil {
		return err
	}
	if err := checkHeader(p.Message.Header); err != nil {
		return err
	}
	if len(o.Key) > maxKeyBytes || strings.ContainsFunc(o.Key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ErrBadKey.saying("an idempotency key has 1 to 200 characters of printable ASCII without spaces, not %.210q", o.Key)
	}
	return nil
}

// mayPublish asks whether somebody from the network may publish on a channel
// with these options, whatever the message is.
func (h *Hub) mayPublish(ctx context.Context, opts ChannelOptions, p *Publication) error {
	switch opts.Publishers {
	case PublishersServer:
		return ErrForbidden.saying("only the server publishes on %q", p.Channel)
	case PublishersIdentified:
		if p.Identity.ID == "" {
			return ErrForbidden.saying("%q takes messages from identified users only", p.Channel)
		}
	}
	return h.authorize(ctx, Request{Action: ActionPublish, Channel: p.Channel, Identity: p.Identity, Client: p.Client})
}

func (h *Hub) onPublish(ctx context.Context, p *Publication) error {
	before := p.Channel
	if err := h.guard("OnPublish", func() error { return h.opts.OnPublish(ctx, p) }); err != nil {
		if !p.Network {
			return err
		}
		return h.refusal("OnPublish", err)
	}
	p.Channel = before // it was authorised for this one
	if err := checkHeader(p.Message.Header); err != nil {
		return err
	}
	body, err := checkBody(p.Message.Body, h.opts.MaxMessageBytes)
	p.Message.Body = append([]byte(nil), body...)
	return err
}

// use returns a channel, made where it was not there, and keeps it until release.
// Who is trusted is never told that there are too many.
func (h *Hub) use(name string, trusted bool) (*channel, error) {
	if ch := h.channels.use(name); ch != nil {
		return ch, nil
	}
	ch, err := h.newChannel(name)
	if err != nil {
		return nil, err
	}
	kept, err := h.put(ch)
	if err != nil && trusted {
		return h.channels.put(ch), nil
	}
	return kept, err
}

// put makes a new channel one of the hub's, or returns the one that has come
// before it; in use, until release. Where there are as many as may be, the one
// that was published on longest ago and has no subscribers makes way.
func (h *Hub) put(ch *channel) (*channel, error) {
	if int(h.channels.n.Load()) >= h.opts.MaxChannels && !h.channels.makeWay(h.uptime()) {
		return nil, ErrTooManyChannels
	}
	return h.channels.put(ch), nil
}

// optionsOf returns a channel's options. Who only reads makes no channel.
func (h *Hub) optionsOf(name string) (ChannelOptions, error) {
	ch := h.channels.use(name)
	if ch != nil {
		defer ch.release()
		return ch.opts, nil
	}
	ch, err := h.newChannel(name)
	if err != nil {
		return ChannelOptions{}, err
	}
	return ch.opts, nil
}

func (h *Hub) newChannel(name string) (*channel, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	ch := &channel{hub: h, name: strings.Clone(name)}
	err := h.guard("Options.Channel", func() error { ch.opts = h.opts.Channel(name); return nil })
	if err != nil {
		return nil, err
	}
	if err := ch.opts.check(h.opts.MaxMessageBytes); err != nil {
		h.log.Error("Options.Channel contradicts itself, so the channel cannot be used", "channel", name, "err", err)
		return nil, ErrInternal.because(fmt.Errorf("channel %q: %w", name, err))
	}
	if ch.opts.Presence != PresenceOff {
		ch.members = make(map[string]Member)
	}
	return ch, nil
}

// guard calls the app's code and turns a panic into an error, with the stack
// in the log.
func (h *Hub) guard(name string, f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			h.log.Error("panic in "+name, "panic", r, "stack", string(debug.Stack()))
			err = &panicked{ErrInternal.because(fmt.Errorf("panic in %s: %v", name, r))}
		}
	}()
	return f()
}

// receive passes on what other replicas publish, until the hub is shut down.
func (h *Hub) receive() {
	backoff := newBackoff()
	for h.ctx.Err() == nil {
		err := h.mesh.Receive(h.ctx, h.take)
		if h.ctx.Err() != nil {
			return
		}
		h.log.Error("mesh: receive", "err", err)
		if !backoff.wait(h.ctx) {
			return
		}
	}
}

// take handles one packet from another replica. It never waits.
func (h *Hub) take(p mesh.Packet) {
	header := p.Header
	switch p.Kind {
	case mesh.KindMessage:
	case mesh.KindPresence:
		header = headerPresence
	case mesh.KindControl:
		h.takeControl(p)
		return
	case mesh.KindLost:
		h.lost(p.Channel)
		return
	default:
		return // of a later version
	}
	ch := h.channels.use(p.Channel)
	if ch != nil {
		defer ch.release()
	}
	if err := h.checkPacket(&p, ch != nil); err != nil {
		h.badPacket(&p, err)
		return
	}
	if p.Kind == mesh.KindMessage {
		h.taps.pass(p.Channel, header, p.Body)
	}
	if ch == nil {
		return // nobody here is subscribed any more
	}
	m := Message{Header: header, Body: p.Body, Position: Position{p.Epoch, p.Offset}}
	if ch.opts.HistorySize == 0 {
		m.Position = Position{} // its history is not known here, as while replicas get new options in turn
	}
	f := newMessageFrame(ch, m)
	f.except = p.Sender
	if m.Position.Offset > 0 {
		h.warnApart(p.Channel, p.Origin)
		ch.arrive(f)
	} else {
		ch.deliver(f)
	}
}

// uptime is the hub's clock in seconds, which nobody sets back or forward.
func (h *Hub) uptime() int64 { return int64(time.Since(h.started) / time.Second) }

// storeContext bounds a call of the store.
func (h *Hub) storeContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, h.opts.StoreTimeout)
}

// background runs f as a task of the hub; false where it is shut down.
func (h *Hub) background(f func()) bool { return h.tasks.run(f) }

// Handler serves the endpoints that the package's documentation lists. It may
// be mounted at "/" or, with http.StripPrefix, below any path.
func (h *Hub) Handler() http.Handler { return http.HandlerFunc(h.serve) }

// randomID returns 13 lower-case letters and digits, unique with 64 bits.
func randomID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}
