package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	neturl "net/url"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store"
	"github.com/channels-go/channels/store/redisstore"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// serve runs the app until stop is called.
func serve(t *testing.T, st store.Store) (url string, stop func()) {
	t.Helper()
	a, err := newApp(st)
	require.NoError(t, err)
	server := httptest.NewServer(a.routes())
	done := false
	stop = func() {
		if done {
			return
		}
		done = true
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, a.hub.Shutdown(ctx))
		server.Close()
	}
	t.Cleanup(stop)
	return server.URL, stop
}

// browser is a client with a session.
type browser struct {
	t *testing.T
	http.Client
	url string
	user
}

func signIn(t *testing.T, url, name string) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	b := &browser{t: t, url: url, Client: http.Client{Jar: jar}}
	code, body := b.call("POST", "/login", `{"name":"`+name+`"}`)
	require.Equal(t, 200, code, body)
	require.NoError(t, json.Unmarshal([]byte(body), &b.user))
	return b
}

func (b *browser) call(method, path, body string) (int, string) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.url+path, strings.NewReader(body))
	require.NoError(b.t, err)
	res, err := b.Do(r)
	require.NoError(b.t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(b.t, err)
	return res.StatusCode, string(text)
}

// texts returns the texts in an inbox, in order.
func (b *browser) texts(of string) []string {
	b.t.Helper()
	code, body := b.call("GET", "/v1/channel/inbox."+of+"/history", "")
	if code != 200 {
		return []string{http.StatusText(code)}
	}
	var h struct{ Data []struct{ Body message } }
	require.NoError(b.t, json.Unmarshal([]byte(body), &h))
	got := []string{}
	for _, m := range h.Data {
		got = append(got, m.Body.Text)
	}
	return got
}

func TestMessagesArePrivate(t *testing.T) {
	url, _ := serve(t, nil)
	ann, ben, eve := signIn(t, url, "Ann"), signIn(t, url, "Ben"), signIn(t, url, "Eve")
	for range 2 { // the second is a repetition
		code, body := ann.call("POST", "/messages", `{"to":"`+ben.ID+`","text":" hello ","key":"1","from":"`+eve.ID+`"}`)
		require.Equal(t, 204, code, body)
	}
	require.Equal(t, []string{"hello"}, ann.texts(ann.ID))
	require.Equal(t, []string{"hello"}, ben.texts(ben.ID))
	require.Equal(t, []string{"Forbidden"}, eve.texts(ben.ID))
	for _, path := range []string{"/v1/channel", "/v1/channel/inbox." + ben.ID, "/channel/inbox." + ben.ID + "/"} {
		code, _ := eve.call("GET", path, "")
		require.Contains(t, []int{403, 426}, code, path)
	}
	code, _ := eve.call("POST", "/v1/channel/inbox."+ben.ID+"/publish", `{"header":"message","body":{}}`)
	require.Equal(t, 403, code)
	stranger := &browser{t: t, url: url}
	code, _ = stranger.call("POST", "/messages", `{"to":"`+ben.ID+`","text":"x"}`)
	require.Equal(t, 401, code)
	code, _ = stranger.call("GET", "/me", "")
	require.Equal(t, 401, code)
	for _, bad := range []string{`{`, `{"to":"","text":"x"}`, `{"to":"` + ben.ID + `","text":" "}`, `{"to":"` + ben.ID + `","text":"x","key":"a b"}`, `{"to":"../aaaaaaaaaaaaa","text":"x"}`} {
		code, _ = ann.call("POST", "/messages", bad)
		require.Equal(t, 400, code, bad)
	}
	code, _ = stranger.call("POST", "/login", `{"name":" "}`)
	require.Equal(t, 400, code)
}

// A page of another website can neither sign in its visitors nor write for
// them.
func TestOtherWebsitesAreRefused(t *testing.T) {
	url, _ := serve(t, nil)
	ann, ben := signIn(t, url, "Ann"), signIn(t, url, "Ben")
	for path, body := range map[string]string{"/login": `{"name":"Eve"}`, "/messages": `{"to":"` + ben.ID + `","text":"x"}`} {
		r, err := http.NewRequestWithContext(t.Context(), "POST", url+path, strings.NewReader(body))
		require.NoError(t, err)
		r.Header.Set("Origin", "https://evil.example")
		res, err := ann.Do(r)
		require.NoError(t, err)
		res.Body.Close()
		require.Equal(t, 403, res.StatusCode, path)
		require.Empty(t, res.Cookies(), path)
	}
	require.Empty(t, ben.texts(ben.ID))
}

// The channel of a session holds its user. Nobody may read it, not even that
// user.
func TestSessionChannelsCannotBeRead(t *testing.T) {
	url, _ := serve(t, nil)
	ann := signIn(t, url, "Ann")
	at, err := neturl.Parse(url)
	require.NoError(t, err)
	cookies := ann.Jar.Cookies(at)
	require.Len(t, cookies, 1)
	name := sessionChannel(cookies[0].Value)
	require.NotContains(t, name, cookies[0].Value)
	for _, path := range []string{"/v1/channel/" + name, "/v1/channel/" + name + "/history", "/v1/channel/" + name + "/presence", "/v1/channel?prefix=session."} {
		code, _ := ann.call("GET", path, "")
		require.Equal(t, 403, code, path)
	}
	for _, path := range []string{"/v1/channel/" + name + "/publish", "/v1/channel/users/publish"} {
		code, _ := ann.call("POST", path, `{"header":"user","body":{}}`)
		require.Equal(t, 403, code, path)
	}
}

// With Redis, sessions and messages survive a restart.
func TestSessionsSurviveARestart(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: redistest.Start(t).Addr})
	t.Cleanup(func() { client.Close() })
	newStore := func() store.Store {
		st, err := redisstore.New(client, redisstore.Options{})
		require.NoError(t, err)
		t.Cleanup(func() { st.Close() })
		return st
	}
	url, stop := serve(t, newStore())
	ann, ben := signIn(t, url, "Ann"), signIn(t, url, "Ben")
	code, body := ann.call("POST", "/messages", `{"to":"`+ben.ID+`","text":"before"}`)
	require.Equal(t, 204, code, body)
	stop()

	again, _ := serve(t, newStore())
	ann.url, ben.url = again, again // cookies are for the host, on any port
	code, body = ben.call("GET", "/me", "")
	require.Equal(t, 200, code)
	require.Contains(t, body, ben.ID)
	code, body = ann.call("POST", "/messages", `{"to":"`+ben.ID+`","text":"after"}`)
	require.Equal(t, 204, code, body)
	require.Equal(t, []string{"before", "after"}, ben.texts(ben.ID))
}
