package channels

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/channels-go/channels/internal/backoff"
	"github.com/channels-go/channels/mesh"
)

// A Bridge is the hub for programs that come by another way than HTTP, and are
// no more trusted: package zmqmesh's Gateway takes one. Authorize is asked
// before it publishes and lists, with the Bridge's identity, but not before it
// subscribes. Get one with [Hub.Bridge]. All its methods may be called by many
// goroutines at the same time; answers are the JSON of the HTTP endpoints.
type Bridge struct {
	hub *Hub
	id  Identity
}

// Bridge returns a Bridge for all that id stands for: those who know a
// gateway's token, or everybody who reaches its port.
func (h *Hub) Bridge(id Identity) *Bridge { return &Bridge{h, id} }

// Publish is POST /v1/channel/{name}/publish. It owns body. There is an answer
// with and without an error; the errors are those of [Hub.Publish], and what
// Authorize returns.
func (b *Bridge) Publish(ctx context.Context, channel, header string, body json.RawMessage) ([]byte, error) {
	err := b.hub.charge(ctx, Client{Identity: b.id, Transport: transportBridge})
	if err == nil {
		body, err = checkBody(body, b.hub.opts.MaxMessageBytes)
	}
	var res Result
	if err == nil {
		res, err = b.hub.publish(ctx, Publication{Channel: channel, Message: Message{Header: header, Body: body}, Identity: b.id, Network: true}, PublishOptions{})
	}
	answer, _ := json.Marshal(answerOf(res, err)) // texts and numbers cannot fail
	return answer, err
}

// Channels is GET /v1/channel?prefix=&limit=&cursor=. Empty arguments are
// those that are left out.
func (b *Bridge) Channels(ctx context.Context, prefix, limit, cursor string) []byte {
	q := url.Values{}
	for name, v := range map[string]string{"prefix": prefix, "limit": limit, "cursor": cursor} {
		if v != "" {
			q.Set(name, v)
		}
	}
	list, err := b.hub.listFor(ctx, b.id, q)
	return b.answer(list, err)
}

// Channel is GET /v1/channel/{name}.
func (b *Bridge) Channel(ctx context.Context, name string) []byte {
	row, err := b.hub.rowFor(ctx, b.id, name)
	return b.answer(row, err)
}

func (b *Bridge) answer(v any, err error) []byte {
	if err != nil {
		v = answerOf(Result{}, err)
	}
	answer, _ := json.Marshal(v) // texts and numbers cannot fail
	return answer
}

// Subscribe calls deliver with each message of a channel until ctx ends, one
// at a time and without the events of presence. It is a [Subscription] that
// begins again where it was when the Store fails or deliver was too slow:
// what was missed comes then, on a channel with history. deliver must not
// change the body. It returns nil after ctx, and otherwise why this can never
// work: [ErrBadChannel], [ErrInternal] (see Publish) or [ErrClosed].
func (b *Bridge) Subscribe(ctx context.Context, channel string, deliver func(header string, body json.RawMessage)) error {
	retry := backoff.New()
	var from *Position
	for {
		s, err := b.hub.subscribe(ctx, channel, from, false)
		if err == nil {
			for m, e := range s.Messages() {
				var reset *ResetError
				switch {
				case errors.As(e, &reset): // Position knows
				case e != nil:
					err = e
				case m.Header != headerPresence:
					deliver(m.Header, m.Body)
					retry.Reset()
				}
			}
			from = s.Position()
			s.Close()
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrBadChannel), errors.Is(err, ErrInternal), errors.Is(err, ErrClosed):
			return err
		case errors.Is(err, ErrStoreUnavailable):
			b.hub.warnStore(err)
		}
		if !retry.Wait(ctx) {
			return nil
		}
	}
}

// SubscribeAll calls deliver with each message that is published through this
// replica, and each that the mesh brings: of all channels of all replicas
// where it is a [mesh.AllSubscriber], else of those that have subscribers here.
// Each comes once and at once, on a channel with history perhaps not in its
// order; what the mesh loses is not made up for. deliver is called by many
// goroutines; it must not wait, nor change or keep the body. It ends with ctx,
// with nil, or with [ErrClosed].
func (b *Bridge) SubscribeAll(ctx context.Context, deliver func(channel, header string, body json.RawMessage)) error {
	t := &tap{deliver}
	h := b.hub
	all, _ := h.mesh.(mesh.AllSubscriber)
	if err := h.taps.add(t, all); err != nil {
		return ErrMeshUnavailable.because(err)
	}
	defer h.taps.remove(t, all)
	select {
	case <-ctx.Done():
		return nil
	case <-h.ctx.Done():
		return ErrClosed
	}
}

// A tap gets every message that passes.
type tap struct {
	deliver func(channel, header string, body json.RawMessage)
}

// taps are mostly none, which costs a message one look.
type taps struct {
	mu  sync.Mutex             // held to change all, and by nobody who reads it
	all atomic.Pointer[[]*tap] // nil where there are none
}

func (t *taps) pass(channel, header string, body json.RawMessage) {
	if all := t.all.Load(); all != nil {
		for _, one := range *all {
			one.deliver(channel, header, body)
		}
	}
}

// add and remove have the mesh bring everything while there are taps.
func (t *taps) add(one *tap, from mesh.AllSubscriber) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*tap
	if old := t.all.Load(); old != nil {
		all = slices.Clone(*old)
	}
	if len(all) == 0 && from != nil {
		if err := from.SubscribeAll(); err != nil {
			return err
		}
	}
	all = append(all, one)
	t.all.Store(&all)
	return nil
}

func (t *taps) remove(one *tap, from mesh.AllSubscriber) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := slices.DeleteFunc(slices.Clone(*t.all.Load()), func(other *tap) bool { return other == one })
	if len(all) > 0 {
		t.all.Store(&all)
		return
	}
	t.all.Store(nil)
	if from != nil {
		from.UnsubscribeAll() // where it fails, messages come for nobody, and are dropped
	}
}
