//go:build !windows

package redisstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/mesh/meshtest"
	"github.com/channels-go/channels/store"
	"github.com/channels-go/channels/store/redisstore"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// publishers append to the channel "c" until they are stopped, through any
// faults: each of them every publishPace, or only every fifth time once a test has
// not asked for more for long. It then waits for an election, and would spend a
// processor on them.
type publishers struct {
	end    func()       // stops them, and waits until they have ended
	lively atomic.Int64 // so many more in the full pace

	mu    sync.Mutex // guards the fields below
	acked map[store.Position]string
	last  error
}

const publishPace = 5 * time.Millisecond

func publish(t *testing.T, n int, s *redisstore.Store) *publishers {
	running, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	p := &publishers{acked: map[store.Position]string{}, end: func() {
		stop()
		wg.Wait()
	}}
	for i := range n {
		wg.Go(func() {
			tick := time.NewTicker(publishPace)
			defer tick.Stop()
			for k := 0; ; k++ {
				select {
				case <-running.Done():
					return
				case <-tick.C:
				}
				if p.lively.Add(-1) < 0 && k%5 != 0 {
					continue
				}
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				text := fmt.Sprint(i, "/", k)
				began := time.Now()
				done, err := s.Append(ctx, "c", entry(text), plenty)
				cancel()
				assert.Less(t, time.Since(began), 30*time.Second, "Append returns when its context ends")
				p.note(t, done.Position, text, err)
			}
		})
	}
	t.Cleanup(p.end)
	return p
}

// note records how an Append ended.
func (p *publishers) note(t *testing.T, pos store.Position, text string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.last = err
		return
	}
	if other, ok := p.acked[pos]; ok {
		assert.Fail(t, "one offset has two messages", "%v: %s and %s", pos, other, text)
	}
	p.acked[pos] = text
}

func (p *publishers) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.acked)
}

// more waits until n more messages are acknowledged.
func (p *publishers) more(t *testing.T, n int) {
	t.Helper()
	from := p.count()
	eventually(t, fmt.Sprint(n, " more appends are acknowledged"), func() bool {
		p.lively.Store(2000)
		return p.count() >= from+n
	})
}

func all(t *testing.T, s *redisstore.Store, channel string) store.Page {
	t.Helper()
	p, err := s.Range(context.Background(), channel, store.Query{Limit: 1 << 30})
	require.NoError(t, err)
	return p
}

// requireAll checks that the log has everything that was acknowledged, without
// gaps.
func (p *publishers) requireAll(t *testing.T, s *redisstore.Store) {
	t.Helper()
	p.end()
	page := all(t, s, "c")
	require.EqualValues(t, 1, page.First)
	require.Len(t, page.Entries, int(page.Top.Offset))
	for i, e := range page.Entries {
		if e.Offset != uint64(i+1) {
			require.EqualValues(t, i+1, e.Offset)
		}
	}
	for pos, text := range p.acked {
		requireMeans(t, page, pos, text)
	}
}

// requireMeans checks that a position is in the log, and means this text. There
// are thousands of them, for which the assertions take long.
func requireMeans(t *testing.T, page store.Page, pos store.Position, text string) {
	t.Helper()
	requireCommon(t, page, pos)
	if got := page.Entries[pos.Offset-1].Header; got != text {
		require.Equal(t, text, got)
	}
}

// requireCommon checks that a position has the same meaning in the log now: it
// is of the present epoch, or of an earlier one, at or before the offset that
// both share.
func requireCommon(t *testing.T, page store.Page, pos store.Position) {
	t.Helper()
	holds := func(e store.Position) bool { return e.Epoch == pos.Epoch && pos.Offset <= e.Offset }
	if holds(page.Top) || slices.ContainsFunc(page.Earlier, holds) {
		return
	}
	require.Fail(t, "an acknowledged position is lost", "%v of %v, before %v", pos, page.Top, page.Earlier)
}

func mustAppend(t *testing.T, s *redisstore.Store, channel, text string) store.Position {
	t.Helper()
	done, err := s.Append(t.Context(), channel, entry(text), plenty)
	require.NoError(t, err)
	return done.Position
}

func TestKilledServerLosesNothingItAcknowledged(t *testing.T) {
	r, s := start(t, "--appendonly", "yes", "--appendfsync", "always")
	p := publish(t, 16, s)
	for range 3 {
		p.more(t, 200)
		r.Kill()
		r.Start()
	}
	p.more(t, 200)
	p.requireAll(t, s)
}

func TestRestartWithoutPersistenceIsAnotherEpoch(t *testing.T) {
	r, s := start(t)
	before := mustAppend(t, s, "c", "1")
	mustAppend(t, s, "c", "2")
	r.Kill()
	r.Start()
	eventually(t, "the log is gone", func() bool {
		tops, err := s.Tops(t.Context(), []string{"c"})
		return err == nil && tops[0] == store.Position{}
	})
	after := mustAppend(t, s, "c", "3")
	require.NotEqual(t, before.Epoch, after.Epoch)
	require.EqualValues(t, 1, after.Offset)
}

// Subscribers learn that their history is lost, and get what comes after.
func TestSubscribersAreResetWhenRedisLostTheLog(t *testing.T) {
	r := redistest.Start(t)
	hub := newHub(t, open(t, r.Client()))
	sub, err := hub.Subscribe(t.Context(), "h", nil)
	require.NoError(t, err)
	defer sub.Close()
	_, err = hub.Publish(t.Context(), "h", channels.Message{Header: "a", Body: []byte("1")})
	require.NoError(t, err)
	timeout := time.AfterFunc(20*time.Second, sub.Close) // so that the test does not hang
	defer timeout.Stop()
	for m, err := range sub.Messages() {
		require.NoError(t, err)
		require.Equal(t, "a", m.Header)
		break
	}
	r.Kill()
	r.Start()
	eventually(t, "publishing goes on by itself", func() bool {
		_, err := hub.Publish(t.Context(), "h", channels.Message{Header: "b", Body: []byte("2")})
		return err == nil
	})
	for _, err := range sub.Messages() {
		var reset *channels.ResetError
		require.ErrorAs(t, err, &reset)
		require.Equal(t, "epoch", reset.Reason)
		break
	}
}

func newHub(t *testing.T, s store.Store, change ...func(*channels.Options)) *channels.Hub {
	t.Helper()
	o := channels.Options{Store: s, StoreTimeout: time.Second, Channel: func(name string) channels.ChannelOptions {
		if name[0] == 'h' {
			return channels.ChannelOptions{HistorySize: 1000}
		}
		return channels.ChannelOptions{}
	}}
	for _, c := range change {
		c(&o)
	}
	return hubtest.NewHub(t, o)
}

// No offset of an epoch means two messages, whichever Store appends first after
// a loss, and whatever it knew. Reading changes nothing.
func TestReadingFindsLostMessages(t *testing.T) {
	for name, read := range map[string]func(s *redisstore.Store) (store.Position, error){
		"tops": func(s *redisstore.Store) (store.Position, error) {
			tops, err := s.Tops(t.Context(), []string{"absent", "c"})
			if err != nil {
				return store.Position{}, err
			}
			return tops[1], nil
		},
		"range": func(s *redisstore.Store) (store.Position, error) {
			page, err := s.Range(t.Context(), "c", store.Query{Limit: 9})
			return page.Top, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := redistest.Start(t)
			reader, appender := open(t, r.Client()), open(t, r.Client())
			kept := mustAppend(t, appender, "c", "1")
			r.Do("SAVE")
			lost := mustAppend(t, appender, "c", "lost")
			require.NoError(t, appender.Close()) // the Store that knew the lost message is gone
			top, err := read(reader)
			require.NoError(t, err)
			require.Equal(t, lost, top)
			r.Kill()
			r.Start()
			eventually(t, "the server is back", func() bool {
				top, err = read(reader)
				return err == nil
			})
			require.Equal(t, kept, top, "the rest of the log, under the earlier epoch")
			require.NotEqual(t, "-1", r.Do("TTL", "channels:top:{c}"))
			after := mustAppend(t, open(t, r.Client()), "c", "2")
			require.NotEqual(t, lost.Epoch, after.Epoch)
			require.EqualValues(t, 2, after.Offset)
			require.Equal(t, []store.Position{kept}, all(t, reader, "c").Earlier)
			top, err = read(reader)
			require.NoError(t, err)
			require.Equal(t, after, top, "the epoch does not change again")
		})
	}
}

// Reading from a server that is no longer the master would show a log that
// seems to have lost its end.
func TestReadsAreOfTheMaster(t *testing.T) {
	t.Parallel() // it waits between retries
	master := redistest.Start(t)
	r, s := start(t)
	mustAppend(t, s, "c", "1")
	r.Do("REPLICAOF", "127.0.0.1", strconv.Itoa(master.Port))
	for _, name := range []string{"range", "tops", "append"} {
		err := calls(s, "c")[name](t.Context())
		require.ErrorIs(t, err, store.ErrUnavailable)
		require.ErrorContains(t, err, "READONLY")
	}
}

// lossy loses the answer to a client's first pipeline.
type lossy struct{ done atomic.Bool }

func (*lossy) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (*lossy) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (l *lossy) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if err == nil && cmds[0].Name() == "eval" && !l.done.Swap(true) {
			for _, c := range cmds {
				c.SetErr(io.EOF)
			}
			return io.EOF
		}
		return err
	}
}

// A report that is sent again after a lost answer gets the same answer as the
// first time: the replica was unknown and has to report everything.
func TestReportThatIsRepeated(t *testing.T) {
	for name, channels := range map[string]int{"short": 10, "long": 2500} {
		for _, full := range []bool{false, true} {
			t.Run(fmt.Sprint(name, full), func(t *testing.T) {
				c, l := redistest.Start(t).Client(), &lossy{}
				c.AddHook(l)
				s := open(t, c)
				first := store.Report{Replica: store.Replica{ID: "n"}, Full: full}
				for i := range channels {
					first.Channels = append(first.Channels, store.Count{Channel: fmt.Sprint(i), Subscribers: 1})
				}
				require.False(t, report(t, s, first))
				require.True(t, l.done.Load())
				list, err := s.Channels(t.Context(), "", "", 5000)
				require.NoError(t, err)
				require.Len(t, list, channels)
				require.True(t, report(t, s, heartbeat))
			})
		}
	}
}

// If a server comes back at once with a record that is some seconds old, the
// replica must report everything: the changes since then are nowhere else.
func TestOlderRecordIsReplaced(t *testing.T) {
	ctx := t.Context()
	joins := func(id string) store.PresenceChange {
		return store.PresenceChange{Channel: "c", Member: store.Member{ID: id}}
	}
	leaves := joins("old")
	leaves.Left = true
	one := []store.Count{{Channel: "c", Subscribers: 1}}
	full := store.Report{Replica: store.Replica{ID: "n"}, Full: true, Channels: one}
	for name, lose := range map[string]func(s *redisstore.Store){
		"a report": func(s *redisstore.Store) {
			counts := []store.Count{{Channel: "c", Subscribers: 2}, {Channel: "d", Subscribers: 1}}
			require.True(t, report(t, s, store.Report{Replica: store.Replica{ID: "n"}, Channels: counts}))
		},
		"everything": func(s *redisstore.Store) {
			counts := []store.Count{{Channel: "c", Subscribers: 2}}
			require.True(t, report(t, s, store.Report{Replica: store.Replica{ID: "n"}, Full: true, Channels: counts}))
		},
		"presence": func(s *redisstore.Store) {
			require.NoError(t, s.UpdatePresence(ctx, "n", []store.PresenceChange{leaves, joins("new")}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, s := start(t)
			withMember := full
			withMember.Members = []store.PresenceChange{joins("old")}
			report(t, s, withMember)
			require.NoError(t, s.UpdatePresence(ctx, "n", []store.PresenceChange{joins("other")}))
			require.True(t, report(t, s, heartbeat), "nothing was lost so far")
			for _, key := range []string{"node", "names", "counts", "members", "infos"} { // so that a slow start makes no difference
				r.Do("PEXPIRE", "channels:"+key+":{n}", "600000")
			}
			r.Do("SAVE")
			lose(s)
			r.Kill()
			r.Start()
			require.Equal(t, "1", r.Do("EXISTS", "channels:node:{n}"), "the older record is there")

			// Nothing is added to the old record, and nothing of it is left.
			eventually(t, "the server is back", func() bool {
				return s.UpdatePresence(ctx, "n", []store.PresenceChange{joins("later")}) == nil
			})
			require.False(t, report(t, s, heartbeat))
			members, _, err := s.Members(ctx, "c", 10)
			require.NoError(t, err)
			require.Empty(t, members)
			require.True(t, report(t, s, full))
			list, err := s.Channels(ctx, "", "", 10)
			require.NoError(t, err)
			require.Equal(t, one, list)
			require.True(t, report(t, s, heartbeat))
		})
	}
}

func TestHangingServerHoldsUpNobody(t *testing.T) {
	r := redistest.Start(t)
	s := open(t, r.Client(func(o *redis.Options) { o.ReadTimeout = 2 * time.Minute })) // not what ends the calls
	hub := newHub(t, s)
	_, err := hub.Publish(t.Context(), "h", channels.Message{Header: "a", Body: []byte("1")})
	require.NoError(t, err)

	r.Signal(syscall.SIGSTOP)
	stopped := time.Now()
	var wg sync.WaitGroup
	for i := range 50 {
		all := calls(s, fmt.Sprint("c", i))
		for _, name := range []string{"append", "range", "tops", "report"} {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				defer cancel()
				err := all[name](ctx)
				assert.ErrorIs(t, err, store.ErrUnavailable)
				assert.ErrorIs(t, err, context.DeadlineExceeded)
				assert.Less(t, time.Since(stopped), time.Minute)
			})
		}
	}
	began := time.Now()
	for range 100 {
		_, err := hub.Publish(t.Context(), "plain", channels.Message{Header: "a", Body: []byte("1")})
		require.NoError(t, err)
	}
	require.Less(t, time.Since(began), 50*time.Second, "a channel that needs no store does not wait for it, which would take 1 s for each message")
	_, err = hub.Publish(t.Context(), "h", channels.Message{Header: "a", Body: []byte("1")})
	require.ErrorIs(t, err, channels.ErrStoreUnavailable)
	wg.Wait()
	time.Sleep(time.Until(stopped.Add(5 * time.Second))) // the point of the test: 5 s
	r.Signal(syscall.SIGCONT)
	eventually(t, "publishing goes on by itself", func() bool {
		_, err := hub.Publish(t.Context(), "h", channels.Message{Header: "a", Body: []byte("1")})
		return err == nil
	})
}

func TestKeyRepeatedAfterATimeoutIsOneMessage(t *testing.T) {
	r, s := start(t)
	mustAppend(t, s, "c", "1")
	o := plenty
	o.Key, o.KeyTTL = "k", time.Minute
	r.Signal(syscall.SIGSTOP)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := s.Append(ctx, "c", entry("2"), o)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	r.Signal(syscall.SIGCONT)
	for range 3 {
		done, err := s.Append(t.Context(), "c", entry("2"), o)
		require.NoError(t, err)
		require.EqualValues(t, 2, done.Position.Offset)
	}
	require.Len(t, all(t, s, "c").Entries, 2)
}

// loseOnce cuts a relay's next connection on which a command with the text comes,
// either before the server gets it, or instead of its answer. If slow is set, the
// network delays the repeated command for long. lost tells whether it is done.
func loseOnce(p *basetest.Relay, text string, answer, slow bool) (lost *atomic.Bool) {
	var seen atomic.Bool
	lost = new(atomic.Bool)
	p.ToServer(func(piece []byte) basetest.Fate {
		switch {
		case !bytes.Contains(piece, []byte(text)):
		case !seen.Swap(true):
			if !answer {
				lost.Store(true)
				return basetest.Cut
			}
		case slow:
			time.Sleep(300 * time.Millisecond) // the point: it arrives long after it was sent
		}
		return basetest.Pass
	})
	p.ToClient(func([]byte) basetest.Fate {
		if seen.Load() && !lost.Swap(true) {
			return basetest.Cut // the server has done it
		}
		return basetest.Pass
	})
	return lost
}

// If the Store itself repeats an Append with a key after a lost answer, it is
// not a duplicate: its caller has to deliver the message to subscribers.
func TestRetryIsNotADuplicate(t *testing.T) {
	p := basetest.NewRelay(t, redistest.Start(t).Addr)
	s := open(t, redistest.NewClient(t, p.Addr))
	mustAppend(t, s, "c", "1")
	o := plenty
	var times []time.Time
	for i := range 5 {
		o.Key, o.KeyTTL = fmt.Sprint("k", i), time.Hour
		lost := loseOnce(p, o.Key, true, false)
		done, err := s.Append(t.Context(), "c", entry(o.Key), o)
		require.NoError(t, err)
		require.True(t, lost.Load(), "the connection was cut")
		require.False(t, done.Duplicate)
		require.EqualValues(t, 2+i, done.Position.Offset)
		again, err := s.Append(t.Context(), "c", entry(o.Key), o)
		require.NoError(t, err)
		require.True(t, again.Duplicate, "another call with the key is a duplicate")
		require.Equal(t, done.Position, again.Position)
		times = append(times, done.Time)
	}
	entries := all(t, s, "c").Entries
	require.Len(t, entries, 6)
	for i, at := range times {
		require.True(t, entries[i+1].Time.Equal(at), "the answer that was lost had the message's time, and so has the next one")
	}
}

// An Append without a key is also repeated if its connection breaks. Whether
// Redis did it or never got it, the message is in the log once.
func TestABrokenConnectionFailsNoAppend(t *testing.T) {
	p := basetest.NewRelay(t, redistest.Start(t).Addr)
	s := open(t, redistest.NewClient(t, p.Addr))
	mustAppend(t, s, "c", "first")
	var times []time.Time
	for i := range 10 {
		text := fmt.Sprint("message ", i)
		lost := loseOnce(p, text, i%2 == 0, i > 5)
		done, err := s.Append(t.Context(), "c", entry(text), plenty)
		require.NoError(t, err)
		require.True(t, lost.Load(), "the connection was cut")
		require.EqualValues(t, 2+i, done.Position.Offset)
		times = append(times, done.Time)
	}
	entries := all(t, s, "c").Entries
	require.Len(t, entries, 11)
	for i, at := range times {
		require.True(t, entries[i+1].Time.Equal(at))
	}
}

func TestKilledConnections(t *testing.T) {
	r, s := start(t)
	p := publish(t, 32, s)
	o := plenty
	o.Key, o.KeyTTL = "k", time.Hour
	for i := range 60 {
		r.Do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		r.Do("CLIENT", "KILL", "TYPE", "pubsub")
		_, err := s.Append(t.Context(), "keyed", entry("once"), o)
		require.NoError(t, err, "with a key, an append is repeated")
		if i%10 == 0 {
			p.more(t, 100)
		}
	}
	p.more(t, 100)
	p.requireAll(t, s)
	require.Len(t, all(t, s, "keyed").Entries, 1)
}

func TestClusterMasterKilled(t *testing.T) {
	t.Parallel() // it waits for elections
	c := redistest.StartCluster(t, 3, true)
	s := open(t, c.Client())
	name := func(i int) string { return fmt.Sprint("c", i) }
	before := map[string]store.Position{}
	for i := range 30 {
		before[name(i)] = mustAppend(t, s, name(i), "1")
	}
	for i, m := range c.Masters {
		eventually(t, "the replica has it all", func() bool { return caughtUp(m, c.Replicas[i]) })
	}
	c.FailOverSoon()
	c.Masters[0].Kill()
	for i := range 30 {
		var done store.Appended
		eventually(t, "appending goes on by itself", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			var err error
			done, err = s.Append(ctx, name(i), entry("2"), plenty)
			return err == nil
		})
		require.GreaterOrEqual(t, done.Position.Offset, uint64(2))
		requireCommon(t, all(t, s, name(i)), before[name(i)])
	}
}

// TestHangingMasterHoldsUpOnlyItsOwnChannels: appends to the other masters of a
// Cluster go on.
func TestHangingMasterHoldsUpOnlyItsOwnChannels(t *testing.T) {
	c := redistest.StartCluster(t, 3, false)
	s := open(t, c.Client())
	channelOf := map[int]string{}
	for i := 0; len(channelOf) < 3; i++ {
		name := fmt.Sprint("c", i)
		mustAppend(t, s, name, "1")
		slot, err := strconv.Atoi(c.Masters[0].Do("CLUSTER", "KEYSLOT", "channels:log:{"+name+"}"))
		require.NoError(t, err)
		if at := slot % 5461; at > 1500 && at < 4000 { // not next to another master's slots
			channelOf[slot/5461] = name
		}
	}
	c.Masters[0].Signal(syscall.SIGSTOP)
	defer c.Masters[0].Signal(syscall.SIGCONT)
	hung, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for range 20 {
		wg.Go(func() {
			for hung.Err() == nil {
				_, err := s.Append(hung, channelOf[0], entry("x"), plenty)
				assert.Error(t, err)
				assert.True(t, errors.Is(err, store.ErrUnavailable) || hung.Err() != nil, "%v", err)
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	late := 0
	for i := range 200 {
		began := time.Now()
		_, err := s.Append(ctx, channelOf[1+i%2], entry("x"), plenty)
		require.NoError(t, err)
		if time.Since(began) > time.Second {
			late++
		}
	}
	require.Less(t, late, 5, "appends to other masters are delayed") // a busy machine may delay some
}

func TestSentinelFailover(t *testing.T) {
	t.Parallel() // it waits for elections
	w := redistest.StartSentinel(t)
	s := open(t, w.Client())
	p := publish(t, 8, s)
	p.more(t, 200)
	eventually(t, "the sentinels begin a failover", func() bool { return w.Sentinels[0].Try("SENTINEL", "FAILOVER", "main") == "OK" })
	eventually(t, "the replica is the master", func() bool { return w.Replica.Info("replication", "role") == "master" })
	eventually(t, "the old master follows it", func() bool { return w.Master.Info("replication", "role") == "slave" })
	p.more(t, 200)
	p.end()
	// What the old master acknowledged after the switch is lost with it.
	// publish has checked that in each epoch an offset has one meaning. Here,
	// the log must have no gap, and what the epochs share must be the same.
	page := all(t, s, "c")
	require.EqualValues(t, 1, page.First)
	require.Len(t, page.Entries, int(page.Top.Offset))
	require.Len(t, page.Earlier, 1)
	for pos, text := range p.acked {
		if pos.Epoch == page.Top.Epoch || pos.Offset <= page.Earlier[0].Offset {
			requireMeans(t, page, pos, text)
		}
	}

	// Writes to a server that stays read-only fail in the end.
	w.Master.Do("REPLICAOF", "127.0.0.1", strconv.Itoa(w.Replica.Port))
	readonly := open(t, w.Master.Client())
	_, err := readonly.Append(t.Context(), "c", entry("x"), plenty)
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.ErrorContains(t, err, "READONLY")
}

func TestFullServerRefusesAndWritesNothing(t *testing.T) {
	r, s := start(t, "--maxmemory-policy", "noeviction")
	top := mustAppend(t, s, "c", "1")
	report(t, s, store.Report{Replica: store.Replica{ID: "n"}, Full: true})
	keys := r.Do("DBSIZE")
	r.Do("CONFIG", "SET", "maxmemory", "1mb")
	o := plenty
	o.Key, o.KeyTTL = "k", time.Hour
	for _, channel := range []string{"c", "another"} {
		_, err := s.Append(t.Context(), channel, entry("x"), o)
		require.ErrorIs(t, err, store.ErrUnavailable)
		require.ErrorContains(t, err, "maxmemory")
	}
	_, err := s.Report(t.Context(), store.Report{Replica: store.Replica{ID: "m"}, Channels: []store.Count{{Channel: "c", Subscribers: 1}}})
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.ErrorIs(t, s.UpdatePresence(t.Context(), "n", []store.PresenceChange{{Channel: "c", Member: store.Member{ID: "i"}}}), store.ErrUnavailable)
	require.Equal(t, keys, r.Do("DBSIZE"))
	require.Equal(t, top, all(t, s, "c").Top, "reading goes on")
	r.Do("CONFIG", "SET", "maxmemory", "0")
	done, err := s.Append(t.Context(), "c", entry("x"), o)
	require.NoError(t, err)
	require.False(t, done.Duplicate)
	require.EqualValues(t, 2, done.Position.Offset)
}

// age changes a log as if it had been silent until only d is left of its life.
func age(t *testing.T, r *redistest.Server, channel string, d time.Duration) {
	t.Helper()
	key := "channels:top:{" + channel + "}"
	fields := strings.Fields(r.Do("GET", key))
	fields[6] = strconv.FormatInt(time.Now().Add(d).UnixMilli(), 10)
	require.Equal(t, "OK", r.Do("SET", key, strings.Join(fields, " "), "PX", strconv.FormatInt(d.Milliseconds(), 10)))
}

// left returns how long a log is still remembered, and checks that the key's
// TTL and its value agree.
func left(t *testing.T, r *redistest.Server, channel string) time.Duration {
	t.Helper()
	key := "channels:top:{" + channel + "}"
	ms, err := strconv.ParseInt(r.Do("PTTL", key), 10, 64)
	require.NoError(t, err)
	ends, err := strconv.ParseInt(strings.Fields(r.Do("GET", key))[6], 10, 64)
	require.NoError(t, err)
	return min(time.Duration(ms)*time.Millisecond, time.Until(time.UnixMilli(ends)))
}

// A log that has had no entry stays as long as someone asks for it, and not for days.
func TestALogWithoutEntriesEndsSoon(t *testing.T) {
	t.Parallel()
	r, s := start(t)
	tops := func() []store.Position {
		got, err := s.Tops(t.Context(), []string{"quiet", "used"})
		require.NoError(t, err)
		return got
	}
	begin := func(channel string) store.Position {
		at, err := s.Begin(t.Context(), channel)
		require.NoError(t, err)
		return at
	}
	at := begin("quiet")
	begin("used")
	pos := mustAppend(t, s, "used", "1")
	require.Greater(t, left(t, r, "used"), store.MetaTTL)
	stays := func() bool {
		d := left(t, r, "quiet")
		return d > store.EmptyTTL && d < time.Hour
	}
	require.True(t, stays())
	age(t, r, "quiet", time.Minute)
	require.Equal(t, []store.Position{at, pos}, tops())
	eventually(t, "Tops postpones the end", stays)
	age(t, r, "quiet", time.Minute)
	require.Equal(t, at, begin("quiet"))
	require.True(t, stays(), "so does Begin")
	before := left(t, r, "used")
	require.Equal(t, pos, begin("used"))
	require.LessOrEqual(t, left(t, r, "used"), before, "nothing was written")
	age(t, r, "quiet", time.Millisecond)
	eventually(t, "it ends", func() bool { return r.Do("EXISTS", "channels:top:{quiet}") == "0" }) // Tops would postpone it
	require.Zero(t, tops()[0])
	require.NotEqual(t, at.Epoch, begin("quiet").Epoch)
}

// A log that someone asks for does not end, however long it is silent. For a
// log that is in use, nothing is written.
func TestALogLivesWhileItIsAskedFor(t *testing.T) {
	r, s := start(t)
	ctx := t.Context()
	sets := func() string {
		_, calls, _ := strings.Cut(r.Info("commandstats", "cmdstat_set"), "calls=")
		calls, _, _ = strings.Cut(calls, ",")
		return calls
	}
	week := plenty
	week.TTL = 7 * 24 * time.Hour
	names := []string{"absent", "day", "week"}
	day := mustAppend(t, s, "day", "1")
	long, err := s.Append(ctx, "week", entry("1"), week)
	require.NoError(t, err)
	before := sets()
	for range 3 {
		tops, err := s.Tops(ctx, names)
		require.NoError(t, err)
		require.Equal(t, []store.Position{{}, day, long.Position}, tops)
	}
	require.NoError(t, s.Close()) // it waits for what it started
	require.Equal(t, before, sets(), "nothing is written for new logs")

	s = open(t, r.Client())
	for _, name := range names[1:] {
		age(t, r, name, time.Hour)
	}
	_, err = s.Tops(ctx, names[1:2])
	require.NoError(t, err)
	eventually(t, "the end is postponed", func() bool { return left(t, r, "day") > store.MetaTTL })
	require.Less(t, left(t, r, "week"), store.MetaTTL, "it was not named")
	_, err = s.Tops(ctx, names)
	require.NoError(t, err)
	eventually(t, "the end is postponed", func() bool { return left(t, r, "week") > store.MetaTTL })
	require.Equal(t, "0", r.Do("EXISTS", "channels:top:{absent}"))

	// The next Append does not shorten its life. If the server is full, the log
	// can still be read.
	require.Equal(t, store.Position{Epoch: day.Epoch, Offset: 2}, mustAppend(t, s, "day", "2"))
	require.Greater(t, left(t, r, "day"), store.MetaTTL+2*time.Hour)
	age(t, r, "day", time.Hour)
	r.Do("CONFIG", "SET", "maxmemory", "1mb")
	for range 3 {
		_, err = s.Tops(ctx, names)
		require.NoError(t, err)
	}
	require.Less(t, left(t, r, "day"), store.MetaTTL)
	r.Do("CONFIG", "SET", "maxmemory", "0")
	eventually(t, "the end is postponed", func() bool {
		_, err = s.Tops(ctx, names)
		require.NoError(t, err)
		return left(t, r, "day") > store.MetaTTL
	})
}

// A killed replica is also red while Redis takes no reports.
func TestADeadReplicaIsRedWhileRedisTakesNoReports(t *testing.T) {
	for name, refuse := range map[string][]string{
		"full":     {"CONFIG", "SET", "maxmemory", "1mb"},
		"readonly": {"REPLICAOF", "127.0.0.1", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits until a replica counts as dead
			r, s := start(t)
			node := meshtest.NewNetwork(1).Join("one")
			t.Cleanup(func() { node.Close() })
			hub := newHub(t, s, func(o *channels.Options) { o.ReplicaID, o.Mesh = "one", node })
			report(t, s, store.Report{Replica: store.Replica{ID: "killed", Info: []byte(`{"status":"green"}`)}, Full: true})
			status := func() channels.ReplicaStatus {
				nodes, err := hub.Replicas(t.Context())
				require.NoError(t, err)
				for _, n := range nodes {
					if n.ID == "killed" {
						return n.Status
					}
				}
				return ""
			}
			eventually(t, "the hub has heard of it", func() bool { return status() == channels.ReplicaGreen })
			require.Equal(t, "OK", r.Do(refuse...))
			eventually(t, "it is red", func() bool { return status() == channels.ReplicaRed })
			for range 20 {
				require.Equal(t, channels.ReplicaRed, status())
			}
		})
	}
}

// An evicting server drops whole logs: a new epoch, never half a log.
func TestEvictedLogIsAnotherEpoch(t *testing.T) {
	r, s := start(t)
	for _, key := range []string{"top", "log"} {
		first := mustAppend(t, s, "c"+key, "1")
		mustAppend(t, s, "c"+key, "2")
		r.Do("DEL", "channels:"+key+":{c"+key+"}")
		pos := mustAppend(t, s, "c"+key, "3")
		page := all(t, s, "c"+key)
		require.Len(t, page.Entries, 1)
		require.Equal(t, page.First, pos.Offset)
		if key == "top" {
			require.NotEqual(t, first.Epoch, pos.Epoch)
		} else {
			require.EqualValues(t, 3, pos.Offset, "the position is kept; the missing entries count as trimmed")
		}
	}
	for _, key := range []string{"node", "names", "counts", "members", "infos"} {
		full := store.Report{Replica: store.Replica{ID: "n"}, Full: true, Channels: []store.Count{{Channel: "c", Subscribers: 1}},
			Members: []store.PresenceChange{{Channel: "c", Member: store.Member{ID: "i"}}}}
		report(t, s, full)
		r.Do("DEL", "channels:"+key+":{n}")
		require.NoError(t, s.UpdatePresence(t.Context(), "n", []store.PresenceChange{{Channel: "c", Member: store.Member{ID: "j"}}}))
		require.False(t, report(t, s, heartbeat), "%s is gone: the replica has to report everything", key)
	}
}

func TestSlotMigratedWhileAppending(t *testing.T) {
	c := redistest.StartCluster(t, 2, false)
	s := open(t, c.Client())
	mustAppend(t, s, "c", "0")
	slot := c.Masters[0].Do("CLUSTER", "KEYSLOT", "channels:log:{c}")
	p := publish(t, 16, s)
	from, to := c.Masters[0], c.Masters[1]
	if n, _ := strconv.Atoi(slot); n >= 8192 {
		from, to = to, from
	}
	for range 3 {
		p.more(t, 200)
		idFrom, idTo := from.Do("CLUSTER", "MYID"), to.Do("CLUSTER", "MYID")
		to.Do("CLUSTER", "SETSLOT", slot, "IMPORTING", idFrom)
		from.Do("CLUSTER", "SETSLOT", slot, "MIGRATING", idTo)
		for _, key := range []string{"channels:log:{c}", "channels:top:{c}"} { // one by one, so that half of the log is on each server in between
			eventually(t, "a key moves", func() bool {
				out := from.Try("MIGRATE", "127.0.0.1", strconv.Itoa(to.Port), key, "0", "5000")
				return out == "OK" || out == "NOKEY"
			})
		}
		for _, m := range []*redistest.Server{to, from} {
			m.Do("CLUSTER", "SETSLOT", slot, "NODE", idTo)
		}
		from, to = to, from
	}
	p.more(t, 200)
	p.end()
	p.acked[store.Position{Epoch: all(t, s, "c").Top.Epoch, Offset: 1}] = "0"
	p.requireAll(t, s)
	require.NoError(t, p.last, "no Append fails during a migration")
}

func TestKeyOfAWrongType(t *testing.T) {
	r, s := start(t)
	o := plenty
	o.Key, o.KeyTTL = "k", time.Hour
	ctx := t.Context()
	for _, key := range []string{"log", "top", "once"} {
		name := "c" + key
		full := "channels:" + key + ":{" + name + "}"
		if key == "once" {
			full += ":k"
		}
		r.Do("SADD", full, "theirs")
		_, err := s.Append(ctx, name, entry("x"), o)
		require.ErrorContains(t, err, "another program", key)
		require.ErrorContains(t, err, name)
		require.False(t, errors.Is(err, store.ErrUnavailable))
		require.Equal(t, "theirs", r.Do("SMEMBERS", full), "another program's key is not removed")
		require.Equal(t, "1", r.Do("DBSIZE"), "nothing else was written")
		r.Do("FLUSHALL")
	}
	r.Do("SET", "channels:top:{t}", "theirs")
	for _, name := range []string{"append", "range", "tops"} {
		require.ErrorContains(t, calls(s, "t")[name](ctx), "channels:top:{t}")
	}
	for _, key := range []string{"names", "card"} {
		r.Do("FLUSHALL")
		r.Do("SET", "channels:"+key+":{n}", "theirs")
		_, err := s.Report(ctx, store.Report{Replica: store.Replica{ID: "n"}, Channels: []store.Count{{Channel: "c", Subscribers: 1}}})
		require.ErrorContains(t, err, "another program")
		require.Equal(t, "0", r.Do("EXISTS", "channels:node:{n}", "channels:counts:{n}"), "nothing is half-written")
	}
}

// A replica's reported data ends when it counts as dead. Its card, which
// operators see, ends when it is forgotten.
func TestAReplicasKeysEnd(t *testing.T) {
	r, s := start(t)
	report(t, s, store.Report{Replica: store.Replica{ID: "n"}, Channels: []store.Count{{Channel: "c", Subscribers: 1}}})
	for key, ttl := range map[string]time.Duration{"node": store.DeadAfter, "names": store.DeadAfter, "counts": store.DeadAfter, "card": store.ForgottenAfter} {
		ms, err := strconv.ParseInt(r.Do("PTTL", "channels:"+key+":{n}"), 10, 64)
		require.NoError(t, err)
		require.LessOrEqual(t, ms, ttl.Milliseconds(), key)
		require.Greater(t, ms, ttl.Milliseconds()/2, key)
	}
	require.NoError(t, s.Forget(t.Context(), "n"))
	require.Equal(t, "0", r.Do("DBSIZE"))
}

// Two replicas append to one channel: each offset is used once, and none is
// left out.
func TestTwoReplicasAppendToOneChannel(t *testing.T) {
	const publishing, each = 256, 10
	r := redistest.Start(t)
	a, b := open(t, r.Client()), open(t, r.Client())
	var wg sync.WaitGroup
	p := &publishers{acked: map[store.Position]string{}, end: wg.Wait}
	for i := range publishing {
		wg.Go(func() {
			for k := range each {
				text := fmt.Sprint(i, "/", k)
				done, err := []*redisstore.Store{a, b}[i%2].Append(t.Context(), "c", entry(text), plenty)
				p.note(t, done.Position, text, err)
			}
		})
	}
	p.requireAll(t, a)
	require.NoError(t, p.last)
	tops, err := b.Tops(t.Context(), []string{"c"})
	require.NoError(t, err)
	require.EqualValues(t, publishing*each, tops[0].Offset, "an offset was left out")
	require.Len(t, p.acked, publishing*each)
}
