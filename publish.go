package channels

import (
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"strings"

	"github.com/channels-go/channels/internal/fanout"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/store"
)

// The way of a message from its publisher: Hub.publish has the steps in order.
// receive.go has the way of a message that another replica published.

// PublishOptions change how one message is published.
type PublishOptions struct {
	// Key makes it safe to repeat a publish: for 5 minutes, a message with
	// the same key on the same channel is not published again, and the answer
	// is that of the first. 1 to 200 bytes of printable ASCII. Only for
	// channels with history. The app's own Go code has keys of its own, and so
	// has each user; all users without an Identity.ID share theirs. The same
	// key with another header or body (before OnPublish) is ErrKeyReused.
	Key string
	// Local reaches this replica's subscribers only. The message is not stored.
	Local bool
	// Except is the id of a connection that does not get the message: usually
	// the sender's, if it needs no echo. It may still get the message if that
	// has to be read from the Store after a fault.
	Except string
}

// Result is what happened to a published message.
type Result struct {
	Position  Position // zero if the channel keeps no history
	Stored    bool     // it is in the Store
	Duplicate bool     // its key was seen before: nothing was published, Position is the first message's
	Receivers int      // subscribers on this replica whose queues it went to
}

// Publication is a message on its way, as OnPublish sees it.
type Publication struct {
	Channel  string
	Message  Message // Header and Body may be changed
	Identity Identity
	Client   string // the publishing connection's id; empty for HTTP and Go
	Network  bool   // false if the app's own Go code publishes

	allowed bool // mayPublish was asked before the message was read
}

// Publish sends a message to all subscribers of a channel, on all replicas.
// It does not keep or change m.Body. The app's own Go code is trusted:
// Authorize is not asked, but OnPublish sees its messages.
//
// The errors are [ErrBadChannel], [ErrBadMessage], [ErrBadUTF8], [ErrTooLarge],
// [ErrReservedHeader], [ErrBadKey], [ErrKeyReused], [ErrNoHistory] (a key on a
// channel without history), [ErrStoreUnavailable], [ErrMeshUnavailable],
// [ErrInternal] (Options.Channel gave contradictory options, or a hook panicked),
// [ErrClosed], the context's error, and what OnPublish returns. After
// ErrStoreUnavailable the message may have been stored all the same, if only
// the answer was lost: repeat it with a Key. After ErrMeshUnavailable the
// subscribers of this replica have got the message.
func (h *Hub) Publish(ctx context.Context, channel string, m Message) (Result, error) {
	return h.PublishWith(ctx, channel, m, PublishOptions{})
}

// PublishWith is Publish with options.
func (h *Hub) PublishWith(ctx context.Context, channel string, m Message, o PublishOptions) (res Result, err error) {
	if m.Body, err = h.ownBody(m.Body); err == nil {
		res, err = h.publish(ctx, Publication{Channel: channel, Message: m}, o)
	}
	h.stats.publishes[doorGo].note(res.Duplicate, err)
	return res, err
}

// ownBody checks the body of a message from Go code. It copies it for an OnPublish,
// which may change it.
func (h *Hub) ownBody(body json.RawMessage) (json.RawMessage, error) {
	body, err := checkBody(body, h.opts.MaxMessageBytes)
	if err == nil && h.opts.OnPublish != nil {
		body = append(json.RawMessage(nil), body...)
	}
	return body, err
}

// publish is the way of every message that is published through this replica:
// from Go code, over HTTP, or over a connection. The body of p is valid JSON.
// publish does not keep it. The door by which it came counts what became of it.
func (h *Hub) publish(ctx context.Context, p Publication, o PublishOptions) (res Result, err error) {
	if !h.calls.Enter() {
		return Result{}, ErrClosed
	}
	defer h.calls.Leave()
	if by := h.observers.Load(); by != nil {
		in, step := by.begin(ctx, Step{Kind: StepPublish, Channel: p.Channel, Bytes: len(p.Message.Body)})
		ctx = in
		defer func() {
			step.Position, step.Receivers = res.Position, res.Receivers
			step.end(in, err)
		}()
	}
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	start := h.fan.Sample(h.stats.published.Load())
	if err := p.check(&o); err != nil {
		return Result{}, err
	}
	ch := h.channels.use(p.Channel)
	listed := ch != nil
	if listed {
		defer ch.release()
	} else if ch, err = h.newChannel(p.Channel); err != nil {
		return Result{}, err
	}
	if err := h.authorizePublish(ctx, &ch.opts, &p); err != nil {
		return Result{}, err
	}
	key, err := p.keyOn(ch, &o)
	if err != nil {
		return Result{}, err
	}
	if err := h.onPublish(ctx, &p); err != nil {
		return Result{}, err
	}
	if !listed { // only now: a message that is refused adds no channel
		// If the table is full of channels in use, nobody here is subscribed to
		// this one, and only its number of publishes is lost.
		if kept, err := h.put(ch); err == nil {
			ch, listed = kept, true
			defer ch.release()
		}
	}
	m, err := ch.accept(&p)
	if err != nil {
		return Result{}, err
	}
	var info []byte
	m.Publisher, info = h.publisherOf(&ch.opts, &p)
	res, err = h.appendToLog(ctx, ch, &m, info, key, &o)
	switch {
	case err != nil:
		return Result{}, err
	case res.Duplicate:
		h.passAgain(ctx, ch, res.Position)
		return res, nil
	}
	// The mesh first: what a subscriber here publishes in answer comes behind it at the
	// other replicas, too, and they need not wait for a long fan-out.
	err = h.relay(ctx, mesh.KindMessage, p.Channel, &m, info, &o)
	res.Receivers = h.deliver(ch, listed, &m, &o, start)
	if h.fan.Pressed() { // a busy publisher would keep the writers from a machine with few processors
		runtime.Gosched()
	}
	return res, err
}

// check says what is wrong with a publication, except for its body, which was
// checked when it was read.
func (p *Publication) check(o *PublishOptions) error {
	if err := CheckName(p.Channel); err != nil {
		return err
	}
	if p.Channel == UserPrefix { // the app has put an empty ID behind it
		return errNobody
	}
	if err := checkHeader(p.Message.Header); err != nil {
		return err
	}
	if len(o.Key) > maxKeyBytes || strings.ContainsFunc(o.Key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ErrBadKey.saying("an idempotency key has 1 to 200 characters of printable ASCII without spaces, not %.210q", o.Key)
	}
	return nil
}

// authorizePublish asks whether p may be published on a channel with these
// options. The app's own Go code always may.
func (h *Hub) authorizePublish(ctx context.Context, opts *ChannelOptions, p *Publication) error {
	switch {
	case p.allowed && p.Identity.expired(): // since mayPublish was asked
		return ErrExpired
	case p.Network && !p.allowed:
		return h.mayPublish(ctx, opts, p)
	}
	return nil
}

// mayPublish asks whether somebody from the network may publish on a channel
// with these options. It does not look at the message.
func (h *Hub) mayPublish(ctx context.Context, opts *ChannelOptions, p *Publication) error {
	switch {
	case opts.Publishers == PublishersServer, opts.Publishers == PublishersAnyone && isUserChannel(p.Channel):
		return ErrForbidden.saying("only the server publishes on %q", p.Channel)
	case opts.Publishers == PublishersIdentified && p.Identity.ID == "":
		return ErrForbidden.saying("%q takes messages from identified users only", p.Channel)
	}
	return h.authorize(ctx, Request{Action: ActionPublish, Channel: p.Channel, Identity: p.Identity, Client: p.Client})
}

// onPublish calls the app's hook, and checks what it made of the message.
func (h *Hub) onPublish(ctx context.Context, p *Publication) error {
	if h.opts.OnPublish == nil {
		return nil
	}
	seen := *p // a copy, so that p stays on the stack if there is no hook, and the rest of it as it is
	if err := h.guard("OnPublish", func() error { return h.opts.OnPublish(ctx, &seen) }); err != nil {
		if !p.Network {
			return err
		}
		return h.refusal("OnPublish", err)
	}
	if err := checkHeader(seen.Message.Header); err != nil {
		return err
	}
	body, err := checkBody(seen.Message.Body, h.opts.MaxMessageBytes)
	p.Message.Header, p.Message.Body = seen.Message.Header, append([]byte(nil), body...)
	return err
}

// accept returns the message of p, unless it is too long for the channel.
func (ch *channel) accept(p *Publication) (Message, error) {
	m := Message{Header: p.Message.Header, Body: p.Message.Body}
	if max := ch.opts.MaxMessageBytes; max > 0 && len(m.Body) > max {
		return m, ErrTooLarge.saying("a message on %q has at most %d bytes, this body has %d; "+sendLess, p.Channel, max, len(m.Body))
	}
	return m, nil
}

// appendToLog appends a message to the channel's history, which gives it its
// position. info is its encoded publisher. Without history it does nothing.
func (h *Hub) appendToLog(ctx context.Context, ch *channel, m *Message, info []byte, key ownKey, o *PublishOptions) (Result, error) {
	if ch.opts.HistorySize == 0 || o.Local {
		return Result{}, nil
	}
	ctx, cancel := h.storeContext(ctx)
	defer cancel()
	var done store.Appended
	err := h.guard("the store", func() (err error) {
		done, err = h.store.Append(ctx, ch.name, store.Entry{Header: m.Header, Body: m.Body, Info: info}, store.AppendOptions{
			Size: ch.opts.HistorySize, TTL: ch.opts.HistoryTTL, Key: key.text, KeyTTL: keyTTL, Digest: key.digest})
		return err
	})
	if errors.Is(err, store.ErrKeyReused) {
		return Result{}, ErrKeyReused
	}
	if err != nil {
		h.warn.storeFails(err)
		// The message may have been stored, and only the answer lost. Then
		// the subscribers must get it.
		ch.mu.Lock()
		ch.fillLocked(toTop)
		ch.mu.Unlock()
		return Result{}, ErrStoreUnavailable.because(err)
	}
	m.Position, m.Time = Position(done.Position), done.Time
	return Result{Position: m.Position, Stored: true, Duplicate: done.Duplicate}, nil
}

// passAgain delivers the message that a repeated key stands for: its first
// publisher may have died between the Store and the subscribers. Subscribers
// that have it recognise its position. The message is read from the Store,
// since the repetition may differ from it.
func (h *Hub) passAgain(ctx context.Context, ch *channel, at Position) {
	page, err := h.readLog(ctx, ch.name, store.Query{After: at.Offset - 1, Limit: 1})
	if err != nil {
		h.warn.storeFails(err) // the others find it by its position, in a few seconds
		return
	}
	if page.Top.Epoch != at.Epoch || len(page.Entries) == 0 || page.Entries[0].Offset != at.Offset {
		return // it is no longer kept
	}
	e := &page.Entries[0]
	f := ch.encode(at.Epoch, e)
	ch.arrive(f)
	if f.message.Publisher == nil {
		e.Info = nil // the channel hides it now, or another program wrote it
	}
	h.relay(ctx, mesh.KindAgain, ch.name, &Message{Header: e.Header, Body: e.Body, Position: at, Time: e.Time}, e.Info, &PublishOptions{}) // with a position, it never fails
}

// deliver queues a message for the subscribers on this replica, those of patterns
// among them, and returns for how many. A channel that is not listed has none of its
// own.
func (h *Hub) deliver(ch *channel, listed bool, m *Message, o *PublishOptions, start fanout.Start) (receivers int) {
	h.stats.published.Add(1)
	except := h.clients.withID(o.Except)
	if listed && ch.countPublish() {
		f := newMessageFrame(ch, *m)
		f.except = except
		f.Begin(start)
		receivers = ch.take(f)
	}
	h.taps.pass(ch.name, m.Header, m.Body)
	return receivers + h.feeds.pass(ch.name, m, except, start)
}

// relay hands a message, with its encoded publisher, to the mesh, for the other
// replicas. It fails only for a message without a position: one with a position is
// found in the Store.
func (h *Hub) relay(ctx context.Context, kind mesh.Kind, channel string, m *Message, info []byte, o *PublishOptions) error {
	if h.mesh == nil || o.Local {
		return nil
	}
	p := mesh.Packet{Kind: kind, Channel: channel, Header: m.Header, Body: m.Body,
		Epoch: m.Position.Epoch, Offset: m.Position.Offset, Sender: o.Except, Info: packetInfo(info, m.Time)}
	var step observed
	if by := h.observers.Load(); by != nil {
		p.Trace = by.trace(ctx) // of the publish, not of this step
		ctx, step = by.begin(ctx, Step{Kind: StepRelay, Channel: channel, Bytes: len(m.Body), Position: m.Position})
	}
	err := h.guard("the mesh", func() error { return h.mesh.Publish(ctx, p) })
	step.end(ctx, err)
	if err == nil {
		return nil
	}
	h.stats.unpublished.Add(1)
	if m.Position.Offset == 0 {
		return ErrMeshUnavailable.because(err)
	}
	h.warn.notSent(channel, err)
	return nil
}
