package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/example/internal/webtest"
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

// publish returns the status and, if the message is refused, the reason.
func publish(t *testing.T, s *httptest.Server, query, message string) (int, string) {
	t.Helper()
	status, body := webtest.Call(t, http.DefaultClient, "POST", s.URL+"/v1/channel/lobby/publish"+query, message)
	var answer struct{ Error struct{ Message string } }
	json.Unmarshal([]byte(body), &answer) // other answers have no reason
	return status, answer.Error.Message
}

func TestPageLoadsOnlyItsOwn(t *testing.T) {
	webtest.PageLoadsOnlyItsOwn(t, serve(t).Config.Handler, page)
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

	_, body := webtest.Call(t, http.DefaultClient, "GET", s.URL+"/v1/channel/lobby/history?limit=50", "")
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
	webtest.Run(t, func(ctx context.Context) error { return run(ctx, "127.0.0.1:0") })
	assert.Error(t, run(context.Background(), "no address"))
}
