package channels

import (
	"fmt"
	"strings"
)

// How a channel comes to life on this replica. channel.go has the channel itself,
// and the table of all channels.

// use returns a channel, new if it was not there, and keeps it until release.
// A trusted caller gets one even if there are too many.
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

// put adds a new channel to the table, or returns the one that was added before
// it. The channel is in use until release. If the table is full, the channel
// without subscribers that was published on longest ago makes way.
func (h *Hub) put(ch *channel) (*channel, error) {
	if int(h.channels.n.Load()) >= h.opts.MaxChannels && !h.channels.makeWay(h.uptime()) {
		return nil, ErrTooManyChannels
	}
	return h.channels.put(ch), nil
}

// optionsOf returns a channel's options. It adds no channel.
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
	ch := &channel{env: h.env, name: strings.Clone(name), group: h.fan.Group()}
	err := h.guard("Options.Channel", func() error { ch.opts = h.opts.Channel(name); return nil })
	if err != nil {
		return nil, err
	}
	if err := ch.opts.check(h.opts.MaxMessageBytes); err != nil {
		h.log.Error("Options.Channel gave contradictory options, so the channel cannot be used", "channel", name, "err", err)
		return nil, ErrInternal.because(fmt.Errorf("channel %q: %w", name, err))
	}
	if ch.opts.Presence != PresenceOff {
		ch.members = make(map[string]Member)
	}
	return ch, nil
}
