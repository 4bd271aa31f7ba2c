package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/example/internal/web"
)

func serve(t *testing.T) *httptest.Server {
	t.Helper()
	hub, err := newHub()
	require.NoError(t, err)
	server := httptest.NewServer(routes(hub))
	t.Cleanup(func() {
		server.Close()
		assert.NoError(t, hub.Shutdown(context.Background()))
	})
	return server
}

func get(t *testing.T, address string) (*http.Response, string) {
	t.Helper()
	res, err := http.Get(address)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res, string(body)
}

// publish returns the status and, if the message is refused, the reason.
func publish(t *testing.T, s *httptest.Server, query, message string) (int, string) {
	t.Helper()
	res, err := http.Post(s.URL+"/v1/channel/lobby/publish"+query, "application/json", strings.NewReader(message))
	require.NoError(t, err)
	defer res.Body.Close()
	var answer struct{ Error struct{ Message string } }
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	json.Unmarshal(body, &answer) // other answers have no reason
	return res.StatusCode, answer.Error.Message
}

func TestPageLoadsOnlyItsOwn(t *testing.T) {
	s := serve(t)
	for path, kind := range map[string]string{
		"/": "text/html", "/chat.css": "text/css", "/chat.js": "text/javascript", "/room.js": "text/javascript", "/icon.svg": "image/svg+xml",
	} {
		res, body := get(t, s.URL+path)
		assert.Equal(t, http.StatusOK, res.StatusCode, path)
		assert.Contains(t, res.Header.Get("Content-Type"), kind)
		host := strings.TrimPrefix(s.URL, "http://")
		assert.Contains(t, res.Header.Get("Content-Security-Policy"), "default-src 'self'; connect-src 'self' ws://"+host+" wss://"+host+"; ")
		assert.NotRegexp(t, `(src|href)="(https?:)?//|url\(`, body, path)
		assert.NotRegexp(t, `innerHTML|outerHTML|insertAdjacentHTML|document\.write`, body, path)
	}
}

// A Host that contains more than a host name and a port does not get into the
// policy.
func TestPolicyNamesOnlyAHost(t *testing.T) {
	h := web.Secure(http.NotFoundHandler(), "'none'")
	for host, connect := range map[string]string{
		"chat.example:8443": "connect-src 'self' ws://chat.example:8443 wss://chat.example:8443;",
		"[::1]:8080":        "connect-src 'self' ws://[::1]:8080 wss://[::1]:8080;",
		"a;script-src*":     "connect-src 'self';",
		"*":                 "connect-src 'self';",
		"":                  "connect-src 'self';",
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		assert.Contains(t, w.Header().Get("Content-Security-Policy"), "default-src 'self'; "+connect+" base-uri", host)
	}
}

func TestNamesAreBounded(t *testing.T) {
	s := serve(t)
	for name, status := range map[string]int{
		"Ann": 200, "  Ann  ": 200, "김민아": 200, strings.Repeat("é", 40): 200,
		"": 400, "   ": 400, strings.Repeat("é", 41): 400, "a\nb": 400, "a\x00": 400, "\xff": 400,
	} {
		got, _ := publish(t, s, "?name="+url.QueryEscape(name), `{"header":"say","body":{"text":"hi"}}`)
		assert.Equal(t, status, got, "%q", name)
	}
}

func TestNobodySpeaksUnderAnothersName(t *testing.T) {
	s := serve(t)
	before := time.Now().Truncate(time.Millisecond)
	status, reason := publish(t, s, "?name=Ann", `{"header":"say","body":{"text":" hi ","from":"Ben","at":"1999-01-01T00:00:00Z","more":1}}`)
	require.Equal(t, http.StatusOK, status, reason)
	status, reason = publish(t, s, "", `{"header":"say","body":{"text":"I am Ben","from":"Ben"}}`)
	require.Equal(t, http.StatusOK, status, reason)
	status, reason = publish(t, s, "", `{"header":"hi","body":{"n":1}}`)
	require.Equal(t, http.StatusOK, status, reason)

	_, body := get(t, s.URL+"/v1/channel/lobby/history?limit=50")
	var history struct {
		Data []struct {
			Header string
			Body   map[string]any
		}
	}
	require.NoError(t, json.Unmarshal([]byte(body), &history))
	require.Len(t, history.Data, 3)
	first := history.Data[0].Body
	at, err := time.Parse(time.RFC3339, first["at"].(string))
	require.NoError(t, err)
	assert.False(t, at.Before(before))
	delete(first, "at")
	assert.Equal(t, map[string]any{"text": "hi", "from": "Ann"}, first)
	assert.NotContains(t, history.Data[1].Body, "from")
	assert.Equal(t, map[string]any{"n": 1.0}, history.Data[2].Body)
}

func TestWhatIsRefused(t *testing.T) {
	s := serve(t)
	for message, reason := range map[string]string{
		`{"header":"say","body":{"text":"  "}}`:                                               "a message may have 1 to 2000 characters, and this one has none: write something",
		`{"header":"say","body":{"text":"` + strings.Repeat("é", 2001) + `"}}`:                "a message may have 1 to 2000 characters, and this one has 2001: make it shorter",
		`{"header":"say","body":"hello"}`:                                                     `the body has to be like {"text":"hello"}`,
		`{"header":"deploy","body":{"text":"people are not programs; they only say things"}}`: "people can only say something",
	} {
		status, got := publish(t, s, "?name=Ann", message)
		assert.Equal(t, http.StatusBadRequest, status, message)
		assert.Equal(t, reason, got)
	}
	status, reason := publish(t, s, "?name=Ann", `{"header":"say","body":{"text":"`+strings.Repeat("é", 2000)+`"}}`)
	assert.Equal(t, http.StatusOK, status, reason)
}

func TestRunEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, "127.0.0.1:0") }()
	cancel()
	select {
	case err := <-ended:
		assert.NoError(t, err)
	case <-time.After(time.Minute):
		t.Fatal("it is still running")
	}
	assert.Error(t, run(context.Background(), "no address"))
}
