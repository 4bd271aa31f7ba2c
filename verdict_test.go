package channels_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/meshtest"
)

// A replica whose link to a living one is down is yellow, and still ready.
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
		r.after(20*time.Second, 2, "green", "r1")
	})
}

// A replica is cut off from all others, and knows through the Store that they live.
// It is red, as it sees itself and as they see it. The others hear each other, and are
// not.
func TestWhoIsCutOffFromAllOthersIsRed(t *testing.T) {
	inBubble(t, 3, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		r.net.Cut("r2", "r0")
		r.net.Cut("r2", "r1")
		time.Sleep(13 * time.Second)
		during(30*time.Second, func() {
			for i := range r.hubs {
				all := r.statuses(i)
				require.NotContains(t, all["r0"], "canary") // it drops what it would send
				require.NotContains(t, all["r1"], "canary")
				require.Contains(t, all["r2"], "red: canary lost: mesh", "as r%d sees it", i)
			}
			require.Equal(t, "ok", r.ready(0))
			require.Equal(t, "mesh_unavailable", r.ready(2))
		})
		r.net.Heal()
		time.Sleep(4 * time.Second)
		require.Equal(t, "ok", r.ready(2))
		time.Sleep(11 * time.Second)
		for i := range r.hubs {
			require.Equal(t, "green", r.status(i, "r2"))
		}
	})
}

// sees is a mesh whose Status lists the given peers, whatever there are.
type sees struct {
	mesh.Mesh
	peers []mesh.Peer
}

func (s *sees) Status() mesh.Status { return mesh.Status{Peers: s.peers} }

// When its last peer dies, a replica has no link left. It may be yellow for a while,
// but is never red.
func TestTheLastOneIsNotRed(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		for phase := range 30 {
			r.after(20*time.Second+time.Duration(phase)*100*time.Millisecond, 0, "green", "r0")
			r.net.Cut("r0", "r1")
			r.store.mute.Store("r1")
			during(15*time.Second, func() {
				require.NotContains(t, r.status(0, "r0"), "red")
				require.Equal(t, "ok", r.ready(0))
			})
			require.NotContains(t, r.status(0, "r0"), "canary")
			r.store.mute.Store("")
			r.net.Heal()
		}
	})
}

func TestAMeshThatSaysWhatIsWrong(t *testing.T) {
	inBubble(t, 1, nil, func(r *replicas) {
		time.Sleep(5 * time.Second)
		broken := errors.New("the broker is away")
		r.meshes[0].err.Store(&broken)
		r.after(13*time.Second, 0, "red: canary lost: mesh", "r0")
		r.meshes[0].err.Store(nil)
		r.after(4*time.Second, 0, "green", "r0")

		r.meshes[0].refuses.Store(true)
		time.Sleep(13 * time.Second)
		require.Equal(t, "green", r.status(0, "r0"), "with nobody to hear it, and a Status that is well")
	})
}

// A replica that is stopped, as by SIGSTOP, keeps its links. It makes no other replica
// red.
func TestAStoppedPeerMakesNobodyRed(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		time.Sleep(5200 * time.Millisecond)
		for phase := range 3 {
			r.meshes[1].mute.Store(true)
			r.store.mute.Store("r1")
			during(30*time.Second, func() {
				require.Contains(t, []string{"green", "yellow: canary late: mesh"}, r.status(0, "r0"))
				require.Equal(t, "ok", r.ready(0))
			})
			require.Equal(t, "green", r.status(0, "r0"))
			require.Equal(t, "red: heartbeats missed", r.status(0, "r1"))
			r.meshes[1].mute.Store(false)
			r.store.mute.Store("")
			r.after(time.Duration(phase)*time.Second+10*time.Second, 0, "green", "r0", "r1")
		}
	})
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
			r.after(time.Second, 0, "yellow: dropping", "r0")
			require.Equal(t, "ok", r.ready(0))
			r.after(11*time.Second, 0, "green", "r0")
		})
	})
	for policy, want := range map[channels.SlowPolicy]string{channels.SlowDropOldest: "yellow: dropping", channels.SlowKeepLatest: "green"} {
		t.Run("dropping for a slow subscriber by "+want, func(t *testing.T) {
			inBubble(t, 1, every(channels.ChannelOptions{SlowSubscriber: policy}), func(r *replicas) {
				subscription(r.t, r.hubs[0], "c", nil) // nobody reads
				time.Sleep(4500 * time.Millisecond)
				body := msg("h", `"`+strings.Repeat("x", 1000)+`"`)
				for r.hubs[0].Stats().Dropped == 0 {
					publishWith(t, r.hubs[0], "c", body, channels.PublishOptions{})
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
			require.NotContains(t, r.status(1, "r1"), "lagging", "it may be the fault of another one")
			time.Sleep(5 * time.Second)
			require.Contains(t, r.status(1, "r1"), ", lagging", "beside what the link that is cut does")
			time.Sleep(6 * time.Second)
			require.NotContains(t, r.status(1, "r1"), "lagging")
		})
	})
	t.Run("not lagging", func(t *testing.T) {
		for name, pauses := range map[string]func(*replicas, bool){
			"another replica is silent": func(r *replicas, on bool) { r.store.mute.Store(map[bool]string{true: "r0"}[on]) },
			"the Store pauses":          func(r *replicas, on bool) { r.store.hang.Store(on) },
		} {
			t.Run(name, func(t *testing.T) {
				inBubble(t, 2, history, func(r *replicas) {
					s := r.subscribe(1, "c", nil)
					defer s.close()
					time.Sleep(4700 * time.Millisecond)
					r.net.Cut("r0", "r1")
					r.publish(0, "c", 1) // it is in the Store, and comes to r1 by no other way
					pauses(r, true)
					during(6*time.Second, func() { require.NotContains(t, r.status(1, "r1"), "lagging") })
					pauses(r, false)
					r.net.Heal()
					during(20*time.Second, func() { require.NotContains(t, r.status(1, "r1"), "lagging") })
					s.wait(t, 1)
				})
			})
		}
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

// A Store that hangs is seen by the report that does not come back, before a canary
// could be sent. The replica says for how long it has taken nothing.
func TestAStoreThatHangs(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		r.after(4500*time.Millisecond, 0, "green", "r0")
		r.store.hang.Store(true)
		time.Sleep(1400 * time.Millisecond)
		r.after(time.Second, 0, "yellow: canary late: store", "r0")
		all, err := r.hubs[0].Replicas(context.Background())
		require.NoError(t, err)
		require.Equal(t, 4500*time.Millisecond, all[0].StoreSeen.Round(time.Second/2), "with the two seconds in which it was asked for these lists")
		r.after(9*time.Second, 0, "red: reports lost: store, canary late: store", "r0")
		r.store.hang.Store(false)
		time.Sleep(10 * time.Second)
		r.wantStatus(0, "green", "r0", "r1")
		all, err = r.hubs[0].Replicas(context.Background())
		require.NoError(t, err)
		require.Zero(t, all[0].StoreSeen.Round(time.Second))
	})
}

func TestTheStoresCanary(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		r.after(4500*time.Millisecond, 0, "green", "r0")
		require.Equal(t, "ok", r.ready(0))
		r.store.full.Store(true) // it takes reports, but no message
		r.after(3*time.Second, 0, "yellow: canary late: store", "r0")
		require.Equal(t, "ok", r.ready(0))
		r.after(7*time.Second, 0, "red: canary lost: store", "r0", "r1")
		require.Equal(t, "ok", r.ready(0), "the other one is no better")
		r.store.full.Store(false)
		r.after(4*time.Second, 0, "green", "r0", "r1")
		require.Equal(t, "ok", r.ready(0))

		r.store.addLag.Store(int64(1100 * time.Millisecond))
		r.after(5*time.Second, 0, "yellow: canary late: store", "r0")
		r.store.addLag.Store(0)
		r.after(5*time.Second, 0, "green", "r0")
	})
}

func TestTheMeshsCanary(t *testing.T) {
	inBubble(t, 1, nil, func(r *replicas) {
		time.Sleep(30 * time.Second)
		require.Equal(t, "green", r.status(0, "r0"), "where there is no peer, none has to answer")

		silent := r.net.Join("silent") // a peer whose link is up, and nothing comes of it
		defer silent.Close()
		r.after(7*time.Second, 0, "yellow: canary late: mesh", "r0")
		require.Equal(t, "ok", r.ready(0))
		r.after(6*time.Second, 0, "red: canary lost: mesh", "r0")
		require.Equal(t, "mesh_unavailable", r.ready(0))

		hub := r.join("r1")
		time.Sleep(7 * time.Second)
		require.Equal(t, "green", r.status(0, "r0"), "one that answers is enough")
		require.Equal(t, "green", r.status(0, "r1"))
		require.Equal(t, "ok", r.ready(0))
		r.net.SetFaults(meshtest.Faults{Delay: 3 * time.Second})
		require.Eventually(t, func() bool { return r.status(0, "r0") == "yellow: canary late: mesh" }, time.Minute, 100*time.Millisecond)
		require.NoError(t, hub.Shutdown(context.Background()))
	})
}

// Replicas that share only the Store, not the mesh, answer no canary. No replica
// expects an answer from them, not even over a broker.
func TestWhoHasNoMeshAnswersNoCanary(t *testing.T) {
	for name, other := range map[string]func(mesh.Mesh) mesh.Mesh{
		"none":    func(mesh.Mesh) mesh.Mesh { return nil },
		"another": func(m mesh.Mesh) mesh.Mesh { return &sees{m, nil} },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 2, nil, func(r *replicas) {
				r.net.Cut("r0", "r1")
				during(30*time.Second, func() {
					r.wantReady()
					for i := range r.hubs {
						require.NotContains(t, r.status(i, "r0"), "canary")
					}
				})
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

// An app may close its mesh long after its hub. Meanwhile, no replica waits for its
// answer to a canary.
func TestAHubThatHasLeftAnswersNoCanary(t *testing.T) {
	inBubble(t, 2, nil, func(r *replicas) {
		time.Sleep(4500 * time.Millisecond)
		require.NoError(t, r.hubs[1].Shutdown(context.Background()))
		during(30*time.Second, func() {
			require.NotContains(t, r.status(0, "r0"), "red")
			require.Empty(t, r.status(0, "r1"))
		})
		require.Equal(t, "green", r.status(0, "r0"))
	})
}
