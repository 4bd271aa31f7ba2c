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
	sdk       string // of JavaScript
	protobuf  bool   // in Go
	transport string // the only one that it may take
}

// kinds are all that can run the scenarios; missing has the others.
var kinds = []kind{
	{"Go JSON", "go", "", false, "websocket"},
	{"Go Protobuf", "go", "", true, "websocket"},
	{"Node JSON", "node", sdkJSON, false, "websocket"},
	{"Node JSON http_stream", "node", sdkJSON, false, "http_stream"},
	{"Node Protobuf", "node", sdkProtobuf, false, "websocket"},
	{"Node Protobuf http_stream", "node", sdkProtobuf, false, "http_stream"},
	{"Chromium JSON", "page", sdkJSON, false, "websocket"},
	{"Chromium JSON http_stream", "page", sdkJSON, false, "http_stream"},
	{"Chromium JSON sse", "page", sdkJSON, false, "sse"},
	{"Chromium Protobuf", "page", sdkProtobuf, false, "websocket"},
	{"Chromium Protobuf http_stream", "page", sdkProtobuf, false, "http_stream"},
	{"channels.js in Node", "node", sdkOwn, false, "websocket"},
	{"channels.js in Node http_stream", "node", sdkOwn, false, "http_stream"},
	{"channels.js in Chromium", "page", sdkOwn, false, "websocket"},
	{"channels.js in Chromium http_stream", "page", sdkOwn, false, "http_stream"},
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
	a, err := agents[agentKey{k.platform, k.sdk}]()
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
