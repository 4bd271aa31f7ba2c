package channels_test

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// A judge is a ResponseWriter that has the library decide about a handshake, and keeps
// the answer.
type judge struct{ *httptest.ResponseRecorder }

func (judge) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, errors.New("no socket") }

// The hub answers a handshake itself, as the library would, which reads the frames.
func FuzzHandshake(f *testing.F) {
	for _, offer := range []string{
		"", "permessage-deflate", "permessage-deflate; client_max_window_bits", "permessage-deflate;client_max_window_bits=10;server_no_context_takeover",
		"permessage-deflate; server_max_window_bits=10", "permessage-deflate; server_max_window_bits=15", "permessage-deflate; server_max_window_bits=10, permessage-deflate",
		"permessage-deflate;", "x-webkit-deflate-frame", "Permessage-Deflate", "permessage-deflate; unknown", ",, ,permessage-deflate ; client_no_context_takeover",
	} {
		f.Add(offer, "other, Channels,json")
	}
	for _, protocols := range []string{"", "channels", "json", "token, JSON", "channels channels", "json,channels"} {
		f.Add("permessage-deflate", protocols)
	}
	f.Fuzz(func(t *testing.T, offer, protocols string) {
		r := httptest.NewRequest("GET", "/", nil)
		for k, v := range map[string]string{
			"Connection": "keep-alive, Upgrade", "Upgrade": "WebSocket", "Sec-Websocket-Version": "13", "Sec-Websocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
			"Sec-Websocket-Extensions": offer, "Sec-Websocket-Protocol": protocols,
		} {
			r.Header.Set(k, v)
		}
		own := []string{"channels", "json"}
		w := judge{httptest.NewRecorder()}
		_, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, Subprotocols: own, CompressionMode: websocket.CompressionNoContextTakeover})
		require.ErrorContains(t, err, "no socket")
		want := w.Header()
		got := channels.Switch(r, own...)
		require.True(t, strings.HasPrefix(got, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), got)
		for _, k := range []string{"Sec-WebSocket-Accept", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"} {
			line := ""
			if v := want.Get(k); v != "" {
				line = k + ": " + v + "\r\n"
			}
			require.Equal(t, line != "", strings.Contains(got, k), got)
			require.Contains(t, got, line)
		}
	})
}

// What is no key is refused, however long it is.
func TestHandshakeKeys(t *testing.T) {
	for key, ok := range map[string]bool{
		"dGhlIHNhbXBsZSBub25jZQ==": true, " dGhlIHNhbXBsZSBub25jZQ== ": true, "AAAAAAAAAAAAAAAAAAAAAA==": true,
		"": false, "dGhlIHNhbXBsZSBub25jZQ": false, "dGhlIHNhbXBsZSBub25jZQA=": false, "dGhlIHNhbXBsZSBub25jZTEyMw==": false,
		"!GhlIHNhbXBsZSBub25jZQ==": false, strings.Repeat("A", 1000): false,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header = http.Header{"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {key}}
		err := channels.CheckHandshake(httptest.NewRecorder(), r)
		if ok {
			require.NoError(t, err, key)
		} else {
			require.ErrorContains(t, err, "16 bytes in base64", key)
		}
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Proto, r.ProtoMinor = "HTTP/1.0", 0
	require.ErrorContains(t, channels.CheckHandshake(httptest.NewRecorder(), r), "HTTP/1.1")
}
