package channels_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/hubtest"
)

// keeps gives history to the channels whose names begin with "h", presence to
// those that begin with "p", both to those that begin with "B", and nothing to
// others.
func keeps(name string) channels.ChannelOptions {
	switch name[0] {
	case 'h':
		return channels.ChannelOptions{HistorySize: 5}
	case 'p':
		return channels.ChannelOptions{Presence: channels.PresenceList}
	case 'B':
		return channels.ChannelOptions{HistorySize: 5, Presence: channels.PresenceList}
	}
	return channels.ChannelOptions{}
}

// wantFail wants the one form that all refusals have, and nothing more in it.
func (a answer) wantFail(t *testing.T, status int, code string) {
	t.Helper()
	require.Equal(t, status, a.status, a.body)
	require.Equal(t, code, a.code(), a.body)
	require.NotEmpty(t, a.message(), a.body)
	require.Equal(t, map[string]any{"status": "fail", "error": map[string]any{"code": code, "message": a.message()}}, a.json)
	require.Equal(t, "application/json; charset=utf-8", a.header.Get("Content-Type"))
	require.Equal(t, "no-store", a.header.Get("Cache-Control"))
}

// wantOK wants this text, so that not only the values but the keys are right.
func (a answer) wantOK(t *testing.T, body string) {
	t.Helper()
	require.Equal(t, http.StatusOK, a.status, a.body)
	require.Equal(t, body, strings.TrimSpace(a.body))
}

// asUser is an app's own middleware: the user is who the header says.
func asUser(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u := r.Header.Get("X-User"); u != "" {
			info, _ := json.Marshal(map[string]string{"name": strings.ToUpper(u)})
			r = r.WithContext(channels.WithIdentity(r.Context(), channels.Identity{ID: u, Info: info}))
		}
		next.ServeHTTP(w, r)
	})
}

// joinAs is join with headers.
func (s *server) joinAs(channel string, header ...string) *wsClient {
	s.t.Helper()
	w, _, err := s.tryDial("/channel/"+url.PathEscape(channel)+"/", &websocket.DialOptions{HTTPHeader: hubtest.Pairs(header)})
	require.NoError(s.t, err)
	return w
}

// numbers are what the list says of one channel.
func (s *server) numbers(channel string) (cnt, rpm int) {
	s.t.Helper()
	c, err := s.hub.Channel(context.Background(), channel)
	require.NoError(s.t, err)
	return c.Subscribers, c.Publishes
}

func TestHTTPMethods(t *testing.T) {
	s := serve(t, channels.Options{Channel: every(channels.ChannelOptions{HistorySize: 1, Presence: channels.PresenceList})})
	const get, post, stream = "GET, HEAD, OPTIONS", "POST, OPTIONS", "GET, OPTIONS"
	for path, allow := range map[string]string{
		"/channel/a":             stream,
		"/channel/a/":            stream,
		"/v1/channel/a/publish":  post,
		"/v1/publish":            post,
		"/v1/channel":            get,
		"/v1/channel/a":          get,
		"/v1/channel/a/history":  get,
		"/v1/channel/a/presence": get,
		"/healthz":               get,
		"/readyz":                get,
	} {
		t.Run(path, func(t *testing.T) {
			for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"} {
				a := s.do(method, path, "")
				other, ok := strings.CutSuffix(path, "/")
				if !ok {
					other = path + "/"
				}
				b := s.do(method, other, "")
				require.Equal(t, []any{a.status, a.code(), a.header.Get("Allow")}, []any{b.status, b.code(), b.header.Get("Allow")}, other)
				switch {
				case method == "OPTIONS":
					require.Equal(t, 204, a.status)
					require.Equal(t, allow, a.header.Get("Allow"))
					require.Empty(t, a.body)
				case method == "HEAD" && allow == get:
					require.Equal(t, 200, a.status)
					require.Empty(t, a.body)
					require.Equal(t, "application/json; charset=utf-8", a.header.Get("Content-Type"))
				case method == "HEAD":
					require.Equal(t, 405, a.status)
					require.Equal(t, allow, a.header.Get("Allow"))
				case slices.Contains(strings.Split(allow, ", "), method):
					require.NotEqual(t, 405, a.status)
				default:
					a.wantFail(t, 405, "method_not_allowed")
					require.Equal(t, allow, a.header.Get("Allow"))
					require.Contains(t, a.message(), method+" is not allowed here; "+strings.Replace(allow, ", OPTIONS", " and OPTIONS", 1)+" are")
				}
			}
		})
	}
	for _, path := range []string{"/", "/v1", "/v1/", "/v2/channel", "/channel", "/channel/a/b", "/channel/a//", "/channel/a/b/",
		"/v1/channel/a/other", "/v1/channel/a/history//", "/v1/channel/a/publish/x", "/v1/publish//", "/v1/publish/a", "/v1/nodes/a", "/healthz//", "/healthz/x", "//healthz", "/Healthz", "/index.html"} {
		t.Run("nothing at "+path, func(t *testing.T) {
			for _, method := range []string{"GET", "POST", "OPTIONS"} {
				s.do(method, path, "").wantFail(t, 404, "not_found")
			}
		})
	}
}

func TestHTTPPlainGetIsToldToUpgrade(t *testing.T) {
	t.Run("HTTP/1.1", func(t *testing.T) {
		s := serve(t, channels.Options{})
		a := s.get("/channel/a/")
		a.wantFail(t, 426, "upgrade_required")
		require.Equal(t, "websocket", a.header.Get("Upgrade"))
		require.Equal(t, "Upgrade", a.header.Get("Connection"))
		s.get("/channel/a", "Accept", "text/html, */*").wantFail(t, 426, "upgrade_required")
		s.get("/channel/a/", "Connection", "Upgrade", "Upgrade", "h2c").wantFail(t, 426, "upgrade_required")
	})
	t.Run("HTTP/2", func(t *testing.T) {
		s := serveTLS(t, channels.Options{})
		a := s.get("/channel/a/")
		a.wantFail(t, 426, "upgrade_required")
		require.Empty(t, a.header.Get("Connection"), "HTTP/2 forbids it")
		require.Empty(t, a.header.Get("Upgrade"), "HTTP/2 forbids it")
		require.Contains(t, a.message(), "HTTP/1.1")

		// The same server serves events over HTTP/2, and WebSockets over HTTP/1.1.
		e := s.stream("a", "")
		require.Equal(t, 2, e.resp.ProtoMajor)
		w := s.join("a", "")
		s.publish("a", "x", `1`)
		w.want("x", `1`)
		require.Equal(t, `{"header":"x","body":1}`, e.next().data)
		w.send(`{"header":"y","body":"over TLS"}`)
		w.want("y", `"over TLS"`)
		w.want("exchange", `{"msg":"ok"}`)
		require.Equal(t, `{"header":"y","body":"over TLS"}`, e.next().data)
		e.close()
	})
}

func TestHTTPNames(t *testing.T) {
	s := serve(t, channels.Options{})
	for _, name := range []string{"a", "한국어", "a:b;c,d@e", "a+b", "a%b", "%2F", "%", "x=y&z#1", "🙂", "...", "-", "~", `"quoted"`, `back\slash`, "a.b", "'<>",
		long(200), strings.Repeat("한", 66) + "xx", "\ufffd"} {
		t.Run(name[:min(len(name), 12)], func(t *testing.T) {
			w := s.join(name, "")
			e := s.stream(name, "")
			s.publish(name, "x", `1`)
			w.want("x", `1`)
			e.next()
			for _, path := range []string{"/v1/channel/" + url.PathEscape(name), "/v1/channel/" + everyByteEscaped(name)} {
				a := s.get(path)
				require.Equal(t, 200, a.status, a.body)
				require.Equal(t, map[string]any{"channel_name": name, "cnt": 2.0, "rpm": 1.0}, a.json["data"])
			}
			a := s.get("/v1/channel?prefix=" + url.QueryEscape(name) + "&limit=1")
			require.Equal(t, name, a.json["data"].([]any)[0].(map[string]any)["channel_name"])
			e.close()
		})
	}
	accepted := s.hub.Stats().Connects
	for _, path := range []string{"", "%2F", "a%2Fb", "%2Fa", "%00", "a%00", "%20", "a%20b", "%09", "%0A", "%0D%0A", "*", "a*", "%2A", "%3F", "%FF", "%C3", "%ED%A0%80",
		"%7F", "%C2%85", "%C2%A0", "%E2%80%A8", "%E3%80%80", "%EF%BB%BF", "%2E", "%2E%2E", long(201), strings.Repeat("%ED%95%9C", 67)} {
		t.Run("refused "+path[:min(len(path), 12)], func(t *testing.T) {
			for _, c := range []struct{ method, path, accept string }{
				{"GET", "/channel/" + path + "/", "text/event-stream"},
				{"POST", "/v1/channel/" + path + "/publish", ""},
				{"GET", "/v1/channel/" + path, ""},
				{"GET", "/v1/channel/" + path + "/history", ""},
				{"GET", "/v1/channel/" + path + "/presence", ""},
			} {
				if c.path == "/v1/channel/" {
					continue // the list: a slash at the end makes no difference
				}
				body := ""
				if c.method == "POST" {
					body = `{"header":"x","body":1}`
				}
				s.do(c.method, c.path, body, "Accept", c.accept).wantFail(t, 400, "bad_channel")
			}
			s.handshake("/channel/"+path+"/").wantFail(t, 400, "bad_channel")
		})
	}
	t.Run("bad escapes", func(t *testing.T) {
		for _, path := range []string{"/channel/%zz/", "/channel/%", "/v1/channel/a%2"} {
			c := s.dialRaw() // a client that does not correct them
			a := c.ask("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n")
			require.Equal(t, 400, a.status)
		}
		s.getStream("/channel/a/?since=%zz").wantFail(t, 400, "bad_query")
	})
	require.Equal(t, accepted, s.hub.Stats().Connects)
}

func everyByteEscaped(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, "%%%02x", c)
	}
	return b.String()
}

func TestHTTPMounted(t *testing.T) {
	mux := func(pattern, strip string) func(http.Handler) http.Handler {
		return func(h http.Handler) http.Handler {
			m := http.NewServeMux()
			if strip != "" {
				h = http.StripPrefix(strip, h)
			}
			m.Handle(pattern, h)
			return m
		}
	}
	for name, c := range map[string]struct {
		middleware func(http.Handler) http.Handler
		base       string
	}{
		"in a mux at the root":         {mux("/", ""), ""},
		"below a path":                 {mux("/rt/", "/rt"), "/rt"},
		"below a path, with its slash": {mux("/rt/", "/rt/"), "/rt"},
		"below a path of two parts":    {mux("/api/rt/", "/api/rt"), "/api/rt"},
		"below a path without a mux":   {func(h http.Handler) http.Handler { return http.StripPrefix("/rt", h) }, "/rt"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, channels.Options{Channel: keeps}, c.middleware)
			for _, name := range []string{"h", "h한국", "ha+b%c", "h;x"} {
				w, _, err := s.tryDial(c.base+"/channel/"+url.PathEscape(name)+"/", nil)
				require.NoError(t, err)
				a := s.post(c.base+"/v1/channel/"+url.PathEscape(name)+"/publish", `{"header":"x","body":1}`)
				require.Equal(t, 200, a.status, a.body)
				w.want("x", `1`)
				a = s.get(c.base + "/v1/channel/" + url.PathEscape(name))
				require.Equal(t, name, a.json["data"].(map[string]any)["channel_name"])
			}
			s.getStream(c.base+"/channel/a%2Fb/").wantFail(t, 400, "bad_channel")
			s.get(c.base+"/v1/channel/a%2Fhistory").wantFail(t, 400, "bad_channel")
			s.get(c.base+"/nothing").wantFail(t, 404, "not_found")
			s.get(c.base+"/readyz").wantOK(t, `{"status":"ok"}`)
		})
	}
}
