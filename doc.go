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
// ([ChannelOptions]): then its messages have positions, arrive exactly once
// and in one order, and who was away gets what was missed.
//
// The handler serves
//
//	GET  /channel/{name}/               WebSocket or server-sent events; ?since=<epoch>:<offset> resumes, ?heartbeat=event shows signs of life
//	POST /v1/channel/{name}/publish     {"header":"…","body":…}
//	POST /v1/publish                    many messages, or one to many channels
//	GET  /v1/channel                    the list: subscribers and publishes of the last minute
//	GET  /v1/channel/{name}             one channel
//	GET  /v1/channel/{name}/history     its retained messages
//	GET  /v1/channel/{name}/presence    who is there
//	GET  /v1/nodes                      the replicas and their status
//	GET  /healthz, /readyz              this replica's health
//
// By default everybody may subscribe and publish, but browsers only from the
// app's own origin. [Options.Authorize] and [WithIdentity] decide who may do
// what; package middleware has tokens, API keys and rate limits for them. The
// README tells of the protocol, the promises and the limits.
package channels
