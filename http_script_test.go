package channels_test

import (
	"compress/gzip"
	"context"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/client/js"
)

// The client for pages is anybody's, and no Authorize is asked.
func TestScript(t *testing.T) {
	s := serve(t, channels.Options{Authorize: func(context.Context, channels.Request) error { return channels.ErrForbidden }})
	for path, want := range map[string]struct{ kind, content string }{
		"/channels.js":          {"text/javascript; charset=utf-8", js.Module()},
		channels.ScriptPath():   {"text/javascript; charset=utf-8", js.Module()},
		"/channels.js?v=before": {"text/javascript; charset=utf-8", js.Module()},
		"/channels.d.ts":        {"text/plain; charset=utf-8", js.Types},
	} {
		a := s.get(path, "Accept-Encoding", "identity")
		require.Equal(t, 200, a.status, path)
		require.Equal(t, want.content, a.body, path)
		require.Equal(t, want.kind, a.header.Get("Content-Type"), path)
		require.Equal(t, "nosniff", a.header.Get("X-Content-Type-Options"), path)
		require.Empty(t, a.header.Get("Content-Encoding"), path)
		cached := "no-cache"
		if path == channels.ScriptPath() {
			cached = "public, max-age=31536000, immutable"
		}
		require.Equal(t, cached, a.header.Get("Cache-Control"), path)
		head := s.do("HEAD", path, "", "Accept-Encoding", "identity")
		require.Equal(t, 200, head.status)
		require.Empty(t, head.body)
		require.Equal(t, a.header.Get("Content-Length"), head.header.Get("Content-Length"))

		// Each form has a tag of its own, so that a cache does not mix them.
		tag := a.header.Get("ETag")
		require.NotEmpty(t, tag)
		require.Equal(t, 304, s.get(path, "Accept-Encoding", "identity", "If-None-Match", tag).status)
		require.Equal(t, 200, s.get(path, "Accept-Encoding", "gzip", "If-None-Match", tag).status)
		zipped := s.get(path, "Accept-Encoding", "br;q=1, gzip;q=0.5")
		require.Equal(t, "gzip", zipped.header.Get("Content-Encoding"))
		require.Equal(t, strconv.Itoa(len(zipped.body)), zipped.header.Get("Content-Length"))
		require.Contains(t, strings.Join(zipped.header.Values("Vary"), ","), "Accept-Encoding")
		part := s.get(path, "Accept-Encoding", "gzip", "Range", "bytes=10-19")
		require.Equal(t, 206, part.status)
		require.Equal(t, zipped.body[10:20], part.body)
		r, err := gzip.NewReader(strings.NewReader(zipped.body))
		require.NoError(t, err)
		plain, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, want.content, string(plain))
		require.Equal(t, 304, s.get(path, "Accept-Encoding", "gzip", "If-None-Match", zipped.header.Get("ETag")).status)
	}
	for _, refused := range []string{"gzip;q=0", "gzip; q=0.000", "br", "*;q=0", "xgzip"} {
		require.Empty(t, s.get("/channels.js", "Accept-Encoding", refused).header.Get("Content-Encoding"), refused)
	}
	s.get("/channels.js?w=1").wantFail(t, 400, "bad_query")
	s.get("/channels.d.ts?v=1").wantFail(t, 400, "bad_query")
	s.post("/channels.js", "").wantFail(t, 405, "method_not_allowed")
}

// Pages of all origins load it. What they may do with it is decided when they connect.
func TestScriptForAnotherOrigin(t *testing.T) {
	s := serve(t, channels.Options{AllowedOrigins: []string{"https://app.example.com"}})
	a := s.get("/channels.js", "Origin", "https://app.example.com", "Sec-Fetch-Site", "cross-site")
	require.Equal(t, 200, a.status)
	require.Equal(t, "https://app.example.com", a.header.Get("Access-Control-Allow-Origin"))
	require.Equal(t, []string{"Origin", "Accept-Encoding"}, a.header.Values("Vary"))
	for _, path := range []string{"/channels.js", channels.ScriptPath(), "/channels.d.ts"} {
		for _, header := range [][]string{
			{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"},
			{"Sec-Fetch-Site", "cross-site"}, {"Referer", "https://evil.example/"},
		} {
			a := s.get(path, header...)
			require.Equal(t, 200, a.status, "%s %s", path, header)
			require.Empty(t, a.header.Get("Access-Control-Allow-Credentials"))
			if header[0] == "Origin" {
				require.Equal(t, "*", a.header.Get("Access-Control-Allow-Origin"))
			}
		}
	}
	require.Empty(t, s.log.String())
	// What a cache keeps of an answer without an Origin is not for pages that have one.
	require.Contains(t, s.get("/channels.js").header.Values("Vary"), "Origin")
}
