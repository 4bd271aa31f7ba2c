// Package doors has the paths of the hub's that are open without credentials in the
// request.
package doors

// Open reports whether a path is one of the client protocol's, whose clients send their
// token in their connect command. It is compared exactly and as it was sent
// (http.Request.URL.EscapedPath): "/connection%2Fwebsocket" is a single part of a
// path, and could be anything's name.
func Open(escapedPath string) bool {
	switch escapedPath {
	case "/connection/websocket", "/connection/sse", "/connection/http_stream", "/emulation":
		return true
	}
	return false
}

// Public reports whether a path is that of a file of the hub's that anybody may have,
// because it holds nothing of the app's.
func Public(escapedPath string) bool {
	return escapedPath == "/channels.js" || escapedPath == "/channels.d.ts"
}
