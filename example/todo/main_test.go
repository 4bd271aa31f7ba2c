package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/example/internal/webtest"
)

// serve serves the list. htmx says whether there is a file in the place of htmx.
func serve(t *testing.T, htmx bool) (*httptest.Server, *list) {
	t.Helper()
	folder := t.TempDir()
	if htmx {
		require.NoError(t, os.WriteFile(filepath.Join(folder, "htmx.min.js"), []byte("// htmx"), 0o600))
	}
	l, err := newList(folder)
	require.NoError(t, err)
	server := httptest.NewServer(l.routes())
	t.Cleanup(func() {
		server.Close()
		assert.NoError(t, l.hub.Shutdown(context.Background()))
	})
	return server, l
}

// submit sends a form, as the page does it.
func submit(t *testing.T, s *httptest.Server, action, value string, header ...string) (status int, body string) {
	t.Helper()
	form := url.Values{"value": {value}}.Encode()
	return webtest.Call(t, http.DefaultClient, "POST", s.URL+action, form, append(header, "Content-Type", "application/x-www-form-urlencoded")...)
}

func get(t *testing.T, s *httptest.Server, path string) string {
	t.Helper()
	return webtest.Want(t, http.DefaultClient, http.StatusOK, "GET", s.URL+path, "")
}

// Each change is published as the list's new HTML, which the page has, too.
func TestChangesArePublished(t *testing.T) {
	s, l := serve(t, true)
	require.Contains(t, get(t, s, "/"), "Nothing to do")
	want := func(there, gone string) {
		t.Helper()
		kept, err := l.hub.History(t.Context(), "todo", channels.HistoryQuery{})
		require.NoError(t, err)
		last := kept.Messages[len(kept.Messages)-1]
		var html string
		require.NoError(t, json.Unmarshal(last.Body, &html))
		page := get(t, s, "/")
		require.Contains(t, page, `hx-sse:connect="/channel/todo/?format=event&amp;since=`+last.Position.String()+`"`)
		for _, shown := range []string{html, page} {
			require.Contains(t, shown, there)
			require.NotContains(t, shown, gone)
		}
	}
	for _, change := range []struct{ action, value, there, gone string }{
		{"/add", " <b>bread</b> & milk ", ">&lt;b&gt;bread&lt;/b&gt; &amp; milk</button>", "Nothing to do"},
		{"/add", "tea", ">tea</button>", "Nothing to do"},
		{"/done", "1", ">tea</button>", "bread"},
		{"/done", "1", ">tea</button>", "bread"}, // in another window, too
		{"/done", "2", "Nothing to do", "tea"},
	} {
		status, form := submit(t, s, change.action, change.value, "HX-Request", "true")
		require.Equal(t, http.StatusOK, status)
		require.Contains(t, form, `action="/add"`)
		require.NotContains(t, form, "<main", "the form alone")
		want(change.there, change.gone)
	}
}

// A page can go on from the position that it comes with, even if the channel has forgotten
// that of the last change. Otherwise it would be reset and load again without end.
func TestAPageOfAForgottenList(t *testing.T) {
	s, l := serve(t, true)
	l.at = channels.Position{Epoch: "forgotten", Offset: 7}
	_, since, _ := strings.Cut(get(t, s, "/"), `data-since="`)
	since, _, _ = strings.Cut(since, `"`)
	at, err := channels.ParsePosition(since)
	require.NoError(t, err)
	after, err := l.hub.History(t.Context(), "todo", channels.HistoryQuery{Since: &at})
	require.NoError(t, err)
	require.False(t, after.Missed)
	require.Empty(t, after.Messages)
}

// A page without htmx submits the forms itself, and follows the list by a script.
func TestWithoutHTMX(t *testing.T) {
	s, _ := serve(t, false)
	status, page := submit(t, s, "/add", "tea")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, page, ">tea</button>", "the page, after a redirect")
	require.Contains(t, page, `<script type="module" src="/live.js">`)
	require.NotContains(t, page, "htmx.min.js")
	require.Contains(t, get(t, s, "/live.js"), `from "/channels.js"`)

	s, _ = serve(t, true)
	page = get(t, s, "/")
	require.Contains(t, page, `<script src="/htmx/htmx.min.js">`)
	require.NotContains(t, page, "live.js")
	require.Equal(t, "// htmx", get(t, s, "/htmx/htmx.min.js"))
}

func TestTheListIsBounded(t *testing.T) {
	s, l := serve(t, true)
	for i := range 30 {
		status, _ := submit(t, s, "/add", strconv.Itoa(i))
		require.Equal(t, http.StatusOK, status, "the page after the redirect")
	}
	require.Len(t, l.items, 20)
	require.Equal(t, item{30, "29"}, l.items[19])
	status, why := submit(t, s, "/add", strings.Repeat("x", 2001))
	require.Equal(t, http.StatusBadRequest, status)
	require.Contains(t, why, "make it shorter")
}

// Nobody writes through a page of another website, and only the app publishes.
func TestOthersChangeNothing(t *testing.T) {
	s, l := serve(t, true)
	before := l.at
	status, _ := submit(t, s, "/add", "spam", "Sec-Fetch-Site", "cross-site")
	require.Equal(t, http.StatusForbidden, status)
	status, _ = webtest.Call(t, http.DefaultClient, "POST", s.URL+"/v1/channel/todo/publish", `{"header":"message","body":"spam"}`)
	require.Equal(t, http.StatusNotFound, status, "it is not served")
	require.Equal(t, before, l.at)
}

func TestRunEnds(t *testing.T) {
	webtest.Run(t, func(ctx context.Context) error { return run(ctx, "127.0.0.1:0", "") })
	assert.Error(t, run(context.Background(), "no address", ""))
}
