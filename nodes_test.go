package channels_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/meshtest"
	"github.com/channels-go/channels/store"
)

// get asks a replica over HTTP, without a network.
func (r *replicas) get(i int, path string) (status int, body string) {
	w := httptest.NewRecorder()
	r.hubs[i].Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	return w.Code, w.Body.String()
}

// status is what one replica says of another, e.g. "yellow: late, lagging";
// "" where it does not know it.
func (r *replicas) status(i int, id string) string {
	r.t.Helper()
	nodes, err := r.hubs[i].Replicas(context.Background())
	require.NoError(r.t, err)
	for _, n := range nodes {
		if n.ID == id {
			return strings.TrimSuffix(string(n.Status)+": "+strings.Join(n.Reasons, ", "), ": ")
		}
	}
	return ""
}

// ready is what GET /readyz says: "ok", or the code of an error.
func (r *replicas) ready(i int) string {
	status, body := r.get(i, "/readyz")
	if status == 200 {
		return "ok"
	}
	var a struct{ Error struct{ Code string } }
	require.NoError(r.t, json.Unmarshal([]byte(body), &a))
	require.Equal(r.t, 503, status)
	return a.Error.Code
}

func TestNodesOverHTTP(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		s := r.subscribe(1, "c", nil)
		defer s.close()
		time.Sleep(4500 * time.Millisecond)
		status, body := r.get(0, "/v1/nodes")
		require.Equal(t, 200, status)
		mesh := func(peer string) string {
			return `"mesh":{"up":1,"down":0,"peers":[{"node":"` + peer + `","up":true,"rtt_ms":0}],"dropped":0,"lost":0,"refused":0}`
		}
		row := func(id, numbers, mesh, seen string) string {
			return `{"node":"` + id + `","status":"green","reasons":[],"started":"2000-01-01T00:00:00Z",` + numbers +
				`,"published":0,"dropped":0,"slow_closed":0,"queued":0,"deflated":0,"draining":false,` + mesh + `,"seen_ms":` + seen + `}`
		}
		require.Equal(t, `{"data":[`+row("r0", `"connections":0,"channels":0,"connects":0`, mesh("r1"), "0")+","+
			row("r1", `"connections":1,"channels":1,"connects":1`, mesh("r0"), "500")+"]}\n", body)
	})
}

func TestNodesOfOneProcess(t *testing.T) {
	s := serve(t, channels.Options{ReplicaID: "n"})
	w := s.join("a", "")
	w.send(`{"header":"h","body":1}`)
	w.want("h", "1")
	a := s.do("GET", "/v1/nodes", "")
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
	var meshes []*brittle
	inBubble(t, 3, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		meshes[2].mute.Store(true) // nothing more comes of it; its last report was half a second ago
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
		meshes[2].mute.Store(false)
		r.store.mute.Store("")
		time.Sleep(4 * time.Second)
		require.Equal(t, "green", r.status(0, "r2"))

		require.NoError(t, r.hubs[2].Shutdown(context.Background()))
		synctest.Wait()
		require.Empty(t, r.status(0, "r2"), "who leaves properly is not missed")
	}, breakable(&meshes))
}

// The clocks of the replicas, and that of the Store, may be wrong.
func TestNodesDoNotCompareClocks(t *testing.T) {
	for _, ahead := range []time.Duration{time.Hour, -time.Hour} {
		var meshes []*brittle
		inBubble(t, 2, nil, func(r *replicas) {
			r.store.ahead.Store(int64(ahead))
			time.Sleep(5 * time.Second)
			meshes[1].mute.Store(true) // so that the Store alone tells
			time.Sleep(12 * time.Second)
			require.Contains(t, r.status(0, "r1"), "canary lost: mesh", "what it says of itself")
			r.store.mute.Store("r1")
			time.Sleep(12 * time.Second)
			require.Equal(t, "red: heartbeats missed", r.status(0, "r1"))
		}, breakable(&meshes))
	}
}

func TestTheStoresCanary(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		require.Equal(t, "green", r.status(0, "r0"))
		require.Equal(t, "ok", r.ready(0))
		r.store.full.Store(true) // it takes reports, but no message
		time.Sleep(3 * time.Second)
		require.Equal(t, "yellow: canary late: store", r.status(0, "r0"))
		require.Equal(t, "ok", r.ready(0))
		time.Sleep(7 * time.Second)
		require.Equal(t, "red: canary lost: store", r.status(0, "r0"))
		require.Equal(t, "red: canary lost: store", r.status(0, "r1"))
		require.Equal(t, "ok", r.ready(0), "the other one is no better")
		r.store.full.Store(false)
		time.Sleep(4 * time.Second)
		require.Equal(t, "green", r.status(0, "r0"))
		require.Equal(t, "green", r.status(0, "r1"))
		require.Equal(t, "ok", r.ready(0))

		r.store.addLag.Store(int64(1100 * time.Millisecond))
		time.Sleep(5 * time.Second)
		require.Equal(t, "yellow: canary late: store", r.status(0, "r0"))
		r.store.addLag.Store(0)
		time.Sleep(5 * time.Second)
		require.Equal(t, "green", r.status(0, "r0"))
	})
}

// Where a part of the Store hangs, the heartbeat goes on in the other part.
func TestAPartOfTheStoreThatHangsDoesNotMakeReplicasSeemDead(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		r.store.hangs.Store(true)
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			nodes, err := r.store.Store.Replicas(context.Background())
			require.NoError(t, err)
			for _, n := range nodes {
				require.Less(t, time.Since(n.Seen), 6*time.Second, "yellow after 7 s")
			}
		}
		require.Equal(t, "red: canary lost: store", r.status(0, "r0"))
		r.store.hangs.Store(false)
	})
}

// stubborn is a Store that can be read and takes nothing, as one that is full.
type stubborn struct {
	store.Store
	refuses atomic.Bool
}

func (s *stubborn) err() error {
	if s.refuses.Load() {
		return fmt.Errorf("test: full: %w", store.ErrUnavailable)
	}
	return nil
}

func (s *stubborn) Append(ctx context.Context, ch string, e store.Entry, o store.AppendOptions) (store.Position, bool, error) {
	if err := s.err(); err != nil {
		return store.Position{}, false, err
	}
	return s.Store.Append(ctx, ch, e, o)
}

func (s *stubborn) Report(ctx context.Context, r store.Report) (bool, error) {
	if err := s.err(); err != nil {
		return false, err
	}
	return s.Store.Report(ctx, r)
}

func (s *stubborn) UpdatePresence(ctx context.Context, node string, changes []store.PresenceChange) error {
	if err := s.err(); err != nil {
		return err
	}
	return s.Store.UpdatePresence(ctx, node, changes)
}

// While the Store takes no reports it is no witness that somebody lives, nor that
// somebody does not: who says nothing is red, and the mesh keeps its peers.
func TestADeadReplicaIsRedWhileTheStoreTakesNoReports(t *testing.T) {
	var full *stubborn
	var meshes []*brittle
	var ds []*discoverer
	inBubble(t, 3, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		full.refuses.Store(true)
		meshes[2].mute.Store(true) // r2 is killed
		time.Sleep(11 * time.Second)
		for range 80 {
			time.Sleep(500 * time.Millisecond)
			for i := range 2 {
				require.Equal(t, "red: heartbeats missed", r.status(i, "r2"))
				require.Equal(t, "red: reports lost: store, canary lost: store", r.status(i, "r"+strconv.Itoa(1-i)), "as it says itself, over the mesh")
			}
		}
		time.Sleep(20 * time.Second)
		require.Empty(t, r.status(0, "r2"), "it is forgotten")
		require.Equal(t, "ok", r.ready(0))
		peers, _ := ds[0].told()
		require.Equal(t, map[string]string{"r1": "tcp://r1", "r2": "tcp://r2"}, peers, "who cannot report may live")

		full.refuses.Store(false)
		r.store.mute.Store("r2")
		time.Sleep(8 * time.Second)
		require.Equal(t, "green", r.status(0, "r1"))
		peers, _ = ds[0].told()
		require.Equal(t, map[string]string{"r1": "tcp://r1"}, peers, "who lives has reported by now")
	}, func(_ int, o *channels.Options) {
		if full == nil {
			full = &stubborn{Store: o.Store}
		}
		o.Store = full
	}, breakable(&meshes), func(_ int, o *channels.Options) {
		d := &discoverer{Mesh: o.Mesh, address: "tcp://" + o.ReplicaID}
		ds = append(ds, d)
		o.Mesh = d
	})
}

// A Store that comes back knows nobody who has reported lately. That is no reason
// to let go of anybody.
func TestPeersAreKeptWhenTheStoreComesBack(t *testing.T) {
	var ds []*discoverer
	inBubble(t, 4, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		r.store.down.Store(true)
		time.Sleep(30 * time.Second)
		r.store.mute.Store("r3") // which needs a moment longer than the others
		r.store.down.Store(false)
		for range 25 {
			time.Sleep(100 * time.Millisecond)
			peers, _ := ds[0].told()
			require.Len(t, peers, 3)
		}
		r.store.mute.Store("")
		time.Sleep(10 * time.Second)
		peers, _ := ds[0].told()
		require.Len(t, peers, 3)
	}, func(_ int, o *channels.Options) {
		d := &discoverer{Mesh: o.Mesh, address: "tcp://" + o.ReplicaID}
		ds = append(ds, d)
		o.Mesh = d
	})
}

func TestNodesWhileTheStoreIsDown(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond) // its heartbeats and canaries come at whole seconds
		r.store.down.Store(true)
		time.Sleep(8 * time.Second)
		require.Equal(t, "yellow: report late: store, canary late: store", r.status(0, "r0"))
		time.Sleep(30 * time.Second)
		require.Equal(t, "red: reports lost: store, canary lost: store", r.status(0, "r0"))
		require.Equal(t, "red: reports lost: store, canary lost: store", r.status(0, "r1"), "as it says itself, over the mesh")
		r.store.down.Store(false)
		time.Sleep(5 * time.Second)
		require.Equal(t, "green", r.status(0, "r0"))
		require.Equal(t, "green", r.status(0, "r1"))
		require.Equal(t, "ok", r.ready(0))
	})
}

// While the Store fails all replicas, channels without history go on: a
// balancer must not be left with no replica at all.
func TestReadyWhileTheStoreFailsAll(t *testing.T) {
	inBubble(t, 3, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		r.store.down.Store(true)
		s := r.subscribe(1, "c", nil)
		for range 400 {
			time.Sleep(100 * time.Millisecond)
			for i := range r.hubs {
				require.Equal(t, "ok", r.ready(i))
			}
		}
		r.publish(0, "c", 1)
		synctest.Wait()
		require.Len(t, s.close(), 1)
		for i := range r.hubs { // one that hears of no other cannot know whose fault it is
			r.net.Cut("r2", "r"+strconv.Itoa(i))
		}
		time.Sleep(8 * time.Second)
		require.Equal(t, "store_unavailable", r.ready(2))
		require.Equal(t, "ok", r.ready(0))
		r.net.Heal()
		r.store.down.Store(false)
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			require.Equal(t, "ok", r.ready(0))
		}
	})
	t.Run("one", func(t *testing.T) {
		inBubble(t, 1, nil, func(r *replicas) {
			time.Sleep(4500 * time.Millisecond)
			r.store.down.Store(true)
			time.Sleep(2 * time.Second)
			require.Equal(t, "store_unavailable", r.ready(0))
		})
	})
}

// silent is a Store that does not answer.
type silent struct {
	store.Store
	on atomic.Bool
}

func (s *silent) Append(ctx context.Context, ch string, e store.Entry, o store.AppendOptions) (store.Position, bool, error) {
	if s.on.Load() {
		<-ctx.Done()
		return store.Position{}, false, ctx.Err()
	}
	return s.Store.Append(ctx, ch, e, o)
}

func (s *silent) Report(ctx context.Context, r store.Report) (bool, error) {
	if s.on.Load() {
		<-ctx.Done()
		return false, ctx.Err()
	}
	return s.Store.Report(ctx, r)
}

// A replica that was started while the Store is down has nothing to say against
// it yet. It is no better off than those that have.
func TestReadyWhereANewcomerHasNotFoundTheStore(t *testing.T) {
	inBubble(t, 3, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		r.store.down.Store(true)
		time.Sleep(20 * time.Second)
		node := r.net.Join("r3")
		defer node.Close()
		late := &silent{Store: r.store}
		late.on.Store(true)
		hub, err := channels.New(channels.Options{ReplicaID: "r3", Store: late, Mesh: node, Logger: quiet})
		require.NoError(t, err)
		r.hubs = append(r.hubs, hub)
		for range 200 {
			time.Sleep(100 * time.Millisecond)
			for i := range 3 {
				require.Equal(t, "ok", r.ready(i))
			}
		}
		r.store.down.Store(false)
		late.on.Store(false)
		time.Sleep(15 * time.Second)
		for i := range r.hubs {
			require.Equal(t, "ok", r.ready(i))
			require.Equal(t, "green", r.status(i, "r3"))
		}
	})
}

// A replica that alone has lost the Store sends clients to those that have it.
func TestNotReadyWhereOthersHaveTheStore(t *testing.T) {
	var own *faultyStore
	inBubble(t, 2, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		own.down.Store(true)
		time.Sleep(11 * time.Second)
		require.Equal(t, "store_unavailable", r.ready(0))
		require.Equal(t, "ok", r.ready(1))
		own.down.Store(false)
		time.Sleep(4 * time.Second)
		require.Equal(t, "ok", r.ready(0))
	}, func(i int, o *channels.Options) {
		if i == 0 {
			shared := o.Store.(*faultyStore)
			own = &faultyStore{Store: shared.Store}
			own.log.Store(shared.log.Load())
			o.Store = own
		}
	})
}

func TestTheMeshsCanary(t *testing.T) {
	inBubble(t, 1, nil, func(r *replicas) {
		time.Sleep(30 * time.Second)
		require.Equal(t, "green", r.status(0, "r0"), "where there is no peer, none has to answer")

		silent := r.net.Join("silent") // a peer whose link is up, and nothing comes of it
		defer silent.Close()
		time.Sleep(7 * time.Second)
		require.Equal(t, "yellow: canary late: mesh", r.status(0, "r0"))
		require.Equal(t, "ok", r.ready(0))
		time.Sleep(6 * time.Second)
		require.Equal(t, "red: canary lost: mesh", r.status(0, "r0"))
		require.Equal(t, "mesh_unavailable", r.ready(0))

		node := r.net.Join("r1")
		defer node.Close()
		hub, err := channels.New(channels.Options{ReplicaID: "r1", Store: r.store, Mesh: node, Logger: quiet})
		require.NoError(t, err)
		time.Sleep(7 * time.Second)
		require.Equal(t, "green", r.status(0, "r0"), "one that answers is enough")
		require.Equal(t, "green", r.status(0, "r1"))
		require.Equal(t, "ok", r.ready(0))
		r.net.SetFaults(meshtest.Faults{Delay: 3 * time.Second})
		require.Eventually(t, func() bool { return r.status(0, "r0") == "yellow: canary late: mesh" }, time.Minute, 100*time.Millisecond)
		require.NoError(t, hub.Shutdown(context.Background()))
	})
}

// A replica whose link to one that lives is down says so, and takes clients.
func TestALinkThatIsDownIsYellow(t *testing.T) {
	inBubble(t, 3, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		r.net.Cut("r0", "r1")
		time.Sleep(20 * time.Second)
		require.Contains(t, r.status(0, "r0"), "yellow: link down")
		require.Contains(t, r.status(2, "r1"), "yellow: link down", "as the others see it")
		require.NotContains(t, r.status(2, "r2"), "link down")
		require.Equal(t, "ok", r.ready(0))
		r.net.Heal()
		time.Sleep(20 * time.Second)
		require.Equal(t, "green", r.status(2, "r1"))
	})
}

// Who is cut off from all others and still has the Store, which knows that they
// live, is red, by its own word and by theirs. They are not, as they hear each
// other.
func TestWhoIsCutOffFromAllOthersIsRed(t *testing.T) {
	inBubble(t, 3, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		r.net.Cut("r2", "r0")
		r.net.Cut("r2", "r1")
		time.Sleep(13 * time.Second)
		for range 300 {
			time.Sleep(100 * time.Millisecond)
			for i := range r.hubs {
				require.NotContains(t, r.status(i, "r0"), "canary") // it drops what it would send
				require.NotContains(t, r.status(i, "r1"), "canary")
				require.Contains(t, r.status(i, "r2"), "red: canary lost: mesh", "as r%d sees it", i)
			}
			require.Equal(t, "ok", r.ready(0))
			require.Equal(t, "mesh_unavailable", r.ready(2))
		}
		r.net.Heal()
		time.Sleep(4 * time.Second)
		require.Equal(t, "ok", r.ready(2))
		time.Sleep(11 * time.Second)
		for i := range r.hubs {
			require.Equal(t, "green", r.status(i, "r2"))
		}
	})
}

// Where each is cut off from each, clients are no better off elsewhere: not at
// any moment, in whatever order the replicas find out, and not at one that comes
// later and reaches nobody either.
func TestReadyWhereAllAreCutOffFromEachOther(t *testing.T) {
	inBubble(t, 4, nil, func(r *replicas) {
		last := r.hubs[3]
		require.NoError(t, last.Shutdown(context.Background()))
		r.hubs = r.hubs[:3]
		apart := func() {
			for _, pair := range [][2]string{{"r0", "r1"}, {"r0", "r2"}, {"r1", "r2"}, {"r3", "r0"}, {"r3", "r1"}, {"r3", "r2"}} {
				r.net.Cut(pair[0], pair[1])
			}
		}
		ready := func(seconds int) {
			for range 10 * seconds {
				time.Sleep(100 * time.Millisecond)
				for i := range r.hubs {
					require.Equal(t, "ok", r.ready(i), "r%d", i)
				}
			}
		}
		for phase := range 7 {
			ready(20)
			time.Sleep(time.Duration(phase) * 500 * time.Millisecond)
			apart()
			ready(20)
			for i := range r.hubs {
				require.Contains(t, r.status(0, "r"+strconv.Itoa(i)), "red: canary lost: mesh")
			}
			r.net.Heal()
			for range 50 { // each finds out at its own moment
				time.Sleep(100 * time.Millisecond)
				require.True(t, r.ready(0) == "ok" || r.ready(1) == "ok" || r.ready(2) == "ok", "nobody is ready")
			}
		}
		apart()
		ready(20)
		node := r.net.Join("r3")
		defer node.Close()
		apart()
		hub, err := channels.New(channels.Options{ReplicaID: "r3", Store: r.store, Mesh: node, Logger: quiet})
		require.NoError(t, err)
		r.hubs = append(r.hubs, hub)
		ready(30)
		require.Contains(t, r.status(0, "r3"), "red: canary lost: mesh")
	})
}

// Replicas that share the Store and not the mesh answer no canary, and nobody
// expects it of them, behind a broker neither.
func TestWhoHasNoMeshAnswersNoCanary(t *testing.T) {
	for name, other := range map[string]func(mesh.Mesh) mesh.Mesh{
		"none":    func(mesh.Mesh) mesh.Mesh { return nil },
		"another": func(m mesh.Mesh) mesh.Mesh { return &sees{m, nil} },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 2, nil, func(r *replicas) {
				r.net.Cut("r0", "r1")
				for range 300 {
					time.Sleep(100 * time.Millisecond)
					for i := range r.hubs {
						require.Equal(t, "ok", r.ready(i))
						require.NotContains(t, r.status(i, "r0"), "canary")
					}
				}
			}, func(i int, o *channels.Options) {
				if i == 0 {
					o.Mesh = &sees{o.Mesh, []mesh.Peer{{Up: true}}} // a broker
				} else {
					o.Mesh = other(o.Mesh)
				}
			})
		})
	}
}

// sees is a mesh that sees other peers than those that there are.
type sees struct {
	mesh.Mesh
	peers []mesh.Peer
}

func (s *sees) Status() mesh.Status { return mesh.Status{Peers: s.peers} }

// A peer that dies takes its links with it. Whoever is left alone may be late
// for a while, and is never red.
func TestTheLastOneIsNotRed(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		for phase := range 30 {
			time.Sleep(20*time.Second + time.Duration(phase)*100*time.Millisecond)
			require.Equal(t, "green", r.status(0, "r0"))
			r.net.Cut("r0", "r1")
			r.store.mute.Store("r1")
			for range 150 {
				time.Sleep(100 * time.Millisecond)
				require.NotContains(t, r.status(0, "r0"), "red")
				require.Equal(t, "ok", r.ready(0))
			}
			require.NotContains(t, r.status(0, "r0"), "canary")
			r.store.mute.Store("")
			r.net.Heal()
		}
	})
}

// An app may close its mesh long after its hub: nobody waits for its answers.
func TestAHubThatHasLeftAnswersNoCanary(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		require.NoError(t, r.hubs[1].Shutdown(context.Background()))
		for range 300 {
			time.Sleep(100 * time.Millisecond)
			require.NotContains(t, r.status(0, "r0"), "red")
			require.Empty(t, r.status(0, "r1"))
		}
		require.Equal(t, "green", r.status(0, "r0"))
	})
}

func TestAMeshThatSaysWhatIsWrong(t *testing.T) {
	var meshes []*brittle
	inBubble(t, 1, nil, func(r *replicas) {
		time.Sleep(5 * time.Second)
		broken := errors.New("the broker is away")
		meshes[0].err.Store(&broken)
		time.Sleep(13 * time.Second)
		require.Equal(t, "red: canary lost: mesh", r.status(0, "r0"))
		meshes[0].err.Store(nil)
		time.Sleep(4 * time.Second)
		require.Equal(t, "green", r.status(0, "r0"))

		meshes[0].refuses.Store(true)
		time.Sleep(13 * time.Second)
		require.Equal(t, "green", r.status(0, "r0"), "with nobody to hear it, and a Status that is well")
	}, breakable(&meshes))
}

// A replica that is stopped, as by SIGSTOP, keeps its links. Nobody but itself
// is the worse for it.
func TestAStoppedPeerMakesNobodyRed(t *testing.T) {
	var meshes []*brittle
	inBubble(t, 2, nil, func(r *replicas) {
		time.Sleep(5200 * time.Millisecond)
		for phase := range 3 {
			meshes[1].mute.Store(true)
			r.store.mute.Store("r1")
			for range 300 {
				time.Sleep(100 * time.Millisecond)
				require.Contains(t, []string{"green", "yellow: canary late: mesh"}, r.status(0, "r0"))
				require.Equal(t, "ok", r.ready(0))
			}
			require.Equal(t, "green", r.status(0, "r0"))
			require.Equal(t, "red: heartbeats missed", r.status(0, "r1"))
			meshes[1].mute.Store(false)
			r.store.mute.Store("")
			time.Sleep(time.Duration(phase)*time.Second + 10*time.Second)
			require.Equal(t, "green", r.status(0, "r0"))
			require.Equal(t, "green", r.status(0, "r1"))
		}
	}, breakable(&meshes))
}

func TestYellowReasons(t *testing.T) {
	t.Run("draining", func(t *testing.T) {
		inBubble(t, 2, nil, func(r *replicas) {
			time.Sleep(4 * time.Second)
			require.NoError(t, r.hubs[0].Drain(context.Background()))
			require.Equal(t, "yellow: draining", r.status(0, "r0"))
			require.Equal(t, "yellow: draining", r.status(1, "r0"))
			require.Equal(t, "draining", r.ready(0))
			require.Equal(t, "ok", r.ready(1))
		})
	})
	t.Run("dropping", func(t *testing.T) {
		inBubble(t, 2, nil, func(r *replicas) {
			s := r.subscribe(1, "c", nil)
			defer s.close()
			time.Sleep(4500 * time.Millisecond)
			r.net.SetFaults(meshtest.Faults{Drop: 1})
			r.publish(0, "c", 1)
			r.net.SetFaults(meshtest.Faults{})
			time.Sleep(time.Second)
			require.Equal(t, "yellow: dropping", r.status(0, "r0"))
			require.Equal(t, "ok", r.ready(0))
			time.Sleep(11 * time.Second)
			require.Equal(t, "green", r.status(0, "r0"))
		})
	})
	for policy, want := range map[channels.SlowPolicy]string{channels.SlowDropOldest: "yellow: dropping", channels.SlowKeepLatest: "green"} {
		t.Run("dropping for a slow subscriber by "+want, func(t *testing.T) {
			inBubble(t, 1, func(string) channels.ChannelOptions { return channels.ChannelOptions{SlowSubscriber: policy} }, func(r *replicas) {
				sub, err := r.hubs[0].Subscribe(context.Background(), "c", nil) // nobody reads
				require.NoError(t, err)
				defer sub.Close()
				time.Sleep(4500 * time.Millisecond)
				body := msg("h", `"`+strings.Repeat("x", 1000)+`"`)
				for r.hubs[0].Stats().Dropped == 0 {
					_, err := r.hubs[0].Publish(context.Background(), "c", body)
					require.NoError(t, err)
				}
				time.Sleep(1100 * time.Millisecond)
				require.Equal(t, want, r.status(0, "r0"))
			})
		})
	}
	t.Run("lagging", func(t *testing.T) {
		inBubble(t, 2, history, func(r *replicas) {
			s := r.subscribe(1, "c", nil)
			defer s.close()
			time.Sleep(4700 * time.Millisecond)
			r.net.Cut("r0", "r1") // which nobody tells r1
			r.publish(0, "c", 1)
			time.Sleep(3 * time.Second)
			require.Contains(t, r.status(1, "r1"), "yellow: lagging")
			time.Sleep(11 * time.Second)
			require.NotContains(t, r.status(1, "r1"), "lagging")
		})
	})
	t.Run("loaded", func(t *testing.T) {
		inBubble(t, 1, nil, func(r *replicas) {
			time.Sleep(2 * time.Second)
			for range 8 {
				defer r.member(0, "c", "ann")()
			}
			synctest.Wait()
			require.Equal(t, "green", r.status(0, "r0"))
			defer r.member(0, "c", "ann")()
			synctest.Wait()
			require.Equal(t, "yellow: loaded", r.status(0, "r0"))
		}, func(_ int, o *channels.Options) { o.MaxConnections = 10 })
	})
}

// What another version says of itself is shown as far as it is understood.
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
		_, body := r.get(0, "/v1/nodes")
		require.Contains(t, body, `"connections":5`)
		require.Contains(t, body, `"connections":7`)
		require.NotContains(t, body, `"reasons":null`)
	})
}

// discoverer notes where the hub says that its peers are.
type discoverer struct {
	mesh.Mesh
	address string

	mu    sync.Mutex // guards the fields below
	peers map[string]string
	calls int
}

func (d *discoverer) Address() string { return d.address }

func (d *discoverer) SetPeers(addresses map[string]string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.peers = maps.Clone(addresses)
	d.calls++
}

func (d *discoverer) told() (map[string]string, int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.peers, d.calls
}

func TestPeersAreFoundThroughTheStore(t *testing.T) {
	var ds []*discoverer
	inBubble(t, 4, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		peers, calls := ds[0].told()
		require.Equal(t, map[string]string{"r1": "tcp://r1", "r2": "tcp://r2"}, peers, "r3 has no address, and r0 is itself")
		time.Sleep(20 * time.Second)
		_, later := ds[0].told()
		require.Equal(t, 10, later-calls, "every 2 s")

		r.store.down.Store(true)
		_, calls = ds[0].told()
		time.Sleep(30 * time.Second)
		peers, later = ds[0].told()
		require.Equal(t, calls, later, "while the Store is down, peers are kept")
		require.Len(t, peers, 2)
		r.store.down.Store(false)
		time.Sleep(5 * time.Second)
		peers, _ = ds[0].told()
		require.Len(t, peers, 2)

		r.store.mute.Store("r2") // as if killed
		time.Sleep(13 * time.Second)
		peers, _ = ds[0].told()
		require.Equal(t, map[string]string{"r1": "tcp://r1"}, peers)
	}, func(i int, o *channels.Options) {
		d := &discoverer{Mesh: o.Mesh, address: "tcp://" + o.ReplicaID}
		if i == 3 {
			d.address = ""
		}
		ds = append(ds, d)
		o.Mesh = d
	})
}

// logInto makes each replica log what an operator has to know.
func logInto(log *logBuffer) func(int, *channels.Options) {
	return func(_ int, o *channels.Options) {
		o.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
}

// A mesh that fails is no reason to write a line for each message.
func TestAMeshThatRefusesIsLoggedOnce(t *testing.T) {
	log := &logBuffer{}
	var meshes []*brittle
	inBubble(t, 1, history, func(r *replicas) {
		meshes[0].refuses.Store(true)
		for n := range 100 {
			r.publish(0, "c", n)
		}
		require.Equal(t, 1, strings.Count(log.String(), "mesh: publish"), log.String())
		time.Sleep(5 * time.Second)
		r.publish(0, "c", 100)
		require.Equal(t, 2, strings.Count(log.String(), "mesh: publish"))
	}, breakable(&meshes), logInto(log))
}

func TestTwoReplicasWithOneNameAreNoticed(t *testing.T) {
	log := &logBuffer{}
	inBubble(t, 1, nil, func(r *replicas) {
		time.Sleep(5 * time.Second)
		twin, err := channels.New(channels.Options{ReplicaID: "r0", Store: r.store, Mesh: meshtest.NewNetwork(1).Join("r0"), Logger: quiet})
		require.NoError(t, err)
		time.Sleep(30 * time.Second)
		require.Equal(t, 1, strings.Count(log.String(), "the same Options.ReplicaID"), log.String())
		r.hubs = append(r.hubs, twin)
		for i := range 2 {
			require.Equal(t, "yellow: same name", r.status(i, "r0"))
			require.Equal(t, "ok", r.ready(i))
		}
		require.NoError(t, twin.Shutdown(context.Background()))
		r.hubs = r.hubs[:1]
		time.Sleep(15 * time.Second)
		require.Equal(t, "green", r.status(0, "r0"))
	}, logInto(log))

	log = &logBuffer{}
	inBubble(t, 1, nil, func(r *replicas) { // one after the other is no twin
		time.Sleep(5 * time.Second)
		r.store.mute.Store("r0") // killed
		time.Sleep(time.Second)
		o := channels.Options{ReplicaID: "r0", Mesh: meshtest.NewNetwork(1).Join("r0"), Store: r.store.Store}
		logInto(log)(0, &o)
		next, err := channels.New(o)
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		require.NotContains(t, log.String(), "the same Options.ReplicaID")
		r.hubs = append(r.hubs, next)
		require.Equal(t, "green", r.status(1, "r0"))
		r.hubs = r.hubs[:1]
		require.NoError(t, next.Shutdown(context.Background()))
	})
}

// A mesh that is told so by its peers, or that brings what another replica of
// this one's name says, is enough to notice it.
func TestTwinsThatOnlyTheMeshSees(t *testing.T) {
	var meshes []*brittle
	inBubble(t, 2, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		err := fmt.Errorf("met at tcp://r0: %w", mesh.ErrTwin)
		meshes[0].err.Store(&err)
		time.Sleep(20 * time.Second)
		require.Equal(t, "yellow: same name", r.status(0, "r0"))
		require.Equal(t, "yellow: same name", r.status(1, "r0"))
		require.Equal(t, "green", r.status(1, "r1"))
		meshes[0].err.Store(new(error))
		time.Sleep(15 * time.Second)
		require.Equal(t, "green", r.status(0, "r0"))

		(*meshes[1].deliver.Load())(mesh.Packet{Kind: mesh.KindControl, Origin: "r1", Header: "canary", Body: []byte(`{"v":1,"n":1,"node":{"status":"green"}}`)})
		require.Equal(t, "yellow: same name", r.status(1, "r1"))
		nodes, err := r.hubs[1].Replicas(context.Background())
		require.NoError(t, err)
		require.Len(t, nodes, 2)
	}, breakable(&meshes))
}

// A replica that the mesh brings, and that is not in the Store, has another one:
// nobody has to wait for a message to go wrong.
func TestAnotherStore(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		m, err := store.NewMemory(store.MemoryOptions{})
		require.NoError(t, err)
		defer m.Close()
		node := r.net.Join("other")
		defer node.Close()
		theirs := &faultyStore{Store: m}
		theirs.log.Store(m)
		other, err := channels.New(channels.Options{ReplicaID: "other", Store: theirs, Mesh: node, Logger: quiet})
		require.NoError(t, err)
		r.hubs = append(r.hubs, other)
		time.Sleep(7 * time.Second)
		for i := range 2 {
			require.Equal(t, "yellow: another store", r.status(i, "other"))
			require.Equal(t, "green", r.status(i, "r0"))
			require.Equal(t, "yellow: another store", r.status(2, "r"+strconv.Itoa(i)))
		}
		require.Equal(t, "green", r.status(2, "other"), "nobody can say who is right")
		r.store.down.Store(true) // and now it cannot be asked
		time.Sleep(5 * time.Second)
		require.NotContains(t, r.status(0, "other"), "another store")
		r.store.down.Store(false)
		time.Sleep(5 * time.Second)
		require.NoError(t, other.Shutdown(context.Background()))
		r.hubs = r.hubs[:2]
		synctest.Wait()
		require.Empty(t, r.status(0, "other"), "it has said goodbye")
	})
}

// Where the Store hangs, and the mesh with it as over one Redis, nobody hears of
// anybody. Who lived until then is red because of the Store, and not as one whose
// heartbeats are missed. Who died before is.
func TestReplicasThatNobodyCanHear(t *testing.T) {
	var meshes []*brittle
	inBubble(t, 3, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		meshes[2].mute.Store(true) // r2 is killed
		r.store.mute.Store("r2")
		time.Sleep(12 * time.Second)
		require.Equal(t, "red: heartbeats missed", r.status(0, "r2"))

		r.store.down.Store(true)
		err := errors.New("Redis is away")
		for _, m := range meshes {
			m.mute.Store(true)
			m.err.Store(&err)
		}
		time.Sleep(8500 * time.Millisecond)
		require.Equal(t, "yellow: report late: store", r.status(0, "r1"))
		for range 100 {
			time.Sleep(time.Second)
			if r.status(0, "r1") != "yellow: report late: store" {
				require.Equal(t, "red: reports lost: store", r.status(0, "r1"), "also when it would have been forgotten")
				require.Contains(t, r.status(0, "r0"), "lost: store")
				require.NotContains(t, r.status(0, "r0"), "heartbeat")
			}
			require.Contains(t, []string{"red: heartbeats missed", ""}, r.status(0, "r2"))
		}
		require.Empty(t, r.status(0, "r2"))

		r.store.down.Store(false)
		for _, m := range meshes {
			m.mute.Store(false)
			m.err.Store(new(error))
		}
		time.Sleep(15 * time.Second)
		require.Equal(t, "green", r.status(0, "r1"))
	}, breakable(&meshes))
}

// Where each replica has a Store of its own, channels without history work
// over all of them, and those with history are warned of.
func TestReplicasWithoutASharedStore(t *testing.T) {
	log := &logBuffer{}
	plain := func(name string) channels.ChannelOptions {
		if strings.HasPrefix(name, "keep") {
			return channels.ChannelOptions{HistorySize: 10}
		}
		return channels.ChannelOptions{}
	}
	var stores []*store.Memory
	inBubble(t, 3, plain, func(r *replicas) {
		a, b := r.subscribe(1, "c", nil), r.subscribe(2, "c", nil)
		time.Sleep(20 * time.Second)
		for i := range 3 {
			for _, id := range []string{"r0", "r1", "r2"} {
				require.Equal(t, "green", r.status(i, id))
			}
		}
		nodes, err := r.hubs[0].Replicas(context.Background())
		require.NoError(t, err)
		require.Equal(t, 1, nodes[2].Connections)
		for n := range 10 {
			r.publish(n%3, "c", n)
		}
		synctest.Wait()
		require.Len(t, a.close(), 10)
		require.Len(t, b.close(), 10)
		require.Empty(t, log.String(), "so far all is well")

		s := r.subscribe(1, "keep", nil)
		r.publish(1, "keep", 1)
		for range 3 {
			r.publish(0, "keep", 1)
		}
		synctest.Wait()
		s.close()
		require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
		require.Contains(t, log.String(), "different Stores")
		require.Equal(t, "yellow: another store", r.status(1, "r0"), "the two histories are no one's")
		require.Equal(t, "green", r.status(2, "r0"), "it has had none of them")
		time.Sleep(store.ForgottenAfter + time.Second)
		require.Equal(t, "green", r.status(1, "r0"))

		require.NoError(t, r.hubs[2].Shutdown(context.Background()))
		synctest.Wait()
		require.Empty(t, r.status(0, "r2"), "it has said goodbye")
		r.net.Cut("r0", "r1")
		time.Sleep(12 * time.Second)
		require.Equal(t, "red: heartbeats missed", r.status(0, "r1"))
		time.Sleep(50 * time.Second)
		require.Empty(t, r.status(0, "r1"))
		for _, m := range stores {
			m.Close()
		}
	}, logInto(log), func(_ int, o *channels.Options) {
		m, err := store.NewMemory(store.MemoryOptions{})
		require.NoError(t, err)
		stores = append(stores, m)
		o.Store = m
	})
}

// Replicas that share a Store are not said to have several when it loses its logs.
func TestAStoreThatLosesItsLogsIsStillOne(t *testing.T) {
	log := &logBuffer{}
	inBubble(t, 2, history, func(r *replicas) {
		s := r.subscribe(1, "c", nil)
		for range 5 {
			lose(t, r)
			for range 10 {
				time.Sleep(time.Second)
				r.publish(0, "c", 1)
			}
		}
		s.close()
		require.NotContains(t, log.String(), "different Stores")
	}, logInto(log), func(i int, _ *channels.Options) {
		time.Sleep(time.Duration(i) * 1500 * time.Millisecond) // so that they do not notice it at the same moment
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
