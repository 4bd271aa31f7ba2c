package channels_test

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/meshtest"
	"github.com/channels-go/channels/store"
)

// hangingStore is a store of which some calls do not come back before their
// context ends.
type hangingStore struct {
	store.Store
	hangs atomic.Bool
}

func (s *hangingStore) Report(ctx context.Context, r store.Report) (bool, error) {
	if s.hangs.Load() {
		<-ctx.Done()
		return false, ctx.Err()
	}
	return s.Store.Report(ctx, r)
}

func newHangingStore(t *testing.T) *hangingStore {
	m, err := store.NewMemory(store.MemoryOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	return &hangingStore{Store: m}
}

// A store that does not answer keeps nobody from being asked for a sign of
// life, and nobody is taken for dead.
func TestPingsGoOnWhileTheStoreHangs(t *testing.T) {
	t.Parallel()
	st := newHangingStore(t)
	gone := make(chan error, 1)
	s := serve(t, channels.Options{Store: st, StoreTimeout: time.Minute, PingPeriod: time.Second,
		OnDisconnect: func(_ channels.Client, reason error) { gone <- reason }})
	t.Cleanup(func() { st.hangs.Store(false) })
	r := s.raw("c", "")
	st.hangs.Store(true)
	for range 4 {
		require.Equal(t, byte(rawPing), r.read().first)
		r.write(masked(rawPong, nil))
	}
	require.Empty(t, gone)
}

func TestACallDoesNotOutliveItsContextWhileTheStoreHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newHangingStore(t)
		hub, err := channels.New(channels.Options{Store: st, Logger: quiet})
		require.NoError(t, err)
		defer hub.Shutdown(context.Background())
		st.hangs.Store(true)
		defer st.hangs.Store(false)
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				limit := time.Duration(i+1) * 100 * time.Millisecond
				ctx, cancel := context.WithTimeout(context.Background(), limit)
				defer cancel()
				begin := time.Now()
				_, err := hub.Publish(ctx, "c", msg("x", "1")) // a change to report
				if err != nil {
					t.Error(err)
				}
				_, err = hub.Channels(ctx, channels.ChannelsQuery{})
				if code(err) != "store_unavailable" || time.Since(begin) > limit {
					t.Errorf("after %v: %v", time.Since(begin), err)
				}
			})
		}
		wg.Wait()
	})
}

func code(err error) string {
	if e, ok := err.(*channels.Error); ok {
		return e.Code
	}
	return fmt.Sprint(err)
}

// crashing has a Hijack that panics, as gin's does where it has none below.
type crashing struct{ http.ResponseWriter }

func (crashing) Hijack() (net.Conn, *bufio.ReadWriter, error) { panic("no Hijacker below") }

func TestAHijackThatPanicsLeavesNobody(t *testing.T) {
	left := make(chan error, 1)
	s := serve(t, channels.Options{
		Channel:      func(string) channels.ChannelOptions { return channels.ChannelOptions{Presence: channels.PresenceList} },
		OnDisconnect: func(_ channels.Client, reason error) { left <- reason },
	}, wrap(func(w http.ResponseWriter) http.ResponseWriter { return crashing{w} }))
	s.handshake("/channel/c/").wantFail(t, 500, "internal")
	require.ErrorContains(t, <-left, "no Hijacker below")
	require.Zero(t, s.hub.Stats().Connections)
	p, err := s.hub.Presence(t.Context(), "c", 0)
	require.NoError(t, err)
	require.Zero(t, p.Total)
}

// Who is not to get a message does not get it where it came early or twice
// either.
func TestExceptOverARoughNetwork(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		r.net.SetFaults(meshtest.Faults{Delay: 20 * time.Millisecond, Duplicate: 0.3}) // less than a gap waits
		sender, other := r.subscribe(1, "c", nil), r.subscribe(1, "c", nil)
		const n = 200
		for range n {
			_, err := r.hubs[0].PublishWith(context.Background(), "c", msg("x", "1"), channels.PublishOptions{Except: sender.sub.ID()})
			require.NoError(t, err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Empty(t, sender.close())
		wantAll(t, other.close(), 1, n)
	})
}

// A message that came by the mesh, but which the store has lost, does not stay
// in the way of the one that gets its offset.
func TestAMessageThatTheStoreLostIsNotKept(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		s := r.subscribe(1, "c", nil)
		r.publish(0, "c", 1)
		synctest.Wait()
		r.net.SetFaults(meshtest.Faults{Drop: 1})
		r.publish(0, "c", 2)
		r.net.SetFaults(meshtest.Faults{})
		r.store.hidden.Store(2) // what is read next does not have 2 and 3
		r.publish(0, "c", 3)    // comes early
		reads := r.store.ranges.Load()
		time.Sleep(time.Second)
		synctest.Wait()
		require.LessOrEqual(t, r.store.ranges.Load()-reads, int64(2), "the store is asked again and again")
		r.store.hidden.Store(0)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		wantAll(t, s.close(), 1, 3)
	})
}

// A subscriber that asks for more than the store has is reset, at once.
func TestCatchingUpWithAStoreThatLostItsEnd(t *testing.T) {
	inBubble(t, 1, history, func(r *replicas) {
		defer r.subscribe(0, "c", nil).close()
		var from channels.Position
		for n := range 10 {
			if res := r.publish(0, "c", n); n == 4 {
				from = res.Position
			}
		}
		r.store.hidden.Store(2)
		reads := r.store.ranges.Load()
		s := r.subscribe(0, "c", &from)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		require.LessOrEqual(t, r.store.ranges.Load()-reads, int64(2))
		r.store.hidden.Store(0)
		wantAll(t, s.close(), 6, 8)
		require.Len(t, s.resets, 1)
		require.Equal(t, "epoch", s.resets[0].Reason)
	})
}

// What is read for somebody who catches up and does not read is bounded.
func TestCatchingUpIsBoundedInBytes(t *testing.T) {
	m, err := store.NewMemory(store.MemoryOptions{MaxBytes: 1 << 30})
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	hub := newHub(t, channels.Options{Store: m, Channel: history, Logger: quiet})
	big := msg("x", `"`+strings.Repeat("x", 200<<10)+`"`)
	for range 130 {
		_, err := hub.Publish(t.Context(), "c", big)
		require.NoError(t, err)
	}
	before := heap()
	const n = 10
	for range n {
		s, err := hub.Subscribe(t.Context(), "c", &channels.Position{})
		require.NoError(t, err)
		defer s.Close()
		for _, err := range s.Messages() { // the first one has come: now it waits for room
			require.NoError(t, err)
			break
		}
	}
	// The queue of 1 MiB, a page of a quarter of it, and what is being encoded.
	require.Less(t, int(heap()-before)/n, 3<<20)
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A long message to many channels is not copied for all of them at once.
func TestABatchIsNotCopiedInAdvance(t *testing.T) {
	var asked atomic.Bool
	var most atomic.Uint64
	s := serve(t, channels.Options{MaxMessageBytes: 64 << 20 /* so that 200 MiB are a batch */, Authorize: func(context.Context, channels.Request) error {
		if !asked.Swap(true) {
			most.Store(heap())
		}
		return channels.ErrForbidden
	}})
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprintf(`"c%d"`, i)
	}
	before := heap()
	a := s.do("POST", "/v1/publish", `{"channels":[`+strings.Join(names, ",")+`],"header":"h","body":"`+strings.Repeat("x", 200<<10)+`"}`)
	require.Equal(t, 200, a.status)
	require.True(t, asked.Load())
	require.Less(t, int64(most.Load())-int64(before), int64(16<<20), "200 MiB were copied")
}

// A client that the app has disconnected may go on sending until it has
// answered the close frame; nobody hears it.
func TestADisconnectedClientDoesNotPublish(t *testing.T) {
	s := serve(t, channels.Options{ReplicaID: "n", Channel: keeps})
	r := s.raw("h", "")
	require.Equal(t, 1, disconnect(s.hub, s.id(1)))
	for r.read().first != rawClose {
	}
	r.write(masked(rawText, []byte(`{"header":"banned","body":1}`)))
	r.write(masked(rawClose, []byte{0x0b, 0xbb}))
	until(t, "it has left", func() bool { return s.hub.Stats().Connections == 0 })
	past, err := s.hub.History(t.Context(), "h", channels.HistoryQuery{})
	require.NoError(t, err)
	require.Empty(t, past.Messages)
}

// Half of a message is none, also where it would be one, and compressed.
func TestAMessageThatIsCutOffIsNotPublished(t *testing.T) {
	var squeezed bytes.Buffer
	w, err := flate.NewWriter(&squeezed, flate.BestSpeed)
	require.NoError(t, err)
	_, err = w.Write([]byte(`{"header":"cut","body":1}`))
	require.NoError(t, err)
	require.NoError(t, w.Flush())
	small := bytes.TrimSuffix(squeezed.Bytes(), []byte("\x00\x00\xff\xff"))
	more := masked(0xC1, append(bytes.Clone(small), " more"...)) // as if the frame were longer

	for name, sent := range map[string][]byte{
		"between two fragments":             masked(0x01, []byte(`{"header":"cut","body":1}`)),
		"inside of a frame":                 append(masked(rawText, []byte(`{"header":"cut","body":1}      `))[:6], masked(rawText, []byte(`{"header":"cut","body":1}`))[6:]...),
		"compressed, between two fragments": masked(0x41, small),
		"compressed, inside of a frame":     more[:len(more)-5],
	} {
		t.Run(name, func(t *testing.T) {
			reasons := make(chan error, 1)
			s := serve(t, channels.Options{Channel: keeps, OnDisconnect: func(_ channels.Client, reason error) { reasons <- reason }})
			r := s.raw("h", "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover\r\n")
			r.write(sent)
			r.c.Close()
			require.Error(t, <-reasons)
			past, err := s.hub.History(t.Context(), "h", channels.HistoryQuery{})
			require.NoError(t, err)
			require.Empty(t, past.Messages)
		})
	}
}

// What others could not read is refused where it comes in.
func TestIdentityInfoThatIsNoUTF8(t *testing.T) {
	s := serve(t, channels.Options{}, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			id := channels.Identity{ID: "u", Info: json.RawMessage("\"M\xfcller\"")}
			next.ServeHTTP(w, r.WithContext(channels.WithIdentity(r.Context(), id)))
		})
	})
	s.handshake("/channel/c/").wantFail(t, 500, "internal")
	require.Contains(t, s.log.String(), "Identity.Info is not JSON in UTF-8")
}

// A page on another website can have a browser send a GET with the visitor's
// cookies and no Origin. It must not make the visitor a member.
func TestACrossSiteStreamWithoutOrigin(t *testing.T) {
	s := serve(t, channels.Options{OnConnect: func(context.Context, channels.Client) error { t.Error("connected"); return nil }})
	a := s.do("GET", "/channel/c/", "", "Accept", "text/event-stream", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors")
	a.wantFail(t, 403, "bad_origin")
	require.Equal(t, 200, s.do("GET", "/v1/channel", "", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors").status)
}

func TestMessagesAfterTheEnd(t *testing.T) {
	hub := newHub(t, channels.Options{})
	s, err := hub.Subscribe(t.Context(), "c", nil)
	require.NoError(t, err)
	defer s.Close()
	disconnect(hub, s.ID())
	for _, err := range s.Messages() {
		require.ErrorIs(t, err, channels.ErrDisconnected)
	}
	require.Zero(t, hub.Stats().Connections, "who has read the end is no subscriber")
	for range s.Messages() {
		t.Error("there is nothing after the end")
	}
}

// Who only reads makes no channel.
func TestReadingMakesNoChannel(t *testing.T) {
	s := serve(t, channels.Options{MaxChannels: 10, Channel: func(string) channels.ChannelOptions {
		return channels.ChannelOptions{HistorySize: 10, Presence: channels.PresenceList}
	}})
	for i := range 100 {
		for _, path := range []string{"", "/history", "/presence"} {
			require.Equal(t, 200, s.do("GET", fmt.Sprintf("/v1/channel/c%d%s", i, path), "").status)
		}
	}
	require.Zero(t, s.hub.Stats().Channels)
	s.publish("new", "x", "1")
}

// A client that has stopped reading its stream does not hold up Shutdown
// longer than its context.
func TestShutdownWithAStalledStream(t *testing.T) {
	s := newServer(t, channels.Options{WriteTimeout: 5 * time.Minute, QueueBytes: 4 << 20})
	s.ended = true
	s.smallBuffers()
	s.http.Start()
	s.dialRaw().write(streamRequest("/channel/c/"))
	until(t, "subscribed", func() bool { n, _ := s.numbers("c"); return n == 1 })
	for range 15 { // more than the kernel holds, less than the queue
		_, err := s.hub.Publish(t.Context(), "c", msg("x", `"`+strings.Repeat("x", 200<<10)+`"`))
		require.NoError(t, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, s.hub.Shutdown(ctx), context.DeadlineExceeded) // and it returns: the test would not, in 5 minutes
	require.Zero(t, s.hub.Stats().Connections)
}

// onlyFlushing hides the deadlines, as some middleware does.
type onlyFlushing struct{ w http.ResponseWriter }

func (o onlyFlushing) Header() http.Header         { return o.w.Header() }
func (o onlyFlushing) Write(b []byte) (int, error) { return o.w.Write(b) }
func (o onlyFlushing) WriteHeader(s int)           { o.w.WriteHeader(s) }
func (o onlyFlushing) Flush()                      { o.w.(http.Flusher).Flush() }

// A write without a deadline may be stuck for ever: the hub does not wait.
func TestAStalledStreamWithoutDeadlines(t *testing.T) {
	for name, timeout := range map[string]time.Duration{"forgotten after WriteTimeout": 200 * time.Millisecond, "Shutdown": 5 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			left := make(chan error, 1)
			s := newServer(t, channels.Options{WriteTimeout: timeout, QueueBytes: 4 << 20,
				OnDisconnect: func(_ channels.Client, reason error) { left <- reason }},
				wrap(func(w http.ResponseWriter) http.ResponseWriter { return onlyFlushing{w} }))
			s.ended = true
			s.smallBuffers()
			s.http.Start()
			s.dialRaw().write(streamRequest("/channel/c/"))
			until(t, "subscribed", func() bool { n, _ := s.numbers("c"); return n == 1 })
			for range 15 { // more than the kernel holds, less than the queue
				_, err := s.hub.Publish(t.Context(), "c", msg("x", `"`+strings.Repeat("x", 200<<10)+`"`))
				require.NoError(t, err)
			}
			if timeout < time.Minute {
				require.ErrorContains(t, <-left, "does not read")
				require.Zero(t, s.hub.Stats().Connections)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
			defer cancel()
			s.hub.Shutdown(ctx) // it returns: the test would not, in 5 minutes
			require.Zero(t, s.hub.Stats().Connections)
			s.http.CloseClientConnections() // the server's own goroutine is still in the write
		})
	}
}

// The list shows how many messages the last 60 seconds had.
func TestPublishesSlideOutOfTheMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, err := channels.New(channels.Options{Logger: quiet})
		require.NoError(t, err)
		defer hub.Shutdown(context.Background())
		begin := time.Now()
		at := func(seconds int, want int) {
			t.Helper()
			time.Sleep(time.Until(begin.Add(time.Duration(seconds)*time.Second + 500*time.Millisecond)))
			synctest.Wait()
			c, err := hub.Channel(t.Context(), "c")
			require.NoError(t, err)
			require.Equal(t, want, c.Publishes, "after %d s", seconds)
		}
		publish := func() {
			_, err := hub.Publish(t.Context(), "c", msg("x", "1"))
			require.NoError(t, err)
		}
		publish()
		at(29, 1)
		publish()
		publish()
		at(58, 3)
		at(61, 2)
		at(87, 2)
		at(91, 0)
		require.Zero(t, hub.Stats().Channels, "nothing needs it any more")
	})
}

// A message is deflated once, however many connections there are.
func TestAMessageIsDeflatedOnce(t *testing.T) {
	s := serve(t, channels.Options{PingPeriod: 10 * time.Minute}) // the first frame to come is the message
	const n = 50
	conns := make([]*rawClient, n)
	for i := range conns {
		conns[i] = s.raw("c", "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover\r\n")
	}
	before := s.hub.Stats().Deflated
	for i := range 20 {
		_, err := s.hub.Publish(t.Context(), "c", msg("x", `"`+strings.Repeat(fmt.Sprint(i), 50_000)+`"`))
		require.NoError(t, err)
		for _, c := range conns {
			require.NotZero(t, c.readNext().first&0x40, "it is deflated")
		}
	}
	require.EqualValues(t, 20, s.hub.Stats().Deflated-before)
}

// What a client sent with its handshake is not kept as long as its connection.
func TestAnIdleConnectionKeepsNothingOfItsHandshake(t *testing.T) {
	s := serve(t, channels.Options{})
	s.raw("c", "Sec-WebSocket-Protocol: channels\r\n") // what the first one starts
	before := heap()
	const n = 20
	for range n {
		s.raw("c", "Sec-WebSocket-Protocol: Channels, "+strings.Repeat("x", 900_000)+"\r\nX-More: "+strings.Repeat("y", 50_000)+"\r\n")
	}
	until(t, "a connection has little memory", func() bool { return int(int64(heap())-int64(before))/n < 50_000 })
}

// Who may not publish does not fill the hub with channels.
func TestRefusedPublishesMakeNoChannels(t *testing.T) {
	s := serve(t, channels.Options{
		MaxChannels: 100,
		Authorize: func(_ context.Context, r channels.Request) error {
			if r.Channel == "good" || strings.HasPrefix(r.Channel, "hook") {
				return nil
			}
			return channels.ErrForbidden
		},
		OnPublish: func(_ context.Context, p *channels.Publication) error {
			if p.Channel != "good" {
				return channels.ErrForbidden
			}
			return nil
		},
	})
	for _, prefix := range []string{"bad", "hook"} {
		names := make([]string, 1000)
		for i := range names {
			names[i] = fmt.Sprintf(`"%s%d"`, prefix, i)
		}
		a := s.do("POST", "/v1/publish", `{"channels":[`+strings.Join(names, ",")+`],"header":"h","body":1}`)
		require.Equal(t, 1000, strings.Count(a.body, `"forbidden"`))
	}
	require.Zero(t, s.hub.Stats().Channels)
	s.publish("good", "x", "1")
}

// A page without TLS has the same host as the one with it, but a network can
// write it: where the browser says that it is another site, it is.
func TestAPageWithoutTLSIsAnotherSite(t *testing.T) {
	s := serveTLS(t, channels.Options{})
	host := strings.TrimPrefix(s.http.URL, "https://")
	a := s.do("POST", "/v1/channel/c/publish", `{"header":"h","body":1}`, "Origin", "http://"+host, "Sec-Fetch-Site", "cross-site")
	a.wantFail(t, 403, "bad_origin")
	require.Empty(t, a.header.Get("Access-Control-Allow-Origin"))
	require.Equal(t, 200, s.do("POST", "/v1/channel/c/publish", `{"header":"h","body":1}`, "Origin", "https://"+host, "Sec-Fetch-Site", "same-origin").status)
}

// An error of a publish is an error, whatever the client would like to read.
func TestARefusedPublishIsNoStream(t *testing.T) {
	s := serve(t, channels.Options{OnPublish: func(context.Context, *channels.Publication) error { return channels.ErrStoreUnavailable }})
	s.do("POST", "/v1/channel/b/publish", `{"header":"h","body":1}`, "Accept", "text/event-stream", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Site", "same-origin").
		wantFail(t, 503, "store_unavailable")
}

// panicking is a store and a mesh of which some calls panic.
type panicking struct {
	store.Store
	node                     mesh.Mesh
	tops, subscribe, publish atomic.Bool
}

func (p *panicking) Close() error                { return nil }
func (p *panicking) Unsubscribe(ch string) error { return p.node.Unsubscribe(ch) }
func (p *panicking) Status() mesh.Status         { return p.node.Status() }
func (p *panicking) Receive(ctx context.Context, deliver func(mesh.Packet)) error {
	return p.node.Receive(ctx, deliver)
}

func (p *panicking) Tops(ctx context.Context, names []string) ([]store.Position, error) {
	if p.tops.Load() {
		panic("Tops")
	}
	return p.Store.Tops(ctx, names)
}

func (p *panicking) Subscribe(channel string) error {
	if p.subscribe.Load() {
		panic("Subscribe")
	}
	return p.node.Subscribe(channel)
}

func (p *panicking) Publish(ctx context.Context, packet mesh.Packet) error {
	if p.publish.Load() {
		panic("Publish")
	}
	return p.node.Publish(ctx, packet)
}

// Whoever cannot connect because a Store or a Mesh of the app's panics leaves
// nothing behind, and the process lives.
func TestAStoreOrMeshThatPanics(t *testing.T) {
	m, err := store.NewMemory(store.MemoryOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	node := meshtest.NewNetwork(1).Join("n")
	t.Cleanup(func() { node.Close() })
	p := &panicking{Store: m, node: node}
	s := serve(t, channels.Options{Store: p, Mesh: p, ReplicaID: "n", MaxConnections: 1, Channel: func(name string) channels.ChannelOptions {
		if name == "plain" {
			return channels.ChannelOptions{Presence: channels.PresenceEvents}
		}
		return channels.ChannelOptions{Presence: channels.PresenceEvents, HistorySize: 10}
	}})
	for _, flag := range []*atomic.Bool{&p.tops, &p.subscribe} {
		flag.Store(true)
		for range 3 {
			require.GreaterOrEqual(t, s.handshake("/channel/c/").status, 500)
			require.NotEmpty(t, s.do("GET", "/channel/c/", "", "Accept", "text/event-stream").code())
			if flag == &p.subscribe {
				require.GreaterOrEqual(t, s.handshake("/channel/plain/").status, 500)
			}
		}
		flag.Store(false)
	}
	p.publish.Store(true) // of the event that somebody has come
	w := s.join("plain", "")
	p.publish.Store(false)
	w.c.CloseNow()
	until(t, "it has left", func() bool { return s.hub.Stats().Connections == 0 })
	until(t, "there is room", func() bool {
		w, _, err := s.tryDial("/channel/c/", nil)
		if err == nil {
			w.c.CloseNow()
		}
		return err == nil
	})
}
