package channels

import (
	"time"

	"github.com/channels-go/channels/mesh"
)

// maxSender bounds the ids in Packet.Sender, in bytes; the hub's own have fewer than 100.
const maxSender = 256

// checkPacket returns what is wrong with a message or an event that the mesh
// brings. What it lets through can be put into any frame and log. Other
// replicas are trusted, but the mesh may carry what programs send, or a version
// of the hub that is wrong. With named, there is a channel of its name, which
// need not be checked then. BenchmarkCheckPacket has the cost.
func (h *Hub) checkPacket(p *mesh.Packet, named bool) error {
	if !named {
		if err := CheckName(p.Channel); err != nil {
			return err
		}
	}
	if p.Kind == mesh.KindMessage {
		if err := checkHeader(p.Header); err != nil {
			return err
		}
	}
	if len(p.Sender) > maxSender {
		return ErrTooLarge.saying("a sender's id has at most %d bytes, this one has %d", maxSender, len(p.Sender))
	}
	switch {
	case (p.Epoch == "") != (p.Offset == 0):
		return ErrBadMessage.saying("a message has both an epoch and an offset, or neither")
	case p.Kind == mesh.KindPresence && p.Offset > 0:
		return ErrBadMessage.saying("an event of presence has no position")
	case !isEpoch(p.Epoch):
		return ErrBadMessage.saying("the epoch %.80q is none", p.Epoch)
	}
	// Another replica may allow longer messages, up to what is one frame here.
	body, err := checkBody(p.Body, h.opts.QueueBytes/2)
	p.Body = body
	return err
}

// isEpoch returns whether s can be an epoch, or is empty.
func isEpoch(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(s) <= maxEpoch
}

// badPacket counts a packet that is dropped, and logs one a minute.
func (h *Hub) badPacket(p *mesh.Packet, err error) {
	h.stats.badPackets.Add(1)
	if h.badWarned.Now(time.Minute) {
		h.log.Warn("mesh: a packet that cannot be a message was dropped; more are only counted", "from", p.Origin, "channel", p.Channel, "err", err)
	}
}
