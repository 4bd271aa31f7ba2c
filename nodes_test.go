package channels_test

import (
	"context"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/store"
)

// statuses is what one replica says of all, e.g. "yellow: late, lagging", by id.
func (r *replicas) statuses(i int) map[string]string {
	r.t.Helper()
	nodes, err := r.hubs[i].Replicas(context.Background())
	require.NoError(r.t, err)
	all := map[string]string{}
	for _, n := range nodes {
		all[n.ID] = strings.TrimSuffix(string(n.Status)+": "+strings.Join(n.Reasons, ", "), ": ")
	}
	return all
}

// status is what one replica says of another, or "" if it does not know it.
func (r *replicas) status(i int, id string) string {
	r.t.Helper()
	return r.statuses(i)[id]
}

// wantStatus wants a replica to say this of each of some replicas.
func (r *replicas) wantStatus(i int, status string, ids ...string) {
	r.t.Helper()
	for _, id := range ids {
		require.Equal(r.t, status, r.status(i, id), "r%d of %s", i, id)
	}
}

// after lets time pass, and then wants what wantStatus wants.
func (r *replicas) after(d time.Duration, i int, status string, ids ...string) {
	r.t.Helper()
	time.Sleep(d)
	r.wantStatus(i, status, ids...)
}

// wantReady wants all replicas to be ready.
func (r *replicas) wantReady() {
	r.t.Helper()
	for i := range r.hubs {
		require.Equal(r.t, "ok", r.ready(i), "r%d", i)
	}
}

// during checks something every 100 ms.
func during(d time.Duration, check func()) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond)
		check()
	}
}

// ready is what GET /readyz says: "ok", or the code of an error.
func (r *replicas) ready(i int) string {
	w := get(r.hubs[i], "/readyz")
	if w.Code == 200 {
		return "ok"
	}
	var a struct{ Error struct{ Code string } }
	require.NoError(r.t, json.Unmarshal(w.Body.Bytes(), &a))
	require.Equal(r.t, 503, w.Code)
	return a.Error.Code
}

func TestNodesOverHTTP(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		s := r.subscribe(1, "c", nil)
		defer s.close()
		time.Sleep(4500 * time.Millisecond)
		w := get(r.hubs[0], "/v1/nodes")
		require.Equal(t, 200, w.Code)
		mesh := func(peer string) string {
			return `"mesh":{"up":1,"down":0,"peers":[{"node":"` + peer + `","up":true,"rtt_ms":0}],"dropped":0,"lost":0,"refused":0}`
		}
		row := func(id, numbers, mesh, seen string) string {
			return `{"node":"` + id + `","status":"green","reasons":[],"started":"2000-01-01T00:00:00Z",` + numbers +
				`,"published":0,"dropped":0,"slow_closed":0,"queued":0,"deflated":0,"draining":false,` + mesh + `,"seen_ms":` + seen + `}`
		}
		require.Equal(t, `{"data":[`+row("r0", `"connections":0,"channels":0,"connects":0,"requests":1`, mesh("r1"), "0")+","+
			row("r1", `"connections":1,"channels":1,"connects":1`, mesh("r0"), "500")+"]}\n", w.Body.String())
	})
}

func TestNodesOfOneProcess(t *testing.T) {
	s := serve(t, channels.Options{ReplicaID: "n"})
	w := s.join("a", "")
	w.send(`{"header":"h","body":1}`)
	w.want("h", "1")
	a := s.get("/v1/nodes")
	require.Equal(t, 200, a.status)
	row := a.json["data"].([]any)[0].(map[string]any)
	require.Equal(t, "n", row["node"])
	require.Equal(t, "green", row["status"])
	require.Equal(t, []any{}, row["reasons"])
	require.EqualValues(t, 1, row["connections"])
	require.EqualValues(t, 1, row["published"])
	require.NotContains(t, row, "mesh")
	started, err := time.Parse(time.RFC3339Nano, row["started"].(string))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), started, time.Minute)
}

// A replica that is killed is seen to be late, then dead, then forgotten; one
// that was only away is green again.
func TestAReplicaThatDiesIsSeenToDie(t *testing.T) {
	inBubble(t, 3, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		r.meshes[2].mute.Store(true) // nothing more comes of it; its last report was half a second ago
		r.store.mute.Store("r2")
		for _, c := range []struct {
			after time.Duration
			want  string
		}{
			{6 * time.Second, "green"},
			{7 * time.Second, "yellow: heartbeat late"},
			{9 * time.Second, "yellow: heartbeat late"},
			{10 * time.Second, "red: heartbeats missed"},
			{59 * time.Second, "red: heartbeats missed"},
			{60 * time.Second, ""},
		} {
			time.Sleep(time.Until(time.Date(2000, 1, 1, 0, 0, 4, 600_000_000, time.UTC).Add(c.after)))
			require.Equal(t, c.want, r.status(0, "r2"), c.after)
			require.Equal(t, c.want, r.status(1, "r2"), c.after)
			require.Equal(t, "green", r.status(0, "r1"))
		}
		r.meshes[2].mute.Store(false)
		r.store.mute.Store("")
		r.after(4*time.Second, 0, "green", "r2")

		require.NoError(t, r.hubs[2].Shutdown(context.Background()))
		synctest.Wait()
		require.Empty(t, r.status(0, "r2"), "who leaves properly is not missed")
	})
}

// The clocks of the replicas, and that of the Store, may be wrong.
func TestNodesDoNotCompareClocks(t *testing.T) {
	for _, ahead := range []time.Duration{time.Hour, -time.Hour} {
		inBubble(t, 2, nil, func(r *replicas) {
			r.store.ahead.Store(int64(ahead))
			time.Sleep(5 * time.Second)
			r.meshes[1].mute.Store(true) // so that the Store alone tells
			time.Sleep(12 * time.Second)
			require.Contains(t, r.status(0, "r1"), "canary lost: mesh", "what it says of itself")
			r.store.mute.Store("r1")
			r.after(12*time.Second, 0, "red: heartbeats missed", "r1")
		})
	}
}

// The report of a replica of another version is shown as far as it is understood.
func TestNodesOfAnotherVersion(t *testing.T) {
	inBubble(t, 1, nil, func(r *replicas) {
		for id, info := range map[string]string{"a": `{"connections":5}`, "b": `[1]`, "c": ``, "d": `{"status":"green","connections":7,"later":{}}`} {
			_, err := r.store.Report(context.Background(), store.Report{Replica: store.Replica{ID: id, Info: json.RawMessage(info)}})
			require.NoError(t, err)
		}
		for _, id := range []string{"a", "b", "c"} {
			require.Equal(t, "yellow: unknown", r.status(0, id), id)
		}
		require.Equal(t, "green", r.status(0, "d"))
		body := get(r.hubs[0], "/v1/nodes").Body.String()
		require.Contains(t, body, `"connections":5`)
		require.Contains(t, body, `"connections":7`)
		require.NotContains(t, body, `"reasons":null`)
	})
}

// Whatever the Store says of another replica, the list can be shown.
func TestNodesWithNumbersThatCannotBe(t *testing.T) {
	inBubble(t, 1, nil, func(r *replicas) {
		for id, info := range map[string]string{
			"huge":     `{"status":"green","cpu":1e308,"uptime_ms":1e300,"latency_p50_ms":1e19,"mesh":{"peers":[{"node":"x","rtt_ms":1e300}]}}`,
			"negative": `{"status":"green","cpu":-1e308,"memory":-1,"processors":-1,"max_connections":-1,"uptime_ms":-1,"store_ms":-1e300}`,
			"long":     `{"status":"green","version":"` + strings.Repeat("v", 1<<20) + `"}`,
		} {
			_, err := r.store.Report(context.Background(), store.Report{Replica: store.Replica{ID: id, Started: time.UnixMilli(math.MaxInt64), Info: json.RawMessage(info)}})
			require.NoError(t, err)
		}
		answer := get(r.hubs[0], "/v1/nodes")
		require.Equal(t, 200, answer.Code, answer.Body)
		all, err := r.hubs[0].Replicas(context.Background())
		require.NoError(t, err)
		require.Len(t, all, 4)
		for _, one := range all {
			require.Less(t, one.Started.Year(), 10_000, one.ID)
			require.True(t, one.CPU >= 0 && one.CPU < 1e9, "%s: %v", one.ID, one.CPU)
			for _, d := range []time.Duration{one.Uptime, one.LatencyP50, one.StoreTime} {
				require.GreaterOrEqual(t, d, time.Duration(0), one.ID)
			}
			require.GreaterOrEqual(t, min(one.Memory, int64(one.Processors), int64(one.MaxConnections)), int64(0), one.ID)
			require.Less(t, len(one.Version), 1000, one.ID)
		}
	})
}

func TestNodesShowsWhichLinksAreDown(t *testing.T) {
	inBubble(t, 1, nil, func(r *replicas) {
		for _, id := range "abcdefghijklmnopqrstuvwxyz" {
			defer r.net.Join(string(id)).Close()
		}
		r.net.Cut("r0", "y")
		r.net.Cut("r0", "k")
		nodes, err := r.hubs[0].Replicas(context.Background())
		require.NoError(t, err)
		i := slices.IndexFunc(nodes, func(n channels.Replica) bool { return n.ID == "r0" })
		m := nodes[i].Mesh
		require.Equal(t, 24, m.Up)
		require.Equal(t, 2, m.Down)
		require.Len(t, m.Peers, 20)
		require.Equal(t, []channels.ReplicaPeer{{ID: "k"}, {ID: "y"}, {ID: "a", Up: true}}, m.Peers[:3])
	})
}

// Replicas without a common Store tell each other of their links by the mesh.
func TestLinksWithoutACommonStore(t *testing.T) {
	inBubble(t, 3, nil, func(r *replicas) {
		r.net.Cut("r1", "r2")
		settle(4 * time.Second) // a canary
		nodes, err := r.hubs[0].Replicas(context.Background())
		require.NoError(t, err)
		require.Len(t, nodes, 3)
		for _, n := range nodes[1:] {
			require.NotNil(t, n.Mesh, n.ID)
			require.Equal(t, []int{1, 1}, []int{n.Mesh.Up, n.Mesh.Down}, n.ID)
		}
	}, func(_ int, o *channels.Options) {
		own, err := store.NewMemory(store.MemoryOptions{})
		require.NoError(t, err)
		t.Cleanup(func() { own.Close() })
		o.Store = own
	})
}

// Without a common Store, a light turns within a second all the same.
func TestALightTurnsWithoutACommonStore(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		settle(4 * time.Second)
		r.wantStatus(0, "green", "r1")
		drained := make(chan error)
		go func() { drained <- r.hubs[1].Drain(context.Background()) }()
		r.after(time.Second, 0, "yellow: draining", "r1")
		require.NoError(t, <-drained)
	}, func(_ int, o *channels.Options) {
		own, err := store.NewMemory(store.MemoryOptions{})
		require.NoError(t, err)
		t.Cleanup(func() { own.Close() })
		o.Store = own
	})
}
