package channels

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/channels-go/channels/internal/sparingly"
	"github.com/channels-go/channels/mesh"
)

// warnings logs what may happen again and again, each kind of it once in a
// while. All its methods may be called by many goroutines at the same time.
type warnings struct {
	log *slog.Logger

	store, mesh, twin, packet, entry, publisher, unfinished, subscribe sparingly.Turn

	host, origin sparingly.Turns // each one's own, so that a scanner's does not hide the app's

	apart   atomic.Bool // the warning about two Stores was logged
	foreign sync.Map    // the types of ResponseWriters that were logged
}

// storeFails logs that the Store fails, at most once a minute until it is back:
// many channels may notice at once.
func (w *warnings) storeFails(err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, ErrClosed) { // it is the hub that ends
		return
	}
	if w.store.Now(time.Minute) {
		w.log.Warn("the store fails; requests that need it are refused until it works again", "err", err)
	}
}

// storeIsBack logs that the Store works again, if its failure was logged.
func (w *warnings) storeIsBack() {
	if w.store.Reset() {
		w.log.Info("the store is back")
	}
}

// notSent logs, at most every few seconds, that the mesh did not take a
// message. Other replicas then fetch it from the Store.
func (w *warnings) notSent(channel string, err error) {
	if w.mesh.Now(5 * time.Second) {
		w.log.Warn("mesh: a message was not sent; the other replicas read it from the Store", "channel", channel, "err", err)
	}
}

// sameID logs, at most once a minute, that another replica has this one's id.
func (w *warnings) sameID() {
	if w.twin.Now(time.Minute) {
		w.log.Error("another living replica has the same Options.ReplicaID: lists, presence and connection ids are mixed up until each has its own")
	}
}

// anotherStore logs once that the replicas have different Stores.
func (w *warnings) anotherStore(channel, from string) {
	if w.apart.CompareAndSwap(false, true) {
		w.log.Warn("the replicas have different Stores, so channels with history cannot work across them: give all replicas one Store, or these channels no history", "channel", channel, "from", from)
	}
}

// badPacket logs, at most once a minute, that a packet was dropped.
func (w *warnings) badPacket(p *mesh.Packet, err error) {
	if w.packet.Now(time.Minute) {
		w.log.Warn("mesh: a packet that cannot be a message was dropped; others within this minute are only counted", "from", p.Origin, "channel", p.Channel, "err", err)
	}
}

// badEntry logs, at most once a minute, that an entry in the Store cannot be a message.
func (w *warnings) badEntry(channel string, offset uint64, err error) {
	if w.entry.Now(time.Minute) {
		w.log.Error("the store has an entry that cannot be a message, so subscribers do not get it; another program may have written it", "channel", channel, "offset", offset, "err", err)
	}
}

// badPublisher logs, at most once a minute, that messages do not say, or not
// completely, who published them.
func (w *warnings) badPublisher(p *Publication, err error) {
	if w.publisher.Now(time.Minute) {
		w.log.Warn("a message does not carry all of its publisher's identity; shorten it, or set ChannelOptions.HidePublishers", "channel", p.Channel, "client", p.Client, "err", err)
	}
}

// notSubscribed logs, at most once a minute, that SubscribeUser or SubscribeClient has
// failed here when nobody waited for it.
func (w *warnings) notSubscribed(channel string, err error) {
	if !errors.Is(err, context.Canceled) && w.subscribe.Now(time.Minute) {
		w.log.Warn("connections were not subscribed to a channel as SubscribeUser or SubscribeClient has asked", "channel", channel, "err", err)
	}
}

// cutShort logs, at most once a minute, how many requests and messages
// were cut short since the last time.
func (w *warnings) cutShort(cut *atomic.Int64) {
	if cut.Load() > 0 && w.unfinished.Now(time.Minute) {
		w.log.Warn("requests and messages that had not arrived completely were cut short, because together they reached Options.MaxUnfinishedBytes; raise it, unless this is an attack", "cut", cut.Swap(0))
	}
}

// foreignWriter logs once for each type that event streams go through a
// ResponseWriter that is not net/http's.
func (w *warnings) foreignWriter(t reflect.Type) {
	if _, told := w.foreign.LoadOrStore(t, nil); !told {
		w.log.Warn("event streams go through a ResponseWriter that is not net/http's: if its Flush does nothing, no event arrives, and a client that has gone is noticed late",
			"type", t.String())
	}
}
