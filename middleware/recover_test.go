package middleware_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/middleware"
)

func panics(v any) http.Handler {
	return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(v) })
}

func TestRecover(t *testing.T) {
	for name, v := range map[string]any{"text": "boom", "an error": errors.New("boom"), "not comparable": []string{"boom"}} {
		rs, log := newRecords()
		h := middleware.Recover(log)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5")
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("X-Mine", "stays")
			panic(v)
		}))
		a := try(h, "GET", "/a", "")
		require.Equal(t, 500, a.status, name)
		require.Equal(t, "internal", a.code())
		require.NotContains(t, a.body, "boom")
		require.NotContains(t, a.header, "Content-Length")
		require.NotContains(t, a.header, "Content-Encoding")
		require.Equal(t, "stays", a.header.Get("X-Mine"))
		r := rs.Records()[0]
		require.Equal(t, "ERROR", r["level"])
		require.Equal(t, "/a", r["path"])
		require.Contains(t, r["stack"], "recover_test.go")
	}
	require.Equal(t, 200, try(middleware.Recover(nil)(whoami), "GET", "/", "").status)
}

// An answer that has begun is cut off, so that no client takes it as complete.
func TestRecoverAfterTheAnswerHasBegun(t *testing.T) {
	for name, begin := range map[string]func(http.ResponseWriter){
		"a body":   func(w http.ResponseWriter) { io.WriteString(w, "half") },
		"a status": func(w http.ResponseWriter) { w.WriteHeader(200) },
		"a flush":  func(w http.ResponseWriter) { w.(http.Flusher).Flush() },
	} {
		t.Run(name, func(t *testing.T) {
			rs, log := newRecords()
			s := serveOnly(t, middleware.Recover(log)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				begin(w)
				panic("boom")
			})))
			resp, err := s.HTTP.Client().Get(s.HTTP.URL)
			if err == nil {
				_, err = io.ReadAll(resp.Body)
				resp.Body.Close()
			}
			require.Error(t, err)
			require.Len(t, rs.Records(), 1)
		})
	}
}

// http.ErrAbortHandler, which aborts an answer, is not logged as a panic.
func TestRecoverPassesAbortOn(t *testing.T) {
	rs, log := newRecords()
	require.PanicsWithValue(t, http.ErrAbortHandler, func() { try(middleware.Recover(log)(panics(http.ErrAbortHandler)), "GET", "/", "") })
	require.Empty(t, rs.Records())
}

func TestRecoverClosesWhatWasHijacked(t *testing.T) {
	rs, log := newRecords()
	c := serveOnly(t, middleware.Recover(log)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, _, err := w.(http.Hijacker).Hijack(); err != nil {
			t.Error(err)
		}
		panic("boom")
	}))).DialRaw()
	c.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	b, err := io.ReadAll(c.BR)
	require.NoError(t, err)
	require.Empty(t, strings.TrimSpace(string(b)))
	require.Len(t, rs.Records(), 1)
}
