package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	neturl "net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/example/internal/webtest"
	"github.com/channels-go/channels/internal/hubtest"
)

// handler returns the app without a server.
func handler(t *testing.T, proxies ...netip.Prefix) (*app, http.Handler) {
	t.Helper()
	a, err := newApp(nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.hub.Shutdown(context.Background())) })
	h, err := behind(proxies, a.routes())
	require.NoError(t, err)
	return a, h
}

// ask makes a request from an address, with the cookies that before has set;
// header holds alternating names and values. before may be nil.
func ask(h http.Handler, from, method, path, body string, before *httptest.ResponseRecorder, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr = from
	r.Header = hubtest.Pairs(header)
	if before != nil {
		for _, c := range before.Result().Cookies() {
			r.AddCookie(c)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func (a *app) entries(t *testing.T) int {
	t.Helper()
	info, err := a.hub.Channel(t.Context(), "users")
	require.NoError(t, err)
	return int(info.Position.Offset)
}

// Sign-ins from one address, however many, push nobody off the list of users.
func TestSignInsOfOneAddressAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, h := handler(t)
		login := func(from string, header ...string) *httptest.ResponseRecorder {
			return ask(h, from, "POST", "/login", `{"name":"Eve"}`, nil, header...)
		}
		for range 10 {
			require.Equal(t, 200, login("192.0.2.1:1").Code)
		}
		refused := login("192.0.2.1:2", "X-Forwarded-For", "192.0.2.9")
		require.Equal(t, 429, refused.Code, "no proxy is trusted, so the header does not count")
		require.Equal(t, "60", refused.Header().Get("Retry-After"))
		require.Equal(t, 200, login("192.0.2.2:1").Code)
		for i := range 10 { // different networks of one site
			require.Equal(t, 200, login(fmt.Sprintf("[2001:db8:1:%d::1]:1", i)).Code)
		}
		require.Equal(t, 429, login("[2001:db8:1:99::1]:1").Code)

		before := a.entries(t)
		for range 60 {
			time.Sleep(30 * time.Second)
			login("192.0.2.1:1")
		}
		signedIn := a.entries(t) - before
		require.Equal(t, 30, signedIn, "in half an hour")
		require.Less(t, signedIn*48*3, maxUsers, "in a day, with two more entries for each session, which is renewed and signed out")
	})
}

// A session is renewed after half of its time, not with each request.
func TestSessionIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, h := handler(t)
		s := ask(h, "192.0.2.1:1", "POST", "/login", `{"name":"Ann"}`, nil)
		me := func() int { return ask(h, "192.0.2.1:1", "GET", "/me", "", s).Code }
		time.Sleep(kept/2 - time.Minute)
		require.Equal(t, 200, me())
		require.Equal(t, 1, a.entries(t))
		time.Sleep(2 * time.Minute)
		require.Equal(t, 200, me())
		require.Equal(t, 200, me())
		require.Equal(t, 2, a.entries(t))
		time.Sleep(kept/2 - 30*time.Second)
		require.Equal(t, 200, me(), "a day after the sign-in")
	})
}

func TestMessagesOfOneUserAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, h := handler(t)
		s := ask(h, "192.0.2.1:1", "POST", "/login", `{"name":"Ann"}`, nil)
		var ann user
		require.NoError(t, json.Unmarshal(s.Body.Bytes(), &ann))
		send := func() int {
			return ask(h, "192.0.2.1:1", "POST", "/messages", `{"to":"`+ann.ID+`","text":"x"}`, s).Code
		}
		for range 300 {
			require.Equal(t, 204, send())
		}
		require.Equal(t, 429, send())
		time.Sleep(time.Second)
		require.Equal(t, 204, send())
	})
}

// The cookie is Secure only if the browser came over TLS. Only a trusted proxy
// can say so.
func TestCookieIsSecureBehindAProxyWithTLS(t *testing.T) {
	_, h := handler(t, netip.MustParsePrefix("10.0.0.0/8"))
	for _, test := range []struct {
		from   string
		proto  []string
		secure bool
	}{
		{"10.0.0.7:1", []string{"https"}, true},
		{"[::ffff:10.0.0.7]:1", []string{"HTTPS"}, true},
		{"10.0.0.7:1", nil, false},
		{"10.0.0.7:1", []string{"http"}, false},
		{"10.0.0.7:1", []string{"https, http"}, false},
		{"10.0.0.7:1", []string{"https", "http"}, false},
		{"10.0.0.7:1", []string{"http, https"}, true},
		{"192.0.2.1:1", []string{"https"}, false},
	} {
		var header []string
		for _, v := range test.proto {
			header = append(header, "X-Forwarded-Proto", v)
		}
		s := ask(h, test.from, "POST", "/login", `{"name":"Ann"}`, nil, header...)
		require.Equal(t, 200, s.Code)
		cookie := s.Result().Cookies()[0]
		require.Equal(t, test.secure, cookie.Secure, "%v", test)
		require.True(t, cookie.HttpOnly)
	}
	_, h = handler(t)
	s := ask(h, "10.0.0.7:1", "POST", "/login", `{"name":"Ann"}`, nil, "X-Forwarded-Proto", "https")
	require.False(t, s.Result().Cookies()[0].Secure, "no proxy is trusted")

	// Behind a trusted proxy, the addresses of the clients count, not the
	// proxy's.
	_, h = handler(t, netip.MustParsePrefix("10.0.0.0/8"))
	for i := range 30 {
		s := ask(h, "10.0.0.7:1", "POST", "/login", `{"name":"Ann"}`, nil, "X-Forwarded-For", fmt.Sprintf("192.0.2.%d", i%3))
		require.Equal(t, 200, s.Code)
	}
	require.Equal(t, 429, ask(h, "10.0.0.7:1", "POST", "/login", `{"name":"Ann"}`, nil, "X-Forwarded-For", "192.0.2.1").Code)
	_, err := behind([]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, h)
	require.ErrorContains(t, err, "cannot be trusted")
}

// open opens the WebSocket that the page uses.
func (b *browser) open() *websocket.Conn {
	b.t.Helper()
	c, _, err := hubtest.Dial(b.t, b.url+"/channel/"+channels.UserChannel(b.ID)+"/", websocket.DialOptions{HTTPClient: &b.Client})
	require.NoError(b.t, err)
	return c
}

func (b *browser) seesConnected() (ids []string) {
	b.t.Helper()
	body := b.want(200, "GET", "/connected", "")
	var list struct{ Data []string }
	require.NoError(b.t, json.Unmarshal([]byte(body), &list))
	return list.Data
}

func TestWhoIsConnected(t *testing.T) {
	url, _ := serve(t, nil)
	ann, ben := signIn(t, url, "Ann"), signIn(t, url, "Ben")
	ann.want(204, "POST", "/messages", `{"to":"`+ben.ID+`","text":"hello"}`)
	require.Equal(t, []string{}, ann.seesConnected(), "a request that is not the page's WebSocket does not count")
	c := ben.open()
	require.Equal(t, []string{ben.ID}, ann.seesConnected())
	c.CloseNow()
	require.Eventually(t, func() bool { return len(ann.seesConnected()) == 0 }, time.Minute, 10*time.Millisecond)
	stranger := &browser{t: t, url: url}
	stranger.want(401, "GET", "/connected", "")
}

func TestSigningOutEndsASession(t *testing.T) {
	url, _ := serve(t, nil)
	ann, ben := signIn(t, url, "Ann"), signIn(t, url, "Ben")
	c := ann.open()
	stolen := &browser{t: t, url: url, Client: http.Client{Jar: copied(t, ann.Jar)}, user: ann.user}
	stolen.want(200, "GET", "/me", "")

	ann.want(204, "POST", "/logout", "")
	m, err := webtest.Next(c)
	for ; err == nil; m, err = webtest.Next(c) {
		require.Contains(t, string(m.Body), "disconnected")
	}
	require.EqualValues(t, 3003, websocket.CloseStatus(err), "%v", err)
	for _, b := range []*browser{ann, stolen} { // also on the server, not only in the browser
		for method, path := range map[string]string{"GET": "/me", "POST": "/messages"} {
			b.want(401, method, path, `{"to":"`+ben.ID+`","text":"x"}`)
		}
		b.want(403, "GET", "/v1/channel/"+channels.UserChannel(ann.ID)+"/history", "")
	}
	body := ben.want(200, "GET", "/v1/channel/users/history", "")
	require.Contains(t, body, `"header":"gone","body":{"id":"`+ann.ID+`"`)
	ann.want(204, "POST", "/logout", "") // again
	ben.want(200, "GET", "/me", "")
}

// copied returns a jar with the same cookies.
func copied(t *testing.T, jar http.CookieJar) http.CookieJar {
	t.Helper()
	again, err := cookiejar.New(nil)
	require.NoError(t, err)
	at := &neturl.URL{Scheme: "http", Host: "127.0.0.1", Path: "/"}
	again.SetCookies(at, jar.Cookies(at))
	return again
}

func TestPageLoadsOnlyItsOwn(t *testing.T) {
	_, h := handler(t)
	webtest.PageLoadsOnlyItsOwn(t, h, page)
}

// Any host below the same domain can set a cookie named session. A cookie
// without a valid session does no harm, and one of another user signs nobody in
// as that user.
func TestCookiesOfOtherHosts(t *testing.T) {
	_, h := handler(t)
	login := func(name string) (u user, cookie string) {
		w := ask(h, "192.0.2.1:1", "POST", "/login", `{"name":"`+name+`"}`, nil)
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &u))
		return u, "session=" + w.Result().Cookies()[0].Value
	}
	ann, anns := login("Ann")
	_, eves := login("Eve")
	me := func(cookies ...string) *httptest.ResponseRecorder {
		return ask(h, "192.0.2.1:1", "GET", "/me", "", nil, "Cookie", strings.Join(cookies, "; "))
	}
	for _, cookies := range [][]string{{anns}, {"session=x", anns}, {anns, "session=x"}, {"session=", anns, anns}} {
		w := me(cookies...)
		require.Equal(t, 200, w.Code, cookies)
		require.Contains(t, w.Body.String(), ann.ID)
	}
	require.Equal(t, 401, me(eves, anns).Code, "sessions of two users")
	require.Equal(t, 401, me(anns, eves).Code)
	require.Equal(t, 401, me("session=1", "session=2", "session=3", "session=4", anns).Code, "more cookies than the server tries")

	out := ask(h, "192.0.2.1:1", "POST", "/logout", "", nil, "Cookie", "session=x; "+anns)
	require.Equal(t, 204, out.Code)
	require.Equal(t, 401, me(anns).Code)
}
