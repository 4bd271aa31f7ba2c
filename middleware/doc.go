// Package middleware holds what an app needs around the hub's handler:
// authentication, rights, rate limits and a request log. Each piece is a
// func(http.Handler) http.Handler or has one, works without the others, and passes
// http.Hijacker, http.Flusher and Unwrap through.
//
// Use them in this order, innermost first:
//
//	handler := hub.Handler()
//	for _, m := range []func(http.Handler) http.Handler{
//		limiter.ByUser,    // needs to know the user
//		tokens.Handler,    // JWT: users
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
// The hub calls them for events that are not HTTP requests:
//
//	hub, err := channels.New(channels.Options{
//		Authenticate: tokens.Authenticate, // for the client protocol
//		Authorize:    tokens.Authorize,    // middleware.Authorize without JWT
//		OnReceive:    limiter.OnReceive,
//		OnConnect:    access.OnConnect,
//		OnDisconnect: access.OnDisconnect,
//	})
//
// To mount the hub below a path, put http.StripPrefix around all of it: the paths
// that need no token are exactly /healthz, /readyz and those of the client
// protocol (see [Tokens.Handler]).
//
// If your app has no authentication, [Hosts] protects its own routes from
// websites that point their own name at this machine. For the hub, use
// Options.Hosts.
//
// Constructors check their options and copy them. The middlewares that they
// return may be used concurrently. Refusals have the hub's form,
// {"status":"fail","error":{"code","message"}}.
package middleware
