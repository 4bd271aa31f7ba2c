package channels

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/channels-go/channels/internal/sparingly"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/store"
)

// A Hub holds the channels of one process and their subscribers. All its
// methods may be called by many goroutines at the same time.
//
// Where to read on:
//
//	publish.go       the way of a message: check, authorise, position, deliver, relay
//	receive.go       the way of a message from another replica
//	channel.go       one channel here: its subscribers; order.go and fill.go put
//	                 messages in order and fetch what is missing, resume.go lets
//	                 a subscriber go on where it was
//	frame.go         a message encoded once; outbox.go queues it for each
//	                 subscriber, writer.go writes it
//	clients.go       who is connected; life.go, conn.go, sse.go and subscribe.go:
//	                 WebSockets, event streams and Go subscribers
//	http_….go        the HTTP endpoints: http_X.go serves what the method in X.go does
//	drain.go         how a hub ends
type Hub struct {
	opts  Options
	log   *slog.Logger
	store store.Store
	owned bool      // the store is the hub's own to close
	mesh  mesh.Mesh // nil in one process
	// discoverer is the mesh, where the hub has to tell it of its peers.
	discoverer mesh.Discoverer

	channels   channelTable
	clients    clientTable
	writers    []*writer
	spread     atomic.Uint32 // deals connections to writers
	report     reporter
	stats      counters
	queued     queuedBytes
	answering  atomic.Int64 // what of that are long answers
	admission  admission
	losses     losses
	unfinished unfinished
	vitals     vitals
	around     neighbours
	echoes     chan echo
	heartbeat  *frame // for those who want to see one
	taps       taps
	started    time.Time
	storeBad   atomic.Bool // the last report failed
	reported   atomic.Bool // there was a report
	// storeWarned is when a failing store was logged last, by uptime; 0 where
	// it has not been since it was well.
	storeWarned atomic.Int64
	apartWarned atomic.Bool
	meshWarned  sparingly.Turn // of a mesh that takes no messages
	twinWarned  sparingly.Turn // of another replica with this one's name
	badWarned   sparingly.Turn // of packets that are no messages
	entryWarned sparingly.Turn // of what the Store has and is none
	// Of a browser that was refused.
	hostWarned, originWarned sparingly.Turn
	foreign                  sync.Map // the types of ResponseWriters that were logged: see canStream
	// unfinishedWarned is when it was logged last that senders had to make way, by
	// uptime; the tick's alone.
	unfinishedWarned int64

	leaving  atomic.Bool   // not ready for newcomers any more
	hurry    chan struct{} // closed by skipDelay
	draining atomic.Bool   // nobody becomes a client any more
	// skipDelay ends Options.DrainDelay, now or in advance. It may be repeated.
	skipDelay func()

	calls gate // calls of the API that are under way
	tasks gate // goroutines that read from the store for subscribers
	conns gate // goroutines that belong to a connection
	loops gate // the hub's own goroutines
	// ctx ends with the hub; calls to the store and the mesh derive from it.
	ctx  context.Context
	stop context.CancelFunc

	shutdown    sync.Once
	down        chan struct{} // closed when all has ended
	shutdownErr error         // valid then
}

// New starts a hub. It refuses options that contradict each other. Shutdown
// frees what it holds.
func New(o Options) (*Hub, error) {
	o.setDefaults()
	o.AllowedOrigins, o.Hosts = slices.Clone(o.AllowedOrigins), slices.Clone(o.Hosts)
	if err := o.check(); err != nil {
		return nil, err
	}
	h := &Hub{opts: o, log: o.Logger, store: o.Store, mesh: o.Mesh, started: time.Now(), echoes: make(chan echo, maxEchoes), down: make(chan struct{}), hurry: make(chan struct{})}
	h.skipDelay = sync.OnceFunc(func() { close(h.hurry) })
	h.log = h.log.With("node", o.Node)
	h.discoverer, _ = o.Mesh.(mesh.Discoverer)
	h.losses.wake = make(chan struct{}, 1)
	h.vitals.reported = h.started
	h.unfinished = unfinished{limit: o.MaxUnfinishedBytes, grace: unfinishedGrace, claims: make(map[*claim]struct{})}
	if h.store == nil {
		m, err := store.NewMemory(store.MemoryOptions{})
		if err != nil {
			return nil, fmt.Errorf("channels: %w", err)
		}
		h.store, h.owned = m, true
	}
	h.ctx, h.stop = context.WithCancel(context.Background())
	h.clients.init(o.Node, o.PingPeriod)
	h.heartbeat = newHeartbeatFrame(o.PingPeriod)
	h.report.full = true // the store knows nothing of us yet
	h.writers = make([]*writer, runtime.GOMAXPROCS(0))
	for i := range h.writers {
		h.writers[i] = newWriter(h)
		h.loops.run(h.writers[i].run)
	}
	h.loops.run(h.tick)
	h.loops.run(h.reportEachSecond)
	if h.mesh != nil {
		h.loops.run(h.receive)
		h.loops.run(h.pulse)
	}
	h.loops.run(h.watchTops)
	return h, nil
}

// uptime is the hub's clock in seconds, which nobody sets back or forward.
func (h *Hub) uptime() int64 { return int64(time.Since(h.started) / time.Second) }

// storeContext bounds a call of the store.
func (h *Hub) storeContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, h.opts.StoreTimeout)
}

// background runs f as a task of the hub; false where it is shut down.
func (h *Hub) background(f func()) bool { return h.tasks.run(f) }

// Handler serves the endpoints that the package's documentation lists. It may
// be mounted at "/" or, with http.StripPrefix, below any path.
func (h *Hub) Handler() http.Handler { return http.HandlerFunc(h.serve) }

// randomID returns 13 lower-case letters and digits, unique with 64 bits.
func randomID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}
