package channels_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
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
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/mesh/meshtest"
	"github.com/channels-go/channels/store"
)

// These tests run several hubs in one process, on one store and a network
// that loses, repeats and reorders. They are what any mesh is measured by.
// They run in a synctest bubble: seconds pass at once.

// replicas are hubs that share a store and a network.
type replicas struct {
	t      *testing.T
	store  *faultyStore
	net    *meshtest.Network
	hubs   []*channels.Hub
	meshes []*brittle
}

func history(string) channels.ChannelOptions {
	return channels.ChannelOptions{HistorySize: 100_000, HistoryTTL: time.Hour, Presence: channels.PresenceList}
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// inBubble runs f with n replicas, and ends them. change may change what each is given.
func inBubble(t *testing.T, n int, options func(string) channels.ChannelOptions, f func(r *replicas), change ...func(i int, o *channels.Options)) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t)
		r := &replicas{t: t, store: newFaultyStore(m), net: meshtest.NewNetwork(1)}
		for i := range n {
			r.join("r"+strconv.Itoa(i), func(o *channels.Options) {
				o.Channel = options
				for _, c := range change {
					c(i, o)
				}
			})
		}
		defer func() {
			r.store.down.Store(false)
			r.store.full.Store(false)
			r.store.hang.Store(false)
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

// join adds a replica. change may change what it is given.
func (r *replicas) join(id string, change ...func(*channels.Options)) *channels.Hub {
	r.t.Helper()
	node := r.net.Join(id)
	r.t.Cleanup(func() { node.Close() })
	b := &brittle{Mesh: node}
	o := channels.Options{ReplicaID: id, Store: r.store, Mesh: b, Logger: quiet}
	for _, c := range change {
		c(&o)
	}
	hub, err := channels.New(o)
	require.NoError(r.t, err)
	r.hubs = append(r.hubs, hub)
	r.meshes = append(r.meshes, b)
	return hub
}

// settle lets time pass, and what it brings be done, in a bubble.
func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// faultyStore can be down, or lose what one replica reports.
type faultyStore struct {
	store.Store
	log    atomic.Pointer[store.Memory] // where the logs are
	down   atomic.Bool
	full   atomic.Bool  // appends fail
	hangs  atomic.Bool  // Append and Replicas, as where one of several servers does
	hang   atomic.Bool  // all of it
	mute   atomic.Value // the id of a replica whose reports are lost
	ranges atomic.Int64
	hidden atomic.Int64 // how many of the last messages it has lost
	lag    atomic.Int64 // how long an answer of Range takes to arrive, in nanoseconds
	topLag atomic.Int64 // the same of Tops and Begin
	addLag atomic.Int64 // the same of Append
	tops   atomic.Int64 // how often Tops was called
	most   atomic.Int64 // for how many channels at once, at most
	mutes  atomic.Bool  // Tops and Begin hang
	stuck  atomic.Bool  // Range hangs
	begins atomic.Int64 // how often Begin was called
	// appended has addLag pass after the work of Append, not before.
	appended bool
	unheard  atomic.Bool  // Hold does its work, but its answers are lost
	ahead    atomic.Int64 // by how much the store's clock is wrong, in nanoseconds
}

func newFaultyStore(m *store.Memory) *faultyStore {
	s := &faultyStore{Store: m}
	s.log.Store(m)
	return s
}

// fails is why a call fails. With hangs, it waits until the call's context ends.
func (s *faultyStore) fails(ctx context.Context, hangs bool) error {
	if s.down.Load() {
		return fmt.Errorf("test: %w", store.ErrUnavailable)
	}
	if hangs || s.hang.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (s *faultyStore) Append(ctx context.Context, ch string, e store.Entry, o store.AppendOptions) (store.Appended, error) {
	if err := s.fails(ctx, s.hangs.Load()); err != nil {
		return store.Appended{}, err
	}
	if s.full.Load() {
		return store.Appended{}, fmt.Errorf("test: full: %w", store.ErrUnavailable)
	}
	lag := time.Duration(s.addLag.Load())
	if s.appended {
		defer time.Sleep(lag)
	} else {
		time.Sleep(lag)
	}
	return s.log.Load().Append(ctx, ch, e, o)
}

func (s *faultyStore) Begin(ctx context.Context, ch string) (store.Position, error) {
	s.begins.Add(1)
	if err := s.fails(ctx, s.hangs.Load() || s.mutes.Load()); err != nil {
		return store.Position{}, err
	}
	if s.full.Load() {
		return store.Position{}, fmt.Errorf("test: full: %w", store.ErrUnavailable)
	}
	at, err := s.log.Load().Begin(ctx, ch)
	at.Offset -= min(at.Offset, uint64(s.hidden.Load()))
	time.Sleep(time.Duration(s.topLag.Load()))
	return at, err
}

func (s *faultyStore) Range(ctx context.Context, ch string, q store.Query) (store.Page, error) {
	s.ranges.Add(1)
	if err := s.fails(ctx, s.stuck.Load()); err != nil {
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
	if err := s.fails(ctx, s.mutes.Load()); err != nil {
		return nil, err
	}
	tops, err := s.log.Load().Tops(ctx, chs)
	for i := range tops {
		tops[i].Offset -= uint64(s.hidden.Load())
	}
	time.Sleep(time.Duration(s.topLag.Load()))
	return tops, err
}

func (s *faultyStore) Replicas(ctx context.Context) ([]store.Replica, error) {
	if err := s.fails(ctx, s.hangs.Load()); err != nil {
		return nil, err
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
	if err := s.fails(ctx, false); err != nil {
		return false, err
	}
	return s.Store.Report(ctx, r)
}

func (s *faultyStore) Hold(ctx context.Context, replica string, h store.Holding) (store.Held, error) {
	if m, _ := s.mute.Load().(string); m == replica {
		return store.Held{}, fmt.Errorf("test: nothing arrives: %w", store.ErrUnavailable)
	}
	if err := s.fails(ctx, false); err != nil {
		return store.Held{}, err
	}
	held, err := s.Store.(store.Holder).Hold(ctx, replica, h)
	if s.unheard.Load() { // the answer is lost
		return store.Held{}, fmt.Errorf("test: no answer: %w", store.ErrUnavailable)
	}
	return held, err
}

// A guardedStore asks before its calls whether they go on: before may wait, panic, or
// return the error of the call.
type guardedStore struct {
	store.Store
	before func(ctx context.Context, method string) error
}

func (s *guardedStore) Append(ctx context.Context, ch string, e store.Entry, o store.AppendOptions) (store.Appended, error) {
	if err := s.before(ctx, "Append"); err != nil {
		return store.Appended{}, err
	}
	return s.Store.Append(ctx, ch, e, o)
}

func (s *guardedStore) Range(ctx context.Context, ch string, q store.Query) (store.Page, error) {
	if err := s.before(ctx, "Range"); err != nil {
		return store.Page{}, err
	}
	return s.Store.Range(ctx, ch, q)
}

func (s *guardedStore) Begin(ctx context.Context, ch string) (store.Position, error) {
	if err := s.before(ctx, "Begin"); err != nil {
		return store.Position{}, err
	}
	return s.Store.Begin(ctx, ch)
}

func (s *guardedStore) Tops(ctx context.Context, chs []string) ([]store.Position, error) {
	if err := s.before(ctx, "Tops"); err != nil {
		return nil, err
	}
	return s.Store.Tops(ctx, chs)
}

func (s *guardedStore) Report(ctx context.Context, r store.Report) (bool, error) {
	if err := s.before(ctx, "Report"); err != nil {
		return false, err
	}
	return s.Store.Report(ctx, r)
}

func (s *guardedStore) Forget(ctx context.Context, replica string) error {
	if err := s.before(ctx, "Forget"); err != nil {
		return err
	}
	return s.Store.Forget(ctx, replica)
}

func (s *guardedStore) Hold(ctx context.Context, replica string, h store.Holding) (store.Held, error) {
	if err := s.before(ctx, "Hold"); err != nil {
		return store.Held{}, err
	}
	return s.Store.(store.Holder).Hold(ctx, replica, h)
}

func (s *guardedStore) UpdatePresence(ctx context.Context, replica string, changes []store.PresenceChange) error {
	if err := s.before(ctx, "UpdatePresence"); err != nil {
		return err
	}
	return s.Store.UpdatePresence(ctx, replica, changes)
}

// hanging is a Store whose methods of these names hang, while on is set, until the
// call's context ends.
func hanging(s store.Store, on *atomic.Bool, methods ...string) store.Store {
	return &guardedStore{s, func(ctx context.Context, method string) error {
		if !on.Load() || !slices.Contains(methods, method) {
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	}}
}

// subscriber collects what a Go subscriber gets.
type subscriber struct {
	sub *channels.Subscription

	mu     sync.Mutex
	got    []channels.Message
	resets []*channels.ResetError
	events []string // of both: offsets, and "reset@offset"
	end    error
	done   chan struct{}
}

func (r *replicas) subscribe(i int, channel string, from *channels.Position) *subscriber {
	r.t.Helper()
	return subscribe(r.t, r.hubs[i], channel, from)
}

func subscribe(t *testing.T, h *channels.Hub, channel string, from *channels.Position) *subscriber {
	t.Helper()
	return collect(subscription(t, h, channel, from))
}

// collect reads all that a subscription gets.
func collect(sub *channels.Subscription) *subscriber {
	s := &subscriber{sub: sub, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		for m, err := range sub.Messages() {
			s.mu.Lock()
			if reset, ok := err.(*channels.ResetError); ok {
				s.resets = append(s.resets, reset)
				s.events = append(s.events, fmt.Sprintf("%s@%d", reset.Reason, reset.Position.Offset))
			} else if err != nil {
				s.end = err
			} else {
				s.got = append(s.got, m)
				s.events = append(s.events, strconv.FormatUint(m.Position.Offset, 10))
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
	until(t, fmt.Sprint(n, " messages"), func() bool { return len(s.messages()) >= n })
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
	return publish(r.t, r.hubs[i], channel, "n", strconv.Itoa(n))
}

// publishAll publishes the numbers first to last, and returns the position of each: that
// of n is at[n].
func (r *replicas) publishAll(i int, channel string, first, last int) (at []channels.Position) {
	r.t.Helper()
	at = make([]channels.Position, last+1)
	for n := first; n <= last; n++ {
		at[n] = r.publish(i, channel, n).Position
	}
	return at
}

// member subscribes a user by a stream, which presence shows.
func (r *replicas) member(i int, channel, user string) (leave func()) {
	_, leave = r.stream(i, channel, user)
	return leave
}

// stream subscribes a user by a stream of events. What it has got may be read when the
// stream has ended.
func (r *replicas) stream(i int, channel, user string) (got *httptest.ResponseRecorder, leave func()) {
	ctx, cancel := context.WithCancel(channels.WithIdentity(context.Background(), channels.Identity{ID: user}))
	got = httptest.NewRecorder()
	ended := serveStream(ctx, r.hubs[i], timelessRecorder{got}, "/channel/"+channel+"/")
	return got, func() {
		cancel()
		<-ended
	}
}

// serveStream has a hub's handler serve a stream of events, without a network. It ends
// with ctx.
func serveStream(ctx context.Context, h *channels.Hub, w http.ResponseWriter, path string) (ended <-chan error) {
	r := httptest.NewRequestWithContext(ctx, "GET", path, nil)
	r.Header.Set("Accept", "text/event-stream")
	return background(func() error {
		h.Handler().ServeHTTP(w, r)
		return nil
	})
}

// get asks a hub's handler, without a network.
func get(h *channels.Hub, path string, header ...string) *httptest.ResponseRecorder {
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", path, nil)
	r.Header = hubtest.Pairs(header)
	h.Handler().ServeHTTP(w, r)
	return w
}

// timelessRecorder keeps what is written, at once.
type timelessRecorder struct{ *httptest.ResponseRecorder }

func (timelessRecorder) SetWriteDeadline(time.Time) error { return nil }

// onlyStore hides what a Store can do besides.
type onlyStore struct{ store.Store }
