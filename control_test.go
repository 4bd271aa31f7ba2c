package channels_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh"
)

// users lists the users who are present in a channel on any replica.
func (r *replicas) users(channel string) []string {
	r.t.Helper()
	synctest.Wait() // who was told to go has gone
	return users(r.t, r.hubs[0], channel)
}

func TestDisconnectAndUnsubscribeOnAllReplicas(t *testing.T) {
	var reasons lines
	inBubble(t, 3, history, func(r *replicas) {
		for i := range 3 {
			defer r.member(i, "a", "ann")()
			defer r.member(i, "b", "ann")()
			defer r.member(i, "a", "bob")()
		}
		time.Sleep(2 * time.Second) // all are reported
		require.Len(t, r.users("a"), 6)

		require.Equal(t, 1, unsubscribed(t, r.hubs[1].UnsubscribeUser, "ann", "b"), "on this replica")
		time.Sleep(2 * time.Second)
		require.Empty(t, r.users("b"))
		require.Len(t, r.users("a"), 6)
		require.Equal(t, []string{"unsubscribed", "unsubscribed", "unsubscribed"}, reasons.take())

		require.Equal(t, 1, disconnected(t, r.hubs[2].DisconnectUser, "ann"))
		time.Sleep(2 * time.Second)
		require.Equal(t, []string{"bob", "bob", "bob"}, r.users("a"))
		require.Equal(t, []string{"disconnected", "disconnected", "disconnected"}, reasons.take())

		p, err := r.hubs[0].Presence(context.Background(), "a", 1)
		require.NoError(t, err)
		require.Equal(t, "r0", strings.Split(p.Members[0].ID, "-")[0])
		require.Zero(t, disconnected(t, r.hubs[1].DisconnectClient, p.Members[0].ID)) // one connection, elsewhere
		time.Sleep(2 * time.Second)
		require.Equal(t, []string{"bob", "bob"}, r.users("a"))

		for _, who := range []string{"", "nobody"} {
			require.Zero(t, disconnected(t, r.hubs[0].DisconnectUser, who))
		}
		require.Equal(t, []string{"bob", "bob"}, r.users("a"))
	}, func(_ int, o *channels.Options) {
		o.OnDisconnect = func(_ channels.Client, reason error) {
			var e *channels.Error
			if errors.As(reason, &e) {
				reasons.add("%s", e.Code)
			}
		}
	})
}

// brittle is a mesh whose methods can be made to fail.
type brittle struct {
	mesh.Mesh
	refuses atomic.Bool           // Publish fails
	mute    atomic.Bool           // what it publishes is lost, and nobody is told
	err     atomic.Pointer[error] // of Status
	deliver atomic.Pointer[func(mesh.Packet)]
}

func (b *brittle) Publish(ctx context.Context, p mesh.Packet) error {
	switch {
	case b.refuses.Load():
		return errors.New("no network")
	case b.mute.Load():
		return nil
	}
	return b.Mesh.Publish(ctx, p)
}

func (b *brittle) Receive(ctx context.Context, deliver func(mesh.Packet)) error {
	b.deliver.Store(&deliver)
	return b.Mesh.Receive(ctx, deliver)
}

// bring hands the hub a packet as if it had arrived.
func (b *brittle) bring(p mesh.Packet) { (*b.deliver.Load())(p) }

func (b *brittle) Status() mesh.Status {
	s := b.Mesh.Status()
	if err := b.err.Load(); err != nil {
		s.Err = *err
	}
	return s
}

func TestDisconnectWhereTheOthersCannotBeTold(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		ctx := context.Background()
		defer r.member(0, "a", "ann")()
		defer r.member(1, "a", "ann")()
		time.Sleep(2 * time.Second)
		require.Len(t, r.users("a"), 2)
		r.meshes[0].refuses.Store(true)
		n, err := r.hubs[0].DisconnectUser(ctx, "ann")
		require.ErrorIs(t, err, channels.ErrMeshUnavailable)
		require.Equal(t, 1, n, "here it is done all the same")
		time.Sleep(2 * time.Second)
		require.Len(t, r.users("a"), 1)
		n, err = r.hubs[0].UnsubscribeUser(ctx, "ann", "a")
		require.ErrorIs(t, err, channels.ErrMeshUnavailable)
		require.Zero(t, n)
		r.meshes[0].refuses.Store(false)
		_, err = r.hubs[0].DisconnectUser(ctx, strings.Repeat("x", 16<<10))
		require.ErrorIs(t, err, channels.ErrTooLarge)

		require.NoError(t, r.hubs[0].Shutdown(ctx))
		_, err = r.hubs[0].DisconnectUser(ctx, "ann")
		require.ErrorIs(t, err, channels.ErrClosed)
		_, err = r.hubs[0].UnsubscribeUser(ctx, "ann", "a")
		require.ErrorIs(t, err, channels.ErrClosed)
		require.Equal(t, 1, r.hubs[1].Stats().Connections)
	})
}

// Whatever a peer sends, the hub lives. It obeys well-formed control packets and
// ignores all others.
func TestControlPacketsThatAreBroken(t *testing.T) {
	who := `"YW5u"` // ann
	long := strings.Repeat("x", 1<<20)
	inBubble(t, 2, history, func(r *replicas) {
		defer r.member(0, "a", "ann")()
		s := r.subscribe(0, "a", nil)
		evil := r.net.Join("evil")
		defer evil.Close()
		send := func(p mesh.Packet) {
			t.Helper()
			require.NoError(t, evil.Publish(context.Background(), p))
		}
		for _, header := range []string{"bye", "disconnect", "unsubscribe", "canary", "echo", "online", "here", "", "later", long} {
			for _, body := range []string{"", "null", "{", "[]", "1", `"x"`, "\xff", `{"v":1}`, `{"v":2,"who":` + who + `,"channel":"a"}`,
				`{"who":` + who + `,"channel":"a"}`, `{"v":1,"who":` + who + `,"channel":"a"}`, `{"v":1,"kind":"client","who":` + who + `,"channel":"a"}`,
				`{"v":1,"kind":"User","who":` + who + `,"channel":"a"}`, `{"v":1,"kind":"user","Who":` + who + `,"channel":"a"}`, `{"v":1,"who":5}`, `{"v":1,"who":"?"}`, `{"v":1,"who":"` + long + `"}`,
				`{"v":1,"n":-1}`, `{"v":1,"n":18446744073709551615}`, `{"v":1,"n":0}`, `{"v":1,"n":1e99}`,
				`{"v":1,"epoch":"x","node":null}`, `{"v":1,"node":{"node":"r0","reasons":null,"status":"pink","connections":-1,"started":"never"}}`,
				`{"v":1,"node":{"status":"pink","mesh":{"peers":null}}}`, strings.Repeat(`{"v":`, 5000)} {
				send(mesh.Packet{Kind: mesh.KindControl, Header: header, Body: []byte(body)})
				send(mesh.Packet{Kind: mesh.KindControl, To: "r0", Channel: "a", Header: header, Body: []byte(body)})
			}
		}
		for _, kind := range []mesh.Kind{mesh.KindLost, mesh.KindLost + 1, 255} {
			for _, channel := range []string{"", "a", "none", "/", long} {
				r.meshes[0].bring(mesh.Packet{Kind: kind, Channel: channel, Header: "h", Body: []byte("1"), Offset: 7, Epoch: "x"})
			}
		}
		time.Sleep(5 * time.Second)
		require.Equal(t, []string{"ann"}, r.users("a"))
		nodes, err := r.hubs[0].Replicas(context.Background())
		require.NoError(t, err)
		require.Len(t, nodes, 3)
		require.Equal(t, "evil", nodes[0].ID)
		require.NotEqual(t, channels.ReplicaGreen, nodes[0].Status)
		require.NotNil(t, nodes[0].Reasons)
		r.publish(1, "a", 1)
		synctest.Wait()
		wantAll(t, s.close(), 1, 1)

		send(mesh.Packet{Kind: mesh.KindControl, Header: "disconnect", Body: []byte(`{"v":1,"kind":"user","who":` + who + `,"later":true}`)})
		time.Sleep(2 * time.Second)
		require.Empty(t, r.users("a"))
	})
}

// A user's ID may equal a connection's id. Ending the one does not end the other.
func TestAUserNamedLikeAConnection(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		as := func(hub int, user string) *channels.Subscription {
			s, err := r.hubs[hub].Subscribe(channels.WithIdentity(context.Background(), channels.Identity{ID: user}), "c", nil)
			require.NoError(t, err)
			r.t.Cleanup(s.Close)
			return s
		}
		bob := as(0, "bob")
		twin, elsewhere := as(0, bob.ID()), as(1, bob.ID())
		ended := func(s *channels.Subscription) bool {
			synctest.Wait()
			return !channels.Has(r.hubs[0], s.ID()) && !channels.Has(r.hubs[1], s.ID())
		}
		// On that replica there is only a user of that name.
		require.Zero(t, unsubscribed(t, r.hubs[1].UnsubscribeClient, bob.ID(), "c"))
		require.True(t, ended(bob))
		require.False(t, ended(twin))
		require.False(t, ended(elsewhere))

		eve := as(0, "eve")
		named := as(0, eve.ID())
		require.Equal(t, 1, disconnected(t, r.hubs[0].DisconnectUser, eve.ID()))
		require.True(t, ended(named))
		require.False(t, ended(eve))
		require.Equal(t, 1, disconnected(t, r.hubs[0].DisconnectClient, eve.ID()))
		require.True(t, ended(eve))
		require.Equal(t, 1, unsubscribed(t, r.hubs[0].UnsubscribeUser, bob.ID(), "c"))
		require.True(t, ended(elsewhere), "on all replicas")
	})
}

func TestDisconnectAndUnsubscribe(t *testing.T) {
	s := serve(t, channels.Options{ReplicaID: "n"}, asUser)
	anon := s.join("a", "")                    // 1
	ann1 := s.joinAs("a", "X-User", "ann")     // 2
	ann2 := s.joinAs("b", "X-User", "ann")     // 3
	annE := s.stream("a", "", "X-User", "ann") // 4
	bob := s.joinAs("a", "X-User", "bob")      // 5
	for _, who := range []string{"", "nobody", "n-", "n-1", channels.IDPrefix(s.hub), s.id(99), "a"} {
		require.Zero(t, disconnect(s.hub, who), who)
		require.Zero(t, unsubscribe(s.hub, who, "a"), who)
	}
	require.Zero(t, unsubscribe(s.hub, "ann", "c"))

	require.Equal(t, 1, unsubscribe(s.hub, "ann", "b"))
	before, ce := ann2.wantClose(3003)
	require.Equal(t, "unsubscribed", ce.Reason)
	require.Equal(t, "unsubscribed", before[0].ErrorCode())

	s.publish("a", "queued", `1`) // reaches them before the end
	require.Equal(t, 1, disconnect(s.hub, s.id(5)))
	before, ce = bob.wantClose(3003)
	require.Equal(t, "disconnected", ce.Reason)
	require.Len(t, before, 2)
	require.Equal(t, "queued", before[0].Header)
	require.Equal(t, "disconnected", before[1].ErrorCode())

	until(t, "two have left", func() bool { return s.hub.Stats().Connections == 3 })
	require.Equal(t, 2, disconnect(s.hub, "ann"))
	before, _ = ann1.wantClose(3003)
	require.Len(t, before, 2)
	annE.want("queued", `1`)
	annE.wantEnd("disconnected")

	anon.want("queued", `1`)
	s.publish("a", "still here", `1`)
	anon.want("still here", `1`)
}
