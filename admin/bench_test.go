package admin_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/admin"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
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
	require.NoError(b, hubtest.ReportOthers(b.Context(), st, 15, 100_000))
	alive := time.NewTicker(time.Second)
	b.Cleanup(alive.Stop)
	page, err := admin.New(hub, admin.Options{Token: token})
	require.NoError(b, err)
	b.Cleanup(func() { page.Close() })
	page.FillPoints()
	return func(path string) {
		select {
		case <-alive.C:
			if err := hubtest.ReportOthers(b.Context(), st, 15, 0); err != nil {
				b.Fatal(err)
			}
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

// The newest point, which is all that comes in a second.
func BenchmarkPointsOfASecond(b *testing.B) {
	ask := large(b)
	for b.Loop() {
		ask(fmt.Sprintf("/api/points?after=%d", time.Now().Unix()-2))
	}
}

// A look at 16 replicas and the point that it makes, once a second for half an hour, over
// and over: the memory that is held after an hour is that of a quarter, or B/growth says
// by how much it is more.
func BenchmarkPointsOfHalfAnHour(b *testing.B) {
	st, err := store.NewMemory(store.MemoryOptions{})
	require.NoError(b, err)
	defer st.Close()
	require.NoError(b, hubtest.ReportOthers(b.Context(), st, 15, 0))
	hub, err := channels.New(channels.Options{ReplicaID: "replica-00", Store: struct{ store.Store }{st}})
	require.NoError(b, err)
	defer hub.Shutdown(context.Background())
	all, err := hub.Replicas(b.Context())
	require.NoError(b, err)
	require.Len(b, all, 16)
	now := time.Now()
	w := admin.NewWatch(func() time.Time { return now }, func() ([]channels.Replica, error) { return all, nil })
	seconds := func(n int) (held int64) {
		for range n {
			now = now.Add(time.Second)
			for i := range all {
				all[i].Uptime += time.Second
				all[i].Published += 1000
			}
			w.Sample()
		}
		return basetest.Heap()
	}
	for b.Loop() {
		full := seconds(900) // they are all kept
		b.ReportMetric(float64(seconds(1800)-full), "B/growth")
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
		ask("/api/channels?sort=subscribers&limit=1&prefix=" + "channel-"[:1+n%8]) // four are kept
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
