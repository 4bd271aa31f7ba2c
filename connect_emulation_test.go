package channels_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/clientproto"
)

func TestEmulationRefuses(t *testing.T) {
	s := serve(t, channels.Options{ReplicaID: "r1", MaxMessageBytes: 1 << 10})
	c := s.sessionOver(streamKinds["http_stream"])
	for body, want := range map[string]string{
		``:                            "bad_message",
		`[]`:                          "bad_message",
		`{"session":1}`:               "bad_message",
		`{"data":{}}`:                 "bad_message",
		`{}`:                          "no_session",
		`{"session":"x","data":"{}"}`: "no_session",
		emulation(clientproto.JSON, c.session, "r2", "{}"):                       "no_session",
		emulation(clientproto.JSON, c.session, "r1", strings.Repeat(" ", 1<<20)): "too_large",
		emulation(clientproto.JSON, c.session, "r1", strings.Repeat(" ", 2<<20)): "too_large",
	} {
		a := s.post("/emulation", body, "Content-Type", "application/json")
		require.Equal(t, want, a.code(), "%.100s: %d", body, a.status)
	}
	require.Equal(t, "bad_message", s.post("/emulation", "\xff\xff", "Content-Type", "application/octet-stream").code())
	require.Equal(t, 404, s.post("/emulation", `{}`).status, "the SDKs connect again at once")
	require.Equal(t, "unsupported_encoding", s.post("/emulation", `{}`, "Content-Encoding", "gzip").code())
	require.Equal(t, "POST, OPTIONS", s.get("/emulation").header.Get("Allow"))

	// Whether there is such a session is not said.
	for _, session := range []string{"", "x", strings.ToLower(c.session), long(1000)} {
		a := s.post("/emulation", emulation(clientproto.JSON, session, "r1", `{"id":2,"subscribe":{"channel":"a"}}`))
		require.Equal(t, 204, a.status, a.body)
	}
	require.EqualValues(t, 3, c.ask(&clientproto.Command{ID: 3, Subscribe: &clientproto.SubscribeRequest{Channel: "a"}}).ID, "none of these was for it")
	require.NoError(t, s.hub.Shutdown(ctxT(t)))
	require.Equal(t, "closed", c.bring(`{}`).code())
}

// A streamRecorder keeps what is written to it, and can be read meanwhile.
type streamRecorder struct {
	*httptest.ResponseRecorder
	mu sync.Mutex
}

func (r *streamRecorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ResponseRecorder.Write(b)
}

// text is what was written so far.
func (r *streamRecorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Body.String()
}

// bubbleSession is a session over a stream within a bubble, where no socket may be.
type bubbleSession struct {
	t    *testing.T
	hub  *channels.Hub
	done chan struct{} // closed when the stream has ended
	w    *streamRecorder
	key  string
	node string
}

// openInBubble opens one, and waits for the connect reply.
func openInBubble(t *testing.T, hub *channels.Hub) *bubbleSession {
	s := &bubbleSession{t: t, hub: hub, done: make(chan struct{}), w: &streamRecorder{ResponseRecorder: httptest.NewRecorder()}}
	go func() {
		defer close(s.done)
		hub.Handler().ServeHTTP(s.w, httptest.NewRequest("POST", "/connection/http_stream", strings.NewReader(`{"id":1,"connect":{}}`)))
	}()
	synctest.Wait()
	var r struct {
		Connect struct{ Session, Node string }
	}
	require.NoError(t, json.Unmarshal([]byte(s.w.text()), &r))
	s.key, s.node = r.Connect.Session, r.Connect.Node
	return s
}

// bring hands a frame to any hub.
func (s *bubbleSession) bring(via *channels.Hub, frame string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	body := emulation(clientproto.JSON, s.key, s.node, frame)
	via.Handler().ServeHTTP(w, httptest.NewRequest("POST", "/emulation", strings.NewReader(body)))
	return w
}

// A pong comes up beside the stream, and counts.
func TestEmulationBringsPongs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, channels.Options{})
		s := openInBubble(t, hub)
		for range 10 {
			settle(25 * time.Second)
			require.Equal(t, 204, s.bring(hub, "{}").Code)
			synctest.Wait()
			require.Equal(t, 1, hub.Stats().Connections)
		}
		begin := time.Now()
		<-s.done
		require.LessOrEqual(t, time.Since(begin), 51*time.Second)
		require.Contains(t, s.w.text(), `{"push":{"disconnect":{"code":3012,"reason":"no pong"}}}`)
		require.Zero(t, hub.Stats().Connections)
	})
}

// A stream whose first frame is no connect does not stay.
func TestStreamsHaveToConnectInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, channels.Options{})
		w := httptest.NewRecorder()
		begin := time.Now()
		hub.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/connection/sse?cf_connect={}", nil))
		require.Contains(t, w.Body.String(), `data: {"push":{"disconnect":{"code":3502,"reason":"stale"}}}`)
		require.InDelta(t, 10, time.Since(begin).Seconds(), 1)
	})
}

// While the app is at work for a session, its next requests wait, and what waits is
// bounded.
func TestEmulationWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		hub := newHub(t, channels.Options{MaxMessageBytes: 1 << 10, OnCall: func(context.Context, channels.Call) (json.RawMessage, error) {
			<-goOn
			return nil, nil
		}})
		s := openInBubble(t, hub)
		require.Equal(t, 204, s.bring(hub, `{"id":2,"rpc":{"method":"wait"}}`).Code)
		synctest.Wait()
		long := strings.Repeat(" ", 800_000) + "{}"
		require.Equal(t, 204, s.bring(hub, long).Code)
		begin := time.Now()
		w := s.bring(hub, long)
		require.Equal(t, http.StatusServiceUnavailable, w.Code)
		require.Contains(t, w.Body.String(), "overloaded")
		require.Equal(t, 10*time.Second, time.Since(begin))

		// Each that waits holds its frame, so of many most are told at once.
		var waited atomic.Int32
		var all sync.WaitGroup
		begin = time.Now()
		for range 30 {
			all.Go(func() {
				assert.Equal(t, http.StatusServiceUnavailable, s.bring(hub, long).Code)
				if time.Since(begin) > 0 {
					waited.Add(1)
				}
			})
		}
		all.Wait()
		require.EqualValues(t, 8, waited.Load())

		late := make(chan int)
		go func() { late <- s.bring(hub, long).Code }()
		synctest.Wait()
		close(goOn)
		require.Equal(t, 204, <-late)
	})
}

func TestEmulationThroughAnotherReplica(t *testing.T) {
	var calls lines
	var wait chan struct{}
	inBubble(t, 3, history, func(r *replicas) {
		wait = make(chan struct{})
		settle(5 * time.Second) // they know each other
		s := openInBubble(t, r.hubs[1])
		for i, via := range r.hubs {
			require.Equal(t, 204, s.bring(via, `{"id":7,"rpc":{"method":"`+string(rune('a'+i))+`"}}`).Code)
			synctest.Wait()
		}
		require.Equal(t, []string{"a", "b", "c"}, calls.take())

		// Nobody can have one replica send another more than so much.
		big := strings.Repeat(" ", 1<<18) + "{}"
		sent := 0
		for s.bring(r.hubs[2], big).Code == 204 {
			sent++
			require.Less(t, sent, 100)
			synctest.Wait()
		}
		require.Equal(t, http.StatusServiceUnavailable, s.bring(r.hubs[2], big).Code)
		require.Equal(t, 204, s.bring(r.hubs[0], `{}`).Code, "others go on")
		settle(time.Second)
		require.Equal(t, 204, s.bring(r.hubs[2], `{}`).Code)
		synctest.Wait()
		require.Equal(t, 1, r.hubs[1].Stats().Connections)

		// What comes faster than it can be carried out ends the session.
		require.Equal(t, 204, s.bring(r.hubs[0], `{"id":8,"rpc":{"method":"wait"}}`).Code)
		for n := 0; n < 30; n++ {
			s.bring(r.hubs[0], big)
			synctest.Wait()
		}
		close(wait)
		<-s.done
		require.Contains(t, s.w.text(), `{"push":{"disconnect":{"code":3008,"reason":"slow"}}}`)

		s = openInBubble(t, r.hubs[1])
		require.NoError(t, r.hubs[1].Shutdown(context.Background()))
		settle(time.Second)
		require.Equal(t, 404, s.bring(r.hubs[0], `{}`).Code, "it has said goodbye")
		r.join("new")
		s.node = "new"
		synctest.Wait()
		require.Equal(t, 204, s.bring(r.hubs[0], `{}`).Code, "its link is up")
	}, func(_ int, o *channels.Options) {
		o.OnCall = func(_ context.Context, c channels.Call) (json.RawMessage, error) {
			if c.Method == "wait" {
				<-wait
			}
			calls.add("%s", c.Method)
			return nil, nil
		}
	})
}

// Whatever comes to /emulation, the server answers, and lives.
func FuzzEmulation(f *testing.F) {
	for _, protobuf := range []bool{false, true} {
		format := clientproto.JSON
		if protobuf {
			format = clientproto.Protobuf
		}
		ping := string(clientproto.AppendCommand(nil, format, &clientproto.Command{}))
		for _, node := range []string{"r1", "r2", ""} {
			f.Add([]byte(emulation(format, "KEY", node, ping)), protobuf)
		}
	}
	f.Add([]byte(`{"session":"\ud800","node":"r1","data":"\u0000"}`), false)
	f.Add([]byte(`{"session":null,"node":["r1"],"data":{}}`), false)
	hub, log := newFuzzHub(f, channels.Options{ReplicaID: "r1"})
	f.Fuzz(func(t *testing.T, body []byte, protobuf bool) {
		r := request("POST", "/emulation", "", body)
		if protobuf {
			r.Header.Set("Content-Type", "application/octet-stream")
		}
		w := httptest.NewRecorder()
		hub.Handler().ServeHTTP(w, r)
		var refused struct {
			Error struct{ Code string }
		}
		if w.Code != 204 {
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &refused))
		}
		switch w.Code {
		case 204:
			require.Empty(t, w.Body.Bytes())
		case 404:
			require.Equal(t, "no_session", refused.Error.Code)
		default:
			require.Contains(t, []int{400, 413}, w.Code, w.Body.String())
		}
		require.NotContains(t, log.String(), "panic")
	})
}
