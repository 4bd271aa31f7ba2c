//go:build !windows

package redisstore

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/store"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// A repeated Append adds its message once, whichever attempts Redis has done,
// and in whichever order.
func TestARepeatedAppendIsOneMessage(t *testing.T) {
	r := redistest.Start(t)
	s := newStore(t, r.Client())
	limits := func(size int) store.AppendOptions { return store.AppendOptions{Size: size, TTL: time.Hour} }
	run := func(c *call) (offset uint64, err error) {
		if err := s.do(t.Context(), c); err != nil {
			return 0, err
		}
		reply, err := c.cmd.Slice()
		require.NoError(t, err)
		require.EqualValues(t, 0, reply[2], "a message that the call itself added is no duplicate")
		return uint64(reply[1].(int64)), nil
	}
	// again returns the same call as it is sent after a lost answer.
	again := func(c *call) *call {
		return &call{script: c.script, keys: c.keys, args: c.args, since: c.since, epoch: c.epoch, first: c.first, lost: true}
	}
	others := func(channel string, n int, o store.AppendOptions) {
		for i := range n {
			_, err := s.Append(t.Context(), channel, store.Entry{Header: fmt.Sprint("other ", i)}, o)
			require.NoError(t, err)
		}
	}
	tops := func(channel string) uint64 {
		p, err := s.Range(t.Context(), channel, store.Query{})
		require.NoError(t, err)
		top, err := s.Tops(t.Context(), []string{channel})
		require.NoError(t, err)
		require.Equal(t, p.Top, top[0])
		return p.Top.Offset
	}
	one := func(channel string, o store.AppendOptions) *call {
		return s.appendCall(channel, store.Entry{Header: "mine"}, o)
	}

	t.Run("it was done", func(t *testing.T) {
		o := limits(1000)
		others("done", 3, o)
		c := one("done", o)
		offset, err := run(c)
		require.NoError(t, err)
		others("done", 250, o)
		for range 3 {
			found, err := run(again(c))
			require.NoError(t, err)
			require.Equal(t, offset, found)
		}
		require.EqualValues(t, 254, tops("done"))
	})
	t.Run("it was done, with an info", func(t *testing.T) {
		o := limits(1000)
		c := s.appendCall("info", store.Entry{Header: "mine", Info: []byte("{ }")}, o)
		offset, err := run(c)
		require.NoError(t, err)
		_, err = s.Append(t.Context(), "info", store.Entry{Header: "other", Info: []byte("{}")}, o)
		require.NoError(t, err)
		found, err := run(again(c))
		require.NoError(t, err)
		require.Equal(t, offset, found)
		require.EqualValues(t, 2, tops("info"))
		page, err := s.Range(t.Context(), "info", store.Query{Limit: 5})
		require.NoError(t, err)
		require.Equal(t, "{ }", string(page.Entries[0].Info))
	})
	t.Run("it was not done", func(t *testing.T) {
		for _, before := range []int{0, 5} { // the log does not exist, or has dropped entries
			ch, o := fmt.Sprint("lost ", before), limits(3)
			others(ch, before, o)
			c := one(ch, o)
			c.first = time.Now().Add(time.Minute) // later than all of them, by the server's clock too
			offset, err := run(again(c))
			require.NoError(t, err)
			require.EqualValues(t, before+1, offset)
		}
	})
	t.Run("the first attempt comes after the repeat", func(t *testing.T) {
		o := limits(1)
		c := one("late", o)
		c.first = time.Now()
		offset, err := run(again(c))
		require.NoError(t, err)
		others("late", 20, o)
		first := again(c)
		first.lost = false
		found, err := run(first)
		require.NoError(t, err)
		require.Equal(t, offset, found, "although the log has dropped it")
		require.EqualValues(t, 21, tops("late"))
		page, err := s.Range(t.Context(), "late", store.Query{Limit: 5})
		require.NoError(t, err)
		require.Len(t, page.Entries, 1)
		require.Equal(t, "other 19", page.Entries[0].Header)
	})
	t.Run("it is unknown", func(t *testing.T) {
		o := limits(2)
		others("unsure", 1, o)
		c := one("unsure", o)
		_, err := run(c)
		require.NoError(t, err)
		others("unsure", 3, o)
		_, err = run(again(c))
		require.ErrorContains(t, err, "UNSURE")
		err = s.explain(context.Background(), "append", err)
		require.ErrorIs(t, err, store.ErrUnavailable)
		require.EqualValues(t, 5, tops("unsure"), "nothing was added")
	})
	t.Run("it began the log, which is lost", func(t *testing.T) {
		epoch := func() string {
			top, err := s.Tops(t.Context(), []string{"reborn"})
			require.NoError(t, err)
			return top[0].Epoch
		}
		for _, c := range []*call{one("reborn", limits(1000)), s.beginCall("reborn")} {
			c.first = time.Now()
			require.NoError(t, s.do(t.Context(), c))
			first := epoch()
			others("reborn", 1, limits(1000)) // whose position must not get another meaning
			r.Do("FLUSHALL")
			require.NoError(t, s.do(t.Context(), again(c)))
			require.NotEmpty(t, epoch())
			require.NotEqual(t, first, epoch())
			r.Do("FLUSHALL")
		}
	})
}
