package channels

import (
	"cmp"
	"context"
)

// SubscribeUser subscribes all connections of an Identity.ID that speak the client
// protocol to a channel, on all replicas. The clients are told where they begin, as if
// they had asked for it themselves. Connections of one channel are left alone, and so
// are those that are subscribed already. Authorize is not asked. SubscribeUser returns
// how many connections it has subscribed on this replica, including those that are
// connecting at this moment: their subscription comes with, or right after, the answer
// to connect.
//
// Such a subscription lasts as long as its connection. To make one that outlasts it,
// write down that the user belongs to the channel, then call SubscribeUser, and have
// OnConnect subscribe each connection to what is written down. Then no connection is
// forgotten: one that SubscribeUser does not find asks OnConnect after the call has
// begun.
//
// The other replicas are told at most once, as by DisconnectUser. A later
// UnsubscribeUser or UnsubscribeClient by the same replica is obeyed after it. The
// errors are [ErrBadChannel]; [ErrClosed]; the first error of a connection that was not
// subscribed, such as one that has MaxSubscriptions already; and those that
// DisconnectUser has. What could be done was done nevertheless.
func (h *Hub) SubscribeUser(ctx context.Context, user, channel string) (int, error) {
	return h.subscribeEverywhere(ctx, control{Kind: kindUser, Who: []byte(user), Channel: channel})
}

// SubscribeClient subscribes the connection with an id, on whichever replica it is.
// Otherwise it is like SubscribeUser. If OnConnect calls it with the id that it was
// given, the subscription is in the answer to the client's connect: one that comes back
// gets what it has missed, if the channel has history.
func (h *Hub) SubscribeClient(ctx context.Context, id, channel string) (int, error) {
	return h.subscribeEverywhere(ctx, control{Kind: kindClient, Who: []byte(id), Channel: channel})
}

// subscribeEverywhere subscribes whom c says here, and tells the other replicas to.
func (h *Hub) subscribeEverywhere(ctx context.Context, c control) (int, error) {
	if err := CheckName(c.Channel); err != nil {
		return 0, err
	}
	if !h.calls.Enter() {
		return 0, ErrClosed
	}
	defer h.calls.Leave()
	who := h.invite(&c)
	var untold error
	if elsewhere := c.Kind == kindUser || who.found == 0; elsewhere && h.mesh != nil && len(c.Who) > 0 {
		untold = h.control(ctx, "", controlSubscribe, c)
	}
	who.begin(ctx)
	return who.n, cmp.Or(who.err, untold)
}

// subscribeLater is what another replica's subscribeEverywhere has this one do. It
// does not wait. If an unsubscribe comes next, it finds what was reserved.
func (h *Hub) subscribeLater(c *control) {
	if CheckName(c.Channel) != nil {
		return
	}
	who := h.invite(c)
	ok := h.tasks.Run(func() {
		if who.begin(h.ctx); who.err != nil {
			h.warn.notSubscribed(c.Channel, who.err)
		}
	})
	if !ok { // the hub is shut down, and the connections are about to end
		for _, sub := range who.subs {
			sub.client.subs.cancel(sub)
		}
	}
}

// An invitation is one call of SubscribeUser or SubscribeClient on one replica.
type invitation struct {
	found int             // connections of any kind
	n     int             // those that are subscribed, or will be by connect
	subs  []*subscription // these wait for begin
	err   error           // the first one
}

// invite reserves the subscriptions that c says. It waits for nobody.
func (h *Hub) invite(c *control) *invitation {
	who := new(invitation)
	for _, one := range h.clients.find(c.Kind, string(c.Who)) {
		who.found++
		if one.session == nil {
			continue
		}
		sub, later, err := one.session.invite(c.Channel)
		switch {
		case err != nil:
			who.err = cmp.Or(who.err, err)
		case later:
			who.n++
		case sub != nil:
			who.subs = append(who.subs, sub)
		}
	}
	return who
}

// begin attaches what invite has reserved. The first one makes the channel's position
// known to the others, so it is of no use to attach them at the same time. If it fails,
// so would they.
func (who *invitation) begin(ctx context.Context) {
	for i, sub := range who.subs {
		if err := sub.client.session.enterInvited(ctx, sub); err != nil {
			who.err = cmp.Or(who.err, err)
			for _, sub := range who.subs[i+1:] {
				sub.client.session.skip(sub)
			}
			return
		}
		who.n++
	}
}
