package channels_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/store"
)

// rangeStore calls before for each read of a history.
type rangeStore struct {
	store.Store
	before func(ctx context.Context, channel string) error
}

func (s *rangeStore) Range(ctx context.Context, channel string, q store.Query) (store.Page, error) {
	if err := s.before(ctx, channel); err != nil {
		return store.Page{}, err
	}
	return s.Store.Range(ctx, channel, q)
}

func publishN(t *testing.T, h *channels.Hub, channel string, from, to int) (at channels.Position) {
	t.Helper()
	for n := from; n <= to; n++ {
		at = publish(t, h, channel, "message", fmt.Sprint(n)).Position
	}
	return at
}

func recoverFrom(id int, channel string, at channels.Position) string {
	return fmt.Sprintf(`{"id":%d,"subscribe":{"channel":%q,"recover":true,"epoch":%q,"offset":%d}}`, id, channel, at.Epoch, at.Offset)
}

// recoverAll is recoverFrom for a client that does not want the subscription if it
// cannot recover.
func recoverAll(id int, channel string, at channels.Position) string {
	return strings.TrimSuffix(recoverFrom(id, channel, at), "}}") + `,"flag":2}}`
}

// pub is a publication of publishN, as it is in a push and in a reply.
func pub(n int) string { return fmt.Sprintf(`{"data":%d,"offset":%d}`, n, n) }

func pubs(from, to int) string {
	list := ""
	for n := from; n <= to; n++ {
		list += "," + pub(n)
	}
	return "[" + strings.TrimPrefix(list, ",") + "]"
}

func TestSubscribeWithHistory(t *testing.T) {
	hub := newHub(t, channels.Options{Channel: keep(100)})
	at := publishN(t, hub, "h", 1, 3)
	c := hello(t, hub, "ann")
	c.send(`{"id":2,"subscribe":{"channel":"h"}}`)
	require.Equal(t, `{"id":2,"subscribe":{"recoverable":true,"epoch":"`+at.Epoch+`","offset":3,"positioned":true}}`, c.next())
	publishN(t, hub, "h", 4, 4)
	require.Equal(t, `{"push":{"channel":"h","pub":`+pub(4)+`}}`, c.next())
}

func TestRecover(t *testing.T) {
	hub := newHub(t, channels.Options{Channel: keep(100)})
	at := publishN(t, hub, "h", 1, 10)
	begin := `{"id":2,"subscribe":{"recoverable":true,"epoch":"` + at.Epoch + `",`
	for missed := range 11 {
		c := hello(t, hub, "ann")
		c.send(recoverFrom(2, "h", channels.Position{Epoch: at.Epoch, Offset: at.Offset - uint64(missed)}))
		want := begin
		if missed > 0 {
			want += `"publications":` + pubs(int(at.Offset)-missed+1, int(at.Offset)) + `,`
		}
		require.Equal(t, want+`"recovered":true,"offset":`+fmt.Sprint(at.Offset)+`,"positioned":true,"was_recovering":true}}`, c.next())
		at = publishN(t, hub, "h", int(at.Offset)+1, int(at.Offset)+1)
		require.Equal(t, `{"push":{"channel":"h","pub":`+pub(int(at.Offset))+`}}`, c.next())
		disconnect(hub, c.ID())
		c.wantEnd(3503, "disconnected")
	}
}

// What does not fit into the reply follows it, and nothing is missing or twice.
func TestRecoverMoreThanAPage(t *testing.T) {
	hub := newHub(t, channels.Options{Channel: keep(1000)})
	at := publishN(t, hub, "h", 1, 500)
	c := hello(t, hub, "ann")
	c.send(recoverFrom(2, "h", channels.Position{Epoch: at.Epoch, Offset: 7}))
	require.Equal(t, `{"id":2,"subscribe":{"recoverable":true,"epoch":"`+at.Epoch+`","publications":`+pubs(8, 135)+
		`,"recovered":true,"offset":135,"positioned":true,"was_recovering":true}}`, c.next())
	publishN(t, hub, "h", 501, 510)
	for n := 136; n <= 510; n++ {
		require.Equal(t, `{"push":{"channel":"h","pub":`+pub(n)+`}}`, c.next())
	}
}

func TestRecoverWhatIsLost(t *testing.T) {
	hub := newHub(t, channels.Options{Channel: func(name string) channels.ChannelOptions {
		if name == "none" {
			return channels.ChannelOptions{}
		}
		return channels.ChannelOptions{HistorySize: 5}
	}})
	at := publishN(t, hub, "h", 1, 20)
	c := hello(t, hub, "ann")
	for name, from := range map[string]channels.Position{
		"trimmed":       {Epoch: at.Epoch, Offset: 14},
		"another epoch": {Epoch: "other", Offset: 20},
		"the future":    {Epoch: at.Epoch, Offset: 21},
		"no epoch":      {Offset: 3},
	} {
		c.send(recoverFrom(2, "h", from))
		require.Equal(t, `{"id":2,"subscribe":{"recoverable":true,"epoch":"`+at.Epoch+`","offset":20,"positioned":true,"was_recovering":true}}`, c.next(), name)
		c.unsubscribe(3, "h")
		c.send(recoverAll(4, "h", from))
		c.wantError(4, 112)
	}
	c.send(recoverAll(2, "h", channels.Position{Epoch: at.Epoch, Offset: 15}))
	c.want(`"publications":` + pubs(16, 20) + `,"recovered":true`)
	c.unsubscribe(3, "h")
	c.send(recoverAll(2, "none", at))
	require.Equal(t, `{"id":2,"subscribe":{"was_recovering":true}}`, c.next(), "a channel without history cannot recover anyhow")
	c.unsubscribe(3, "none")
	c.send(recoverFrom(2, "none", at))
	require.Equal(t, `{"id":2,"subscribe":{"was_recovering":true}}`, c.next())
	c.send(recoverFrom(2, "new", channels.Position{}))
	require.Regexp(t, `^{"id":2,"subscribe":{"recoverable":true,"epoch":"\w+","recovered":true,"positioned":true,"was_recovering":true}}$`, c.next(), "there is no log yet")
	publishN(t, hub, "new", 1, 1)
	c.want(`{"push":{"channel":"new","pub":` + pub(1))
	c.send(recoverFrom(2, "gone", at))
	require.Regexp(t, `^{"id":2,"subscribe":{"recoverable":true,"epoch":"\w+","positioned":true,"was_recovering":true}}$`, c.next(), "the log is lost")
	publishN(t, hub, "gone", 1, 1)
	c.want(`{"push":{"channel":"gone","pub":` + pub(1))
}

// With the flag 2, a client that cannot recover is not subscribed: SDKs then ask the app
// for the channel's state first.
func TestRecoverOrNotAtAll(t *testing.T) {
	hub := newHub(t, channels.Options{Channel: func(name string) channels.ChannelOptions {
		o := channels.ChannelOptions{Presence: channels.PresenceList}
		if name != "none" {
			o.HistorySize = 2
		}
		return o
	}})
	at := publishN(t, hub, "h", 1, 5) // the last two are kept
	c := hello(t, hub, "ann")
	from := func(epoch string, offset int) string {
		return fmt.Sprintf(`"subscribe":{"channel":"h","flag":3,"recover":true,"epoch":%q,"offset":%d}`, epoch, offset)
	}
	for range 2 {
		c.refused(112, from(at.Epoch, 2))
		c.refused(112, from("other", 4))
	}
	require.Empty(t, users(t, hub, "h"))
	publishN(t, hub, "h", 6, 6)
	c.send(`{"id":7,` + from(at.Epoch, 4) + `}`)
	c.want(`"publications":` + pubs(5, 6) + `,"recovered":true`)
	until(t, "ann is there", func() bool { return slices.Equal(users(t, hub, "h"), []string{"ann"}) })
	for _, request := range []string{`"channel":"new","flag":2`, `"channel":"none","flag":2,"recover":true,"epoch":"e","offset":1`} {
		c.send(`{"id":8,"subscribe":{` + request + `}}`)
		c.want(`{"id":8,"subscribe":{`)
	}
}

func TestRecoverWhileTheStoreFails(t *testing.T) {
	var fails atomic.Bool
	hub := newHub(t, channels.Options{Channel: keep(100), Store: &rangeStore{newMemory(t), func(context.Context, string) error {
		if fails.Load() {
			return errors.New("test")
		}
		return nil
	}}})
	at := publishN(t, hub, "h", 1, 3)
	c := hello(t, hub, "ann")
	at.Offset = 1
	fails.Store(true)
	c.send(recoverFrom(7, "h", at))
	require.Equal(t, `{"id":7,"error":{"code":100,"message":"the store does not answer; try again in a moment","temporary":true}}`, c.next())
	fails.Store(false)
	info, err := hub.Channel(context.Background(), "h")
	require.NoError(t, err)
	require.Zero(t, info.Subscribers)
	c.send(recoverFrom(8, "h", at))
	c.want(`"publications":` + pubs(2, 3) + `,"recovered":true`)
}

// A client that comes back does not wait for its channels one after the other, and what
// it sends then waits for them.
func TestRecoverSeveralChannelsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int32
		hub := newHub(t, channels.Options{Channel: keep(100), Store: &rangeStore{newMemory(t), func(context.Context, string) error {
			reads.Add(1)
			time.Sleep(time.Second)
			return nil
		}}})
		c := hello(t, hub, "ann")
		for i := range 5 {
			at := publishN(t, hub, fmt.Sprint("h", i), 1, 2)
			at.Offset = 1
			c.send(recoverFrom(10+i, fmt.Sprint("h", i), at))
		}
		begin := time.Now()
		c.send(`{"id":20,"unsubscribe":{"channel":"h1"}}`)
		replies := ""
		for range 6 {
			replies += c.next() + "\n"
		}
		require.Equal(t, 5, strings.Count(replies, `"publications":`+pubs(2, 2)))
		require.True(t, strings.HasSuffix(replies, "{\"id\":20,\"unsubscribe\":{}}\n"), replies)
		require.Equal(t, time.Second, time.Since(begin))
		require.EqualValues(t, 5, reads.Load())
		publishN(t, hub, "h1", 3, 3)
		publishN(t, hub, "h2", 3, 3)
		c.want(`{"push":{"channel":"h2","pub":` + pub(3))
	})
}

// Many clients that come back with the same position share reads.
func TestRecoverSharesReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int32
		hub := newHub(t, channels.Options{Channel: keep(1000), Store: &rangeStore{newMemory(t), func(context.Context, string) error {
			reads.Add(1)
			time.Sleep(time.Second)
			return nil
		}}})
		at := publishN(t, hub, "h", 1, 10)
		at.Offset = 4
		var cs []*lineClient
		for range 50 {
			c := hello(t, hub, "ann")
			c.send(recoverFrom(2, "h", at))
			cs = append(cs, c)
		}
		time.Sleep(500 * time.Millisecond)
		publishN(t, hub, "h", 11, 12)
		for i, c := range cs {
			line := c.next()
			if i == 0 { // whose read began before the two were published, or not
				require.Contains(t, line, `"publications":[`+pub(5))
				continue
			}
			require.Contains(t, line, `"publications":`+pubs(5, 12))
		}
		require.LessOrEqual(t, reads.Load(), int32(4))
		publishN(t, hub, "h", 13, 13)
		for _, c := range cs[1:] {
			require.Equal(t, `{"push":{"channel":"h","pub":`+pub(13)+`}}`, c.next())
		}
	})
}

// If messages are lost in the middle of a subscription, it ends with 2500. The client
// subscribes again, and learns that it cannot recover.
func TestRecoverAfterTheStoreHasLostTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := newMemory(t), newMemory(t)
		st := &switchedStore{Store: first}
		hub := newHub(t, channels.Options{Channel: keep(100), Store: st})
		at := publishN(t, hub, "h", 1, 3)
		c := subscribedTo(t, hub, "ann", "h", "other")
		publishN(t, hub, "h", 4, 4)
		c.want(pub(4))
		st.to(second)
		again := publish(t, hub, "h", "message", `"new"`).Position
		require.NotEqual(t, at.Epoch, again.Epoch)
		require.Equal(t, `{"push":{"channel":"h","unsubscribe":{"code":2500,"reason":"insufficient state"}}}`, c.next())
		at.Offset = 4
		c.send(recoverFrom(2, "h", at))
		require.Equal(t, `{"id":2,"subscribe":{"recoverable":true,"epoch":"`+again.Epoch+`","offset":1,"positioned":true,"was_recovering":true}}`, c.next())
		publish(t, hub, "h", "message", `"newer"`)
		require.Equal(t, `{"push":{"channel":"h","pub":{"data":"newer","offset":2}}}`, c.next())
	})
}

// switchedStore is one Store, and then another.
type switchedStore struct {
	store.Store
	now atomic.Pointer[store.Memory]
}

func (s *switchedStore) to(m *store.Memory) { s.now.Store(m) }

func (s *switchedStore) current() store.Store {
	if m := s.now.Load(); m != nil {
		return m
	}
	return s.Store
}

func (s *switchedStore) Append(ctx context.Context, ch string, e store.Entry, o store.AppendOptions) (store.Appended, error) {
	return s.current().Append(ctx, ch, e, o)
}

func (s *switchedStore) Begin(ctx context.Context, ch string) (store.Position, error) {
	return s.current().Begin(ctx, ch)
}

func (s *switchedStore) Range(ctx context.Context, ch string, q store.Query) (store.Page, error) {
	return s.current().Range(ctx, ch, q)
}

func (s *switchedStore) Tops(ctx context.Context, chs []string) ([]store.Position, error) {
	return s.current().Tops(ctx, chs)
}

// A recovery that is longer than the queue waits for the client, and does not end it.
func TestRecoverMoreThanTheQueueHolds(t *testing.T) {
	hub := newHub(t, channels.Options{Channel: keep(1000), MaxMessageBytes: 8 << 10, QueueBytes: 16 << 10})
	c := hello(t, hub, "ann")
	for _, name := range []string{"h1", "h2", "h3", "h4", "h5", "h6", "h7", "h8"} {
		at := channels.Position{}
		for range 20 {
			at = publish(t, hub, name, "message", `"`+long(1000)+`"`).Position
		}
		c.send(recoverFrom(2, name, channels.Position{Epoch: at.Epoch}))
	}
	n := 0
	for n < 160 {
		n += strings.Count(c.next(), long(1000))
	}
	require.Equal(t, 160, n)
	require.Zero(t, hub.Stats().SlowClosed)
}
