package redismesh_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/store/redisstore"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// sharing is one of several hubs on a Store in Redis, with what it has been told.
type sharing struct {
	*hubtest.Server
	id   string
	kill func() // ends its links, as if the process had died

	mu     sync.Mutex
	events []string // "join ann"
	feeds  bool     // it has to feed the channel "room"
}

func (s *sharing) told() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

func (s *sharing) isFeeding() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.feeds
}

func (s *sharing) setFeeding(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.feeds == on {
		s.T.Errorf("%s: the calls of OnOccupied and OnVacated do not alternate", s.id)
	}
	s.feeds = on
}

// come opens a connection of a user to the room.
func (s *sharing) come(user string) *hubtest.Conn {
	c := s.DialRaw()
	c.Upgrade("/channel/room/", "X-User: "+user)
	return c
}

func share(t *testing.T, id string, shared, messages *redistest.Server) *sharing {
	s := &sharing{id: id}
	storeClient, meshClient := shared.Client(), messages.Client()
	st, err := redisstore.New(storeClient, redisstore.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { st.Close() })
	m := open(t, meshClient, "", id)
	s.kill = func() {
		st.Close()
		storeClient.Close()
		meshClient.Close()
	}
	s.Server = hubtest.Serve(t, channels.Options{ReplicaID: id, Store: st, Mesh: m,
		Channel: func(string) channels.ChannelOptions {
			return channels.ChannelOptions{Presence: channels.PresenceEvents, PresenceBy: channels.PresenceByUser}
		},
		OnOccupied: func(context.Context, string) { s.setFeeding(true) },
		OnVacated:  func(context.Context, string) { s.setFeeding(false) },
	}, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r.WithContext(channels.WithIdentity(r.Context(), channels.Identity{ID: r.Header.Get("X-User")})))
		})
	})
	sub, err := s.Hub.Subscribe(context.Background(), "room", nil)
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for m := range sub.Messages() {
			var e struct {
				Event  string
				Member channels.Member
			}
			if m.Header == "presence" && json.Unmarshal(m.Body, &e) == nil {
				s.mu.Lock()
				s.events = append(s.events, e.Event+" "+e.Member.User)
				s.mu.Unlock()
			}
		}
	})
	t.Cleanup(func() {
		sub.Close()
		wg.Wait()
	})
	return s
}

// Three hubs agree on who has joined and left, and on who feeds a channel, while the
// Store loses all its data, one of them is killed, and another one drains.
func TestHubsShareUsersAndFeeds(t *testing.T) {
	t.Parallel()
	shared, messages := redistest.Start(t), redistest.Start(t)
	a, b, c := share(t, "a", shared, messages), share(t, "b", shared, messages), share(t, "c", shared, messages)
	all := []*sharing{a, b, c}
	toldAll := func(hubs []*sharing, events ...string) {
		t.Helper()
		basetest.Eventually(t, strings.Join(events, ", "), func() bool {
			for _, s := range hubs {
				if len(s.told()) < len(events) {
					return false
				}
			}
			return true
		})
		for _, s := range hubs {
			require.Equal(t, events, s.told(), s.id)
		}
	}
	feeding := func(who *sharing) {
		t.Helper()
		basetest.Eventually(t, who.id+" feeds the room", who.isFeeding)
	}
	basetest.Eventually(t, "the hubs have met", func() bool {
		n := 0
		for _, s := range all {
			for _, p := range s.Hub.Metrics().Mesh.Peers {
				if p.Up {
					n++
				}
			}
		}
		return n >= len(all)
	})

	first := a.come("ann")
	defer first.Close()
	toldAll(all, "join ann")
	feeding(a)
	tab := b.come("ann")
	bob := b.come("bob") // once he has joined, the Store has said to b that ann is there
	defer bob.Close()
	toldAll(all, "join ann", "join bob")

	shared.Kill()
	carl := c.come("carl")
	defer carl.Close()
	shared.Start() // without its data
	toldAll(all, "join ann", "join bob", "join carl")
	basetest.Eventually(t, "the list is right again", func() bool {
		p, err := c.Hub.Presence(context.Background(), "room", 0)
		return err == nil && p.Total == 3
	})
	basetest.Eventually(t, "one feeds the room", func() bool {
		n := 0
		for _, s := range all {
			if s.isFeeding() {
				n++
			}
		}
		return n == 1
	})

	a.kill() // ann has a connection elsewhere
	basetest.Eventually(t, "another one feeds the room", func() bool { return b.isFeeding() || c.isFeeding() })
	tab.Close()
	left := all[1:]
	toldAll(left, "join ann", "join bob", "join carl", "leave ann")
	require.False(t, b.isFeeding() && c.isFeeding())

	owner, other := b, c
	if c.isFeeding() {
		owner, other = c, b
	}
	require.NoError(t, owner.Hub.Drain(context.Background()))
	feeding(other)
	basetest.Eventually(t, "the drained one feeds no more", func() bool { return !owner.isFeeding() })
}
