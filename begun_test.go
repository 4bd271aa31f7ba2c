package channels_test

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/store"
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

// A client was cut before anything was published. It comes back within some minutes,
// perhaps to another replica, although no replica keeps the channel.
func TestABegunLogOutlivesItsSubscribers(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		cut, at := r.begun(0, "c")
		cut.close()
		settle(store.EmptyTTL - time.Minute)
		for i := range 2 {
			require.Zero(t, r.hubs[i].Stats().Channels)
		}
		again, o := r.open(1, "c", at)
		require.Equal(t, channels.Opening{From: *at, At: *at}, o)
		settle(3 * store.EmptyTTL) // the hub keeps asking for it
		again.close()
		r.publishAll(0, "c", 1, 3)
		_, o = r.open(1, "c", at)
		wantAll(t, o.Messages, 1, 3)
		require.Empty(t, o.Reason)
	})
}

// A hub that has its Store for itself seldom asks for the tops.
func TestABegunLogStaysInAMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, channels.Options{Channel: keep(10)})
		sub, o, err := channels.SubscribeOpening(t.Context(), h, "c", nil, 0)
		require.NoError(t, err)
		defer sub.Close()
		time.Sleep(3 * store.EmptyTTL)
		require.Equal(t, o.At.Epoch, publish(t, h, "c", "n", "1").Position.Epoch)
		require.Equal(t, "1", string(next(t, sub).Body))
	})
}

// The reply comes first, and what is published meanwhile follows it: each message once.
func TestSubscribeWhileOthersPublish(t *testing.T) {
	hub := newHub(t, channels.Options{Channel: keep(1000)})
	const all = 300
	publishN(t, hub, "h", 1, 20)
	for round, data := range []string{`{}`, `{"last":5}`} {
		first := 21 + round*all
		done := make(chan struct{})
		go func() {
			defer close(done)
			for n := first; n < first+all; n++ {
				_, err := hub.Publish(t.Context(), "h", msg("message", fmt.Sprint(n)))
				if err != nil {
					t.Error(err)
				}
			}
		}()
		for range 20 {
			c := hello(t, hub, "ann")
			c.send(`{"id":2,"subscribe":{"channel":"h","data":` + data + `}}`)
			reply := c.next()
			require.True(t, strings.HasPrefix(reply, `{"id":2,"subscribe":{`), reply)
			var at int
			_, err := fmt.Sscanf(reply[strings.LastIndex(reply, `"offset":`):], `"offset":%d`, &at)
			require.NoError(t, err)
			if round == 1 {
				require.Contains(t, reply, `"publications":`+pubs(at-4, at)+`,`)
			}
			for n := at + 1; n < min(at+20, first+all); n++ {
				require.Equal(t, `{"push":{"channel":"h","pub":`+pub(n)+`}}`, c.next())
			}
		}
		<-done
	}
}

// Clients of two replicas that subscribe before the first message get it, and go on from
// there at either of them.
func TestRecoverFromTheBeginningElsewhere(t *testing.T) {
	inBubble(t, 2, keep(100), func(r *replicas) {
		here, there := hello(t, r.hubs[0], "ann"), hello(t, r.hubs[1], "bob")
		defer here.leave()
		defer there.leave()
		at := here.firstOf("h")
		require.Equal(t, at, there.firstOf("h"))
		publishN(t, r.hubs[0], "h", 1, 1)
		settle(time.Second)
		for _, c := range []*lineClient{here, there} {
			require.Equal(t, `{"push":{"channel":"h","pub":`+pub(1)+`}}`, c.next())
		}
		here.unsubscribe(3, "h")
		publishN(t, r.hubs[0], "h", 2, 2)
		for _, h := range r.hubs {
			c := hello(t, h, "eve")
			c.send(recoverFrom(2, "h", at))
			require.Equal(t, `{"id":2,"subscribe":{"recoverable":true,"epoch":"`+at.Epoch+`","publications":`+pubs(1, 2)+
				`,"recovered":true,"offset":2,"positioned":true,"was_recovering":true}}`, c.next())
			c.leave()
		}
	})
}

// firstOf subscribes to a channel on which nothing was published, and returns the
// position that the client is told.
func (c *lineClient) firstOf(channel string) channels.Position {
	c.t.Helper()
	c.send(`{"id":2,"subscribe":{"channel":"` + channel + `"}}`)
	got := regexp.MustCompile(`^{"id":2,"subscribe":{"recoverable":true,"epoch":"(\w+)","positioned":true}}$`).FindStringSubmatch(c.next())
	require.NotNil(c.t, got)
	return channels.Position{Epoch: got[1]}
}

// Many pages that open at the same time share the reads of the newest messages.
func TestTheNewestAreReadForMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int32
		hub := newHub(t, channels.Options{Channel: keep(100), Store: &rangeStore{newMemory(t), func(context.Context, string) error {
			reads.Add(1)
			time.Sleep(time.Second)
			return nil
		}}})
		publishN(t, hub, "h", 1, 10)
		var cs []*lineClient
		for range 50 {
			c := hello(t, hub, "ann")
			c.send(`{"id":2,"subscribe":{"channel":"h","data":{"last":3}}}`)
			cs = append(cs, c)
		}
		other := hello(t, hub, "bob")
		other.send(`{"id":2,"subscribe":{"channel":"h","data":{"last":2}}}`)
		for _, c := range cs {
			c.want(`"publications":` + pubs(8, 10))
		}
		other.want(`"publications":` + pubs(9, 10))
		require.LessOrEqual(t, reads.Load(), int32(3), "two for those, and one for the other")
	})
}
