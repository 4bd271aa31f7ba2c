package channels

import "context"

// DisconnectUser closes all connections of an Identity.ID, on all replicas, with
// the close code 3003 and the code "disconnected"; clients of the client protocol get
// 3503, and do not come back by themselves. Connections that are just being let in are
// refused, so that a user whom Authorize or Authenticate refuses before the call neither
// stays nor slips in. DisconnectUser returns how many connections there were on this
// replica, without those whose token was being verified. They are closed when it
// returns, after what is queued for them.
//
// The other replicas are told at most once: a replica that cannot be reached at
// this moment keeps the connections, without an error. If that matters, let
// credentials expire (Identity.Expires). The errors are [ErrMeshUnavailable] and
// [ErrTooLarge] (an id of more than about 12,000 bytes), both about the other
// replicas, and [ErrClosed].
func (h *Hub) DisconnectUser(ctx context.Context, user string) (int, error) {
	return h.everywhere(ctx, controlDisconnect, control{Kind: kindUser, Who: []byte(user)})
}

// DisconnectClient closes the connection with an id, as [Client].ID and presence
// show it, on whichever replica it is. Otherwise it is like DisconnectUser.
func (h *Hub) DisconnectClient(ctx context.Context, id string) (int, error) {
	return h.everywhere(ctx, controlDisconnect, control{Kind: kindClient, Who: []byte(id)})
}

// UnsubscribeUser ends the subscriptions of an Identity.ID to a channel, on all
// replicas. A connection of one channel is closed with 3003 and the code
// "unsubscribed". A client of the client protocol is told (code 2000), and stays; so is
// a stream of several channels, by the same code, until its last channel.
// UnsubscribeUser returns how many subscriptions there were on this replica. For the
// other replicas and for errors, see DisconnectUser.
func (h *Hub) UnsubscribeUser(ctx context.Context, user, channel string) (int, error) {
	return h.everywhere(ctx, controlUnsubscribe, control{Kind: kindUser, Who: []byte(user), Channel: channel})
}

// UnsubscribeClient ends the subscription of the connection with an id. Otherwise
// it is like UnsubscribeUser.
func (h *Hub) UnsubscribeClient(ctx context.Context, id, channel string) (int, error) {
	return h.everywhere(ctx, controlUnsubscribe, control{Kind: kindClient, Who: []byte(id), Channel: channel})
}

// everywhere ends what c says on this replica, and tells the others to.
func (h *Hub) everywhere(ctx context.Context, header string, c control) (int, error) {
	if !h.calls.Enter() {
		return 0, ErrClosed
	}
	defer h.calls.Leave()
	n := h.endHere(header, &c)
	if h.mesh == nil || len(c.Who) == 0 {
		return n, nil
	}
	return n, h.control(ctx, "", header, c)
}

// endHere ends connections or subscriptions on this replica. The ids of users and
// of connections are two kinds, even if they look alike.
func (h *Hub) endHere(header string, c *control) (n int) {
	if header == controlDisconnect && c.Kind == kindUser {
		h.clients.ban(string(c.Who))
	}
	for _, one := range h.clients.find(c.Kind, string(c.Who)) {
		if header == controlDisconnect {
			one.out.End(farewell(ErrDisconnected, closeForbidden), ErrDisconnected, false)
			n++
		} else if one.unsubscribe(c.Channel) {
			n++
		}
	}
	return n
}
