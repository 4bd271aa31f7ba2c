package channels

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/channels-go/channels/internal/backoff"
)

// A Bridge is the hub for programs that come another way than over HTTP, and are
// trusted no more: package zmqgateway uses one. It asks Authorize, with its
// identity, before it publishes and lists, but not before it subscribes. Get one
// with [Hub.Bridge]. All its methods may be called concurrently.
type Bridge struct {
	hub *Hub
	id  Identity
}

// Bridge returns a Bridge for all the programs that id stands for: those that
// know a token, say, or all that reach a port.
func (h *Hub) Bridge(id Identity) *Bridge { return &Bridge{h, id} }

// Publish publishes as POST /v1/channel/{name}/publish does. It owns m.Body, and
// of m it reads Header and Body only. The errors are those of [Hub.Publish] and
// what Authorize returns.
func (b *Bridge) Publish(ctx context.Context, channel string, m Message) (Result, error) {
	res, err := b.publish(ctx, channel, m)
	b.hub.stats.publishes[doorBridge].note(res.Duplicate, err)
	return res, err
}

func (b *Bridge) publish(ctx context.Context, channel string, m Message) (Result, error) {
	if err := b.hub.charge(ctx, Client{Identity: b.id, Transport: transportBridge}); err != nil {
		return Result{}, err
	}
	body, err := checkBody(m.Body, b.hub.opts.MaxMessageBytes)
	if err != nil {
		return Result{}, err
	}
	return b.hub.publish(ctx, Publication{Channel: channel, Message: Message{Header: m.Header, Body: body}, Identity: b.id, Network: true}, PublishOptions{})
}

// Channels is [Hub.Channels] for those who may list. It leaves out users' channels.
func (b *Bridge) Channels(ctx context.Context, q ChannelsQuery) (ChannelsPage, error) {
	if err := b.hub.authorize(ctx, Request{Action: ActionList, Identity: b.id}); err != nil {
		return ChannelsPage{}, err
	}
	return b.hub.listForClients(ctx, q)
}

// Channel is [Hub.Channel] for those who may list it.
func (b *Bridge) Channel(ctx context.Context, name string) (ChannelInfo, error) {
	if err := CheckName(name); err != nil {
		return ChannelInfo{}, err
	}
	if err := b.hub.authorize(ctx, Request{Action: ActionList, Channel: name, Identity: b.id}); err != nil {
		return ChannelInfo{}, err
	}
	return b.hub.Channel(ctx, name)
}

// Subscribe calls deliver with each message of a channel until ctx ends, one at a
// time and without the events of presence. Like a [Subscription], it begins where
// the channel is. If the Store fails or deliver is too slow, it goes on from where
// it was, so that on a channel with history nothing is missed. deliver must not
// change the body.
//
// It returns nil after ctx has ended, and otherwise why this can never work:
// [ErrBadChannel], [ErrForbidden] (for another user's channel), [ErrInternal] (see
// Publish) or [ErrClosed].
func (b *Bridge) Subscribe(ctx context.Context, channel string, deliver func(Message)) error {
	if err := (&Request{Action: ActionSubscribe, Channel: channel, Identity: b.id}).mayReach(); err != nil {
		return err
	}
	var from *Position
	for retry := backoff.New(); ; retry.Wait(ctx) {
		s, err := b.hub.subscribe(ctx, channel, start{since: from}, false)
		if err == nil {
			for m, e := range s.Messages() {
				var reset *ResetError
				switch {
				case errors.As(e, &reset): // s.Position has taken it in
				case e != nil:
					err = e
				case m.Header != headerPresence:
					deliver(m)
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
			b.hub.warn.storeFails(err)
		}
	}
}

// SubscribeAll calls deliver with each message of all channels that is published
// through any replica, except for users' channels. Messages have no Position. Each comes
// once and at once: on a channel with history perhaps out of order, and what the mesh
// loses is not fetched.
//
// deliver is called concurrently. It must not wait, nor change or keep the body.
// SubscribeAll returns nil after ctx has ended, or [ErrClosed].
func (b *Bridge) SubscribeAll(ctx context.Context, deliver func(channel string, m Message)) error {
	t := new(tap)
	*t = func(channel string, m Message) {
		if !isUserChannel(channel) {
			deliver(channel, m)
		}
	}
	h := b.hub
	if err := h.taps.add(t, &h.prefixes); err != nil {
		return ErrMeshUnavailable.because(err)
	}
	defer h.taps.remove(t, &h.prefixes)
	select {
	case <-ctx.Done():
		return nil
	case <-h.ctx.Done():
		return ErrClosed
	}
}

// A tap gets every message that passes.
type tap func(channel string, m Message)

// taps are the hub's taps. Mostly there are none, which costs a message one
// atomic load.
type taps struct {
	mu  sync.Mutex // held to change all; reading it needs no lock
	all atomic.Pointer[[]*tap]
}

func (t *taps) pass(channel, header string, body json.RawMessage) {
	for _, one := range *t.all.Load() {
		(*one)(channel, Message{Header: header, Body: body})
	}
}

// add adds a tap. As long as there are any, the mesh brings everything.
func (t *taps) add(one *tap, from *prefixes) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := slices.Clone(*t.all.Load())
	if len(all) == 0 {
		if err := from.add(""); err != nil {
			return err
		}
	}
	all = append(all, one)
	t.all.Store(&all)
	return nil
}

// remove undoes add.
func (t *taps) remove(one *tap, from *prefixes) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := slices.DeleteFunc(slices.Clone(*t.all.Load()), func(other *tap) bool { return other == one })
	t.all.Store(&all)
	if len(all) == 0 {
		from.remove("")
	}
}
