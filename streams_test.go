package channels_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// What each stream sends before, between and behind its messages, byte by byte:
// there are clients that make an event of each block, and stumble over an empty
// one. With a position there is one at the beginning, which browsers need.
func TestStreamBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, channels.Options{Channel: keeps, PingPeriod: time.Second})
		read := func(channel, query string) (take func() string, end func()) {
			r, w := io.Pipe()
			ctx, cancel := context.WithCancel(t.Context())
			done := serveStream(ctx, hub, &streamWriter{w: w}, "/channel/"+channel+"/"+query)
			got := make(chan []byte, 1000)
			go func() {
				defer close(got)
				for b := make([]byte, 1<<16); ; {
					n, err := r.Read(b)
					if err != nil {
						return
					}
					got <- slices.Clone(b[:n])
				}
			}()
			take = func() string {
				synctest.Wait()
				var all []byte
				for len(got) > 0 {
					all = append(all, <-got...)
				}
				return string(all)
			}
			return take, func() { cancel(); <-done; w.Close(); <-got }
		}
		plain, endPlain := read("plain", "")
		history, endHistory := read("h", "")
		visible, endVisible := read("plain", "?heartbeat=event")
		require.Regexp(t, "^retry: [12][0-9]{3}\n$", plain())
		require.Regexp(t, "^retry: [12][0-9]{3}\nid: :0\n\n$", history())
		require.Regexp(t, "^retry: [12][0-9]{3}\n$", visible())

		time.Sleep(2500 * time.Millisecond) // of the bubble's clock
		require.Regexp(t, "^(:\n)+$", plain())
		require.Regexp(t, "^(:\n)+$", history())
		require.Regexp(t, `^(event: ping`+"\n"+`data: {"header":"ping","body":{"every_ms":1000}}`+"\n\n)+$", visible())

		publish(t, hub, "plain", "x", "1")
		publish(t, hub, "h", "x", "1")
		require.Equal(t, "data: {\"header\":\"x\",\"body\":1}\n\n", plain())
		require.Regexp(t, "^id: (\\w+):1\ndata: {\"header\":\"x\",\"body\":1,\"offset\":1,\"epoch\":\"\\w+\",\"time\":946684802500}\n\n$", history())
		require.Equal(t, "data: {\"header\":\"x\",\"body\":1}\n\n", visible())
		endPlain()
		endHistory()
		endVisible()
	})
}

// streamWriter is a ResponseWriter whose writes somebody reads at once.
type streamWriter struct {
	w *io.PipeWriter
	h http.Header
}

func (p *streamWriter) Header() http.Header {
	if p.h == nil {
		p.h = http.Header{}
	}
	return p.h
}
func (p *streamWriter) WriteHeader(int)                  {}
func (p *streamWriter) Write(b []byte) (int, error)      { return p.w.Write(b) }
func (p *streamWriter) Flush()                           {}
func (p *streamWriter) SetWriteDeadline(time.Time) error { return nil }

// No character but CR and LF may end a line for anybody: Python's readers end
// it at more. Wherever a user's text comes into a stream, it is escaped.
func TestStreamHasNoOtherLineEnds(t *testing.T) {
	const ends = "\u2028\u2029\u0085"
	s := serve(t, channels.Options{
		Channel: every(channels.ChannelOptions{Presence: channels.PresenceEvents, HistorySize: 5}),
		OnConnect: func(ctx context.Context, c channels.Client) error {
			if c.Identity.ID == "busy" {
				return &channels.Error{Code: "busy", Message: "later" + ends, Status: 503}
			}
			return nil
		},
	}, asUser)
	first := s.stream("a", "")
	first.next() // it joins
	second := s.stream("a", "", "X-User", "who"+ends)
	require.Equal(t, "presence", second.next().header())
	publish(t, s.hub, "a", "head"+ends, `"body`+ends+`"`)
	events := []sseEvent{first.next(), first.next()}
	require.Equal(t, "head"+ends, events[1].header())
	require.JSONEq(t, `"body`+ends+`"`, string(events[1].message().Body))
	past := s.stream("a", "?since=:0")
	events = append(events, past.next())
	refused := s.openStream("a", "", "X-User", "busy")
	events = append(events, refused.next())
	require.Contains(t, events[3].data, "later")
	for _, ev := range events {
		require.False(t, strings.ContainsAny(ev.data, ends), ev.data)
	}
}

// Whatever is told to many at once has a random part.
func TestTimesToComeBackAreSpread(t *testing.T) {
	s := serve(t, channels.Options{})
	retries, refused, after := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for range 40 {
		e := s.stream("a", "")
		retries[e.retry] = true
		e.close()
	}
	until(t, "all have left", func() bool { return s.hub.Stats().Connections == 0 })
	require.NoError(t, s.hub.Drain(t.Context()))
	for range 40 {
		e := s.openStream("a", "")
		e.wantRefused("draining")
		refused[e.retry] = true
		after[s.get("/readyz").header.Get("Retry-After")] = true
	}
	require.Greater(t, len(retries), 20)
	require.Greater(t, len(refused), 20)
	require.Greater(t, len(after), 1)
	for r := range retries {
		n, err := strconv.Atoi(r)
		require.NoError(t, err)
		require.True(t, n >= 1000 && n < 3000, r)
	}
}

func TestAcceptIsParsed(t *testing.T) {
	s := serve(t, channels.Options{})
	for accept, want := range map[string]int{
		"Text/Event-Stream":                                200,
		"application/json, TEXT/EVENT-STREAM":              200,
		"text/event-stream;q=0.5":                          200,
		"text/event-stream ; charset=utf-8 ; Q=1, */*;q=0": 200,
		"text/event-stream;q=0":                            426,
		"text/event-stream; q=0.000":                       426,
		"text/event-stream;q=x":                            426,
		"text/event-streams":                               426,
		"x-text/event-stream":                              426,
		"application/x;y=\"text/event-stream\"":            426,
		"text/*":                                           426,
		"*/*":                                              426,
		"":                                                 426,
		strings.Repeat(",", 1000):                          426,
	} {
		e := s.openStream("a", "", "Accept", accept)
		require.Equal(t, want, e.resp.StatusCode, accept)
		e.close()
	}
}

// A stream ends after its time, also where it is always busy, and its client
// misses nothing.
func TestStreamTime(t *testing.T) {
	t.Parallel()
	reasons := make(departures, 1)
	s := serve(t, channels.Options{StreamTime: time.Second, Channel: keep(100_000), OnDisconnect: reasons.hook})
	e := s.stream("h", "")
	n := 0
	for end, late := false, time.After(patience); !end; {
		select {
		case <-late:
			require.FailNow(t, "it does not end")
		case err := <-reasons:
			require.ErrorContains(t, err, "Options.StreamTime")
			end = true
		default:
			s.publish("h", "x", strconv.Itoa(n))
			n++
		}
	}
	got := 0
	for {
		ev, err := e.read()
		if err == io.EOF {
			break
		}
		require.NoError(t, err, "a proper end")
		if ev.data != "" {
			require.Equal(t, strconv.Itoa(got), string(ev.message().Body))
			got++
		}
	}
	s.publish("h", "x", strconv.Itoa(n))
	next := s.stream("h", "", "Last-Event-ID", e.lastID)
	for ; got <= n; got++ {
		next.want("x", strconv.Itoa(got))
	}
}

// The times differ, so that those who came together do not come again together.
func TestStreamTimesAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := make(chan time.Duration, 100)
		began := time.Now()
		hub := newHub(t, channels.Options{OnDisconnect: func(channels.Client, error) { ends <- time.Since(began) }})
		for range 30 {
			serveStream(t.Context(), hub, httptest.NewRecorder(), "/channel/a/")
		}
		var all []time.Duration
		for range 30 {
			all = append(all, <-ends)
		}
		slices.Sort(all)
		require.GreaterOrEqual(t, all[0], 15*time.Minute*3/4)
		require.LessOrEqual(t, all[29], 15*time.Minute*5/4)
		require.Greater(t, all[29]-all[0], time.Minute)
	})
}

func TestStreamTimeOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, channels.Options{StreamTime: -1})
		r, w := io.Pipe()
		go io.Copy(io.Discard, r)
		ctx := context.Background() // which does not end before Shutdown
		stays := serveStream(ctx, hub, &streamWriter{w: w}, "/channel/a/")
		ends := serveStream(ctx, hub, httptest.NewRecorder(), "/channel/a/")
		time.Sleep(time.Hour)                       // of the bubble's clock
		require.Len(t, ends, 1, "it has not ended") // what is not net/http's may never tell that the client has gone
		require.Empty(t, stays, "it has ended")
		require.NoError(t, hub.Shutdown(t.Context()))
		<-stays
		w.Close()
	})
}

func TestStreamThroughAForeignWriterIsLoggedOnce(t *testing.T) {
	s := serve(t, channels.Options{}, wrap(func(w http.ResponseWriter) http.ResponseWriter {
		return onlyFlushing{hiding{w}, w.(http.Flusher)}
	}))
	for range 2 {
		s.stream("a", "").close()
	}
	require.Equal(t, 1, strings.Count(s.log.String(), "not net/http's"), s.log.String())
}

// A page sees whether its WebSocket still works both ways, and no other client
// notices.
func TestPing(t *testing.T) {
	s := serve(t, channels.Options{OnPublish: func(_ context.Context, p *channels.Publication) error {
		if p.Message.Header == "ping" {
			t.Error("published")
		}
		return nil
	}})
	a, b := s.join("a", ""), s.join("a", "")
	for _, ping := range []string{`{"header":"ping","id":7}`, `{"header":"ping","body":{"any":1},"id":7}`} {
		a.send(ping)
		m := a.want("exchange", `{"msg":"ok"}`)
		require.Equal(t, "7", string(m.ID))
	}
	a.send(`{"header":"ping"}`)
	require.Empty(t, a.want("exchange", `{"msg":"ok"}`).ID)
	s.publish("a", "x", "1")
	b.want("x", "1")

	s.post("/v1/channel/a/publish", `{"header":"ping","body":1}`).wantFail(t, 400, "reserved_header")
	_, err := s.hub.Publish(t.Context(), "a", msg("ping", "1"))
	require.ErrorIs(t, err, channels.ErrReservedHeader)
}

func TestVisibleHeartbeatOnAWebSocket(t *testing.T) {
	t.Parallel()
	s := serve(t, channels.Options{PingPeriod: time.Second})
	quiet, first := s.join("a", ""), make(chan message, 1)
	go func() { // it answers the pings that no script sees
		m, _ := quiet.read()
		first <- m
	}()
	sees := s.join("a", "?heartbeat=event")
	for range 2 {
		sees.want("ping", `{"every_ms":1000}`)
	}
	s.publish("a", "x", "1")
	require.Equal(t, "x", (<-first).Header)
}

func TestUnknownParametersAreNamed(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps})
	for _, path := range []string{"/channel/h/?sinse=:0", "/channel/h/?since=:0&x=1", "/channel/h/?Since=:0"} {
		socket := s.handshake(path)
		socket.wantFail(t, 400, "bad_query")
		require.Contains(t, socket.message(), "since, last, heartbeat")
		s.getStream(path).wantFail(t, 400, "bad_query")
	}
	for _, path := range []string{"/v1/channel?limits=1", "/v1/channel/h?x=1", "/v1/channel/h/history?sinse=:0", "/v1/channel/p/presence?l=1", "/v1/nodes?x"} {
		s.get(path).wantFail(t, 400, "bad_query")
	}
	for path, body := range map[string]string{"/v1/channel/h/publish?key=k": say("1"), "/v1/publish?key=k": `{"channels":["h"],"header":"x","body":1}`} {
		s.post(path, body).wantFail(t, 400, "bad_query")
	}
	require.Contains(t, s.get("/v1/channel/h/history").body, `"data":[]`)
	s.get("/channel/h/?sinse=:0").wantFail(t, 400, "bad_query") // a page asks so why it got no WebSocket
	s.getStream("/channel/h/?heartbeat=yes").wantFail(t, 400, "bad_query")
	s.stream("h", "?_=1234").close()
	for _, probe := range []string{"/healthz", "/readyz"} {
		require.Equal(t, 200, s.get(probe+"?x=1").status)
	}
}

// Over plain HTTP off localhost a browser says nothing of where a GET comes
// from but the Referer.
func TestAStreamWithAForeignReferer(t *testing.T) {
	s := serve(t, channels.Options{AllowedOrigins: []string{"https://app.example.com"}})
	for referer, want := range map[string]int{
		"http://evil.example/page":      403,
		"https://evil.example":          403,
		"https://app.example.com/":      200,
		s.http.URL + "/a/page?of=ours":  200,
		"":                              200,
		"about:blank":                   200,
		"android-app://com.example.app": 200,
	} {
		e := s.openStream("a", "", "Referer", referer)
		require.Equal(t, want, e.resp.StatusCode, referer)
		e.close()
	}
	// Where the browser says more, that counts.
	e := s.openStream("a", "", "Referer", "http://evil.example/", "Sec-Fetch-Site", "same-origin")
	require.Equal(t, 200, e.resp.StatusCode)
}

func TestMaxMessageBytesOfAChannel(t *testing.T) {
	s := serve(t, channels.Options{MaxMessageBytes: 4096, Channel: named(map[string]channels.ChannelOptions{
		"small": {MaxMessageBytes: 10},
		"huge":  {MaxMessageBytes: 4097},
	})})
	small, w := s.join("small", ""), `"`+long(9)+`"`
	s.post("/v1/channel/small/publish", `{"header":"x","body":`+w+`}`).wantFail(t, 413, "too_large")
	_, err := s.hub.Publish(t.Context(), "small", msg("x", w))
	require.ErrorIs(t, err, channels.ErrTooLarge)
	require.ErrorContains(t, err, "at most 10 bytes, this body has 11")
	small.send(`{"header":"x","body":` + w + `}`)
	require.Equal(t, "too_large", small.next().ErrorCode())
	s.publish("small", "x", `"`+long(8)+`"`)
	s.publish("other", "x", w)
	s.post("/v1/channel/huge/publish", `{"header":"x","body":1}`).wantFail(t, 500, "internal")
	require.Contains(t, s.log.String(), "ChannelOptions.MaxMessageBytes is 4097")
}
