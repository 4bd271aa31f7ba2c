package admin_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/admin"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// token is that of the pages of these tests.
const token = "an-admin-token-for-tests"

// served is a hub with its page, mounted at /ops/admin/.
type served struct {
	*hubtest.Server
	page *admin.Admin
	log  *basetest.Log
}

func serve(t *testing.T, o channels.Options, p admin.Options) *served {
	t.Helper()
	s := &served{log: &basetest.Log{}}
	if p.Token == "" && p.Authorize == nil {
		p.Token = token
	}
	p.Logger = s.log.Logger()
	mux := http.NewServeMux()
	s.Server = hubtest.New(t, o, func(hub http.Handler) http.Handler {
		mux.Handle("/", hub)
		return mux
	})
	page, err := admin.New(s.Hub, p)
	require.NoError(t, err)
	s.page = page
	t.Cleanup(func() { require.NoError(t, page.Close()) })
	mux.Handle("/ops/admin/", http.StripPrefix("/ops/admin", page))
	s.HTTP.Start()
	return s
}

// A browser keeps cookies, says which page a request comes from, and repeats the CSRF
// token of the page.
type browser struct {
	*served
	client *http.Client
	header http.Header // of each request
}

func (s *served) browser() *browser {
	jar, err := cookiejar.New(nil)
	require.NoError(s.T, err)
	return &browser{s, &http.Client{Transport: s.HTTP.Client().Transport, Jar: jar}, http.Header{"Origin": {s.HTTP.URL}, "Sec-Fetch-Site": {"same-origin"}}}
}

// do makes a request below the page. A body that is no form is JSON.
func (b *browser) do(method, path, body string) (*http.Response, string) {
	b.T.Helper()
	r, err := http.NewRequestWithContext(b.T.Context(), method, b.HTTP.URL+"/ops/admin/"+path, strings.NewReader(body))
	require.NoError(b.T, err)
	r.Header = b.header.Clone()
	if method == "POST" && r.Header.Get("Content-Type") == "" {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := b.client.Do(r)
	require.NoError(b.T, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(b.T, err)
	return resp, string(text)
}

// form posts a form, and returns the page that follows.
func (b *browser) form(path string, values url.Values) (*http.Response, string) {
	b.T.Helper()
	b.header.Set("Content-Type", "application/x-www-form-urlencoded")
	defer b.header.Del("Content-Type")
	return b.do("POST", path, values.Encode())
}

// login logs in, and opens the page.
func (b *browser) login() *browser {
	b.T.Helper()
	resp, text := b.form("login", url.Values{"token": {token}})
	require.Equal(b.T, 200, resp.StatusCode, text)
	b.takeCSRF(text)
	return b
}

// takeCSRF finds the token in the page.
func (b *browser) takeCSRF(page string) {
	b.T.Helper()
	_, rest, ok := strings.Cut(page, `<meta name="csrf" content="`)
	require.True(b.T, ok, "%s", page)
	value, _, _ := strings.Cut(rest, `"`)
	b.header.Set("X-CSRF-Token", value)
}

// get asks for JSON.
func get[T any](b *browser, path string) (answer T) {
	b.T.Helper()
	resp, text := b.do("GET", path, "")
	require.Equal(b.T, 200, resp.StatusCode, "%s: %s", path, text)
	require.NoError(b.T, json.Unmarshal([]byte(text), &answer), text)
	return answer
}

// wantRefused makes a request that must be refused with a status and a code.
func (b *browser) wantRefused(status int, code, method, path, body string) (message string) {
	b.T.Helper()
	resp, text := b.do(method, path, body)
	require.Equal(b.T, status, resp.StatusCode, "%s %s: %s", method, path, text)
	var a struct {
		Status string
		Error  struct{ Code, Message string }
	}
	require.NoError(b.T, json.Unmarshal([]byte(text), &a), text)
	require.Equal(b.T, "fail", a.Status)
	require.Equal(b.T, code, a.Error.Code, "%s %s: %s", method, path, text)
	require.NotEmpty(b.T, a.Error.Message)
	return a.Error.Message
}

func TestOptionsAreChecked(t *testing.T) {
	hub, err := channels.New(channels.Options{})
	require.NoError(t, err)
	defer hub.Shutdown(context.Background())
	anybody := func(*http.Request) (string, error) { return "", nil }
	for want, o := range map[string]admin.Options{
		"neither a Token nor an Authorize": {},
		"has 15 bytes":                     {Token: "fifteen-letters"},
		"has only 2 different characters":  {Token: "abababababababab"},
		"a Token and an Authorize":         {Token: token, Authorize: anybody},
		"SessionTime is 1s":                {Token: token, SessionTime: 1e9},
		"are 5 and 4":                      {Token: token, ScaleMin: 5, ScaleMax: 4},
		"are 1 and 1001":                   {Token: token, ScaleMax: 1001},
	} {
		_, err := admin.New(hub, o)
		require.ErrorContains(t, err, want)
	}
	_, err = admin.New(nil, admin.Options{Token: token})
	require.ErrorContains(t, err, "needs a hub")
}

// Without the token, there is a form, its style and nothing else.
func TestItIsClosed(t *testing.T) {
	s := serve(t, channels.Options{}, admin.Options{})
	b := s.browser()
	resp, text := b.do("GET", "", "")
	require.Equal(t, 200, resp.StatusCode)
	require.Contains(t, text, `action="login"`)
	require.NotContains(t, text, "csrf")
	require.Empty(t, resp.Cookies())
	for path, method := range map[string]string{
		"api/overview": "GET", "api/points": "GET", "api/channels": "GET", "api/channel?name=a": "GET", "api/tail?name=a": "GET",
		"api/publish": "POST", "api/disconnect": "POST", "api/scale": "POST",
	} {
		b.wantRefused(401, "no_session", method, path, "{}")
	}
	b.wantRefused(404, "not_found", "GET", "api/nothing", "")
}

func TestHeadersOfAllAnswers(t *testing.T) {
	b := serve(t, channels.Options{}, admin.Options{}).browser()
	check := func(path string) {
		resp, _ := b.do("GET", path, "")
		policy := resp.Header.Get("Content-Security-Policy")
		require.Contains(t, policy, "default-src 'none'", path)
		require.Contains(t, policy, "frame-ancestors 'none'", path)
		require.NotContains(t, policy, "unsafe", path)
		require.Equal(t, "nosniff", resp.Header.Get("X-Content-Type-Options"), path)
		want := "no-store"
		if strings.HasPrefix(path, "admin.") {
			want = "no-cache"
			require.NotEmpty(t, resp.Header.Get("ETag"))
		}
		require.Equal(t, want, resp.Header.Get("Cache-Control"), path)
	}
	for _, path := range []string{"", "api/overview", "admin.css", "api/x", "nothing"} {
		check(path)
	}
	b.login()
	for _, path := range []string{"", "api/overview", "api/points"} {
		check(path)
	}
}

func TestLoginAndLogout(t *testing.T) {
	s := serve(t, channels.Options{}, admin.Options{})
	b := s.browser().login()
	require.True(t, s.log.Has("admin: logged in"))
	u, err := url.Parse(s.HTTP.URL + "/ops/admin/api/overview")
	require.NoError(t, err)
	require.Len(t, b.client.Jar.Cookies(u), 2, "both cookies are for the folder of the page")
	u.Path = "/channel/a/"
	require.Empty(t, b.client.Jar.Cookies(u), "and for nothing else")
	get[any](b, "api/overview")
	_, text := b.form("logout", nil)
	require.Contains(t, text, `action="login"`)
	b.wantRefused(401, "no_session", "GET", "api/overview", "")
}

func TestCookies(t *testing.T) {
	s := serve(t, channels.Options{}, admin.Options{})
	for _, c := range []struct {
		header, value string
		secure        bool
	}{{"X-Other", "", false}, {"X-Forwarded-Proto", "https", true}} {
		b := s.browser()
		b.header.Set(c.header, c.value)
		b.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		resp, _ := b.form("login", url.Values{"token": {token}})
		require.Equal(t, 303, resp.StatusCode)
		require.Equal(t, "./", resp.Header.Get("Location"))
		one := resp.Cookies()[0]
		require.True(t, one.HttpOnly)
		require.Equal(t, http.SameSiteStrictMode, one.SameSite)
		require.Equal(t, c.secure, one.Secure)
		require.Equal(t, 12*60*60, one.MaxAge)
	}
}

func TestWrongToken(t *testing.T) {
	s := serve(t, channels.Options{}, admin.Options{})
	b := s.browser()
	for range 5 {
		resp, text := b.form("login", url.Values{"token": {"something else"}})
		require.Equal(t, 401, resp.StatusCode)
		require.Contains(t, text, "this is not the token")
		require.Empty(t, resp.Cookies())
	}
	require.Equal(t, 5, s.log.Count("admin: a wrong token"))
	require.False(t, s.log.Has("something else"), "the log has what was tried")
	resp, text := b.form("login", url.Values{"token": {"something else"}})
	require.Equal(t, 429, resp.StatusCode)
	require.Contains(t, text, "too many wrong ones came from this address")
	require.NotEmpty(t, resp.Header.Get("Retry-After"))
	require.Equal(t, 5, s.log.Count("admin: a wrong token"))
	program := s.browser()
	program.header = http.Header{"Authorization": {"Bearer something else"}}
	program.wantRefused(429, "rate_limited", "GET", "api/overview", "")

	// Whoever broke that script does not lock out those who have the token.
	b.login()
	get[any](b, "api/overview")
	program.header.Set("Authorization", "Bearer "+token)
	get[any](program, "api/overview")
}

// Whoever tries many at the same moment has no more guesses, and waits no longer after them.
func TestGuessesAtTheSameMoment(t *testing.T) {
	s := serve(t, channels.Options{}, admin.Options{})
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			r := httptest.NewRequest("GET", "/api/overview", nil)
			r.Header.Set("Authorization", "Bearer something else")
			s.page.ServeHTTP(httptest.NewRecorder(), r)
		})
	}
	all.Wait()
	require.Equal(t, 5, s.log.Count("admin: a wrong token"))
}

// A program sends the token itself, and needs no cookies.
func TestBearer(t *testing.T) {
	s := serve(t, channels.Options{}, admin.Options{})
	b := s.browser()
	b.header = http.Header{"Authorization": {"Bearer " + token}}
	get[any](b, "api/overview")
	resp, _ := b.do("POST", "api/publish", `{"channel":"a","header":"h","body":1}`)
	require.Equal(t, 200, resp.StatusCode)
	b.header.Set("Authorization", "Bearer nonsense-that-is-long")
	b.wantRefused(401, "bad_token", "GET", "api/overview", "")
}

func TestForgedCookies(t *testing.T) {
	s := serve(t, channels.Options{}, admin.Options{})
	u, err := url.Parse(s.HTTP.URL + "/ops/admin/")
	require.NoError(t, err)
	value := ""
	for _, c := range s.browser().login().client.Jar.Cookies(u) {
		if c.Name == "channels_admin" {
			value = c.Value
		}
	}
	require.NotEmpty(t, value)
	other := []byte(value)
	for i := range other {
		changed := append([]byte{}, other...)
		if changed[i] = 'A'; other[i] == 'A' {
			changed[i] = 'B'
		}
		b := s.browser()
		b.client.Jar.SetCookies(u, []*http.Cookie{{Name: "channels_admin", Value: string(changed)}})
		b.wantRefused(401, "no_session", "GET", "api/overview", "")
	}
	for _, v := range []string{"", "x", value + "A", value[:10]} {
		b := s.browser()
		b.client.Jar.SetCookies(u, []*http.Cookie{{Name: "channels_admin", Value: v}})
		b.wantRefused(401, "no_session", "GET", "api/overview", "")
	}
}

// Only the page itself has its visitors' browsers change something.
func TestOtherOrigins(t *testing.T) {
	s := serve(t, channels.Options{}, admin.Options{})
	const message = `{"channel":"a","header":"h","body":1}`
	for _, h := range []http.Header{
		{"Sec-Fetch-Site": {"cross-site"}}, {"Sec-Fetch-Site": {"same-site"}}, {"Origin": {"https://evil.example"}}, {"Origin": {"null"}},
	} {
		b := s.browser().login()
		h.Set("X-CSRF-Token", b.header.Get("X-CSRF-Token"))
		b.header = h
		b.wantRefused(403, "bad_origin", "POST", "api/publish", message)
		b.wantRefused(403, "bad_origin", "GET", "api/tail?name=a", "") // it could take all of them
		resp, _ := b.form("login", url.Values{"token": {token}})
		require.Equal(t, 403, resp.StatusCode)
		b.wantRefused(403, "bad_origin", "POST", "logout", "")
	}
	b := s.browser().login()
	for _, wrong := range []string{"", "00000000000000000000000000000000", "x"} {
		b.header.Set("X-CSRF-Token", wrong)
		b.wantRefused(403, "bad_csrf", "POST", "api/publish", message)
	}
}

func TestMethods(t *testing.T) {
	b := serve(t, channels.Options{}, admin.Options{}).browser().login()
	for path, allow := range map[string]string{"api/overview": "GET", "api/points": "GET", "api/channels": "GET", "api/channel": "GET", "api/tail": "GET", "api/publish": "POST", "api/disconnect": "POST", "api/scale": "POST"} {
		method := map[string]string{"GET": "POST", "POST": "GET"}[allow]
		resp, _ := b.do(method, path, "")
		require.Equal(t, 405, resp.StatusCode, path)
		require.Equal(t, allow, resp.Header.Get("Allow"), path)
	}
}

// An app that knows its operators needs no token.
func TestAuthorize(t *testing.T) {
	s := serve(t, channels.Options{}, admin.Options{Authorize: func(r *http.Request) (string, error) {
		if r.Header.Get("X-Test-User") == "" {
			return "", errors.New("ask <Ann> to let you in")
		}
		return r.Header.Get("X-Test-User"), nil
	}})
	b := s.browser()
	resp, text := b.do("GET", "", "")
	require.Equal(t, 403, resp.StatusCode)
	require.Contains(t, text, "ask &lt;Ann&gt; to let you in")
	require.Equal(t, "ask <Ann> to let you in", b.wantRefused(403, "forbidden", "GET", "api/overview", ""))
	resp, _ = b.form("login", url.Values{"token": {""}})
	require.Equal(t, 404, resp.StatusCode)

	b.header.Set("X-Test-User", "ben")
	_, text = b.do("GET", "", "")
	b.takeCSRF(text)
	require.NotContains(t, text, "logout")
	resp, text = b.do("POST", "api/publish", `{"channel":"a","header":"h","body":1}`)
	require.Equal(t, 200, resp.StatusCode, text)
	require.Contains(t, s.log.Line("admin: published"), "operator=ben")
}

// After Close, the page says so, and another Close does nothing.
func TestClose(t *testing.T) {
	s := serve(t, channels.Options{}, admin.Options{})
	b := s.browser().login()
	require.NoError(t, s.page.Close())
	require.NoError(t, s.page.Close())
	b.wantRefused(503, "closed", "GET", "api/overview", "")
}

// A visitor who sends a form slowly does not keep the replica from ending.
func TestCloseDoesNotWaitForVisitors(t *testing.T) {
	s := serve(t, channels.Options{}, admin.Options{})
	c, err := net.Dial("tcp", s.HTTP.Listener.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	fmt.Fprint(c, "POST /ops/admin/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
	line, err := bufio.NewReader(c).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 100 Continue\r\n", line, "the page waits for the form")
	closed := make(chan error, 1)
	go func() { closed <- s.page.Close() }()
	basetest.Eventually(t, "the page is closed", func() bool { return len(closed) == 1 })
	require.NoError(t, <-closed)
}

// Bodies have to come in time, also if the server has no ReadTimeout.
func TestSlowBodies(t *testing.T) {
	s := serve(t, channels.Options{}, admin.Options{})
	for path, kind := range map[string]string{"/login": "application/x-www-form-urlencoded", "/api/publish": "application/json"} {
		r := httptest.NewRequest("POST", path, strings.NewReader("{}"))
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", kind)
		w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		s.page.ServeHTTP(w, r)
		require.False(t, w.read.IsZero(), path)
	}
}

// deadlines notes the one for the body.
type deadlines struct {
	*httptest.ResponseRecorder
	read time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.read = t
	return nil
}

// Whoever leaves out the last slash is sent to the page.
func TestWithoutTheLastSlash(t *testing.T) {
	s := serve(t, channels.Options{}, admin.Options{})
	for path, want := range map[string]string{"/admin": "admin/", "/x/admin?a=1": "admin/"} {
		r, err := http.NewRequest("GET", path, nil)
		require.NoError(t, err)
		r.RequestURI = path
		w := newRecorder()
		http.StripPrefix(strings.Split(path, "?")[0], s.page).ServeHTTP(w, r)
		require.Equal(t, 307, w.Code)
		require.Equal(t, want, w.Header().Get("Location"))
	}
}
