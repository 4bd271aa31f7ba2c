package channels_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// open subscribes, and is told an epoch even if nothing was published yet.
func (r *replicas) open(i int, channel string, since *channels.Position) (*subscriber, channels.Opening) {
	r.t.Helper()
	sub, o, err := channels.SubscribeOpening(context.Background(), r.hubs[i], channel, since, 0)
	require.NoError(r.t, err)
	r.t.Cleanup(sub.Close)
	return collect(sub), o
}

// begun opens a channel on which nothing was published, and returns what it is told.
func (r *replicas) begun(i int, channel string) (*subscriber, *channels.Position) {
	r.t.Helper()
	s, o := r.open(i, channel, nil)
	require.NotEmpty(r.t, o.At.Epoch)
	require.Equal(r.t, channels.Opening{From: o.At, At: o.At}, o)
	require.Zero(r.t, o.At.Offset)
	return s, &o.At
}

// Whoever is told an epoch before anything was published is told the same on every
// replica, and can recover from it on every replica.
func TestALogBeginsForItsFirstSubscriber(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		plain := r.subscribe(1, "c", nil) // which knows no epoch
		a, at := r.begun(0, "c")
		b, same := r.begun(1, "c")
		require.Equal(t, at, same)
		_, other := r.begun(0, "d")
		require.NotEqual(t, at.Epoch, other.Epoch)
		cut, _ := r.begun(0, "c")
		cut.close()
		early := r.subscribe(0, "c", at) // nothing is missed yet
		settle(time.Minute)

		require.Equal(t, channels.Position{Epoch: at.Epoch, Offset: 1}, r.publish(1, "c", 1).Position)
		r.publish(0, "c", 2)
		settle(5 * time.Second)
		for _, s := range []*subscriber{plain, a, b, early} {
			require.Equal(t, "1 2", s.story())
		}
		for i := range 2 {
			_, o := r.open(i, "c", at)
			wantAll(t, o.Messages, 1, 2)
			require.Empty(t, o.Reason)
			require.Equal(t, *at, o.From)
		}
	})
}

// Many that come at once ask once.
func TestALogBeginsOnceForMany(t *testing.T) {
	inBubble(t, 1, history, func(r *replicas) {
		r.subscribe(0, "c", nil)
		synctest.Wait()
		epochs := make([]string, 50)
		var g sync.WaitGroup
		for i := range epochs {
			g.Go(func() {
				sub, o, err := channels.SubscribeOpening(context.Background(), r.hubs[0], "c", nil, 0)
				require.NoError(t, err)
				sub.Close()
				epochs[i] = o.At.Epoch
			})
		}
		g.Wait()
		for _, e := range epochs {
			require.Equal(t, epochs[0], e)
		}
		require.EqualValues(t, 1, r.store.begins.Load())
	})
}

// A log that is published to while it begins comes whole to who was there before.
func TestALogIsPublishedToWhileItBegins(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		plain := r.subscribe(0, "c", nil)
		synctest.Wait()
		r.drop(func() { r.publishAll(1, "c", 1, 3) }) // the mesh loses them
		_, o := r.open(0, "c", nil)
		settle(5 * time.Second)
		require.Equal(t, "1 2 3", plain.story())
		require.NotEmpty(t, o.At.Epoch)
		_, o = r.open(0, "c", &channels.Position{Epoch: o.At.Epoch})
		wantAll(t, o.Messages, 1, 3)
	})
}

// A Store that takes no writes refuses who needs an epoch. Others can come.
func TestALogThatCannotBegin(t *testing.T) {
	inBubble(t, 1, history, func(r *replicas) {
		r.store.full.Store(true)
		_, _, err := channels.SubscribeOpening(context.Background(), r.hubs[0], "c", nil, 0)
		require.ErrorIs(t, err, channels.ErrStoreUnavailable)
		plain := r.subscribe(0, "c", nil)
		r.store.full.Store(false)
		_, at := r.begun(0, "c")
		r.publish(0, "c", 1)
		synctest.Wait()
		require.Equal(t, "1", plain.story())
		require.NotEmpty(t, at.Epoch)
	})
}

// A session is told the epoch, recovers from it, and can ask for the newest messages.
func TestSessionRecoversFromBeforeTheFirstMessage(t *testing.T) {
	hub := newHub(t, channels.Options{Channel: keep(100)})
	c := hello(t, hub, "ann")
	c.send(`{"id":2,"subscribe":{"channel":"h"}}`)
	var told struct {
		Subscribe struct {
			Epoch  string
			Offset uint64
		}
	}
	require.NoError(t, json.Unmarshal([]byte(c.next()), &told))
	require.NotEmpty(t, told.Subscribe.Epoch)
	require.Zero(t, told.Subscribe.Offset)
	disconnect(hub, c.ID())
	c.wantEnd(3503, "disconnected")

	at := publishN(t, hub, "h", 1, 3)
	require.Equal(t, told.Subscribe.Epoch, at.Epoch)
	c = hello(t, hub, "ann")
	c.send(recoverFrom(2, "h", channels.Position{Epoch: at.Epoch}))
	require.Equal(t, `{"id":2,"subscribe":{"recoverable":true,"epoch":"`+at.Epoch+`","publications":`+pubs(1, 3)+`,"recovered":true,"offset":3,"positioned":true,"was_recovering":true}}`, c.next())
}

func TestSessionBeginsWithTheNewest(t *testing.T) {
	hub := newHub(t, channels.Options{Channel: keep(100)})
	at := publishN(t, hub, "h", 1, 10)
	c := hello(t, hub, "ann")
	c.send(`{"id":2,"subscribe":{"channel":"h","data":{"last":3}}}`)
	require.Equal(t, `{"id":2,"subscribe":{"recoverable":true,"epoch":"`+at.Epoch+`","publications":`+pubs(8, 10)+`,"offset":10,"positioned":true}}`, c.next())
	publishN(t, hub, "h", 11, 11)
	require.Equal(t, `{"push":{"channel":"h","pub":`+pub(11)+`}}`, c.next())

	// With a position it is the position that counts: the client comes back.
	c.send(`{"id":3,"unsubscribe":{"channel":"h"}}`)
	c.next()
	c.send(fmt.Sprintf(`{"id":4,"subscribe":{"channel":"h","data":{"last":3},"recover":true,"epoch":%q,"offset":10}}`, at.Epoch))
	require.Contains(t, c.next(), `"publications":`+pubs(11, 11)+`,"recovered":true`)
	c.send(`{"id":5,"unsubscribe":{"channel":"h"}}`)
	c.next()

	for _, last := range []string{"-1", "1001", "1e3", "1.5", `"3"`, "[]"} {
		c.send(`{"id":6,"subscribe":{"channel":"h","data":{"last":` + last + `}}}`)
		got := c.next()
		require.Contains(t, got, `"code":107`, last)
		require.Contains(t, got, "0 to 1000", last)
	}
	for _, data := range []string{`{}`, `{"last":null}`, `{"last":0}`, `{"mine":[1,{"last":7}]}`, `"text"`, `null`, `[{"last":3}]`} {
		c.send(`{"id":7,"subscribe":{"channel":"h","data":` + data + `}}`)
		require.Contains(t, c.next(), `"offset":11,"positioned":true}}`, data)
		c.send(`{"id":8,"unsubscribe":{"channel":"h"}}`)
		c.next()
	}
}
