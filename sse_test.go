package channels_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/hubtest"
)

// sseEvent is one block of a stream, up to an empty line; or a comment.
type sseEvent struct {
	id, event, data, comment string
	lines                    int
}

// header is that of the message in the event.
func (e sseEvent) header() string { return e.message().Header }

func (e sseEvent) message() (m message) {
	json.Unmarshal([]byte(e.data), &m)
	return m
}

// sseClient is a stream of server-sent events that is open.
type sseClient struct {
	t      *testing.T
	resp   *http.Response
	r      *bufio.Reader
	cancel context.CancelFunc
	lastID string // what a browser would send as Last-Event-ID
	retry  string // after what time it would connect again
}

// openStream asks for a stream; it may be refused.
func (s *server) openStream(channel, query string, header ...string) *sseClient {
	s.t.Helper()
	return s.openEvents("/channel/"+url.PathEscape(channel)+"/"+query, header...)
}

// openEvents is openStream for any path.
func (s *server) openEvents(path string, header ...string) *sseClient {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	if hubtest.Pairs(header)["Accept"] == nil {
		header = append(header, "Accept", "text/event-stream")
	}
	resp := hubtest.Request(s.t, ctx, s.http.Client(), "GET", s.http.URL+path, "", header...)
	e := &sseClient{t: s.t, resp: resp, r: bufio.NewReader(resp.Body), cancel: cancel}
	s.t.Cleanup(e.close)
	return e
}

// stream opens a stream, and reads after what time a browser would come again:
// at random, so that those who are cut together do not come together.
func (s *server) stream(channel, query string, header ...string) *sseClient {
	s.t.Helper()
	return s.openStream(channel, query, header...).begin()
}

// events is stream for several channels.
func (s *server) events(query string, header ...string) *sseClient {
	s.t.Helper()
	return s.openEvents("/v1/events"+query, header...).begin()
}

func (e *sseClient) begin() *sseClient {
	e.t.Helper()
	require.Equal(e.t, 200, e.resp.StatusCode)
	line, err := e.r.ReadString('\n')
	require.NoError(e.t, err)
	_, err = fmt.Sscanf(line, "retry: %s\n", &e.retry)
	require.NoError(e.t, err, "%q", line)
	return e
}

func (e *sseClient) close() {
	e.cancel()
	e.resp.Body.Close()
}

// read returns the next block or comment, or io.EOF at a proper end of the
// stream. It is as strict as the strictest client: it makes an event of each
// block, so that none may be empty.
func (e *sseClient) read() (ev sseEvent, err error) {
	newline := "" // before the next line of data
	for {
		line, err := e.r.ReadString('\n')
		if err != nil {
			if err == io.EOF && (line != "" || ev.lines > 0) {
				return ev, errors.New("the stream ends inside of an event")
			}
			return ev, err
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "" && ev.lines == 0 {
			return ev, errors.New("an empty block")
		}
		if line == "" {
			return ev, nil
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "retry":
			e.retry = value
			continue
		case "":
			if ev.lines > 0 {
				return ev, errors.New("a comment inside of an event")
			}
			return sseEvent{comment: line, lines: 1}, nil
		}
		ev.lines++
		switch field {
		case "event":
			ev.event = value
		case "id":
			ev.id, e.lastID = value, value
		case "data":
			ev.data += newline + value
			newline = "\n"
		default:
			return ev, fmt.Errorf("the field %q", line)
		}
	}
}

// next returns the next block of which a browser makes an event.
func (e *sseClient) next() sseEvent {
	e.t.Helper()
	for {
		ev, err := e.read()
		require.NoError(e.t, err)
		if ev.data != "" {
			return ev
		}
	}
}

func (e *sseClient) want(header, body string) sseEvent {
	e.t.Helper()
	ev := e.next()
	m := ev.message()
	require.Equal(e.t, header, m.Header, ev.data)
	require.Equal(e.t, body, string(m.Body))
	return ev
}

// wantEnd wants the error with this code next, and then a proper end of the stream.
func (e *sseClient) wantEnd(code string) {
	e.t.Helper()
	require.Equal(e.t, code, e.next().message().ErrorCode())
	_, err := e.read()
	require.Equal(e.t, io.EOF, err)
}

func TestSSEEvents(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps})
	t.Run("the answer's header", func(t *testing.T) {
		e := s.stream("a", "")
		require.Equal(t, "text/event-stream; charset=utf-8", e.resp.Header.Get("Content-Type"))
		require.Equal(t, "no-store, no-transform", e.resp.Header.Get("Cache-Control"))
		require.Equal(t, "no", e.resp.Header.Get("X-Accel-Buffering"))
		e.close()
	})
	t.Run("the same messages as over a WebSocket", func(t *testing.T) {
		for _, name := range []string{"plain", "h"} {
			e, w := s.stream(name, ""), s.join(name, "")
			for _, body := range []string{`1`, `{"a":"\n\r\u2028"}`, "\"\u2028\u2029\u0085\"", `null`} {
				s.publish(name, "x:y", body)
				_, raw, err := w.c.Read(ctxT(t))
				require.NoError(t, err)
				ev := e.next()
				require.JSONEq(t, string(raw), ev.data)
				require.False(t, strings.ContainsAny(ev.data, "\u2028\u2029\u0085"), ev.data)
				m := ev.message()
				if name == "plain" {
					require.Equal(t, 1, ev.lines, "no id, which would be a position")
					continue
				}
				require.Equal(t, 2, ev.lines)
				require.Equal(t, fmt.Sprintf("%s:%d", m.Epoch, m.Offset), ev.id)
			}
			e.close()
			w.c.CloseNow()
		}
		until(t, "all have left", func() bool { return s.hub.Stats().Connections == 0 })
	})
	t.Run("one line each, however the body was written", func(t *testing.T) {
		e := s.stream("lines", "")
		s.post("/v1/channel/lines/publish", "{\"header\":\"x\",\n\r\"body\":{\r\n \"a\":\r[1,\n2]\n}}")
		require.Equal(t, sseEvent{data: `{"header":"x","body":{"a":[1,2]}}`, lines: 1}, e.next())
		publish(t, s.hub, "lines", "go", "[\n\n\"data: x\"\r]")
		require.Equal(t, sseEvent{data: `{"header":"go","body":["data: x"]}`, lines: 1}, e.next())
		s.publish("lines", `id: 1\n\ndata: {}`, `1`) // a header with line ends
		require.Equal(t, "id: 1\n\ndata: {}", e.next().header())
		e.close()
	})
	for _, accept := range []string{"text/event-stream", "text/event-stream, */*;q=0.1", "text/html,text/event-stream"} {
		t.Run("Accept: "+accept, func(t *testing.T) { s.stream("a", "", "Accept", accept).close() })
	}
}

func TestSSEResumes(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps})
	var epoch string
	for i := 1; i <= 7; i++ { // 3 to 7 are kept
		epoch = s.publish("h", "x", fmt.Sprint(i)).json["epoch"].(string)
	}
	at := func(n int) string { return fmt.Sprintf("%s:%d", epoch, n) }
	for _, c := range []struct {
		name, channel, query, last string
		want                       string // what comes before the next live message: bodies, or a reset's reason and offset
		resumes                    string // the id of that reset
	}{
		{"neither", "h", "", "", "", ""},
		{"what was missed", "h", "", at(5), "6 7", ""},
		{"as much as is kept", "h", "", at(2), "3 4 5 6 7", ""},
		{"nothing was missed", "h", "", at(7), "", ""},
		{"more than is kept", "h", "", at(1), "reset trimmed 7", at(7)},
		{"from the beginning", "h", "", ":0", "reset trimmed 7", at(7)},
		{"another life of the history", "h", "", "other:5", "reset epoch 7", at(7)},
		{"an offset that never was", "h", "", at(8), "reset epoch 7", at(7)},
		{"malformed", "h", "", "no position", "reset epoch 7", at(7)},
		{"malformed offset", "h", "", epoch + ":x", "reset epoch 7", at(7)},
		{"much too long", "h", "", long(5000), "reset epoch 7", at(7)},
		{"the query", "h", "?since=" + at(5), "", "6 7", ""},
		{"the header counts, since a browser keeps the first query", "h", "?since=" + at(3), at(6), "7", ""},
		{"the header counts, malformed too", "h", "?since=" + at(3), "x", "reset epoch 7", at(7)},
		{"a channel without history", "plain", "", at(5), "reset no_history 0", ""},
		{"a channel without history, malformed", "plain", "", "x", "reset no_history 0", ""},
		{"a channel without history, the query", "plain", "?since=" + at(5), "", "reset no_history 0", ""},
		{"a history that has not begun", "h0", "", at(5), "reset epoch 0", ":0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var header []string
			if c.last != "" {
				header = []string{"Last-Event-ID", c.last}
			}
			e := s.stream(c.channel, c.query, header...)
			defer e.close()
			want := strings.Fields(c.want)
			if len(want) > 0 && want[0] == "reset" {
				ev := e.next()
				m := ev.message()
				require.Equal(t, "reset", m.Header, ev.data)
				require.JSONEq(t, `{"reason":"`+want[1]+`"}`, string(m.Body))
				require.Equal(t, want[2], fmt.Sprint(m.Offset))
				require.Equal(t, c.resumes, ev.id)
				require.Equal(t, c.resumes != "", strings.Contains(ev.data, `"offset"`))
				want = nil
			}
			for _, body := range want {
				ev := e.want("x", body)
				require.Equal(t, epoch+":"+body, ev.id)
			}
			// Nothing else. A message to this replica only leaves the history as it is.
			publishWith(t, s.hub, c.channel, msg("live", "0"), channels.PublishOptions{Local: true})
			require.Empty(t, e.want("live", "0").id)
		})
	}
	s.getStream("/channel/h/?since=x").wantFail(t, 400, "bad_query")
	t.Run("where it began, if nothing came", func(t *testing.T) {
		// A browser that was cut off before the first event misses nothing.
		for channel, want := range map[string]string{"h": at(7), "h0": ":0"} {
			e := s.stream(channel, "")
			ev, err := e.read()
			require.NoError(t, err)
			require.Equal(t, sseEvent{id: want, lines: 1}, ev)
			e.close()
		}
		s.publish("h0", "x", `"first"`)
		e := s.stream("h0", "", "Last-Event-ID", ":0")
		e.want("x", `"first"`)
		e.close()
	})
	t.Run("after a reset, its id resumes", func(t *testing.T) {
		e := s.stream("h", "", "Last-Event-ID", "x")
		id := e.next().id
		e.close()
		s.publish("h", "x", `"new"`)
		e = s.stream("h", "", "Last-Event-ID", id)
		e.want("x", `"new"`)
		e.close()
	})
}

func TestSSEIsForGET(t *testing.T) {
	s := serve(t, channels.Options{})
	a := s.do("HEAD", "/channel/a/", "", "Accept", "text/event-stream")
	require.Equal(t, 405, a.status)
	require.Equal(t, "GET, OPTIONS", a.header.Get("Allow"))
	s.post("/channel/a/", "", "Accept", "text/event-stream").wantFail(t, 405, "method_not_allowed")
	require.Zero(t, s.hub.Stats().Connects)
}

// An EventSource gives up after any HTTP error. What passes by itself is told
// as a stream that ends at once, to all that accept one: over plain HTTP nothing
// tells a browser from a program.
func TestSSEWhileDraining(t *testing.T) {
	s := serve(t, channels.Options{})
	require.NoError(t, s.hub.Drain(t.Context()))
	for _, header := range [][]string{nil, {"Sec-Fetch-Mode", "cors", "Sec-Fetch-Site", "same-origin"}, {"Accept", "TEXT/Event-Stream"}} {
		s.openStream("a", "", header...).wantRefused("draining")
	}
	// What does not pass by itself is an error for all.
	s.getStream("/channel/a%2Fb/", "Sec-Fetch-Mode", "cors").wantFail(t, 400, "bad_channel")
	s.get("/readyz", "Sec-Fetch-Mode", "navigate").wantFail(t, 503, "draining")
}

func TestSSEEndsWithTheReplica(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*channels.Hub) error
		want string // the last message's header
	}{
		"drain":    {func(h *channels.Hub) error { return h.Drain(context.Background()) }, "reconnect"},
		"shutdown": {func(h *channels.Hub) error { return h.Shutdown(context.Background()) }, "error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, channels.Options{Channel: keeps})
			e := s.stream("h", "")
			s.publish("h", "x", `1`)
			require.NoError(t, c.end(s.hub))
			last := e.want("x", `1`)
			ev := e.next()
			require.Equal(t, c.want, ev.header(), ev.data)
			require.Empty(t, ev.id, "or the position to resume from would be lost")
			_, err := e.read()
			require.Equal(t, io.EOF, err, "a proper end, at which a browser connects again")

			next := serve(t, channels.Options{Channel: keeps}) // which has another history
			e = next.stream("h", "", "Last-Event-ID", last.id)
			require.Equal(t, "reset", e.next().header())
			e.close()
		})
	}
}

func TestSSEDisconnect(t *testing.T) {
	reasons := make(departures, 1)
	s := serve(t, channels.Options{OnDisconnect: reasons.hook}, asUser)
	e := s.stream("a", "", "X-User", "ann")
	require.Equal(t, 1, disconnect(s.hub, "ann"))
	e.wantEnd("disconnected")
	require.ErrorIs(t, <-reasons, channels.ErrDisconnected)

	e = s.stream("a", "")
	e.close()
	require.NoError(t, <-reasons, "the client left by itself")
}

// Proxies cut what is silent, and servers what takes long: comments keep a
// stream open through both.
func TestSSEHeartbeat(t *testing.T) {
	t.Parallel()
	s := newServer(t, channels.Options{PingPeriod: time.Second, WriteTimeout: 500 * time.Millisecond})
	s.http.Config.WriteTimeout = 500 * time.Millisecond // which is over before the second comment
	s.http.Start()
	e := s.stream("a", "")
	for range 2 {
		ev, err := e.read()
		require.NoError(t, err)
		require.Equal(t, sseEvent{comment: ":", lines: 1}, ev)
	}
	s.publish("a", "x", `1`)
	e.want("x", `1`)
}

func TestSSESlowReaderIsEnded(t *testing.T) {
	t.Parallel()
	reasons := make(departures, 2)
	s := serveSmall(t, channels.Options{
		MaxMessageBytes: 64 << 10, QueueBytes: 256 << 10, OnDisconnect: reasons.hook,
		WriteTimeout: 2 * time.Second, // the fast one may be starved for a while
	})
	slow := s.dialStream("a")
	require.NoError(t, slow.C.(*net.TCPConn).SetReadBuffer(8<<10))
	until(t, "the slow one is subscribed", func() bool { n, _ := s.numbers("a"); return n == 1 })
	fast := s.stream("a", "")

	body := json.RawMessage(`"` + long(60<<10) + `"`)
	for i := 0; s.hub.Stats().Connections == 2; i++ { // more than the kernel holds for it
		require.Less(t, i, 5000, "the slow reader is never ended")
		publishWith(t, s.hub, "a", channels.Message{Header: "x", Body: body}, channels.PublishOptions{})
		require.Len(t, fast.next().message().Body, len(body)) // in step, so that it is never slow
	}
	require.Error(t, <-reasons)
	_, err := io.Copy(io.Discard, slow.BR) // what the kernel still holds, and then the end
	require.False(t, isTimeout(err), "the connection is still open")
	s.publish("a", "y", `1`)
	fast.want("y", `1`)
	fast.close()
}

// A stream that cannot be flushed would be an endless loop of reconnects with
// nothing in the log: it is an error that names the middleware instead.
func TestSSEThroughAWriterThatCannotFlush(t *testing.T) {
	for name, f := range map[string]func(http.ResponseWriter) http.ResponseWriter{
		"hidden":               func(w http.ResponseWriter) http.ResponseWriter { return hiding{w} },
		"hidden below a Flush": func(w http.ResponseWriter) http.ResponseWriter { return echoing{lying{hiding{w}}} },
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, channels.Options{}, wrap(f))
			a := s.getStream("/channel/a/")
			a.wantFail(t, 500, "not_flushable")
			require.Contains(t, a.message(), "channels_test.hiding")
			require.Contains(t, a.message(), "Unwrap() http.ResponseWriter")
			require.Contains(t, s.log.String(), "channels_test.hiding", "an operator looks into the log")
		})
	}
}

// Many streams that come and go while others publish: each sees its own
// channel's messages in order.
func TestSSEConcurrently(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			name := fmt.Sprintf("h%d", i%4)
			for range 5 {
				e := s.openStream(name, "")
				if e.resp.StatusCode != 200 {
					t.Errorf("status %d", e.resp.StatusCode)
					return
				}
				var last uint64
				for range 10 {
					_, err := s.hub.Publish(context.Background(), name, msg("x", "1"))
					assert.NoError(t, err)
				}
				for n := 0; n < 10; {
					ev, err := e.read()
					if !assert.NoError(t, err) {
						break
					}
					if ev.data == "" {
						continue // retry, or where it begins
					}
					n++
					if m := ev.message(); last > 0 && m.Offset != last+1 {
						t.Errorf("%d after %d", m.Offset, last)
					} else {
						last = m.Offset
					}
				}
				e.close()
			}
		})
	}
	wg.Wait()
	until(t, "all have left", func() bool { return s.hub.Stats().Connections == 0 })
}

// wantRefused wants a stream that says why it ends at once.
func (e *sseClient) wantRefused(code string) {
	e.t.Helper()
	require.Equal(e.t, 200, e.resp.StatusCode)
	require.Equal(e.t, "text/event-stream; charset=utf-8", e.resp.Header.Get("Content-Type"))
	require.Equal(e.t, "no-store, no-transform", e.resp.Header.Get("Cache-Control"))
	require.Equal(e.t, "no", e.resp.Header.Get("X-Accel-Buffering"))
	ev, err := e.read()
	require.NoError(e.t, err)
	require.Equal(e.t, code, ev.message().ErrorCode(), ev.data)
	wait, err := strconv.Atoi(e.retry)
	require.NoError(e.t, err)
	after, err := strconv.Atoi(e.resp.Header.Get("Retry-After"))
	require.NoError(e.t, err)
	require.GreaterOrEqual(e.t, wait, max(1500, after*1000))
	require.Empty(e.t, e.lastID, "or the browser would forget where it was")
	_, err = e.read()
	require.Equal(e.t, io.EOF, err)
}
