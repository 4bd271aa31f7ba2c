package channels

// A door is the way by which somebody comes to the hub, to stay or to publish.
type door uint8

const (
	doorGo        door = iota // the app's own code
	doorBridge                // a program behind a Bridge, which publishes
	doorHTTP                  // POST …/publish
	doorWebSocket             // GET /channel/{name}/
	doorStream                // the same, as an event stream
	doorSession               // the client protocol: /connection/websocket
	doorSessionSSE
	doorSessionLines

	numDoors // how many there are
)

// doorNames are what Metrics and its labels call them.
var doorNames = [numDoors]string{
	"go", "bridge", "http", "websocket", "sse", "connection_websocket", "connection_sse", "connection_http_stream",
}

// door is the one that the client came by.
func (c *client) door() door {
	if c.session == nil {
		switch c.info.Transport {
		case transportWebSocket:
			return doorWebSocket
		case transportSSE:
			return doorStream
		}
		return doorGo
	}
	switch c.info.Transport {
	case transportSSE:
		return doorSessionSSE
	case transportLines:
		return doorSessionLines
	}
	return doorSession
}
