package channels_test

import (
	"compress/flate"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/hubtest"
)

// half is a request that announces a longer body than it sends.
func half(method, path, sent string, header ...string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s", method, path, len(sent)+100,
		strings.Join(append(header, ""), "\r\n"), sent)
}

// wantEnd wants the connection to end without another byte.
func (c rawClient) wantEnd() {
	c.T.Helper()
	rest, err := io.ReadAll(c.BR)
	require.False(c.T, isTimeout(err), "still open")
	require.Empty(c.T, rest)
}

func TestAGetOfAStreamHasNoBody(t *testing.T) {
	s := serve(t, channels.Options{
		Channel:   every(channels.ChannelOptions{HistorySize: 5, Presence: channels.PresenceList}),
		OnConnect: func(context.Context, channels.Client) error { t.Error("a connection"); return nil },
	})
	t.Run("refused", func(t *testing.T) { aGetHasNoBody(t, s) })
	require.Contains(t, s.get("/v1/channel/a/history").body, `"data":[]`)
	c := s.dialRaw()
	a := c.ask("GET /v1/channel/a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
	require.Equal(t, 200, a.status)
	require.Empty(t, a.header.Get("Connection"))
}

func aGetHasNoBody(t *testing.T, s *server) {
	frame := wsFrame(rawText, say(`"smuggled"`))
	for name, body := range map[string]string{
		"frames":                   fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(frame), frame),
		"one that never comes":     "Content-Length: 6\r\n\r\n",
		"chunked":                  fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(frame), frame),
		"chunked, never comes":     "Transfer-Encoding: chunked\r\n\r\n",
		"both lengths":             "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"announced, not asked for": "Content-Length: 6\r\nExpect: 100-continue\r\n\r\n",
	} {
		for kind, head := range map[string]string{
			"WebSocket":                     upgradeRequest("/channel/a/"),
			"WebSocket of a foreign origin": upgradeRequest("/channel/a/", "Origin: https://evil.example"),
			"stream":                        "GET /channel/a/ HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n",
		} {
			t.Run(kind+", "+name, func(t *testing.T) {
				t.Parallel()
				c := s.dialRaw()
				a := c.ask(strings.TrimSuffix(head, "\r\n") + body)
				a.wantFail(t, 400, "bad_handshake")
				require.Equal(t, "close", a.header.Get("Connection"))
				c.wantEnd()
			})
		}
	}
}

// A request that is refused by its header is answered without waiting for its body.
func TestAnswersThatDoNotWaitForABody(t *testing.T) {
	const post = "/v1/channel/a/publish"
	denied := channels.Options{Authorize: forbids("a"), MaxMessageBytes: 1 << 10}
	refuses := func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			channels.WriteError(w, r, channels.ErrExpired)
		})
	}
	for name, c := range map[string]struct {
		request string
		status  int
		code    string
		around  []func(http.Handler) http.Handler
	}{
		"not authorised":  {half("POST", post, "{"), 403, "forbidden", nil},
		"no such path":    {half("POST", "/nothing", "{"), 404, "not_found", nil},
		"foreign origin":  {half("POST", post, "{", "Origin: https://evil.example"), 403, "bad_origin", nil},
		"wrong method":    {half("PUT", post, "{"), 405, "method_not_allowed", nil},
		"wrong name":      {half("POST", "/v1/channel/%20/publish", "{"), 400, "bad_channel", nil},
		"wrong key":       {half("POST", post, "{", "Idempotency-Key: a", "Idempotency-Key: b"), 400, "bad_idempotency_key", nil},
		"too long":        {"POST /v1/channel/b/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{", 413, "too_large", nil},
		"chunked":         {"POST " + post + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{", 403, "forbidden", nil},
		"compressed":      {half("POST", "/v1/channel/b/publish", "{", "Content-Encoding: br"), 415, "unsupported_encoding", nil},
		"of a middleware": {half("POST", post, "{"), 401, "expired", []func(http.Handler) http.Handler{refuses}},
		"health":          {half("GET", "/healthz", "{"), 200, "", nil},
		"options":         {half("OPTIONS", "/healthz", "{"), 204, "", nil},
		"options of POST": {half("OPTIONS", post, "{"), 204, "", nil},
		"options, stream": {half("OPTIONS", "/channel/a/", "{"), 204, "", nil},
		"POST to a GET":   {half("POST", "/channel/a/", "{"), 405, "method_not_allowed", nil},
		"options, batch":  {half("OPTIONS", "/v1/publish", "{"), 204, "", nil},
		"a preflight":     {half("OPTIONS", post, "{", "Origin: http://x", "Access-Control-Request-Method: POST"), 204, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, denied, c.around...)
			conn := s.dialRaw()
			a := conn.ask(c.request)
			require.Equal(t, c.status, a.status, a.body)
			require.Equal(t, c.code, a.code(), a.body)
			require.Equal(t, "close", a.header.Get("Connection"))
			conn.wantEnd()
		})
	}
	t.Run("an error after the body keeps the connection", func(t *testing.T) {
		s := serve(t, channels.Options{})
		c := s.dialRaw()
		for range 3 {
			c.ask("POST "+post+" HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n{").wantFail(t, 400, "bad_json")
		}
	})
}

// drip sends the same piece until the connection fails, or the test stops it.
func (c rawClient) drip(piece string) (stop func()) {
	end := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		pace := time.NewTicker(20 * time.Millisecond)
		defer pace.Stop()
		for {
			if _, err := io.WriteString(c.C, piece); err != nil {
				return
			}
			select {
			case <-pace.C:
			case <-end:
				return
			}
		}
	})
	return func() { close(end); wg.Wait() }
}

func TestABodyThatNeverComes(t *testing.T) {
	s := newServer(t, channels.Options{MaxMessageBytes: 1 << 10})
	channels.SetGrace(s.hub, 300*time.Millisecond)
	s.http.Start()
	for _, path := range []string{"/v1/channel/a/publish", "/v1/publish"} {
		for name, length := range map[string]string{"with a length": "Content-Length: 2000", "chunked": "Transfer-Encoding: chunked"} {
			if name == "chunked" && path == "/v1/publish" {
				continue // it may have so much more that it has 14 s
			}
			head := "POST " + path + " HTTP/1.1\r\nHost: x\r\n" + length + "\r\n\r\n"
			t.Run(path+" "+name+", nothing", func(t *testing.T) {
				t.Parallel()
				c := s.dialRaw()
				a := c.ask(head)
				a.wantFail(t, 408, "too_slow")
				require.Equal(t, "close", a.header.Get("Connection"))
				c.wantEnd()
			})
			t.Run(path+" "+name+", a byte now and then", func(t *testing.T) {
				t.Parallel()
				c := s.dialRaw()
				c.Send(head)
				piece := " "
				if name == "chunked" {
					piece = "1\r\n \r\n"
				}
				stop := c.drip(piece)
				a := c.ask("")
				a.wantFail(t, 408, "too_slow")
				stop()
			})
		}
	}
}

// The timeouts of http.Server end neither a body that the hub still waits for, nor a
// stream or a WebSocket.
func TestServerTimeoutsAreNotTheHubs(t *testing.T) {
	s := newServer(t, channels.Options{PingPeriod: time.Second})
	// Both begin with the request, and are long enough for a handshake on a busy machine.
	const timeout = 2 * time.Second
	s.http.Config.ReadTimeout, s.http.Config.WriteTimeout = timeout, timeout
	s.http.Start()
	e, w := s.stream("b", ""), s.join("b", "")
	first := make(chan message, 1)
	go func() { // it answers pings meanwhile
		m, err := w.read()
		assert.NoError(t, err)
		first <- m
	}()
	c := s.dialRaw()
	body := `{"header":"x","body":1}`
	c.Send(fmt.Sprintf("POST /v1/channel/b/publish HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body[:5]))
	<-time.After(timeout + timeout/2) // when both have passed
	a := c.ask(body[5:])
	require.Equal(t, 200, a.status, a.body)
	e.want("x", "1")
	require.Equal(t, "1", string((<-first).Body))
	w.send(`{"header":"x","body":2}`)
	w.want("x", "2")
}

// A message that is not completed in time ends the connection, whatever else the client
// sends meanwhile.
func TestAMessageThatNeverBecomesComplete(t *testing.T) {
	bomb := hubtest.Deflated(`{"header":"x","body":"`+strings.Repeat(" ", 900), flate.BestCompression)
	for name, c := range map[string]struct{ first, then string }{
		"a fragment":            {wsFrame(opText, `{"header":`), wsFrame(rawPong, "")},
		"empty fragments":       {wsFrame(opText, ""), wsFrame(0, "")},
		"a compressed fragment": {wsFrame(rsv1Bit|opText, bomb), wsFrame(rawPong, "")},
		"binary":                {wsFrame(opBinary, "x"), wsFrame(rawPing, "")},
		"half of a frame":       {frameHeader(rawText, 0x80, 5000) + "mask", "x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reasons := make(departures, 1)
			s := newServer(t, channels.Options{MaxMessageBytes: 8 << 10, OnDisconnect: reasons.hook})
			channels.SetGrace(s.hub, 300*time.Millisecond)
			s.http.Start()
			conn := s.upgrade("/channel/c/", hubtest.DeflateOffer)
			conn.Send(c.first)
			stop := conn.drip(c.then)
			var m message
			for m.ErrorCode() == "" {
				m = conn.Message()
			}
			require.Equal(t, "too_slow", m.ErrorCode())
			conn.WantClosed(1008)
			stop()
			conn.Close()
			require.Equal(t, "channels: "+"this did not arrive in time (10 s, plus 1 s for each 64 KiB); send it again, faster or in smaller parts", (<-reasons).Error())
			require.Zero(t, channels.Unfinished(s.hub))
		})
	}
}

// However many messages clients leave unfinished, the hub holds a bounded number of
// bytes. The client that holds most for longest makes way; others are not touched.
func TestUnfinishedBytesAreBounded(t *testing.T) {
	const limit, bound = 64 << 10, 1 << 20
	spaces := hubtest.Deflated(`{"header":"x","body":"`+strings.Repeat(" ", 60<<10), flate.BestCompression)
	for name, c := range map[string]struct {
		first string // of a WebSocket, or
		body  string
	}{
		"fragments":            {first: wsFrame(opText, long(40<<10))},
		"compressed fragments": {first: wsFrame(rsv1Bit|opText, spaces)},
		"bodies":               {body: "POST /v1/channel/b/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + long(40<<10)},
		"bodies of batches":    {body: "POST /v1/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + long(40<<10)},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, channels.Options{MaxMessageBytes: limit, MaxUnfinishedBytes: bound})
			channels.SetGrace(s.hub, time.Minute) // a busy machine takes its time
			s.http.Start()
			before := hubtest.Used()
			const n = 100
			healthy := s.upgrade("/channel/c/", hubtest.DeflateOffer)
			var cs []rawClient
			if c.body == "" {
				for _, conn := range s.DialMany(n, "d", hubtest.DeflateOffer) {
					cs = append(cs, rawClient{conn})
				}
			} else {
				for range n {
					cs = append(cs, s.dialRaw())
				}
			}
			for i, conn := range cs {
				conn.Send(c.first + c.body)
				if i == 0 { // the others may be read in another order than they were written in
					until(t, "the first one is held", func() bool { return channels.Unfinished(s.hub) > 0 })
				}
				// Meanwhile, complete messages of new clients are published.
				require.LessOrEqual(t, channels.Unfinished(s.hub), bound)
			}
			// The first clients to go are told why.
			if c.body != "" {
				cs[0].ask("").wantFail(t, 503, "overloaded")
			} else {
				require.Equal(t, "overloaded", cs[0].Message().ErrorCode())
				cs[0].WantClosed(1013)
			}
			healthy.Send(wsFrame(opText, `{"header":"m",`) + wsFrame(finBit, `"body":1}`))
			healthy.WantAllOf(1)
			s.publish("c", "m", "1")
			healthy.WantAllOf(1)
			before.Left(t, bound+n*hubtest.PerClient) // those that were cut hold theirs for a moment
			for _, conn := range cs {
				conn.Close()
			}
			healthy.Close()
			until(t, "all is given back", func() bool { return channels.Unfinished(s.hub) == 0 })
		})
	}
}

// A compressed message is inflated only up to a bound, so it cannot take a hundred times
// its size.
func TestInflationIsBounded(t *testing.T) {
	s := serve(t, channels.Options{})
	say := func(n int) string { return `{"header":"m","body":[` + strings.Repeat("{},", n/3) + `{}]}` }
	for name, c := range map[string]struct {
		op    byte
		text  string
		limit bool
	}{
		"within what is free":   {opText, say(60 << 10), false},
		"beyond":                {opText, say(250 << 10), true},
		"beyond, in binary":     {opBinary, say(250 << 10), true},
		"long, but not so much": {opText, `{"header":"m","body":"` + random64(200<<10) + `"}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			conn := s.upgrade("/channel/c/", hubtest.DeflateOffer)
			conn.Send(wsFrame(finBit|rsv1Bit|c.op, hubtest.Deflated(c.text, flate.BestCompression)))
			m := conn.Message()
			if !c.limit {
				require.Contains(t, []string{"m", "exchange"}, m.Header)
				conn.Close()
				return
			}
			require.Equal(t, "too_large", m.ErrorCode())
			conn.WantClosed(1009)
		})
	}
}

// random64 is text that does not compress well.
func random64(n int) string {
	var b strings.Builder
	for i := uint64(88172645463325252); b.Len() < n; {
		i ^= i << 13
		i ^= i >> 7
		i ^= i << 17
		fmt.Fprintf(&b, "%x", i)
	}
	return b.String()[:n]
}

// Clients that do not send a body to its end, or read no answer, do not hold up Shutdown.
func TestShutdownDoesNotWaitForBodies(t *testing.T) {
	s := serve(t, channels.Options{})
	var cs []rawClient
	for _, path := range []string{"/v1/channel/a/publish", "/v1/publish"} {
		c := s.dialRaw()
		c.Send(half("POST", path, "{"))
		cs = append(cs, c)
	}
	until(t, "they have begun", func() bool { return channels.Unfinished(s.hub) > 0 })
	begin := time.Now()
	require.NoError(t, s.hub.Shutdown(ctxT(t)))
	late := s.dialRaw()
	cs = append(cs, late)
	late.Send(half("POST", "/v1/publish", "{"))
	for _, c := range cs {
		c.ask("").wantFail(t, 503, "closed")
	}
	require.NoError(t, s.http.Config.Shutdown(ctxT(t)))
	require.Less(t, time.Since(begin), 9*time.Second)
}

// The same holds over HTTP/2, where other requests share the connection.
func TestUnfinishedOverHTTP2(t *testing.T) {
	s := newServer(t, channels.Options{MaxMessageBytes: 1 << 10, Authorize: forbids("a")})
	channels.SetGrace(s.hub, 300*time.Millisecond)
	s.http.EnableHTTP2 = true
	s.http.StartTLS()
	for name, c := range map[string]struct {
		method, path string
		status       int
		code         string
	}{
		"a body that never comes":  {"POST", "/v1/channel/b/publish", 408, "too_slow"},
		"refused before it":        {"POST", "/v1/channel/a/publish", 403, "forbidden"},
		"a stream that has a body": {"GET", "/channel/b/", 400, "bad_handshake"},
	} {
		t.Run(name, func(t *testing.T) {
			body, never := io.Pipe()
			defer never.Close()
			req, err := http.NewRequestWithContext(ctxT(t), c.method, s.http.URL+c.path, body)
			require.NoError(t, err)
			req.Header.Set("Accept", "text/event-stream")
			resp, err := s.http.Client().Do(req)
			require.NoError(t, err)
			defer resp.Body.Close()
			require.Equal(t, 2, resp.ProtoMajor)
			require.Equal(t, c.status, resp.StatusCode)
			b, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Contains(t, string(b), c.code)
			require.Equal(t, 200, s.get("/healthz").status)
		})
	}
}

// A message that is cut off is not published, even if what has arrived is valid
// JSON by itself, compressed or not.
func TestAMessageThatIsCutOffIsNotPublished(t *testing.T) {
	const cut = `{"header":"cut","body":1}`
	small := hubtest.Deflated(cut, flate.BestSpeed)
	longer, more := wsFrame(rawText, cut+"      "), wsFrame(rsv1Bit|rawText, small+" more") // than what is sent of them
	for name, sent := range map[string]string{
		"between two fragments":             wsFrame(opText, cut),
		"inside of a frame":                 longer[:len(longer)-6],
		"compressed, between two fragments": wsFrame(rsv1Bit|opText, small),
		"compressed, inside of a frame":     more[:len(more)-5],
	} {
		t.Run(name, func(t *testing.T) {
			reasons := make(departures, 1)
			s := serve(t, channels.Options{Channel: keeps, OnDisconnect: reasons.hook})
			r := s.upgrade("/channel/h/", "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover")
			r.Send(sent)
			r.Close()
			require.Error(t, <-reasons)
			past := historyOf(t, s.hub, "h", channels.HistoryQuery{})
			require.Empty(t, past.Messages)
		})
	}
}
