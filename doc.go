// Package channels adds real-time channels to a Go web app: mount one
// handler, call Publish.
//
//	hub, err := channels.New(channels.Options{})
//	if err != nil {
//		log.Fatal(err)
//	}
//	mux := http.NewServeMux()
//	mux.Handle("/", hub.Handler())
//	mux.HandleFunc("POST /orders", func(w http.ResponseWriter, r *http.Request) {
//		hub.Publish(r.Context(), "orders", channels.Message{Header: "new", Body: json.RawMessage(`{"id":1}`)})
//	})
//	server := &http.Server{Addr: "127.0.0.1:8080", Handler: mux, ReadHeaderTimeout: 10 * time.Second,
//		ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute}
//	server.ListenAndServe()
//
// Browsers and programs subscribe to a channel with a WebSocket, or with
// server-sent events, at /channel/{name}/. They publish over the same socket
// or with POST /v1/channel/{name}/publish. A channel may keep a history
// ([ChannelOptions]): then its messages have positions and arrive exactly once
// and in one order, and a client that was away gets what it missed.
//
// The handler serves
//
//	GET  /channel/{name}/               WebSocket or server-sent events; ?since=<epoch>:<offset> resumes, ?last=<n> begins with the newest messages, ?heartbeat=event shows signs of life, ?position=event says where it begins, ?format=event names server-sent events after their headers, ?format=body sends bodies alone
//	GET  /v1/events                     server-sent events of several channels; ?channel=<name> and ?pattern=<pattern> say of which
//	GET  /connection/websocket          many channels over one WebSocket, in the Centrifuge client protocol
//	GET  /connection/sse                the same over an event stream
//	POST /connection/sse                the same, with the first commands as the body
//	POST /connection/http_stream        the same over a stream of lines, or of Protobuf
//	POST /emulation                     the commands for these two
//	POST /v1/channel/{name}/publish     {"header":"…","body":…}
//	POST /v1/publish                    many messages, or one to many channels
//	GET  /v1/channel                    the list: subscribers and publishes of the last minute
//	GET  /v1/channel/{name}             one channel
//	GET  /v1/channel/{name}/history     its retained messages
//	GET  /v1/channel/{name}/presence    who is there
//	GET  /v1/nodes                      the replicas and their status
//	GET  /channels.js, /channels.d.ts   the client for pages, and its types: see [ScriptPath]
//	GET  /healthz, /readyz              this replica's health
//
// [Hub.Send] sends to one user, on all of the user's connections: each user has a channel
// that nobody else gets at (see [UserChannel]).
//
// Package admin has a page for those who run the app.
//
// By default every client may subscribe and publish, but browsers only from the
// app's own origin. [Options.Authorize] and [WithIdentity] decide who may do
// what; package middleware has tokens, API keys and rate limits for them. The app can
// also subscribe clients itself: see [Hub.SubscribeUser].
//
// # Errors
//
// An error that a client may see is an [*Error] with a stable code. Clients get the
// code over HTTP, in a message with the header "error", and as the reason of a
// close frame. Go code compares with errors.Is and the variables of this
// package, such as [ErrNoHistory]. docs/protocol.md lists every code with its
// HTTP status, and every close code.
//
// # Resets
//
// A subscriber whose position can no longer be resumed gets one message with
// the header "reset", or in Go a [*ResetError], and goes on after the position
// in it. The reasons are
//
//	trimmed     what was missed is no longer kept, or was removed from the Store
//	epoch       the Store has lost messages, or the whole history
//	no_history  the channel keeps no history
package channels
