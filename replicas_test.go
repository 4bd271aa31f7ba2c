package channels_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh/meshtest"
	"github.com/channels-go/channels/store"
)

// These tests run several hubs in one process, on one store and a network
// that loses, repeats and reorders. They are what any mesh is measured by.
// They run in a synctest bubble: seconds pass at once.

// replicas are hubs that share a store and a network.
type replicas struct {
	t     *testing.T
	store *faultyStore
	net   *meshtest.Network
	hubs  []*channels.Hub
}

func history(string) channels.ChannelOptions {
	return channels.ChannelOptions{HistorySize: 100_000, HistoryTTL: time.Hour, Presence: channels.PresenceList}
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// inBubble runs f with n replicas, and ends them. change may change what each is given.
func inBubble(t *testing.T, n int, options func(string) channels.ChannelOptions, f func(r *replicas), change ...func(i int, o *channels.Options)) {
	synctest.Test(t, func(t *testing.T) {
		m, err := store.NewMemory(store.MemoryOptions{})
		require.NoError(t, err)
		r := &replicas{t: t, store: &faultyStore{Store: m}, net: meshtest.NewNetwork(1)}
		r.store.log.Store(m)
		for i := range n {
			id := "r" + strconv.Itoa(i)
			node := r.net.Join(id)
			defer node.Close()
			o := channels.Options{ReplicaID: id, Store: r.store, Mesh: node, Channel: options, Logger: quiet}
			for _, c := range change {
				c(i, &o)
			}
			hub, err := channels.New(o)
			require.NoError(t, err)
			r.hubs = append(r.hubs, hub)
		}
		defer func() {
			r.store.down.Store(false)
			r.store.full.Store(false)
			r.store.mute.Store("")
			for _, h := range r.hubs {
				if err := h.Shutdown(context.Background()); err != nil {
					t.Errorf("shutdown: %v", err)
				}
			}
			m.Close()
			synctest.Wait()
		}()
		synctest.Wait() // all receive
		f(r)
	})
}

// faultyStore can be down, or lose what one replica reports.
type faultyStore struct {
	store.Store
	log    atomic.Pointer[store.Memory] // where the logs are
	down   atomic.Bool
	full   atomic.Bool  // appends fail
	hangs  atomic.Bool  // Append and Replicas, as where one of several servers does
	mute   atomic.Value // the id of a replica whose reports are lost
	ranges atomic.Int64
	hidden atomic.Int64 // how many of the last messages it has lost
	lag    atomic.Int64 // how long an answer of Range takes to arrive, in nanoseconds
	topLag atomic.Int64 // the same of Tops
	addLag atomic.Int64 // the same of Append
	tops   atomic.Int64 // how often Tops was called
	most   atomic.Int64 // for how many channels at once, at most
	mutes  atomic.Bool  // Tops hangs
	// appended has addLag pass after the work of Append, not before.
	appended bool
	ahead    atomic.Int64 // by how much the store's clock is wrong, in nanoseconds
}

func (s *faultyStore) err() error {
	if s.down.Load() {
		return fmt.Errorf("test: %w", store.ErrUnavailable)
	}
	return nil
}

func (s *faultyStore) Append(ctx context.Context, ch string, e store.Entry, o store.AppendOptions) (store.Position, bool, error) {
	if err := s.err(); err != nil {
		return store.Position{}, false, err
	}
	if s.hangs.Load() {
		<-ctx.Done()
		return store.Position{}, false, ctx.Err()
	}
	if s.full.Load() {
		return store.Position{}, false, fmt.Errorf("test: full: %w", store.ErrUnavailable)
	}
	if s.appended {
		pos, dup, err := s.log.Load().Append(ctx, ch, e, o)
		time.Sleep(time.Duration(s.addLag.Load()))
		return pos, dup, err
	}
	time.Sleep(time.Duration(s.addLag.Load()))
	return s.log.Load().Append(ctx, ch, e, o)
}

func (s *faultyStore) Range(ctx context.Context, ch string, q store.Query) (store.Page, error) {
	s.ranges.Add(1)
	if err := s.err(); err != nil {
		return store.Page{}, err
	}
	page, err := s.log.Load().Range(ctx, ch, q)
	page.Top.Offset -= uint64(s.hidden.Load())
	page.Entries = slices.DeleteFunc(page.Entries, func(e store.Entry) bool { return e.Offset > page.Top.Offset })
	time.Sleep(time.Duration(s.lag.Load())) // in the bubble: what is published meanwhile is not in the page
	return page, err
}

func (s *faultyStore) Tops(ctx context.Context, chs []string) ([]store.Position, error) {
	s.tops.Add(1)
	for most := s.most.Load(); int64(len(chs)) > most && !s.most.CompareAndSwap(most, int64(len(chs))); most = s.most.Load() {
	}
	if err := s.err(); err != nil {
		return nil, err
	}
	if s.mutes.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	tops, err := s.log.Load().Tops(ctx, chs)
	for i := range tops {
		tops[i].Offset -= uint64(s.hidden.Load())
	}
	time.Sleep(time.Duration(s.topLag.Load()))
	return tops, err
}

func (s *faultyStore) Replicas(ctx context.Context) ([]store.Replica, error) {
	if err := s.err(); err != nil {
		return nil, err
	}
	if s.hangs.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	nodes, err := s.Store.Replicas(ctx)
	for i := range nodes {
		nodes[i].Seen = nodes[i].Seen.Add(time.Duration(s.ahead.Load()))
	}
	return nodes, err
}

func (s *faultyStore) Report(ctx context.Context, r store.Report) (bool, error) {
	if m, _ := s.mute.Load().(string); m == r.Replica.ID {
		return true, nil
	}
	if err := s.err(); err != nil {
		return false, err
	}
	return s.Store.Report(ctx, r)
}

// subscriber collects what a Go subscriber gets.
type subscriber struct {
	sub *channels.Subscription

	mu      sync.Mutex
	got     []channels.Message
	resets  []*channels.ResetError
	resetAt []int // how many messages had come before each of resets
	end     error
	done    chan struct{}
}

func (r *replicas) subscribe(i int, channel string, from *channels.Position) *subscriber {
	r.t.Helper()
	return subscribe(r.t, r.hubs[i], channel, from)
}

func subscribe(t *testing.T, h *channels.Hub, channel string, from *channels.Position) *subscriber {
	t.Helper()
	sub, err := h.Subscribe(context.Background(), channel, from)
	require.NoError(t, err)
	s := &subscriber{sub: sub, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		for m, err := range sub.Messages() {
			s.mu.Lock()
			if reset, ok := err.(*channels.ResetError); ok {
				s.resets = append(s.resets, reset)
				s.resetAt = append(s.resetAt, len(s.got))
			} else if err != nil {
				s.end = err
			} else {
				s.got = append(s.got, m)
			}
			s.mu.Unlock()
		}
	}()
	return s
}

// messages are what it has got so far.
func (s *subscriber) messages() []channels.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

// wait waits until it has so many messages.
func (s *subscriber) wait(t *testing.T, n int) {
	t.Helper()
	until(t, fmt.Sprint(n, " messages"), func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.got) >= n })
}

// close ends the subscription and returns what it got.
func (s *subscriber) close() []channels.Message {
	s.sub.Close()
	<-s.done
	return s.got
}

// wantAll wants the offsets from first to last, each once and in order.
func wantAll(t *testing.T, got []channels.Message, first, last uint64) {
	t.Helper()
	for i, m := range got { // some hundred thousand of them, for which require.Equal takes seconds
		if m.Position.Offset != first+uint64(i) {
			require.Equal(t, first+uint64(i), m.Position.Offset, "message %d of %d", i, len(got))
		}
	}
	require.Len(t, got, int(last-first+1))
}

func sameMessage(a, b channels.Message) bool {
	return a.Position == b.Position && a.Header == b.Header && string(a.Body) == string(b.Body) && a.Time.Equal(b.Time)
}

func (r *replicas) publish(i int, channel string, n int) channels.Result {
	r.t.Helper()
	res, err := r.hubs[i].Publish(context.Background(), channel, channels.Message{Header: "n", Body: json.RawMessage(strconv.Itoa(n))})
	require.NoError(r.t, err)
	return res
}

// member subscribes a user by a stream, which presence shows.
func (r *replicas) member(i int, channel, user string) (leave func()) {
	ctx, cancel := context.WithCancel(channels.WithIdentity(context.Background(), channels.Identity{ID: user}))
	_, wait := r.open(ctx, i, channel)
	return func() {
		cancel()
		wait()
	}
}

// stream subscribes by a stream of events. What it has got may be read when the stream
// has ended.
func (r *replicas) stream(i int, channel string) (got *httptest.ResponseRecorder, leave func()) {
	ctx, cancel := context.WithCancel(context.Background())
	got, wait := r.open(ctx, i, channel)
	return got, func() {
		cancel()
		wait()
	}
}

func (r *replicas) open(ctx context.Context, i int, channel string) (got *httptest.ResponseRecorder, wait func()) {
	req := httptest.NewRequestWithContext(ctx, "GET", "/channel/"+channel+"/", nil)
	req.Header.Set("Accept", "text/event-stream")
	got = httptest.NewRecorder()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.hubs[i].Handler().ServeHTTP(timelessRecorder{got}, req)
	}()
	return got, func() { <-done }
}

// timelessRecorder keeps what is written, at once.
type timelessRecorder struct{ *httptest.ResponseRecorder }

func (timelessRecorder) SetWriteDeadline(time.Time) error { return nil }
