package channels

import (
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// isUpgrade reports whether a request wants to become a WebSocket.
func isUpgrade(r *http.Request) bool {
	return headerHas(r.Header, "Connection", "upgrade") && headerHas(r.Header, "Upgrade", "websocket")
}

// wantsStream reports whether the client asks for server-sent events by name. A
// wildcard means a page.
func wantsStream(r *http.Request) bool { return accepts(r.Header.Values("Accept"), typeStream) }

// accepts reports whether an Accept header names a media type. With q=0 the type
// is not wanted (RFC 9110 sections 12.4.2 and 12.5.1).
func accepts(accept []string, mediaType string) bool {
	for _, v := range accept {
		for part := range strings.SplitSeq(v, ",") {
			if part = strings.TrimSpace(part); part == mediaType {
				return true // as browsers send it
			}
			t, params, err := mime.ParseMediaType(part)
			if err != nil || t != mediaType {
				continue
			}
			q, ok := params["q"]
			if weight, err := strconv.ParseFloat(q, 64); !ok || err == nil && weight > 0 {
				return true
			}
		}
	}
	return false
}

// headerHas reports whether a comma-separated header has a token.
func headerHas(h http.Header, key, token string) bool {
	for _, v := range h.Values(key) {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}
