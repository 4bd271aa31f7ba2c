package channels_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// people are channels whose members are users, who may be away for so long.
func people(grace time.Duration) func(string) channels.ChannelOptions {
	return every(channels.ChannelOptions{Presence: channels.PresenceEvents, PresenceBy: channels.PresenceByUser, PresenceGrace: grace})
}

// told are the events of presence that a Go subscriber has got: "join ann".
func told(t *testing.T, s *subscriber) []string {
	t.Helper()
	events := []string{}
	for _, m := range s.messages() {
		require.Equal(t, "presence", m.Header)
		var e struct {
			Event  string
			Member channels.Member
		}
		require.NoError(t, json.Unmarshal(m.Body, &e))
		if e.Member.User != "" {
			require.Equal(t, e.Member.User, e.Member.ID)
		}
		events = append(events, e.Event+" "+e.Member.User)
	}
	return events
}

// wantTold wants all subscribers to have got these events, and no others.
func wantTold(t *testing.T, all []*subscriber, events ...string) {
	t.Helper()
	synctest.Wait()
	for i, s := range all {
		require.Equal(t, append([]string{}, events...), told(t, s), "subscriber %d", i)
	}
}

// watchAll subscribes to a channel on each replica.
func (r *replicas) watchAll(channel string) (all []*subscriber) {
	for i := range r.hubs {
		all = append(all, r.subscribe(i, channel, nil))
	}
	return all
}

func TestAUserIsOneMemberOverAllReplicas(t *testing.T) {
	inBubble(t, 3, people(0), func(r *replicas) {
		settle(8 * time.Second)
		all := r.watchAll("c")
		first := r.member(0, "c", "ann")
		settle(100 * time.Millisecond)
		wantTold(t, all, "join ann")
		tab, far := r.member(0, "c", "ann"), r.member(1, "c", "ann")
		settle(100 * time.Millisecond)
		bob := r.member(2, "c", "bob")
		settle(2 * time.Second)
		wantTold(t, all, "join ann", "join bob")
		for i := range r.hubs {
			p, err := r.hubs[i].Presence(context.Background(), "c", 0)
			require.NoError(t, err)
			require.Equal(t, channels.Members{Members: []channels.Member{{ID: "ann", User: "ann"}, {ID: "bob", User: "bob"}}, Total: 2}, p)
			p, err = r.hubs[i].Presence(context.Background(), "c", 1)
			require.NoError(t, err)
			require.Equal(t, channels.Members{Members: []channels.Member{{ID: "ann", User: "ann"}}, Total: 2}, p)
		}
		first()
		tab()
		bob()
		settle(2 * time.Second)
		wantTold(t, all, "join ann", "join bob", "leave bob")
		require.Equal(t, []string{"ann"}, users(t, r.hubs[0], "c"), "on another replica")
		far()
		settle(2 * time.Second)
		wantTold(t, all, "join ann", "join bob", "leave bob", "leave ann")
		require.Empty(t, users(t, r.hubs[0], "c"))
	})
}

// A connection without a user counts as itself, and is not waited for.
func TestConnectionsWithoutAUserCountEach(t *testing.T) {
	inBubble(t, 2, people(time.Minute), func(r *replicas) {
		settle(8 * time.Second)
		all := r.watchAll("c")
		one, two := r.member(0, "c", ""), r.member(1, "c", "")
		settle(2 * time.Second)
		p, err := r.hubs[0].Presence(context.Background(), "c", 0)
		require.NoError(t, err)
		require.Equal(t, 2, p.Total)
		require.NotEqual(t, p.Members[0].ID, p.Members[1].ID)
		one()
		two()
		settle(2 * time.Second)
		require.Empty(t, users(t, r.hubs[0], "c"))
		for _, s := range all {
			require.ElementsMatch(t, []string{"join ", "join ", "leave ", "leave "}, told(t, s))
		}
	})
}

func TestWhoIsBackWithinTheGraceNeverLeft(t *testing.T) {
	inBubble(t, 2, people(10*time.Second), func(r *replicas) {
		settle(8 * time.Second)
		all := r.watchAll("c")
		leave := r.member(0, "c", "ann")
		for i := range 12 { // here, and on the other replica
			settle(9 * time.Second)
			leave()
			settle(9 * time.Second)
			require.Equal(t, []string{"ann"}, users(t, r.hubs[i%2], "c"), "the list still has her")
			leave = r.member(i/2%2, "c", "ann")
		}
		settle(20 * time.Second)
		wantTold(t, all, "join ann")
		leave()
		settle(9500 * time.Millisecond)
		wantTold(t, all, "join ann")
		require.Equal(t, []string{"ann"}, users(t, r.hubs[0], "c"))
		settle(3 * time.Second)
		wantTold(t, all, "join ann", "leave ann")
		require.Empty(t, users(t, r.hubs[0], "c"))
		for _, h := range r.hubs {
			graces, holds := channels.Waits(h)
			require.Zero(t, graces+holds, "nothing is left of her")
		}
	})
}

// A replica that is shut down takes its users with it only if they do not come back in
// time on another one.
func TestADrainIsNoLeave(t *testing.T) {
	inBubble(t, 3, people(10*time.Second), func(r *replicas) {
		settle(8 * time.Second)
		all := r.watchAll("c")[1:]
		moves := r.member(0, "c", "ann")
		settle(time.Second)
		stays := r.member(0, "c", "bob")
		settle(time.Second)
		wantTold(t, all, "join ann", "join bob")
		require.NoError(t, r.hubs[0].Drain(context.Background()))
		moves()
		stays()
		require.NoError(t, r.hubs[0].Shutdown(context.Background()))
		settle(4 * time.Second)
		require.Equal(t, []string{"ann", "bob"}, users(t, r.hubs[1], "c"), "another replica waits for them")
		again := r.member(1, "c", "ann")
		settle(20 * time.Second)
		wantTold(t, all, "join ann", "join bob", "leave bob")
		require.Equal(t, []string{"ann"}, users(t, r.hubs[2], "c"))
		again()
		settle(20 * time.Second)
		wantTold(t, all, "join ann", "join bob", "leave bob", "leave ann")
	})
}

// Without a grace, a replica that is shut down says itself who has left.
func TestAShutdownSaysWhoHasLeft(t *testing.T) {
	inBubble(t, 2, people(0), func(r *replicas) {
		settle(8 * time.Second)
		all := r.watchAll("c")[1:]
		near := r.member(0, "c", "ann")
		settle(time.Second)
		far, both := r.member(1, "c", "bob"), r.member(0, "c", "bob")
		settle(time.Second)
		done := background(func() error { return r.hubs[0].Shutdown(context.Background()) })
		near()
		both()
		require.NoError(t, <-done)
		wantTold(t, all, "join ann", "join bob", "leave ann")
		far()
		settle(time.Second)
		wantTold(t, all, "join ann", "join bob", "leave ann", "leave bob")
	})
}

// The users of a killed replica leave the list within 10 s, and another replica says
// that they have left. Who has a connection elsewhere stays.
func TestAKilledReplicasUsersLeave(t *testing.T) {
	for _, grace := range []time.Duration{0, 10 * time.Second} {
		inBubble(t, 3, people(grace), func(r *replicas) {
			settle(8 * time.Second)
			all := r.watchAll("c")[:2]
			for _, user := range []string{"ann", "bob", "eve"} {
				defer r.member(2, "c", user)()
			}
			defer r.member(1, "c", "bob")()
			settle(2 * time.Second)
			r.store.mute.Store("r2")
			r.meshes[2].mute.Store(true)
			settle(5 * time.Second)
			defer r.member(0, "c", "eve")() // she has come back before anybody noticed
			settle(5 * time.Second)
			if grace == 0 {
				require.Equal(t, []string{"bob", "eve"}, users(t, r.hubs[0], "c"))
			}
			settle(2500*time.Millisecond + grace)
			require.Equal(t, []string{"bob", "eve"}, users(t, r.hubs[0], "c"))
			for _, s := range all {
				got := told(t, s)
				require.ElementsMatch(t, []string{"join ann", "join bob", "join eve", "leave ann"}, got)
				require.Equal(t, "leave ann", got[3])
			}
			r.store.mute.Store("") // it was only away, and comes back with all it has
			r.meshes[2].mute.Store(false)
			settle(5 * time.Second)
			require.Equal(t, []string{"ann", "bob", "eve"}, users(t, r.hubs[0], "c"))
			for _, s := range all {
				require.Empty(t, told(t, s)[4:], "the list says it")
			}
		})
	}
}

// While the Store is down, nobody can say who is first and last. Then the replicas say
// what is different, once. Who has moved to another replica may leave and join.
func TestUsersWhoComeAndGoWhileTheStoreIsDown(t *testing.T) {
	inBubble(t, 2, people(0), func(r *replicas) {
		settle(8 * time.Second)
		all := r.watchAll("c")
		goes, stays := r.member(0, "c", "goes"), r.member(0, "c", "stays")
		settle(time.Second)
		for range 2 {
			r.store.down.Store(true)
			goes()
			comes, passes := r.member(1, "c", "comes"), r.member(1, "c", "passes")
			stays2 := r.member(1, "c", "stays")
			stays()
			settle(20 * time.Second)
			passes()
			seen := len(told(t, all[0]))
			r.store.down.Store(false)
			settle(3 * time.Second)
			for _, s := range all {
				events := told(t, s)[seen:]
				moved := func(event string) bool { return strings.HasSuffix(event, " stays") }
				if i := slices.IndexFunc(events, moved); i >= 0 { // the one that has lost her was the first to be heard
					last := slices.DeleteFunc(slices.Clone(events), func(event string) bool { return !moved(event) })
					require.Equal(t, "join stays", last[len(last)-1])
				}
				require.ElementsMatch(t, []string{"leave goes", "join comes"}, slices.DeleteFunc(events, moved))
			}
			require.Equal(t, []string{"comes", "stays"}, users(t, r.hubs[0], "c"))
			comes()
			goes, stays = r.member(0, "c", "goes"), stays2
			settle(3 * time.Second)
		}
		goes()
		stays()
		settle(3 * time.Second)
		for _, h := range r.hubs {
			graces, holds := channels.Waits(h)
			require.Zero(t, graces+holds)
		}
	})
}

// However many users come and go while the Store is down, no more is kept than of those
// who are there.
func TestUsersDoNotPileUpWhileTheStoreIsDown(t *testing.T) {
	inBubble(t, 1, people(0), func(r *replicas) {
		settle(time.Second)
		r.store.down.Store(true)
		for i := range 50 {
			leave := r.member(0, "c", fmt.Sprint("user", i))
			settle(time.Second)
			leave()
			settle(time.Second)
		}
		_, holds := channels.Waits(r.hubs[0])
		require.Zero(t, holds)
		require.Less(t, channels.Untold(r.hubs[0]), 5)
		r.store.down.Store(false)
		settle(3 * time.Second)
	})
}

// If the Store's answers are lost, an event may be lost with them, but none comes twice,
// and then all is as it was.
func TestLostAnswersDoubleNoEvent(t *testing.T) {
	inBubble(t, 2, people(0), func(r *replicas) {
		settle(8 * time.Second)
		all := r.watchAll("c")
		stays := r.member(0, "c", "stays")
		settle(time.Second)
		r.store.unheard.Store(true)
		leave := r.member(1, "c", "ann")
		settle(5 * time.Second)
		r.store.unheard.Store(false)
		settle(5 * time.Second)
		wantTold(t, all, "join stays", "join ann")
		r.store.unheard.Store(true)
		leave()
		settle(5 * time.Second)
		r.store.unheard.Store(false)
		settle(5 * time.Second)
		require.Equal(t, []string{"stays"}, users(t, r.hubs[0], "c"))
		leave = r.member(0, "c", "ann")
		settle(time.Second)
		leave()
		settle(time.Second)
		stays()
		settle(time.Second)
		require.Equal(t, []string{"join ann", "leave ann", "leave stays"}, told(t, all[0])[len(told(t, all[0]))-3:])
	})
}

// Somebody who comes and goes all the time makes no flood of events with a grace, and
// takes no more room than one user.
func TestComingAndGoingMakesNoFlood(t *testing.T) {
	inBubble(t, 2, people(5*time.Second), func(r *replicas) {
		settle(8 * time.Second)
		all := r.watchAll("c")
		for i := range 500 {
			r.member(i%2, "c", "eve")()
			settle(50 * time.Millisecond)
		}
		wantTold(t, all, "join eve")
		for _, h := range r.hubs {
			graces, holds := channels.Waits(h)
			require.Equal(t, []int{1, 1}, []int{graces, holds})
		}
		settle(8 * time.Second)
		wantTold(t, all, "join eve", "leave eve")
	})
}

// Whoever comes, goes, moves and reloads: the events of each user alternate, and in the
// end they say what the list says.
func TestEventsOfUsersAgreeWithTheList(t *testing.T) {
	inBubble(t, 3, people(2*time.Second), func(r *replicas) {
		settle(8 * time.Second)
		all := r.watchAll("c")
		random := rand.New(rand.NewPCG(1, 2))
		var leaves []func()
		for range 400 {
			if n := len(leaves); n > 0 && random.IntN(9) < 4 {
				i := random.IntN(n)
				leaves[i]()
				leaves = slices.Delete(leaves, i, i+1)
			} else if n < 12 {
				leaves = append(leaves, r.member(random.IntN(3), "c", fmt.Sprint("u", random.IntN(6))))
			}
			settle(time.Duration(random.IntN(1500)) * time.Millisecond)
		}
		settle(10 * time.Second)
		listed := users(t, r.hubs[0], "c")
		for _, s := range all {
			here := map[string]bool{}
			for _, e := range told(t, s) {
				var event, user string
				fmt.Sscan(e, &event, &user)
				require.NotEqual(t, event == "join", here[user], "%s comes twice", e)
				here[user] = event == "join"
			}
			for i := range 6 {
				user := fmt.Sprint("u", i)
				require.Equal(t, slices.Contains(listed, user), here[user], user)
			}
		}
		for _, leave := range leaves {
			leave()
		}
	})
}

// In one process, and with a Store that cannot decide, a replica decides by itself.
func TestAUserIsOneMemberInOneProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, o := range []channels.Options{{}, {Store: onlyStore{newMemory(t)}}} {
			o.Channel = people(0)
			hub := newHub(t, o)
			r := &replicas{t: t, hubs: []*channels.Hub{hub}}
			all := r.watchAll("c")
			one, two := r.member(0, "c", "ann"), r.member(0, "c", "ann")
			settle(100 * time.Millisecond)
			wantTold(t, all, "join ann")
			one()
			settle(100 * time.Millisecond)
			require.Equal(t, []string{"ann"}, users(t, hub, "c"))
			two()
			settle(100 * time.Millisecond)
			wantTold(t, all, "join ann", "leave ann")
			require.NoError(t, hub.Shutdown(context.Background()))
		}
	})
}
