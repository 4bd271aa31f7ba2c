package channels

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/store"
)

// A Hub holds the channels of one process and their subscribers. All its
// methods may be called by many goroutines at the same time.
type Hub struct {
	opts  Options
	log   *slog.Logger
	warn  warnings    // what is logged once in a while (warnings.go)
	store *storeCalls // Options.Store, or the hub's own
	mesh  mesh.Mesh   // nil in one process

	// These groups are embedded, since nearly every file uses what is in them.
	lifecycle    // from New to Shutdown (hub_lifecycle.go)
	delivery     // channels, clients, fan-out (hub_delivery.go)
	replicaState // this replica, the others, and what the Store is told (replicas.go)
	limits       // what all clients together may take (admission.go)
}

// Where to read on. A published message goes through four places:
//
//	publish.go       check, authorise, append to the history, relay, deliver
//	channel.go       one channel here, with its subscribers; channel_order.go and
//	                 channel_fill.go put its messages in order and fetch what is
//	                 missing
//	internal/fanout  encodes each frame once, queues it for its receivers and writes
//	                 it; in this package, frame.go builds the frames of messages
//	                 (connect_frame.go those of the client protocol), and frame_hub.go
//	                 those of the hub's own words
//	mesh             an interface; in mesh/zmqmesh, publish.go hands a packet to the
//	                 queue.go of each peer, which is a connection that another replica
//	                 has made to this one, and link.go reads it over there; doc.go has
//	                 a list like this one
//
// On the other replica, receive.go takes it, and hands it to the same channel.
// packet_info.go has what a packet says about a message besides the message itself.
//
// A subscriber: http_subscribe.go takes the request and hands it to conn.go for a
// WebSocket, or stream.go for an event stream. Before they answer, client.go asks the app
// (with the context of client_coming.go) and subscribes the client, which may begin to
// catch up. Then presence.go shows it
// (presence_user.go, where a user counts once; holds.go has the replicas agree on that;
// occupancy.go calls OnOccupied and OnVacated by the same). What is sent to a WebSocket
// before Socket.Start waits. subscribe.go is for Go code. client_subscriptions.go has the
// channels of one client. channel_attach.go makes the client a subscriber: it asks the
// mesh for the channel's messages (listen in channel.go), then the Store where the
// channel is (sync in channel_order.go), and only then adds the client, so that nothing
// is missed in between. opening.go reads the first messages where they come in one piece:
// for last, for a reply of the client protocol, and for /v1/events. A since at /channel/
// does not use it: resume.go (below) does that.
// client_table.go has all clients, as channel_table.go has the channels.
//
// user_channel.go has users' own channels, and mayReach, which authorize asks before it
// asks the app: so no door leads to another user's channel. user_online.go asks the other
// replicas who is connected to them.
//
// bridge.go is what package zmqgateway uses of the hub: its taps see every message.
//
// A subscriber of a pattern is in none of the channels: feeds.go finds it, for
// publish.go and receive.go. prefixes.go asks the mesh for the messages that patterns
// want. subscribe_pattern.go is for Go code, connect_pattern.go for the client
// protocol.
//
// A client with a position (position.go reads it) goes on where it was by resume.go:
// catchUp reads what was missed by history_read.go, goOn (position.go) decides whether
// that follows, and Outbox.Offer and WaitRoom send it as fast as the client takes it.
// What is published meanwhile is held for it (holdsLocked, until join).
// docs/positions.md has the model.
//
// An event stream of several channels: http_events.go takes the request, events.go lets
// the client in and ends its subscriptions one by one, and events_id.go has the ids from
// which it resumes.
//
// A client of many channels: connect.go has its session, and lists the files of the
// client protocol, whose words are in internal/clientproto.
//
// The end of a client: one that is told to go gets its last frame by Outbox.End
// (internal/fanout/outbox.go). Socket.wroteLast then gives it CloseTimeout to answer
// the close frame. A WebSocket that is silent is cut by Outbox.Cut (pingSome in
// client_table.go); a session that is silent is closed with a code
// that says so (ping in connect.go). If a write fails, the Socket cuts itself (Kill).
// Then finish (conn.go, stream.go, subscribe.go) takes it out of the hub by leave and
// gone of client.go. These end its presence, too, and with the last subscriber of a
// channel the mesh is told to leave it (unlisten in channel.go). disconnect.go is for
// apps that want a client gone, and subscribe_user.go for those that subscribe it to
// more.
//
// A drain: drain.go has /readyz say no (http_health.go) and tells the other replicas:
// with a heartbeat at once (replica_report.go), and over the mesh with the next canary
// (replica_canary.go). After Options.DrainDelay it refuses newcomers
// (http_subscribe.go, client.go; http_refuse.go has what they are told) and tells its
// clients to go, over time. shutdown.go ends the rest, in this order: it refuses what
// has not arrived completely (unfinished.go), waits for calls under way
// (hub_lifecycle.go), ends the clients that are left, waits for the goroutines of
// connections (Conns in internal/fanout/engine.go) and for the hub's own, says goodbye
// to the others (replica_control.go), and has the Store forget the replica (Forget).
// internal/gate does the waiting. Last, the app closes the mesh and the Store
// (example/server/main.go, which the first signal ends; signal.go there handles later
// signals).
//
// A slow subscriber: internal/fanout/policy.go, which lists what a new policy needs:
// there, in options.go, stats.go, example/server, docs and tests.
//
// HTTP: http_routes.go has the table of endpoints. http_X.go serves over HTTP what X.go
// offers in Go: publish (many at once: publish_many.go), subscribe, list, history,
// presence, replicas. On its way in, every request goes through http_origin.go (admits)
// and http_request.go (its query). Publishing and reading then ask authorize.go. A
// subscriber's since and last are read in http_subscribe.go; then comes admission.go,
// then authorize.go (by client.go). A body goes through http_body.go and unfinished.go
// to rawmessage.go and message.go. conn_handshake.go upgrades a WebSocket.
// http_answer.go and http_refuse.go are the way out.
//
// What a WebSocket's client sends: an idle connection rests (Socket.Rest), and nobody
// waits for it. When something comes, internal/poll calls Readable (conn.go), which starts
// a goroutine, unless it is a pong; those wait until many can be read at a time
// (internal/fanout/muffle.go). The goroutine lends the connection to the WebSocket library
// (conn_wire.go), and hands each message on (conn_read.go), until the client is silent
// (conn_talk.go).
//
// Observers: observer.go says what traces are told of. They hear of the steps of a
// message in publish.go and receive.go, and of the Store's in store_calls.go.
//
// The Store: in package store, memory_log.go has Append, Begin, Range and Tops,
// memory_registry.go what replicas report, memory_presence.go the members,
// memory_holds.go which replicas hold a name. redisstore has append.go (batch.go sends
// many together), range.go (share.go: one read for many), tops.go, registry.go,
// presence.go and holds.go for the same; each calls a script of lua/ by script.go.
//
// Replicas: each tells the Store that it lives (replica_report.go), and the others by
// canaries (replica_canary.go). If one dies, its links end first: at once if its
// process dies, after a time of silence if its machine does (internal/zmtp/rules.go has
// the time, timed.go applies it; mesh/zmqmesh/doc.go has the rest). Then the mesh says
// what may be lost (KindLost, which receive.go takes): channel_behind.go finds which
// channels are behind, and channel_fill.go fetches. A publish that is repeated with its
// key delivers what the dead replica had stored and not passed on (passAgain). The
// Store drops its subscribers and members after store.DeadAfter. replica_others.go asks
// for the living every 2 s (lookAround, called by replica_report.go); it keeps the mesh
// from dialling the dead one, and remembers what that one last said of itself. Each
// canary that arrives is a sign of life, too: replica_control.go takes it, and
// replica_others.go (heard) notes when. replica_verdict.go has the times after which
// silence is yellow and red. replicas.go shows it, and connect_emulation.go refuses
// commands for sessions of a replica that is silent. replica.go is one row of that
// list, with all reasons. docs/replicas.md, "When a replica dies", has the order.
//
// replica_verdict.go also judges this replica, by replica_vitals.go; http_health.go
// answers /readyz from that. vitals.settled says whether silence in the Store means
// that a replica is dead. replica_usage.go measures what this one takes of its machine.
// replica_control.go is what hubs tell each other.
//
// Numbers: each counter is declared beside the code that counts (stats.go and tally.go
// have most of it, store_calls.go the Store's, channel_watch.go those of channels that
// a pattern matches). metrics.go puts them together for package metrics.
// internal/fanout/sample.go says how long messages take.
//
// Lock order: a lock may be taken while one to its left is held, and not the
// other way round. Locks that are not named are taken alone. The sync.Once
// that ends a client is held while its hooks run.
//
//	channel.telling, watched.mu or a shard of channelTable → channel.mu
//	channel.mu → occupancy.mu → holds.mu
//	channel.mu → reporter.mu, holds.mu, graces.mu, idleChannels.mu, vitals.mu, tally.mu or those of package fanout
//	feed.mu → those of package fanout
//	feeds.mu or taps.mu → prefixes.mu
//	vitals.mu → clientTable.mu
//	talkers.mu → those of package fanout
//	any lock → that of a gate.Gate
//
// Nothing waits with a lock held, and no code of the app, the Store or the Mesh
// is called with one, with three exceptions:
//
//   - The mesh is told what is wanted (channel.telling, prefixes.mu). If that fails, the
//     app's log handler is called, too.
//   - Deadlines are set (unfinished.mu, stream.cut, and patience.mu and Outbox.mu in
//     package fanout).
//   - A context is cancelled by the function that WhenOver was given (Outbox.mu).

// New starts a hub. It refuses options that contradict each other. Shutdown
// frees what it holds.
func New(o Options) (*Hub, error) {
	o.setDefaults()
	o.AllowedOrigins, o.Hosts = slices.Clone(o.AllowedOrigins), slices.Clone(o.Hosts)
	if err := o.check(); err != nil {
		return nil, err
	}
	h := &Hub{opts: o, log: o.Logger.With("replica", o.ReplicaID), mesh: o.Mesh}
	if o.Store == nil {
		m, err := store.NewMemory(store.MemoryOptions{})
		if err != nil {
			return nil, fmt.Errorf("channels: %w", err)
		}
		o.Store = m
	}
	calls, err := countCalls(o.Store, &h.observers)
	if err != nil {
		return nil, fmt.Errorf("channels: %w", err)
	}
	h.store = calls
	h.warn.log = h.log
	h.lifecycle.init()
	h.delivery.init(&o)
	h.replicaState.init(h.started, o.Mesh)
	h.limits.init(&o)
	h.env = h.channelEnv()

	h.fan.Start()
	h.loops.Run(func() { h.every(time.Second, h.tick) })
	h.loops.Run(func() { h.every(time.Second/slotsPerSecond, h.clients.pingSome) })
	h.loops.Run(h.reportEachSecond)
	h.loops.Run(h.watchTops)
	h.loops.Run(h.keepHolds)
	if h.mesh != nil {
		h.loops.Run(h.receive)
		h.loops.Run(h.pulse)
	}
	return h, nil
}

// ownsStore reports whether the hub made the Store itself. Then it also closes it.
func (h *Hub) ownsStore() bool { return h.opts.Store == nil }

// Handler serves the endpoints that the package's documentation lists. It may
// be mounted at "/" or, with http.StripPrefix, below any path.
func (h *Hub) Handler() http.Handler { return (*handler)(h) }
