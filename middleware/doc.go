// Package middleware holds what a site needs around the hub's handler: who
// somebody is, what they may do, how fast, and a log of it. Each piece is a
// func(http.Handler) http.Handler, works without the others, and passes
// http.Hijacker, http.Flusher and Unwrap through.
//
// Together they go in this order, the first outermost:
//
//	handler := hub.Handler()
//	for _, m := range []func(http.Handler) http.Handler{
//		limiter.ByUser,    // needs to know the user
//		tokens,            // JWT: users
//		limiter.ByAddress, // before tokens are verified, which costs time
//		keys,              // APIKey: servers, which no limit holds up; its option Limiter bounds wrong keys
//		cors,              // CORS: so that scripts can read refusals too
//		middleware.Recover(nil),
//		access.Handler, // Log
//		proxies,        // TrustProxies: so that all of them see the client's address
//	} {
//		handler = m(handler)
//	}
//
// and the hub asks them about what is no HTTP request:
//
//	hub, err := channels.New(channels.Options{
//		Authorize:    middleware.Authorize,
//		OnReceive:    limiter.OnReceive,
//		OnConnect:    access.OnConnect,
//		OnDisconnect: access.OnDisconnect,
//	})
//
// To mount the hub below a path, put http.StripPrefix around all of it:
// [JWT] leaves the paths /healthz and /readyz open, exactly as it sees them.
//
// Where nobody has to show who they are, [Hosts] keeps websites out of the app's
// own routes that come by a name of theirs; the hub has Options.Hosts.
//
// Constructors check their options and copy them. What they return may be
// used by many goroutines at the same time. Refusals have the hub's form,
// {"status":"fail","error":{"code","message"}}.
package middleware
