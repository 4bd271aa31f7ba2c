package admin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/admin"
	"github.com/channels-go/channels/store"
)

// large is the page of one of 16 replicas, with 100,000 channels and 15 minutes of
// points. The other replicas are reports in the Store.
func large(b *testing.B) (ask func(path string)) {
	b.Helper()
	st, err := store.NewMemory(store.MemoryOptions{})
	require.NoError(b, err)
	b.Cleanup(func() { st.Close() })
	hub, err := channels.New(channels.Options{ReplicaID: "replica-00", Store: struct{ store.Store }{st}})
	require.NoError(b, err)
	b.Cleanup(func() { hub.Shutdown(context.Background()) })
	report := func(channels int) {
		for n := range 15 {
			r := map[string]any{"node": fmt.Sprintf("replica-%02d", n+1), "status": "green", "reasons": []string{}, "started": time.Now(), "connections": 1000, "published": 5000}
			var peers []any
			for k := range 15 {
				peers = append(peers, map[string]any{"node": fmt.Sprintf("replica-%02d", k), "up": true, "rtt_ms": 0.25})
			}
			r["mesh"] = map[string]any{"up": 15, "down": 0, "peers": peers}
			info, err := json.Marshal(r)
			require.NoError(b, err)
			one := store.Report{Replica: store.Replica{ID: r["node"].(string), Started: time.Now(), Info: info}}
			for k := range channels / 15 {
				one.Channels = append(one.Channels, store.Count{Channel: fmt.Sprintf("channel-%d-%d", n, k), Subscribers: k % 1000})
			}
			_, err = st.Report(b.Context(), one)
			require.NoError(b, err)
		}
	}
	report(100_000)
	alive := time.NewTicker(time.Second)
	b.Cleanup(alive.Stop)
	page, err := admin.New(hub, admin.Options{Token: token})
	require.NoError(b, err)
	b.Cleanup(func() { page.Close() })
	page.FillPoints()
	return func(path string) {
		select {
		case <-alive.C:
			report(0)
		default:
		}
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		page.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatal(w.Code, w.Body.String())
		}
	}
}

// What the page asks for each second.
func BenchmarkOverview(b *testing.B) {
	ask := large(b)
	for b.Loop() {
		ask("/api/overview")
	}
}

func BenchmarkPointsOfASecond(b *testing.B) {
	ask := large(b)
	after := fmt.Sprintf("/api/points?after=%d", time.Now().Unix()-2)
	for b.Loop() {
		ask(after)
	}
}

// What it asks for first.
func BenchmarkAllPoints(b *testing.B) {
	ask := large(b)
	for b.Loop() {
		ask("/api/points")
	}
}

// A page of the list that is looked at already.
func BenchmarkChannels(b *testing.B) {
	ask := large(b)
	for b.Loop() {
		ask("/api/channels?sort=subscribers&offset=50000")
	}
}

// A list of 100,000 channels, which all viewers share for many times as long as it takes.
func BenchmarkList(b *testing.B) {
	ask := large(b)
	n := 0
	for b.Loop() {
		n++
		ask("/api/channels?sort=name&limit=1&prefix=" + "channel-"[:1+n%8]) // four are kept
	}
}

// Another search in the same list, as with each letter that is typed.
func BenchmarkSearch(b *testing.B) {
	ask := large(b)
	n := 0
	for b.Loop() {
		n++
		ask(fmt.Sprintf("/api/channels?sort=subscribers&contains=%d", n%1000))
	}
}
