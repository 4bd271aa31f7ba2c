package connect

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A kind is a client SDK in one format over one transport.
type kind struct {
	name      string
	platform  string // "go", "node" or "page"
	protobuf  bool
	transport string // the only one that it may take
}

// kinds are all that can run the scenarios; missing has the others.
var kinds = []kind{
	{"Go JSON", "go", false, "websocket"},
	{"Go Protobuf", "go", true, "websocket"},
	{"Node JSON", "node", false, "websocket"},
	{"Node JSON http_stream", "node", false, "http_stream"},
	{"Node Protobuf", "node", true, "websocket"},
	{"Node Protobuf http_stream", "node", true, "http_stream"},
	{"Chromium JSON", "page", false, "websocket"},
	{"Chromium JSON http_stream", "page", false, "http_stream"},
	{"Chromium JSON sse", "page", false, "sse"},
	{"Chromium Protobuf", "page", true, "websocket"},
	{"Chromium Protobuf http_stream", "page", true, "http_stream"},
}

// How long the SDKs wait between two attempts: less than their own half a second to
// 20 s, since the tests would only wait with them.
const minDelay, maxDelay = 20 * time.Millisecond, 200 * time.Millisecond

// open makes a client of this kind.
func (k kind) open(t *testing.T, o introduction, tell func(event)) driver {
	t.Helper()
	if k.platform == "go" {
		return newGoClient(k, o, tell)
	}
	a, err := agents[agentKey{k.platform, k.protobuf}]()
	require.NoError(t, err)
	return newAgentClient(t, a, o, tell)
}

// quoted returns a value as JSON.
func quoted(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}
