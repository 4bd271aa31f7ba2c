package middleware

import (
	"errors"
	"iter"
	"net/http"
	"strings"

	"github.com/channels-go/channels"
)

// bearerProtocol begins the WebSocket subprotocol that holds a token.
const bearerProtocol = "bearer."

// isProbe reports whether a request is a load balancer's check, which has no
// credentials and must not be refused.
func isProbe(r *http.Request) bool {
	return r.URL.Path == "/healthz" || r.URL.Path == "/readyz"
}

// isPreflight reports whether a browser asks whether it may send a request from
// another website. A preflight has no credentials.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
}

// unauthorized answers with 401 as RFC 6750 section 3 requires.
func unauthorized(w http.ResponseWriter, r *http.Request, err error) {
	challenge := `Bearer realm="channels"`
	if !errors.Is(err, ErrNoToken) {
		challenge += `, error="invalid_token"`
	}
	w.Header().Set("WWW-Authenticate", challenge)
	channels.WriteError(w, r, err)
}

// bearer returns the token of an Authorization header with the scheme Bearer
// (RFC 6750 section 2.1). It ignores other schemes.
func bearer(h http.Header) (token string, found bool, err error) {
	if n := len(h.Values("Authorization")); n > 1 {
		return "", false, badToken("the request has %d headers Authorization", n)
	}
	scheme, rest, _ := strings.Cut(h.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", false, nil
	}
	return strings.Trim(rest, " "), true, nil
}

const protocolHeader = "Sec-Websocket-Protocol"

// subprotocols are what a WebSocket handshake offers, with spaces around them.
func subprotocols(h http.Header) iter.Seq[string] {
	return strings.SplitSeq(strings.Join(h[protocolHeader], ","), ",")
}

// bearerSubprotocol returns the token in the WebSocket subprotocol "bearer.…".
func bearerSubprotocol(h http.Header) (token string, found bool, err error) {
	for p := range subprotocols(h) {
		t, ok := strings.CutPrefix(strings.TrimSpace(p), bearerProtocol)
		switch {
		case ok && found:
			return "", false, badToken(`there is more than one subprotocol "bearer."`)
		case ok:
			token, found = t, true
		}
	}
	return token, found, nil
}

// dropBearerProtocol removes the token from the subprotocols, so that no inner
// handler chooses it and sends it back. It replaces r.Header, which others may
// share.
func dropBearerProtocol(r *http.Request) {
	if len(r.Header[protocolHeader]) == 0 {
		return
	}
	var kept []string
	for p := range subprotocols(r.Header) {
		if p = strings.TrimSpace(p); !strings.HasPrefix(p, bearerProtocol) {
			kept = append(kept, p)
		}
	}
	r.Header = r.Header.Clone()
	if len(kept) == 0 {
		r.Header.Del(protocolHeader)
	} else {
		r.Header.Set(protocolHeader, strings.Join(kept, ", "))
	}
}
