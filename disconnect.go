package channels

import "context"

// DisconnectUser closes all connections of an Identity.ID, on all replicas,
// with close code 3003 and the code "disconnected". Those that are being let in
// are refused: who is banned before it is called, so that Authorize refuses him
// from then on, does not stay or come. It returns how many there were on this
// replica, where they are closed when it returns, after what is queued for them.
//
// The other replicas are told at most once: one that cannot be reached at this
// moment keeps the connections, and nobody learns of it. Let credentials expire
// (Identity.Expires) where that matters. The errors are [ErrMeshUnavailable],
// [ErrTooLarge] (an id of more than about 12,000 bytes), for the other replicas,
// and [ErrClosed].
func (h *Hub) DisconnectUser(ctx context.Context, user string) (int, error) {
	return h.everywhere(ctx, controlDisconnect, control{Kind: kindUser, Who: []byte(user)})
}

// DisconnectClient closes the one connection that has an id, as
// [Client].ID and presence show it, wherever it is, and otherwise does as
// DisconnectUser.
func (h *Hub) DisconnectClient(ctx context.Context, id string) (int, error) {
	return h.everywhere(ctx, controlDisconnect, control{Kind: kindClient, Who: []byte(id)})
}

// UnsubscribeUser ends the subscriptions of an Identity.ID to a channel, on all
// replicas. A connection that has no other subscription is closed with 3003 and
// the code "unsubscribed". It returns how many there were on this replica. What
// DisconnectUser says of the other replicas and of errors holds here too.
func (h *Hub) UnsubscribeUser(ctx context.Context, user, channel string) (int, error) {
	return h.everywhere(ctx, controlUnsubscribe, control{Kind: kindUser, Who: []byte(user), Channel: channel})
}

// UnsubscribeClient ends the subscription of the one connection that has an id,
// and otherwise does as UnsubscribeUser.
func (h *Hub) UnsubscribeClient(ctx context.Context, id, channel string) (int, error) {
	return h.everywhere(ctx, controlUnsubscribe, control{Kind: kindClient, Who: []byte(id), Channel: channel})
}

// everywhere ends what c says here, and tells the other replicas to.
func (h *Hub) everywhere(ctx context.Context, header string, c control) (int, error) {
	if !h.calls.enter() {
		return 0, ErrClosed
	}
	defer h.calls.leave()
	n := h.endHere(header, &c)
	if h.mesh == nil || len(c.Who) == 0 {
		return n, nil
	}
	return n, h.control(ctx, "", header, c)
}

// endHere ends connections or subscriptions on this replica. An id that a user
// has and one that a connection has are two things, also where they look alike.
func (h *Hub) endHere(header string, c *control) (n int) {
	why := ErrDisconnected
	if header == controlUnsubscribe {
		why = ErrUnsubscribed
	}
	for _, one := range h.clients.find(c.Kind, string(c.Who)) {
		if header == controlUnsubscribe && one.channel != c.Channel {
			continue
		}
		one.end(farewell(why, closeForbidden), why, false)
		n++
	}
	return n
}
