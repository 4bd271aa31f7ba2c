package channels

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"time"
	"unsafe"

	"github.com/channels-go/channels/internal/bell"
	"github.com/channels-go/channels/internal/fanout"
	"github.com/channels-go/channels/mesh"
)

// IDPrefix is what the ids of a hub's clients begin with; their number follows.
func IDPrefix(h *Hub) string { return h.clients.prefix }

// Refusing reports whether a hub refuses new clients. /readyz says no before that:
// Options.DrainDelay is between the two.
func Refusing(h *Hub) bool { return h.refusing.Load() }

// Take hands a hub a packet as its mesh does.
func Take(h *Hub, p mesh.Packet) { h.handlePacket(p) }

// CheckPacket checks one.
func CheckPacket(h *Hub, p mesh.Packet) error { return h.checkPacket(&p, false) }

// FrameSize is what a message takes beside its text.
const FrameSize = unsafe.Sizeof(frame{})

// TinyFrameSize and ShortFrameSize are what a message takes with a text that fits.
const TinyFrameSize, ShortFrameSize = unsafe.Sizeof(tinyFrame{}), unsafe.Sizeof(shortFrame{})

// ChannelSize is what a channel takes, and ChannelHead how far what a publish needs first
// reaches into it.
const (
	ChannelSize = unsafe.Sizeof(channel{})
	ChannelHead = unsafe.Offsetof(channel{}.users) + unsafe.Sizeof(channel{}.users)
)

// OutboxAddress is where the outbox of a new connection begins.
func OutboxAddress() uintptr {
	c := &conn{}
	at := uintptr(unsafe.Pointer(&c.Outbox))
	connections = append(connections, c) // so that each is on the heap
	return at
}

var connections []*conn

// MaxPublisher bounds a Publisher, encoded.
const MaxPublisher = maxPublisher

// EncodePublisher encodes p for the Store and the mesh, and DecodePublisher undoes it.
func EncodePublisher(p *Publisher) ([]byte, error) { return p.encode() }

func DecodePublisher(b []byte) *Publisher { return decodePublisher(b) }

// PacketInfo is the Info of a packet, and TakeTime undoes it.
func PacketInfo(info []byte, at time.Time) []byte { return packetInfo(info, at) }

func TakeTime(info []byte) (at time.Time, rest []byte) {
	p := mesh.Packet{Info: info}
	return takeTime(&p), p.Info
}

// EventsQuery reads the query of a stream of several channels.
func EventsQuery(h *Hub, r *http.Request) (names, patterns []string, since map[string]*Position, last int, err error) {
	q, err := h.eventsQueryOf(r)
	return q.channels, q.patterns, q.since, q.last, err
}

// PositionsID is the id of an event on a stream of channels, and ParsePositions undoes it.
func PositionsID(channels []string, at map[string]Position) string {
	p := newPositions(channels)
	for name, pos := range at {
		p.set(name, pos)
	}
	return string(p.append(nil))
}

func ParsePositions(channels []string, id string) (map[string]*Position, error) {
	return newPositions(channels).parse(id)
}

// Has tells whether a hub has a client that has not been told to go.
func Has(h *Hub, id string) bool {
	for _, c := range h.clients.find(kindClient, id) {
		if ended, _ := c.out.Ended(); !ended {
			return true
		}
	}
	return false
}

// OwnKey is what the Store knows of a key that the app's own code uses.
func OwnKey(m Message, key string) (text, digest string) {
	k := (&Publication{Message: m}).key(key)
	return k.text, k.digest
}

// AllErrors are the errors that clients may see.
func AllErrors() []*Error {
	return []*Error{
		ErrClosed, ErrDraining, ErrStoreUnavailable, ErrMeshUnavailable, ErrTooManyChannels, ErrSlowSubscriber, ErrForbidden,
		ErrExpired, ErrDisconnected, ErrUnsubscribed, ErrInternal, ErrBadChannel, ErrBadMessage, ErrBadUTF8, ErrTooLarge,
		ErrReservedHeader, ErrBadKey, ErrKeyReused, ErrBadQuery, ErrNoHistory, ErrNoPresence,
		errBadJSON, errBinary, errTooSlow, errBadEncoding, errBadHandshake, errUpgrade, errNotHijackable, errNotFlushable, errOverloaded, errNoToken, errBadOrigin, errBadHost,
		errNotFound, errTooManyConnections, errBadMethod,
		ErrNoMethod, errBadFrame, errSubscribed, errTooManySubscriptions, errUnserved, errUnrecoverable, errNoSession,
	}
}

// WithoutIdentity is a request as the hub sees it whose token is due.
func WithoutIdentity(r *http.Request) *http.Request { return withoutIdentity(r) }

// MaxRefusals bounds the refused WebSockets that are told why at a time.
const MaxRefusals = maxRefusals

// Refusals counts them.
func Refusals() int { return int(refusals.Load()) }

// SetGrace is how long bodies and messages may take to come, before the hub serves.
func SetGrace(h *Hub, d time.Duration) { h.unfinished.grace = d }

// Unfinished is what the hub holds of bodies and messages that have not come completely.
func Unfinished(h *Hub) int {
	h.unfinished.mu.Lock()
	defer h.unfinished.mu.Unlock()
	return h.unfinished.total
}

// A Receiver is a session without a transport.
type Receiver struct {
	client
	outbox fanout.Outbox
	more   chan struct{}
}

type receiverOwner Receiver

func (r *receiverOwner) Wake() {
	select {
	case r.more <- struct{}{}:
	default:
	}
}

func (r *receiverOwner) Kill(err error) { r.outbox.Abandon(err); r.Wake() }

// Arrive is a new connection of the client protocol. identity is what the app's
// middleware says of it, or nil.
func Arrive(h *Hub, identity *Identity, protobuf bool) *Receiver {
	r := &Receiver{more: make(chan struct{}, 1)}
	as := fanout.ClientLines
	if protobuf {
		as = fanout.ClientDelimited
	}
	r.outbox.Init(h.fan, (*receiverOwner)(r), as)
	if err := h.admission.admit(""); err != nil {
		panic(err)
	}
	info := Client{ID: h.clients.newID(), Transport: "test"}
	if identity != nil {
		info.Identity = *identity
	}
	h.initClient(&r.client, &r.outbox, "", info)
	r.beginSession()
	r.session.known = identity != nil
	h.clients.expect(&r.client)
	h.clients.await(&r.client)
	return r
}

// ID is the connection's.
func (r *Receiver) ID() string { return r.info.ID }

// An Opening is what a subscription begins with.
type Opening struct {
	Messages []Message
	From, At Position
	Reason   string
}

// SubscribeOpening is Hub.Subscribe for who gets the first messages in one piece.
func SubscribeOpening(ctx context.Context, h *Hub, channel string, since *Position, last int) (*Subscription, Opening, error) {
	ch, err := h.use(channel, true)
	if err != nil {
		return nil, Opening{}, err
	}
	s := &Subscription{signal: bell.New(), done: make(chan struct{}), ctx: ctx}
	s.outbox.Init(h.fan, (*subscriptionOwner)(s), fanout.Values)
	h.initClient(&s.client, &s.outbox, channel, Client{ID: h.clients.newID(), Transport: transportGo})
	in, entered := s.enter(ctx)
	o, err := ch.open(in, s.subs.first, start{since: since, last: last, named: true})
	entered()
	if err != nil {
		ch.release()
		return nil, Opening{}, s.turnAway(err)
	}
	s.subs.settle(s.subs.first)
	s.reached(&o.at)
	s.subs.first.follow(&o)
	s.admit()
	s.stop = context.AfterFunc(ctx, s.close)
	return s, Opening{o.messages, o.from, o.at, o.reason}, nil
}

// Send is a frame of the client's.
func (r *Receiver) Send(frame string) error {
	r.alive.Store(true)
	if ended, _ := r.outbox.Ended(); ended {
		return nil
	}
	defer r.outbox.Flush()
	return r.session.take([]byte(frame))
}

// Leave ends the connection, and returns what was still to be read, and whether it had
// ended before.
func (r *Receiver) Leave() (rest []byte, ended bool) {
	r.session.entering.Wait()
	for {
		var buf []byte
		frames := r.outbox.Take(nil)
		if len(frames) == 0 {
			break
		}
		b, _ := r.outbox.Join(&buf, frames)
		rest = append(rest, b...)
	}
	ended, _ = r.outbox.Ended()
	r.leave()
	r.outbox.Abandon(nil)
	r.gone(nil)
	return rest, ended
}

// Encoded is what waits to be read, if it is one frame: the bytes that it shares with
// other receivers.
func (r *Receiver) Encoded() []byte {
	var buf []byte
	b, _ := r.outbox.Join(&buf, r.outbox.Take(nil))
	return b
}

// Read waits for what comes next, as lines. It returns false when the connection has
// ended and left the hub, with why it has.
func (r *Receiver) Read() (text string, cause error, ok bool) {
	for {
		var buf []byte
		ended, _ := r.outbox.Ended()
		frames := r.outbox.Take(nil)
		if len(frames) == 0 && !ended {
			<-r.more
			continue
		}
		b, last := r.outbox.Join(&buf, frames)
		if last || len(frames) == 0 {
			_, cause := r.outbox.Ended()
			r.leave()
			r.session.entering.Wait()
			r.outbox.Abandon(nil)
			r.gone(cause)
			return string(b), cause, false
		}
		return string(b), nil, true
	}
}

// Observed is a step in which nothing happens.
func Observed(ctx context.Context, h *Hub) {
	var step observed
	if by := h.observers.Load(); by != nil {
		ctx, step = by.begin(ctx, Step{Kind: StepRelay, Channel: "c"})
	}
	step.end(ctx, nil)
}

// ComingContext is the context of a client that is being let in, and what ends it.
func ComingContext(request context.Context) (ctx context.Context, end func()) {
	c := &coming{Context: request}
	return c, c.end
}

// Routes are the hub's endpoints.
func Routes() []string { return slices.Sorted(maps.Keys(endpoints)) }

// Waits returns how many users a hub waits for in their grace, and how many names it
// knows of that it holds or is about to release.
func Waits(h *Hub) (graces, holds int) {
	h.graces.mu.Lock()
	defer h.graces.mu.Unlock()
	h.holds.mu.Lock()
	defer h.holds.mu.Unlock()
	return len(h.graces.heap), len(h.holds.all)
}

// Switch is the hub's answer to a handshake, up to the headers of others.
func Switch(r *http.Request, protocols ...string) string {
	return string(appendSwitch(nil, r, chosen(r, protocols), offersDeflate(r)))
}

// CheckHandshake checks the request of one.
func CheckHandshake(w http.ResponseWriter, r *http.Request) error { return checkHandshake(w, r) }

// Untold returns how many entries wait for the next calls of the Store's Hold.
func Untold(h *Hub) int {
	h.holds.mu.Lock()
	defer h.holds.mu.Unlock()
	return len(h.holds.queue)
}

// Pings has the turns in which one WebSocket is pinged.
type Pings struct {
	Stuck bool // nothing is written

	out    fanout.Outbox
	table  clientTable
	client client
	on     channel
	woken  bool
	cut    bool
}

// NewPings returns those of a client whose turn comes at the end of each period.
func NewPings(period time.Duration) *Pings {
	p := &Pings{}
	e := fanout.New(fanout.Config{QueueBytes: 1 << 20})
	p.on.group = e.Group()
	p.out.Init(e, p, fanout.WebSocket)
	p.client.init(nil, &p.out, "")
	p.client.info = Client{ID: "c", Transport: transportWebSocket}
	p.table.init("r", period)
	p.table.expect(&p.client)
	p.table.add(&p.client)
	return p
}

// Wake and Kill are the outbox's.
func (p *Pings) Wake()      { p.woken = true }
func (p *Pings) Kill(error) { p.cut = true }

// Message sends the client a message, Pinged answers a ping of its own, and Answers is a
// sign of life.
func (p *Pings) Message() {
	p.out.Send(&newMessageFrame(&p.on, Message{Header: "m", Body: []byte("1")}).Frame, fanout.Close)
}
func (p *Pings) Pinged()  { p.out.Send(fanout.NewPong(nil), fanout.Close) }
func (p *Pings) Answers() { p.client.alive.Store(true) }

// Turn is a tenth of a second. It returns what is written then, each time as its first
// byte, and whether the client is cut.
func (p *Pings) Turn() (written []byte, cut bool) {
	p.table.pingSome()
	for p.woken && !p.Stuck {
		frames := p.out.Take(nil)
		p.woken = len(frames) > 0
		for _, f := range frames {
			written = append(written, f.Bytes(fanout.WebSocket)[0])
		}
	}
	return written, p.cut
}

// PingAll pings all WebSockets. Their turns do not come for it.
func PingAll(h *Hub) {
	for _, c := range conns(h) {
		c.alive.Store(false)
		c.Send(fanout.Ping, fanout.Close)
	}
}

// Live asks as the next turn does whether all WebSockets have given a sign of life.
func Live(h *Hub) bool {
	return !slices.ContainsFunc(conns(h), func(c *conn) bool { return !c.lives() })
}

// Received is how many bytes all WebSockets have sent.
func Received(h *Hub) (bytes int64) {
	for _, c := range conns(h) {
		bytes += c.received.bytes.Load()
	}
	return bytes
}

// Descriptors calls f with the descriptor of each WebSocket.
func Descriptors(h *Hub, f func(fd uintptr)) {
	for _, c := range conns(h) {
		c.RawConn().Control(f)
	}
}

func conns(h *Hub) (all []*conn) {
	h.clients.mu.Lock()
	defer h.clients.mu.Unlock()
	for _, c := range h.clients.byID {
		if c.info.Transport == transportWebSocket {
			all = append(all, (*conn)(unsafe.Pointer(c))) // the client is its first field
		}
	}
	return all
}

// FanOutTouches is where the part of a connection's own subscription is that each message
// looks at, and how long that is.
func FanOutTouches() (at, size uintptr) {
	c := &conn{}
	connections = append(connections, c)
	s := &c.subs.one
	return uintptr(unsafe.Pointer(s)), unsafe.Offsetof(s.client) + unsafe.Sizeof(s.client)
}
