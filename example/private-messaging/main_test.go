package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	neturl "net/url"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/example/internal/webtest"
	"github.com/channels-go/channels/internal/hubtest"
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
	stop = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, a.hub.Shutdown(ctx))
		server.Close()
	})
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
	body := b.want(200, "POST", "/login", `{"name":"`+name+`"}`)
	require.NoError(t, json.Unmarshal([]byte(body), &b.user))
	return b
}

func (b *browser) call(method, path, body string) (int, string) {
	b.t.Helper()
	return webtest.Call(b.t, &b.Client, method, b.url+path, body)
}

// want makes a request that must get this status, and returns the answer.
func (b *browser) want(status int, method, path, body string) string {
	b.t.Helper()
	return webtest.Want(b.t, &b.Client, status, method, b.url+path, body)
}

// texts returns the texts in an inbox, in order.
func (b *browser) texts(of string) []string {
	b.t.Helper()
	code, body := b.call("GET", "/v1/channel/"+channels.UserChannel(of)+"/history", "")
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
		ann.want(204, "POST", "/messages", `{"to":"`+ben.ID+`","text":" hello ","key":"1","from":"`+eve.ID+`"}`)
	}
	require.Equal(t, []string{"hello"}, ann.texts(ann.ID))
	require.Equal(t, []string{"hello"}, ben.texts(ben.ID))
	require.Equal(t, []string{"Forbidden"}, eve.texts(ben.ID))
	for _, path := range []string{"/v1/channel", "/v1/channel/" + channels.UserChannel(ben.ID), "/channel/" + channels.UserChannel(ben.ID) + "/"} {
		code, _ := eve.call("GET", path, "")
		require.Contains(t, []int{403, 426}, code, path)
	}
	eve.want(403, "POST", "/v1/channel/"+channels.UserChannel(ben.ID)+"/publish", `{"header":"message","body":{}}`)
	stranger := &browser{t: t, url: url}
	stranger.want(401, "POST", "/messages", `{"to":"`+ben.ID+`","text":"x"}`)
	stranger.want(401, "GET", "/me", "")
	for _, bad := range []string{`{`, `{"to":"","text":"x"}`, `{"to":"` + ben.ID + `","text":" "}`, `{"to":"` + ben.ID + `","text":"x","key":"a b"}`, `{"to":"../aaaaaaaaaaaaa","text":"x"}`} {
		ann.want(400, "POST", "/messages", bad)
	}
	stranger.want(400, "POST", "/login", `{"name":" "}`)
}

// A page of another website can neither sign in its visitors nor write for
// them.
func TestOtherWebsitesAreRefused(t *testing.T) {
	url, _ := serve(t, nil)
	ann, ben := signIn(t, url, "Ann"), signIn(t, url, "Ben")
	for path, body := range map[string]string{"/login": `{"name":"Eve"}`, "/messages": `{"to":"` + ben.ID + `","text":"x"}`} {
		res := hubtest.Request(t, t.Context(), &ann.Client, "POST", url+path, body, "Origin", "https://evil.example")
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
		ann.want(403, "GET", path, "")
	}
	for _, path := range []string{"/v1/channel/" + name + "/publish", "/v1/channel/users/publish"} {
		ann.want(403, "POST", path, `{"header":"user","body":{}}`)
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
	ann.want(204, "POST", "/messages", `{"to":"`+ben.ID+`","text":"before"}`)
	stop()

	again, _ := serve(t, newStore())
	ann.url, ben.url = again, again // cookies are for the host, on any port
	body := ben.want(200, "GET", "/me", "")
	require.Contains(t, body, ben.ID)
	ann.want(204, "POST", "/messages", `{"to":"`+ben.ID+`","text":"after"}`)
	require.Equal(t, []string{"before", "after"}, ben.texts(ben.ID))
}
