package channels

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/store"
)

// A Hub holds the channels of one process and their subscribers. All its
// methods may be called by many goroutines at the same time.
type Hub struct {
	opts  Options
	log   *slog.Logger
	store store.Store
	owned bool      // the hub made the store, and closes it
	mesh  mesh.Mesh // nil in one process
	// discoverer is the mesh if it needs the hub to tell it of its peers, or nil.
	discoverer mesh.Discoverer

	lifecycle    // from New to Shutdown (lifecycle.go)
	delivery     // channels, clients, fan-out (delivery.go)
	replicaState // this replica and the others (replicas.go)
	warnings     // what is logged once in a while (warnings.go)

	report     reporter   // what the Store is still to be told
	admission  admission  // connections against their limits
	unfinished unfinished // bodies and messages whose rest has not come
}

// Where to read on. The way of a message:
//
//	publish.go    check, authorise, position, deliver, relay
//	receive.go    a message from another replica
//	channel.go    one channel here, with its subscribers; order.go and fill.go
//	              put its messages in order and fetch what is missing,
//	              resume.go lets a subscriber go on where it was
//	frame.go      what frames say; package fanout encodes each once, queues it
//	              for its receivers and writes it
//
// Receivers: client.go is one receiver, from enter to gone, and clientsubs.go its
// subscriptions; conn.go is a WebSocket, stream.go an event stream, subscribe.go a
// Go subscriber; clienttable.go has all of them, as channeltable.go has the
// channels.
//
// HTTP: http_routes.go has the table of endpoints. http_X.go serves over HTTP what
// X.go offers in Go: publish, list, history, presence, replicas.
//
// Replicas: vitals.go, canary.go and verdict.go judge this replica's health,
// others.go keeps what is known of the others, control.go is what hubs tell each
// other, report.go what they tell the Store, and losses.go finds what the mesh has
// lost. A mesh is one interface; in mesh/zmqmesh a packet goes from publish.go
// through queue.go to the link.go of another replica, and heartbeat.go, dial.go and
// loss.go notice that one has died. docs/replicas.md tells what happens then.
//
// The end: drain.go, then shutdown.go.
//
// Lock order: a lock may be taken while one to its left is held, and not the
// other way round. Locks that are not named are taken alone. The sync.Once
// that ends a client is held while its hooks run.
//
//	channel.telling or a shard of channelTable → channel.mu
//	channel.mu → reporter.mu, idleChannels.mu, vitals.mu or those of package fanout
//	vitals.mu → clientTable.mu
//	any lock → that of a gate.Gate
//
// Nothing waits with a lock held, and no code of the app, the Store or the Mesh
// is called with one, with three exceptions:
//
//   - The mesh is told what is wanted (channel.telling, taps.mu). If it fails, the
//     log is called.
//   - Deadlines are set (unfinished.mu, stream.cut, the lock of sendLong, and
//     patience.mu in package fanout).
//   - A context is cancelled by the function that WhenOver was given (Outbox.mu).

// New starts a hub. It refuses options that contradict each other. Shutdown
// frees what it holds.
func New(o Options) (*Hub, error) {
	o.setDefaults()
	o.AllowedOrigins, o.Hosts = slices.Clone(o.AllowedOrigins), slices.Clone(o.Hosts)
	if err := o.check(); err != nil {
		return nil, err
	}
	h := &Hub{opts: o, log: o.Logger.With("replica", o.ReplicaID), store: o.Store, mesh: o.Mesh}
	if h.store == nil {
		m, err := store.NewMemory(store.MemoryOptions{})
		if err != nil {
			return nil, fmt.Errorf("channels: %w", err)
		}
		h.store, h.owned = m, true
	}
	h.discoverer, _ = o.Mesh.(mesh.Discoverer)
	h.lifecycle.init()
	h.replicaState.init(h.started)
	h.warnings.log = h.log
	h.delivery.init(&o)
	h.env = h.channelEnv()
	h.report.full = true // the store knows nothing of us yet
	h.admission.most, h.admission.mostPerAddress = o.MaxConnections, o.MaxConnectionsPerAddress
	h.unfinished = unfinished{limit: o.MaxUnfinishedBytes, grace: unfinishedGrace, claims: make(map[*claim]struct{})}

	h.fan.Start()
	h.loops.Run(h.tick)
	h.loops.Run(h.reportEachSecond)
	h.loops.Run(h.watchTops)
	if h.mesh != nil {
		h.loops.Run(h.receive)
		h.loops.Run(h.pulse)
	}
	return h, nil
}

// Handler serves the endpoints that the package's documentation lists. It may
// be mounted at "/" or, with http.StripPrefix, below any path.
func (h *Hub) Handler() http.Handler { return http.HandlerFunc(h.serve) }
