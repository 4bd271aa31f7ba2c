package channels

import (
	"time"

	"github.com/channels-go/channels/mesh"
)

// IDPrefix is what the ids of a hub's clients begin with; their number follows.
func IDPrefix(h *Hub) string { return h.clients.prefix }

// Take hands a hub a packet as its mesh does.
func Take(h *Hub, p mesh.Packet) { h.take(p) }

// CheckPacket checks one.
func CheckPacket(h *Hub, p mesh.Packet) error { return h.checkPacket(&p, false) }

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
		errBadJSON, errBinary, errTooSlow, errBadEncoding, errBadHandshake, errUpgrade, errNotHijackable, errNotFlushable, errOverloaded, errBadOrigin, errBadHost,
		errNotFound, errTooManyConnections, errBadMethod,
	}
}

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
