// Package doors has the paths of the client protocol. A client may open them
// without credentials in the request, because it sends its token in its connect
// command.
package doors

// Open reports whether a path is one of them, exactly and as it was sent
// (http.Request.URL.EscapedPath): "/connection%2Fwebsocket" is a single part of a
// path, and could be anything's name.
func Open(escapedPath string) bool {
	switch escapedPath {
	case "/connection/websocket", "/connection/sse", "/connection/http_stream", "/emulation":
		return true
	}
	return false
}
