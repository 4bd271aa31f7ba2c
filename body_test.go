package channels_test

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// If Go code publishes a body that is not JSON, the error says where it is wrong, and
// how to make one.
func TestPublishSaysWhereABodyIsNoJSON(t *testing.T) {
	hub := newHub(t, channels.Options{})
	for body, where := range map[string]string{`hello`: "at byte 1", `{"a":1,}`: "at byte 8", `{"a":`: "at byte 5: unexpected end", `"a" "b"`: "at byte 5"} {
		_, err := hub.Publish(t.Context(), "a", channels.Message{Header: "x", Body: json.RawMessage(body)})
		require.ErrorIs(t, err, channels.ErrBadMessage)
		require.ErrorContains(t, err, "the body is not valid JSON "+where)
		require.ErrorContains(t, err, "channels.Of")
	}
}

// Pages show this text to people, who know nothing of idempotency keys.
func TestStoreUnavailableIsForPeople(t *testing.T) {
	require.Equal(t, "the store does not answer; try again in a moment", channels.ErrStoreUnavailable.Message)
}

// A request whose body ends early is refused, even if what has come is valid.
func TestHTTPBodyThatEndsEarly(t *testing.T) {
	s := serve(t, channels.Options{})
	w := s.join("a", "")
	c := s.dialRaw()
	body := `{"header":"x","body":1}`
	fmt.Fprintf(c.C, "POST /v1/channel/a/publish HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body)+1, body)
	c.CloseWrite()
	if resp, err := c.response(); err == nil { // or the server hangs up
		b, _ := io.ReadAll(resp.Body)
		require.Equal(t, 400, resp.StatusCode, "%s", b)
	}
	c = s.dialRaw()
	a := c.ask("POST /v1/channel/a/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n17\r\n" + body + "\r\nnonsense\r\n")
	a.wantFail(t, 400, "bad_json")
	s.publish("a", "only", `1`)
	w.want("only", `1`)
}

// Chunks, and a client that waits for "100 Continue", as curl does.
func TestHTTPBodyInChunks(t *testing.T) {
	s := serve(t, channels.Options{})
	w := s.join("a", "")
	c := s.dialRaw()
	fmt.Fprint(c.C, "POST /v1/channel/a/publish HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
	resp, err := c.response()
	require.NoError(t, err)
	require.Equal(t, 100, resp.StatusCode)
	body := `{"header":"x","body":"` + long(5000) + `"}`
	for b := []byte(body); len(b) > 0; {
		n := min(len(b), 999)
		fmt.Fprintf(c.C, "%x\r\n%s\r\n", n, b[:n])
		b = b[n:]
	}
	c.ask("0\r\n\r\n").wantOK(t, `{"status":"ok"}`)
	w.want("x", `"`+long(5000)+`"`)
}

// A request whose body is compressed is refused, and told so.
func TestBodiesThatAreEncoded(t *testing.T) {
	s := serve(t, channels.Options{})
	var zipped strings.Builder
	z := gzip.NewWriter(&zipped)
	io.WriteString(z, say("1"))
	require.NoError(t, z.Close())
	for _, path := range []string{"/v1/channel/a/publish", "/v1/publish"} {
		body := say("1")
		if path == "/v1/publish" {
			body = `{"channels":["a"],` + body[1:]
		}
		for _, coding := range []string{"gzip", "GZIP", "br", "identity, gzip", "deflate"} {
			a := s.post(path, zipped.String(), "Content-Encoding", coding)
			a.wantFail(t, 415, "unsupported_encoding")
			require.Equal(t, "identity", a.header.Get("Accept-Encoding"))
		}
		for _, coding := range []string{"identity", "Identity", ""} {
			require.Equal(t, 200, s.post(path, body, "Content-Encoding", coding).status)
		}
		a := s.post(path, "\ufeff"+body)
		a.wantFail(t, 400, "bad_json")
		require.Contains(t, a.message(), "byte order mark")
	}
}
