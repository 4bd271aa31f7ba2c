package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/admin"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/mesh/zmqmesh"
	"github.com/channels-go/channels/store"
)

// operatorsToken opens the pages of these tests.
const operatorsToken = "a-token-for-operators"

// A cluster is replicas in this process with a common Store, linked by ZeroMQ, each with
// the operators' page.
type cluster struct {
	t       testing.TB
	store   store.Store
	hubs    []*channels.Hub
	servers []*httptest.Server
	log     basetest.Log
}

// newCluster starts n replicas, named replica-1 and so on. Channels that begin with
// "room." keep a history and list who is there.
func newCluster(t testing.TB, n int, o admin.Options) *cluster {
	t.Helper()
	memory, err := store.NewMemory(store.MemoryOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { memory.Close() })
	c := &cluster{t: t, store: struct{ store.Store }{memory}} // a plain Memory is each replica's own
	o.Token, o.Logger = operatorsToken, c.log.Logger()
	for i := range n {
		c.start(fmt.Sprintf("replica-%d", i+1), o)
	}
	return c
}

// pretend has the Store hear of another replica, again and again until the test ends.
func (c *cluster) pretend(id, info string) {
	ctx, cancel := context.WithCancel(context.Background())
	var reports sync.WaitGroup
	reports.Go(func() {
		for t := time.NewTicker(300 * time.Millisecond); ctx.Err() == nil; {
			c.store.Report(ctx, store.Report{Replica: store.Replica{ID: id, Info: json.RawMessage(info)}})
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
			}
		}
	})
	c.t.Cleanup(func() {
		cancel()
		reports.Wait()
	})
}

func (c *cluster) start(id string, o admin.Options) {
	c.t.Helper()
	m, err := zmqmesh.New(zmqmesh.Options{ReplicaID: id, Listen: "tcp://127.0.0.1:0", Logger: c.log.Logger()})
	require.NoError(c.t, err)
	c.t.Cleanup(func() { m.Close() })
	hub, err := channels.New(channels.Options{ReplicaID: id, Store: c.store, Mesh: m, Logger: c.log.Logger(), Channel: func(name string) channels.ChannelOptions {
		if strings.HasPrefix(name, "room.") {
			return channels.ChannelOptions{HistorySize: 500, Presence: channels.PresenceList}
		}
		return channels.ChannelOptions{}
	}})
	require.NoError(c.t, err)
	page, err := admin.New(hub, o)
	require.NoError(c.t, err)
	mux := http.NewServeMux()
	mux.Handle("/", identified(hub.Handler()))
	mux.Handle("/admin/", http.StripPrefix("/admin", page))
	server := httptest.NewServer(mux)
	c.t.Cleanup(func() {
		page.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		hub.Shutdown(ctx)
		server.CloseClientConnections()
		server.Close()
	})
	c.hubs, c.servers = append(c.hubs, hub), append(c.servers, server)
}

// identified takes everybody for the user that a header names.
func identified(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user := r.Header.Get("X-Test-User"); user != "" {
			r = r.WithContext(channels.WithIdentity(r.Context(), channels.Identity{ID: user}))
		}
		next.ServeHTTP(w, r)
	})
}

// join enters a channel at the first replica, as a user.
func (c *cluster) join(channel, user string) *websocket.Conn {
	c.t.Helper()
	conn, _, err := hubtest.Dial(c.t, c.servers[0].URL+"/channel/"+url.PathEscape(channel)+"/", websocket.DialOptions{HTTPHeader: http.Header{"X-Test-User": {user}}})
	require.NoError(c.t, err)
	return conn
}

// publish publishes at the last replica.
func (c *cluster) publish(channel, header, body string) {
	c.t.Helper()
	_, err := c.hubs[len(c.hubs)-1].Publish(c.t.Context(), channel, hubtest.Msg(header, body))
	require.NoError(c.t, err)
}

// operate logs in to the page of the first replica.
func (c *cluster) operate(b *browser, width, height int64) *page {
	c.t.Helper()
	p := b.visit(c.servers[0].URL+"/admin/", "an operator", width, height)
	p.login()
	return p
}

func (p *page) login() {
	p.t.Helper()
	// In one step: behind a wrong token, the browser may still be exchanging the page.
	p.until(fmt.Sprintf(`(() => { const f = document.getElementById("token"); f.value = %q; setTimeout(() => f.form.requestSubmit()); return true })()`, operatorsToken))
	p.becomes(`document.querySelector("#summary-light svg") && document.body.dataset.reach === "yes"`)
}
