package channels

import (
	"time"

	"github.com/channels-go/channels/internal/backoff"
	"github.com/channels-go/channels/internal/fanout"
	"github.com/channels-go/channels/mesh"
)

// The way of a message that another replica published: Hub.receive gets it
// from the mesh, checkPacket checks it, and handOver hands it to its channel and to the
// patterns that match.

// receive takes what other replicas publish, until the hub is shut down.
func (h *Hub) receive() {
	for retry := backoff.New(); h.ctx.Err() == nil; retry.Wait(h.ctx) {
		if err := h.mesh.Receive(h.ctx, h.handlePacket); h.ctx.Err() == nil {
			h.log.Error("mesh: Receive failed; it is called again", "err", err)
		}
	}
}

// handlePacket takes one packet from another replica. It never waits.
func (h *Hub) handlePacket(p mesh.Packet) {
	switch p.Kind {
	case mesh.KindMessage, mesh.KindAgain:
		var step observed
		ctx := h.ctx
		if by := h.observers.Load(); by != nil {
			ctx, step = by.receive(ctx, &p)
		}
		receivers, err := h.handOver(&p)
		step.Receivers = receivers
		step.end(ctx, err)
	case mesh.KindPresence: // the hub's own, so no observer is told
		h.handOver(&p)
	case mesh.KindControl:
		h.takeControl(p)
	case mesh.KindLost:
		h.lost(p.Channel)
	} // others are of a later version
}

// handOver hands a packet to its channel and to the patterns that match, and returns
// for how many subscribers it was queued.
func (h *Hub) handOver(p *mesh.Packet) (receivers int, err error) {
	at := takeTime(p)
	if p.Offset == 0 {
		at = time.Time{}
	}
	ch := h.channels.use(p.Channel)
	if ch != nil {
		defer ch.release()
	}
	if err := h.checkPacket(p, ch != nil); err != nil {
		h.stats.badPackets.Add(1)
		h.warn.badPacket(p, err)
		return 0, err
	}
	header, except := p.Header, h.clients.withID(p.Sender)
	var start fanout.Start
	switch p.Kind {
	case mesh.KindPresence:
		header = headerPresence
	case mesh.KindMessage:
		start = h.fan.Sample(h.stats.received.Load())
		h.stats.received.Add(1)
		h.taps.pass(p.Channel, header, p.Body)
		receivers = h.feeds.receive(p, at, ch, except, start)
	}
	if ch == nil {
		return receivers, nil // nobody here is subscribed to the channel itself, or any more
	}
	m := Message{Header: header, Body: p.Body, Position: Position{p.Epoch, p.Offset}, Time: at, Publisher: ch.opts.publisher(p.Info)}
	if ch.opts.HistorySize == 0 {
		m.Position, m.Time = Position{}, time.Time{} // this replica knows of no history: replicas may be getting new options in turn
	}
	f := newMessageFrame(ch, m)
	f.except = except
	f.Begin(start)
	if m.Position.Offset > 0 {
		h.noteAnotherStore(p.Channel, p.Origin)
	}
	receivers += ch.take(f)
	if p.Kind == mesh.KindPresence && ch.people != nil {
		h.contradict(ch, p.Body)
	}
	return receivers, nil
}

// maxSender bounds the ids in Packet.Sender, in bytes. The hub's own have fewer than 100.
const maxSender = 256

// checkPacket says what is wrong with a message or an event from the mesh.
// What passes can be put into any frame and log. Other replicas are trusted,
// but the mesh may carry what programs send, or what a faulty version of the
// hub sends. If named is true, a channel of that name exists, and the name is
// not checked again. A publisher that cannot be one is left out later, since its
// message is right without it. BenchmarkCheckPacket has the cost.
func (h *Hub) checkPacket(p *mesh.Packet, named bool) error {
	if !named {
		if err := CheckName(p.Channel); err != nil {
			return err
		}
	}
	if p.Kind != mesh.KindPresence {
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
	case p.Kind == mesh.KindAgain && p.Offset == 0:
		return ErrBadMessage.saying("a message that comes again has a position")
	case p.Kind == mesh.KindPresence && p.Offset > 0:
		return ErrBadMessage.saying("an event of presence has no position")
	case !isEpoch(p.Epoch):
		return ErrBadMessage.saying("%.80q is not an epoch; it has up to %d characters of printable ASCII without spaces", p.Epoch, maxEpoch)
	}
	// Another replica may allow longer messages, up to what fits into one frame here.
	body, err := checkBody(p.Body, h.opts.QueueBytes/2)
	p.Body = body
	return err
}
