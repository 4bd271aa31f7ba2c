package channels_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh"
)

// online asks replica i which of some users are online. The answer is sorted.
func (r *replicas) online(i int, users ...string) ([]string, error) {
	got, err := r.hubs[i].Online(context.Background(), users...)
	return slices.Sorted(maps.Keys(got)), err
}

// wantOnline wants each replica to say the same.
func (r *replicas) wantOnline(want []string, users ...string) {
	r.t.Helper()
	r.wantOnlineAt(len(r.hubs), want, users...)
}

// wantOnlineAt wants the first n replicas to say the same.
func (r *replicas) wantOnlineAt(n int, want []string, users ...string) {
	r.t.Helper()
	for i := range n {
		got, err := r.online(i, users...)
		require.NoError(r.t, err, "r%d", i)
		require.Equal(r.t, want, got, "r%d", i)
	}
}

func TestOnline(t *testing.T) {
	inBubble(t, 3, history, func(r *replicas) {
		ctx := context.Background()
		long := strings.Repeat("é/", 4000) // 12,000 bytes
		for i, user := range []string{"ann", "bob", "", long, "ann", "\xff"} {
			defer r.member(i%3, "a", user)()
		}
		dan := channels.WithIdentity(ctx, channels.Identity{ID: "dan"})
		sub, err := r.hubs[1].Subscribe(dan, "a", nil)
		require.NoError(t, err)
		defer sub.Close()
		eve := hello(t, r.hubs[2], "eve") // who is subscribed to nothing
		synctest.Wait()

		everybody := []string{"ann", "bob", "carl", "dan", "", "bob", "\xff", "eve", long}
		r.wantOnline([]string{"ann", "bob", "eve", long, "\xff"}, everybody...)
		r.wantOnline(nil)
		r.wantOnline(nil, "", "carl")
		eve.Leave()
		r.wantOnline([]string{"ann"}, "eve", "ann")

		// As many as one may ask for, in several packets.
		var many []string
		for i := range 1000 {
			many = append(many, fmt.Sprintf("%0100d", i))
		}
		leave := r.member(2, "a", many[999])
		defer r.member(1, "a", many[0])()
		synctest.Wait()
		r.wantOnline([]string{many[0], many[999]}, many...)
		leave()
		r.wantOnline([]string{many[0]}, many...)
		for _, hub := range r.hubs {
			_, err = hub.Online(ctx, append(many, "ann")...)
			require.ErrorIs(t, err, channels.ErrTooLarge)
			_, err = hub.Online(ctx, strings.Repeat("x", 16<<10))
			require.ErrorIs(t, err, channels.ErrTooLarge)
		}

		// Who is told to go is gone at once.
		_, err = r.hubs[0].DisconnectUser(ctx, "ann")
		require.NoError(t, err)
		synctest.Wait()
		r.wantOnline([]string{"bob"}, "ann", "bob")

		ended, cancel := context.WithCancel(ctx)
		cancel()
		_, err = r.hubs[0].Online(ended, "ann")
		require.ErrorIs(t, err, context.Canceled)
	})
}

// An answer that lacks a replica's users is an error, which says whose, and has the
// others. Once a replica that was killed counts as dead, none is missing.
func TestOnlineWithoutAReplica(t *testing.T) {
	for name, lose := range map[string]func(r *replicas){
		"its process dies": func(r *replicas) { // so its links end
			r.net.Cut("r0", "r2")
			r.net.Cut("r1", "r2")
			r.store.mute.Store("r2")
		},
		"its machine dies": func(r *replicas) { // so it is silent
			r.meshes[2].mute.Store(true)
			r.store.mute.Store("r2")
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 3, history, func(r *replicas) {
				defer r.member(0, "a", "ann")()
				defer r.member(1, "a", "bob")()
				defer r.member(2, "a", "carl")()
				time.Sleep(5 * time.Second)
				r.wantOnlineAt(2, []string{"ann", "bob", "carl"}, "ann", "bob", "carl")
				lose(r)
				began := time.Now()
				got, err := r.online(0, "carl", "bob", "ann")
				require.ErrorIs(t, err, channels.ErrMeshUnavailable)
				require.ErrorContains(t, err, "no answer from r2")
				require.Equal(t, []string{"ann", "bob"}, got)
				require.LessOrEqual(t, time.Since(began), 3*time.Second)
				got, err = r.online(1, "bob")
				require.NoError(t, err, "nobody has to be asked")
				require.Equal(t, []string{"bob"}, got)
				time.Sleep(10*time.Second - time.Since(began))
				r.wantOnlineAt(2, []string{"ann", "bob"}, "ann", "bob", "carl")
			})
		})
	}
}

// A context bounds the wait, and an answer that comes later is nobody's.
func TestOnlineAnswersThatComeLate(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		defer r.member(1, "a", "ann")()
		time.Sleep(5 * time.Second)
		r.meshes[1].mute.Store(true)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := r.hubs[0].Online(ctx, "ann")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		r.meshes[1].mute.Store(false)
		for _, body := range []string{`{"v":1,"n":7,"found":[0]}`, `{"v":1,"found":[-1,9223372036854775807]}`, `{"v":1,"found":"x"}`, `{"v":1,"users":[null,"?"]}`} {
			for _, header := range []string{"here", "online"} {
				r.meshes[0].bring(mesh.Packet{Kind: mesh.KindControl, Header: header, Origin: "r1", Body: []byte(body)})
			}
		}
		r.wantOnline([]string{"ann"}, "ann")
	})
}

// The Mesh does it alone while the Store fails, and while each replica has its own.
func TestOnlineWithoutACommonStore(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		defer r.member(1, "a", "ann")()
		time.Sleep(5 * time.Second)
		r.store.down.Store(true)
		time.Sleep(time.Minute)
		r.wantOnline([]string{"ann"}, "ann", "bob")
	})
	inBubble(t, 2, nil, func(r *replicas) {
		defer r.member(1, "a", "ann")()
		synctest.Wait()
		r.wantOnline([]string{"ann"}, "ann", "bob")
	}, func(_ int, o *channels.Options) { o.Store = newMemory(t) })
}

// Without a Mesh, one replica knows everything, and several say that they do not.
func TestOnlineWithoutAMesh(t *testing.T) {
	inBubble(t, 1, nil, func(r *replicas) {
		defer r.member(0, "a", "ann")()
		synctest.Wait()
		r.wantOnline([]string{"ann"}, "ann", "bob")
		other := r.join("other", func(o *channels.Options) { o.Mesh = nil })
		time.Sleep(2 * time.Second)
		got, err := r.online(0, "ann", "bob")
		require.ErrorIs(t, err, channels.ErrMeshUnavailable)
		require.ErrorContains(t, err, "no answer from other")
		require.Equal(t, []string{"ann"}, got)
		require.NoError(t, other.Shutdown(context.Background()))
		r.wantOnlineAt(1, []string{"ann"}, "ann", "bob")
		r.store.down.Store(true)
		_, err = r.online(0, "ann", "bob")
		require.ErrorIs(t, err, channels.ErrStoreUnavailable)
		_, err = r.online(0, "ann")
		require.NoError(t, err, "nobody has to be asked")
	}, func(_ int, o *channels.Options) { o.Mesh = nil })
}

// A replica that is shut down takes its users along, and one that is started again
// under its id is asked.
func TestOnlineAcrossARestart(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		leave := r.member(1, "a", "ann")
		time.Sleep(5 * time.Second)
		require.NoError(t, r.hubs[1].Shutdown(context.Background()))
		require.NoError(t, r.meshes[1].Close())
		leave()
		synctest.Wait()
		r.wantOnlineAt(1, nil, "ann")

		r.join("r1", func(o *channels.Options) { o.Channel = history })
		defer r.member(2, "a", "bob")()
		time.Sleep(2 * time.Second)
		r.wantOnlineAt(1, []string{"bob"}, "ann", "bob")
		_, err := r.hubs[1].Online(context.Background(), "ann")
		require.ErrorIs(t, err, channels.ErrClosed)
	})
}
