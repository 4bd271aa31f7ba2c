package redismesh_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/meshtest"
	"github.com/channels-go/channels/mesh/redismesh"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

func TestMain(m *testing.M) {
	logging.Disable() // servers are killed here
	goleak.VerifyTestMain(patient{m})
}

// patient gives goroutines a few seconds to end: go-redis checks once a second
// whether a pool that could not dial was closed.
type patient struct{ *testing.M }

func (p patient) Run() int {
	code := p.M.Run()
	for range 10 { // each try takes half a second if something is left
		if goleak.Find() == nil {
			break
		}
	}
	return code
}

var eventually = basetest.Eventually

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func open(t testing.TB, c redis.UniversalClient, prefix, id string) *redismesh.Mesh {
	t.Helper()
	m, err := redismesh.New(c, redismesh.Options{Prefix: prefix, ReplicaID: id, Logger: quiet})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

// fabric is a Redis under a prefix of its own. Each replica has its own client.
type fabric struct {
	prefix string
	client func(dial dialer) redis.UniversalClient

	mu    sync.Mutex // guards the fields below
	wires map[string]*wire
}

type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

func (f *fabric) Join(t *testing.T, id string) mesh.Mesh {
	w := &wire{conns: map[net.Conn]bool{}}
	f.mu.Lock()
	f.wires[id] = w
	f.mu.Unlock()
	c := f.client(w.dial)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return open(t, c, f.prefix, id)
}

func (f *fabric) Cut(_, b string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wires[b].set(true)
}

func (f *fabric) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.wires {
		w.set(false)
	}
}

// wire holds all connections of a client to a server. It can be cut.
type wire struct {
	mu    sync.Mutex // guards the fields below
	cut   bool
	conns map[net.Conn]bool
}

func (w *wire) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		return nil, errors.New("the wire is cut")
	}
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, addr)
	if err == nil {
		w.conns[c] = true
	}
	return c, err
}

func (w *wire) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
	for c := range w.conns {
		if cut {
			_ = c.Close()
			delete(w.conns, c)
		}
	}
}

// conform opens a fabric with its own prefix for each case.
func conform(client func(dial dialer) redis.UniversalClient) func(*testing.T) meshtest.Fabric {
	var n atomic.Int64
	return func(*testing.T) meshtest.Fabric {
		return &fabric{prefix: fmt.Sprint("case", n.Add(1)), client: client, wires: map[string]*wire{}}
	}
}

func TestMeshOnOneServer(t *testing.T) {
	s := redistest.Start(t)
	meshtest.Run(t, conform(func(dial dialer) redis.UniversalClient {
		return redis.NewClient(&redis.Options{Addr: s.Addr, Dialer: dial})
	}))
}

func TestMeshOnCluster(t *testing.T) {
	cluster := redistest.StartCluster(t, 3, false)
	meshtest.Run(t, conform(func(dial dialer) redis.UniversalClient {
		return redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{cluster.Masters[0].Addr, cluster.Masters[1].Addr}, Dialer: dial})
	}))
}

func TestMeshBehindSentinel(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinel(t)
	open := conform(func(dial dialer) redis.UniversalClient {
		var addrs []string
		for _, w := range s.Sentinels {
			addrs = append(addrs, w.Addr)
		}
		return redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "main", SentinelAddrs: addrs, Dialer: dial})
	})
	for _, c := range meshtest.Cases() {
		if c.Name == "SlowReceiver" {
			continue // it takes long, and is the same as on one server
		}
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			c.Run(t, open)
		})
	}
}

func TestNewRefuses(t *testing.T) {
	c := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	defer c.Close()
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": "127.0.0.1:1"}})
	defer ring.Close()
	for _, k := range []struct {
		client redis.UniversalClient
		o      redismesh.Options
		says   string
	}{
		{nil, redismesh.Options{ReplicaID: "a"}, "the client is nil"},
		{(*redis.Client)(nil), redismesh.Options{ReplicaID: "a"}, "nil *redis.Client"},
		{(*redis.ClusterClient)(nil), redismesh.Options{ReplicaID: "a"}, "nil *redis.ClusterClient"},
		{ring, redismesh.Options{ReplicaID: "a"}, "use a Redis Cluster, Sentinel or a single server"},
		{c, redismesh.Options{ReplicaID: "a b"}, "Options.ReplicaID"},
		{c, redismesh.Options{ReplicaID: strings.Repeat("x", 65)}, "Options.ReplicaID"},
		{c, redismesh.Options{ReplicaID: "a", Prefix: "{x}"}, "Options.Prefix"},
	} {
		_, err := redismesh.New(k.client, k.o)
		require.ErrorContains(t, err, k.says)
	}
}

// inbox is a mesh and what it has received.
type inbox struct {
	*redismesh.Mesh
	mu  sync.Mutex // guards got
	got []mesh.Packet
}

func newInbox(t *testing.T, c redis.UniversalClient, prefix, id string) *inbox {
	b := &inbox{Mesh: open(t, c, prefix, id)}
	go func() { // ends with the mesh
		_ = b.Receive(context.Background(), func(p mesh.Packet) {
			b.mu.Lock()
			defer b.mu.Unlock()
			p.Body, p.Info, p.Trace = bytes.Clone(p.Body), bytes.Clone(p.Info), bytes.Clone(p.Trace)
			b.got = append(b.got, p)
		})
	}()
	return b
}

// all returns what has arrived.
func (b *inbox) all() []mesh.Packet {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.got)
}

func (b *inbox) has(ok func(mesh.Packet) bool) bool { return slices.ContainsFunc(b.all(), ok) }

func (b *inbox) await(t *testing.T, what string, ok func(mesh.Packet) bool) {
	t.Helper()
	eventually(t, what, func() bool { return b.has(ok) })
}

// active waits until a subscription is active.
func (b *inbox) active(t *testing.T, channel string) {
	t.Helper()
	require.NoError(t, b.Subscribe(channel))
	b.await(t, "the subscription is active", func(p mesh.Packet) bool {
		return p.Kind == mesh.KindLost && (p.Channel == channel || p.Channel == "")
	})
}

// follower opens an inbox that has subscribed to the channel "x", on a server of its own.
func follower(t *testing.T) (*redistest.Server, *redis.Client, *inbox) {
	t.Helper()
	s := redistest.Start(t)
	c := s.Client()
	m := newInbox(t, c, "p", "a")
	m.active(t, "x")
	return s, c, m
}

// publishRaw publishes frames on the channel "x", as other replicas would.
func publishRaw(t *testing.T, c *redis.Client, frames ...string) {
	t.Helper()
	_, err := c.Pipelined(t.Context(), func(pipe redis.Pipeliner) error {
		for _, f := range frames {
			pipe.Publish(t.Context(), "p:mesh:{18}:c:x", f)
		}
		return nil
	})
	require.NoError(t, err)
}

func isMessage(p mesh.Packet) bool { return p.Kind == mesh.KindMessage }

func TestPrefixesAreApart(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, b, other := newInbox(t, s.Client(), "one", "a"), newInbox(t, s.Client(), "one", "b"), newInbox(t, s.Client(), "two", "b")
	for _, m := range []*inbox{b, other} {
		m.active(t, "last")
		m.active(t, "x")
	}
	for _, p := range []mesh.Packet{{Channel: "x"}, {}, {To: "b"}} {
		require.NoError(t, a.Publish(t.Context(), p))
	}
	b.await(t, "all three arrive", func(p mesh.Packet) bool { return p.Seq == 3 })
	c := open(t, s.Client(), "two", "c")
	eventually(t, "the other app's own arrives", func() bool {
		return c.Publish(t.Context(), mesh.Packet{Channel: "last"}) == nil && other.has(isMessage)
	})
	require.False(t, other.has(func(p mesh.Packet) bool { return isMessage(p) && p.Origin == "a" }))
}

// Pub/sub ignores databases, but everyone expects apps in two of them to be
// separate: no packet passes, whether for a channel, for all replicas, or for
// one.
func TestDatabasesAreApart(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	client := func(db int) redis.UniversalClient { return s.Client(func(o *redis.Options) { o.DB = db }) }
	in := map[int]*inbox{}
	for _, db := range []int{0, 1, 15} {
		in[db] = newInbox(t, client(db), "", "b")
		in[db].active(t, "x")
		in[db].active(t, "last")
	}
	names, err := s.Client().PubSubChannels(t.Context(), "*").Result()
	require.NoError(t, err)
	for _, base := range []string{"channels:mesh:{18}:", "channels:mesh:1:{18}:", "channels:mesh:15:{18}:"} {
		require.Subset(t, names, []string{base + "c:x", base + "all", base + "n:b"})
	}
	for db, own := range in {
		a := open(t, client(db), "", fmt.Sprint("from-", db))
		for _, p := range []mesh.Packet{{Channel: "x"}, {Kind: mesh.KindControl}, {To: "b"}, {Channel: "last", Header: "last"}} {
			eventually(t, "it is published", func() bool { return a.Publish(t.Context(), p) == nil })
		}
		own.await(t, "all arrive", func(p mesh.Packet) bool { return p.Header == "last" })
	}
	for db, own := range in {
		require.False(t, own.has(func(p mesh.Packet) bool { return p.Kind != mesh.KindLost && p.Origin != fmt.Sprint("from-", db) }))
	}
}

// Two replicas with the same id hear of each other, and Status reports it.
func TestTwins(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, other := newInbox(t, s.Client(), "twins", "a"), newInbox(t, s.Client(), "twins", "b")
	eventually(t, "both are up", func() bool { return a.Status().Err == nil && other.Status().Err == nil })
	twin := open(t, s.Client(), "twins", "a")
	for _, m := range []mesh.Mesh{a, twin} {
		eventually(t, "the mesh has noticed its twin", func() bool { return errors.Is(m.Status().Err, mesh.ErrTwin) })
	}
	require.NoError(t, twin.Publish(t.Context(), mesh.Packet{Header: "from the twin"}))
	other.await(t, "a third replica gets it", func(p mesh.Packet) bool { return p.Header == "from the twin" })
	require.NoError(t, other.Status().Err)
	require.NoError(t, twin.Close())
	eventually(t, "the twin is forgotten", func() bool { return a.Status().Err == nil })
	require.False(t, a.has(isMessage), "a mesh delivers nothing under the replica's own id")
}

// A hub knows by the missing id that its peer is a broker, and then expects no
// answer to its canaries while it is the only replica.
func TestStatusHasABrokerAndNoReplica(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	m := open(t, s.Client(), "alone", "a")
	eventually(t, "the mesh is up", func() bool { return m.Status().Peers[0].Up })
	require.Len(t, m.Status().Peers, 1)
	require.Empty(t, m.Status().Peers[0].ID)
}

// Redis has exactly the subscriptions that the replica wants.
func TestSubscribesOnlyToWantedChannels(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	m := newInbox(t, s.Client(), "p", "a")
	names := func() []string {
		all := strings.Fields(s.Do("PUBSUB", "CHANNELS"))
		slices.Sort(all)
		return all
	}
	m.active(t, "x")
	m.active(t, "y")
	require.NoError(t, m.Unsubscribe("x"))
	eventually(t, "x is left", func() bool { return len(names()) == 3 })
	require.Equal(t, []string{"p:mesh:{18}:all", "p:mesh:{18}:c:y", "p:mesh:{18}:n:a"}, names())
	require.NoError(t, m.Close())
	eventually(t, "Close leaves all", func() bool { return len(names()) == 0 })
	require.NoError(t, m.Close())
}

// Messages that others publish under the mesh's names do no harm.
func TestForeignMessagesAreRefused(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	c := s.Client()
	m, from := newInbox(t, c, "p", "a"), open(t, s.Client(), "p", "b")
	m.active(t, "x")
	life := strings.Repeat("l", 8) + strings.Repeat("\x00", 7) + "\x01" + strings.Repeat("\x00", 8)
	foreign := []string{"", "x", "\x02m", "\x01m", "{\"json\":true}", strings.Repeat("\x01", 100),
		"\x01m" + life + "\x01z" + "\x00\x08\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"}
	for _, name := range []string{"p:mesh:{18}:c:x", "p:mesh:{18}:all", "p:mesh:{18}:n:a"} {
		for _, payload := range foreign[:len(foreign)-1] {
			require.NoError(t, c.Publish(t.Context(), name, payload).Err())
		}
	}
	publishRaw(t, c, foreign[len(foreign)-1])
	require.NoError(t, from.Publish(t.Context(), mesh.Packet{Channel: "x", Header: "h"}))
	m.await(t, "a well-formed packet arrives", func(p mesh.Packet) bool { return p.Header == "h" })
	require.EqualValues(t, 3*6+1, m.Status().Refused)
}

// A frame that Redis did not deliver is noticed with the next one on its
// channel.
func TestGapsAreTold(t *testing.T) {
	t.Parallel()
	_, c, m := follower(t)
	told := func(p mesh.Packet) bool {
		return p.Kind == mesh.KindLost && p.Channel == "x" && p.Origin == "z"
	}
	frame := func(number, previous uint64, header string) string { return rawFrame(7, number, previous, "z", header) }
	publishRaw(t, c, frame(3, 2, "a"), frame(7, 3, "b"), frame(7, 3, "t"), frame(6, 0, "l"), frame(9, 0, "c"), frame(12, 9, "d"))
	m.await(t, "whole frames arrive", func(p mesh.Packet) bool { return p.Header == "d" })
	require.False(t, m.has(told), "nothing was missing")
	require.False(t, m.has(func(p mesh.Packet) bool { return p.Header == "t" || p.Header == "l" }), "a packet came twice or out of order")
	publishRaw(t, c, frame(20, 15, "e"))
	m.await(t, "the packet after the gap arrives", func(p mesh.Packet) bool { return p.Header == "e" })
	require.True(t, m.has(told))
}

// rawFrame returns a frame with one packet, as another replica in that life
// would publish it on a channel.
func rawFrame(life, number, previous uint64, origin, header string) string {
	b := []byte("\x01m")
	for _, n := range []uint64{life, number, previous} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b = append(b, byte(len(origin)))
	b = append(b, origin...)
	b = append(b, 0, 4, byte(number%128), byte(len(header)))
	return string(append(b, header...))
}

// Replicas come and go, so many of their lives publish on a channel. A KindLost
// reports a gap in any life that is followed, and nothing else.
func TestGapsOfManyLivesAreTold(t *testing.T) {
	t.Parallel()
	_, c, m := follower(t)
	publish := func(frames ...string) {
		t.Helper()
		publishRaw(t, c, frames...)
		last := frames[len(frames)-1]
		m.await(t, "the frames arrive", func(p mesh.Packet) bool { return p.Header != "" && strings.HasSuffix(last, p.Header) })
	}
	told := func() (origins []string) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, p := range m.got {
			if p.Kind == mesh.KindLost && p.Channel == "x" && p.Origin != "" {
				origins = append(origins, p.Origin)
			}
		}
		m.got = nil
		return origins
	}
	name := func(life int) string { return fmt.Sprint("z", life) }
	frame := func(life int, number, previous uint64) string {
		return rawFrame(uint64(life), number, previous, name(life), fmt.Sprint(life, "-", number, ";"))
	}
	for _, lives := range []int{63, 64, 65, redismesh.MaxPerName / 2} {
		var frames []string
		for round := range uint64(3) {
			for life := range lives {
				frames = append(frames, frame(lives*10_000+life, 10*round+1, 10*round-min(round, 1)*9))
			}
		}
		publish(frames...)
		require.Empty(t, told(), "no frame of %d lives was missing", lives)
		publish(frame(lives*10_000+7, 50, 40))
		require.Equal(t, []string{name(lives*10_000 + 7)}, told(), "one of %d lives misses a frame", lives)
	}

	var frames []string
	for life := range 3 * redismesh.MaxPerName {
		frames = append(frames, frame(1+life, 1, 0))
	}
	publish(frames...)
	require.Empty(t, told(), "these lives are new")
	last := 3 * redismesh.MaxPerName
	publish(frame(last, 5, 1))
	require.Empty(t, told(), "this life was heard of recently")
	publish(frame(1, 5, 1))
	require.Equal(t, []string{name(1)}, told(), "this life was forgotten, so it is unknown whether a frame is missing")
	publish(frame(1, 8, 5))
	require.Empty(t, told(), "this life is known again")
}

// What arrives while no Receive runs is lost. The next Receive gets a KindLost.
func TestMissedWithoutReceive(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	m, from := open(t, s.Client(), "", "a"), open(t, s.Client(), "", "b")
	receive := func() (first mesh.Packet) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := m.Receive(ctx, func(p mesh.Packet) {
			if ctx.Err() == nil {
				first = p
				cancel()
			}
		})
		require.ErrorIs(t, err, context.Canceled)
		return first
	}
	require.Equal(t, mesh.KindLost, receive().Kind, "the subscription has become active")
	for range 100 {
		require.NoError(t, from.Publish(t.Context(), mesh.Packet{Header: "missed"}))
	}
	eventually(t, "everything is sent", func() bool { return from.Status().Peers[0].Queued == 0 })
	before := m.Status().Lost
	eventually(t, "a KindLost reports the loss", func() bool {
		require.NoError(t, from.Publish(t.Context(), mesh.Packet{}))
		return receive().Kind == mesh.KindLost && m.Status().Lost > before
	})
}

// The lanes of a Cluster are spread evenly over its slots.
func TestLanes(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--cluster-enabled", "yes")
	for i, tag := range redismesh.Lanes {
		slot, err := strconv.Atoi(s.Do("CLUSTER", "KEYSLOT", "p:mesh:{"+tag+"}:c:x"))
		require.NoError(t, err)
		require.Equal(t, i, slot/1024)
	}
}

// Users who may not subscribe, or not publish, read which rights they need.
func TestMissingRightsAreExplained(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	s.Do("ACL", "SETUSER", "deaf", "on", ">x", "+@all", "resetchannels")
	s.Do("ACL", "SETUSER", "right", "on", ">x", "+publish", "+subscribe", "+unsubscribe", "+hello", "+client", "&p:mesh:*")
	as := func(user string) redis.UniversalClient {
		return s.Client(func(o *redis.Options) { o.Username, o.Password = user, "x" })
	}
	m := open(t, as("deaf"), "p", "a")
	eventually(t, "Status explains the problem", func() bool {
		err := m.Status().Err
		return err != nil && strings.Contains(err.Error(), "documentation lists")
	})
	right := newInbox(t, as("right"), "p", "b")
	right.active(t, "x")
	require.NoError(t, open(t, s.Client(), "p", "c").Publish(t.Context(), mesh.Packet{Channel: "x", Header: "h"}))
	right.await(t, "the rights in the documentation suffice", isMessage)
	eventually(t, "it can publish too", func() bool { st := right.Status(); return st.Err == nil && st.Peers[0].RTT > 0 })
}
