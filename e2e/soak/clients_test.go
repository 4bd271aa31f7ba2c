//go:build unix

package soak

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
)

// A soakClient is subscribed to one room, through one connection after another.
type soakClient struct {
	k      *soak
	room   *soakRoom
	kind   string
	random *rand.Rand
	talks  bool

	pos channels.Position // of the last message it got; no epoch: none

	publisher, n uint32
	pending      atomic.Bool // its message n is not acknowledged yet
	tried        time.Time   // when its message n was first sent

	// Of the present connection:
	last    map[uint32]uint32 // by publisher, the last message; in rooms without history
	stalled bool
	slow    bool // it was told that it is slow
	final   bool
	done    bool // it has seen the end
}

// A soakConn is one connection.
type soakConn interface {
	// next returns the next text; errNothing where none has come by the
	// deadline; a *soakClosed, io.EOF or another error at the end.
	next(deadline time.Time) ([]byte, error)
	send(text string) error
	leave(how int)
}

var errNothing = errors.New("nothing has come")

// soakClosed is a close frame.
type soakClosed struct {
	code   int
	reason string
}

func (e *soakClosed) Error() string { return fmt.Sprintf("closed: %d %s", e.code, e.reason) }

// chance is true once in n times.
func (c *soakClient) chance(n int) bool { return c.random.IntN(n) == 0 }

func (c *soakClient) millis(lo, hi int) time.Duration {
	return time.Duration(lo+c.random.IntN(hi-lo)) * time.Millisecond
}

func (c *soakClient) run() {
	k := c.k
	k.pause(c.millis(0, 3000)) // not all at once
	for !k.isQuiet() {
		c.connection(false)
		away := c.millis(0, 1500)
		if c.chance(6) {
			away = c.millis(2000, 12_000)
		}
		k.pause(away)
	}
	first := true
	for k.faults.Load() == 0 {
		if c.connection(true) {
			return
		}
		if !first {
			k.pause(10 * time.Millisecond)
		}
		first = false
	}
}

// connection is one connection, from its beginning to its end. It returns
// true where that is the end of the soak.
func (c *soakClient) connection(final bool) bool {
	k := c.k
	c.last, c.stalled, c.slow, c.final = map[uint32]uint32{}, false, false, final
	since := ""
	if c.pos.Epoch != "" {
		if !final && c.chance(6) {
			c.pos = channels.Position{} // as if for the first time
		} else {
			since = c.pos.String()
			k.resumes.Add(1)
		}
	}
	conn, err := c.dial(since)
	if err != nil {
		k.fault("%s over %s: %v", c.room.name, c.kind, err)
		return true
	}
	k.connects.Add(1)
	if final && !c.done {
		k.settled.Add(1)
		defer k.settled.Add(-1)
	}
	how := c.random.IntN(4)
	end := time.Now().Add(c.millis(1000, 20_000))
	if final {
		how, end = 0, time.Now().Add(time.Hour)
	}
	if c.pending.Load() && c.room.options.HistorySize > 0 {
		if conn.send(c.say()) != nil { // again: with its key, it does no harm
			return false
		}
	}
	act := time.Now().Add(c.millis(0, 2000))
	for {
		look := time.Now().Add(time.Second) // whether the trouble has ended; to look more often takes 2,000 clients long
		if !final && act.Before(look) {
			look = act
		}
		text, err := conn.next(look)
		switch {
		case err == nil:
			if c.slow {
				k.fault("%s: a message behind the farewell: %.100s", c.room.name, text)
			}
			if err := c.take(text); err != nil {
				k.fault("%s over %s, since %q: %v", c.room.name, c.kind, since, err)
				conn.leave(0)
				return true
			}
		case err != errNothing:
			conn.leave(1)
			c.closed(err)
			return false
		}
		switch {
		case final:
			select {
			case <-k.leaving:
				conn.leave(0)
				return true
			default:
			}
			continue
		case k.isQuiet() || time.Now().After(end):
			conn.leave(how)
			c.cut()
			return false
		}
		if time.Now().After(act) {
			act = time.Now().Add(c.millis(200, 2000))
			switch {
			case c.chance(12):
				c.stalled = true
				k.stalls.Add(1)
				k.pause(c.millis(500, 9000))
			case c.talks && !c.pending.Load() && c.kind != "go" && c.kind != "sse":
				c.n++
				c.tried = time.Now()
				c.pending.Store(true)
				if conn.send(c.say()) != nil {
					conn.leave(1)
					c.cut()
					return false
				}
			}
		}
	}
}

func (c *soakClient) number() uint64 { return soakNumber(c.publisher, c.n) }

// say is what the client publishes.
func (c *soakClient) say() string {
	key := ""
	if c.room.options.HistorySize > 0 {
		key = fmt.Sprintf(`,"key":"%d.%d"`, c.publisher, c.n)
	}
	return fmt.Sprintf(`{"header":"s","body":%s,"id":%d%s}`, c.room.body(c.number()), c.n, key)
}

// cut: without a key, nobody knows what became of the message that was not
// acknowledged, and it may come after the next. So that is another publisher's.
func (c *soakClient) cut() {
	if c.pending.Load() && c.room.options.HistorySize == 0 {
		c.publisher, c.n = c.k.publishers.Add(1), 0
		c.pending.Store(false)
	}
}

// closed judges the end of a connection that the client has not ended.
func (c *soakClient) closed(err error) {
	c.cut()
	var code *soakClosed
	var network *net.OpError
	switch {
	case c.slow && (c.kind == "sse" || c.kind == "go"), errors.As(err, &code) && code.code == 1013 && code.reason == "slow_subscriber" && c.slow:
		if p := c.room.options.SlowSubscriber; p != channels.SlowClose {
			c.k.fault("%s: closed as slow", c.room.name)
		}
		c.k.slow.Add(1)
	case code != nil:
		c.k.fault("%s: %v", c.room.name, err)
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.As(err, &network): // frames that make no sense
		c.k.fault("%s over %s: %v", c.room.name, c.kind, err)
	case c.stalled: // it was silent, or a write took too long
		c.k.cuts.Add(1)
	default:
		c.k.unfinished.Add(1)
	}
}

// take checks one text of the hub's.
func (c *soakClient) take(text []byte) error {
	number, p, ok := c.room.parse(text)
	if ok {
		c.k.received.Add(1)
		if c.room.options.HistorySize > 0 {
			return c.follows(p, number)
		}
		publisher, n := publisherOf(number)
		last, known := c.last[publisher]
		c.last[publisher] = n
		switch {
		case n <= last:
			return fmt.Errorf("message %d of publisher %d behind %d", n, publisher, last)
		case known && n != last+1 && c.room.options.SlowSubscriber == channels.SlowClose:
			return fmt.Errorf("message %d of publisher %d behind %d: some are lost", n, publisher, last)
		}
		return nil
	}
	var m struct {
		Header string
		Body   json.RawMessage
		ID     json.RawMessage
		channels.Position
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return fmt.Errorf("%w: %.200q", err, text)
	}
	switch m.Header {
	case "presence":
		return nil
	case "end":
		if c.final && !c.done {
			c.done = true
			c.k.ended.Add(1)
		}
		if c.room.options.HistorySize > 0 {
			return c.follows(m.Position, soakNumber(0, 1+uint32(m.Offset)))
		}
		return nil
	case "reset":
		return c.reset(text, m.Position)
	case "exchange":
		return c.answered(m.ID, m.Body)
	case "error":
		if strings.Contains(string(m.Body), `"slow_subscriber"`) {
			c.slow = true
			return nil
		}
	}
	return fmt.Errorf("the hub says %.300s", text)
}

// parse reads a soak's own message, faster than encoding/json.
func (r *soakRoom) parse(text []byte) (number uint64, p channels.Position, ok bool) {
	rest, ok := bytes.CutPrefix(text, []byte(`{"header":"s","body":`))
	if !ok {
		return 0, p, false
	}
	var publisher, n uint32
	if _, err := fmt.Sscanf(string(rest[:min(len(rest), 30)]), `"%d.%d.`, &publisher, &n); err != nil {
		return 0, p, false
	}
	number = soakNumber(publisher, n)
	rest, ok = bytes.CutPrefix(rest, []byte(r.body(number)))
	if ok && string(rest) != "}" {
		var at int64
		_, err := fmt.Sscanf(string(rest)+"\n", `,"offset":%d,"epoch":%q,"time":%d}`+"\n", &p.Offset, &p.Epoch, &at)
		ok = err == nil && at > 0
	}
	return number, p, ok
}

// follows wants the next offset.
func (c *soakClient) follows(p channels.Position, number uint64) error {
	if c.pos.Epoch != "" && (p.Epoch != c.pos.Epoch || p.Offset != c.pos.Offset+1) {
		return fmt.Errorf("%v behind %v", p, c.pos)
	}
	c.pos = p
	return c.room.see(p, number)
}

// reset is right only where the next message is gone.
func (c *soakClient) reset(text []byte, to channels.Position) error {
	c.k.resets.Add(1)
	now, err := c.k.s.Hub.History(context.Background(), c.room.name, channels.HistoryQuery{Limit: 1})
	if err != nil {
		return err
	}
	if c.pos.Epoch == "" || to.Epoch != c.pos.Epoch || to.Offset <= c.pos.Offset || now.First <= c.pos.Offset+1 || to.Offset > now.Position.Offset {
		return fmt.Errorf("behind %v, %s, but %d is the oldest that is kept, and %v the newest", c.pos, text, now.First, now.Position)
	}
	c.pos = to
	return nil
}

// answered takes the acknowledgement of the client's message.
func (c *soakClient) answered(id, body json.RawMessage) error {
	var a struct {
		Msg, Epoch string
		Offset     uint64
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return err
	}
	if !c.pending.Load() || string(id) != strconv.Itoa(int(c.n)) || a.Msg != "ok" {
		return fmt.Errorf("an answer to %s, %s; it waits for %d: %v", id, body, c.n, c.pending.Load())
	}
	defer c.pending.Store(false)
	if c.room.options.HistorySize > 0 { // it may have been repeated
		if err := hubtest.RepeatedInTime(c.tried); err != nil {
			return fmt.Errorf("message %d of publisher %d: %w", c.n, c.publisher, err)
		}
	}
	return c.k.acknowledged(c.room, channels.Position{Epoch: a.Epoch, Offset: a.Offset}, c.number())
}

func (c *soakClient) dial(since string) (soakConn, error) {
	if since != "" {
		since = "?since=" + since
	}
	if c.kind == "go" {
		return c.subscribe()
	}
	// At first all of them come at once.
	conn, err := net.DialTimeout("tcp", c.k.s.HTTP.Listener.Addr().String(), 3*basetest.Patience)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(3 * basetest.Patience))
	path, request := "/channel/"+c.room.name+"/"+since, ""
	switch c.kind {
	case "sse": // HTTP/1.0 has no chunks, which would come between the events
		request = "GET " + path + " HTTP/1.0\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"
	case "deflate":
		request = hubtest.UpgradeRequest(path, hubtest.DeflateOffer)
	default:
		request = hubtest.UpgradeRequest(path)
	}
	br := bufio.NewReaderSize(conn, 1024)
	_, err = io.WriteString(conn, request)
	var resp *http.Response
	if err == nil {
		resp, err = http.ReadResponse(br, nil)
	}
	switch {
	case err == nil && c.kind == "sse" && resp.StatusCode == 200:
		return &soakStream{conn, br}, nil
	case err == nil && c.kind != "sse" && resp.StatusCode == 101:
		return &soakSocket{&hubtest.Conn{T: c.k.t, C: conn, BR: br}}, nil
	case err == nil:
		err = errors.New(resp.Status)
	}
	conn.Close()
	return nil, err
}

// await waits for a first byte until the deadline. The rest must follow soon.
func await(c net.Conn, br *bufio.Reader, deadline time.Time) error {
	c.SetReadDeadline(deadline)
	_, err := br.Peek(1)
	if basetest.IsTimeout(err) {
		return errNothing
	}
	c.SetReadDeadline(time.Now().Add(basetest.Patience))
	return err
}

// soakSocket is a WebSocket.
type soakSocket struct{ *hubtest.Conn }

func (s *soakSocket) next(deadline time.Time) ([]byte, error) {
	for {
		if err := await(s.C, s.BR, deadline); err != nil {
			return nil, err
		}
		f, err := s.TryRead()
		switch {
		case err != nil:
			return nil, err
		case f.First == hubtest.RawText:
			return f.Payload, nil
		case f.First == hubtest.RawText|hubtest.RSV1Bit:
			return soakInflate(f.Payload)
		case f.First == hubtest.RawPing:
			if err := s.write(hubtest.RawPong, f.Payload); err != nil {
				return nil, err
			}
		case f.First == hubtest.RawClose && len(f.Payload) >= 2:
			return nil, &soakClosed{int(binary.BigEndian.Uint16(f.Payload)), string(f.Payload[2:])}
		default:
			return nil, &soakClosed{reason: fmt.Sprintf("the frame %#x %q", f.First, f.Payload)}
		}
	}
}

var soakInflaters = sync.Pool{New: func() any { return flate.NewReader(nil) }}

func soakInflate(b []byte) ([]byte, error) {
	z := soakInflaters.Get().(io.ReadCloser)
	defer soakInflaters.Put(z)
	z.(flate.Resetter).Reset(io.MultiReader(bytes.NewReader(b), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff")), nil)
	return io.ReadAll(z)
}

func (s *soakSocket) write(first byte, payload []byte) error {
	s.C.SetWriteDeadline(time.Now().Add(basetest.Patience))
	_, err := s.C.Write(hubtest.Masked(first, payload))
	return err
}

func (s *soakSocket) send(text string) error { return s.write(hubtest.RawText, []byte(text)) }

func (s *soakSocket) leave(how int) {
	switch how {
	case 0: // as one should: with a close frame, up to the answer
		if s.write(hubtest.RawClose, []byte("\x03\xe8")) == nil {
			s.C.SetReadDeadline(time.Now().Add(time.Second))
			for f, err := s.TryRead(); err == nil && f.First != hubtest.RawClose; f, err = s.TryRead() {
			}
		}
	case 1:
	case 2:
		s.C.(*net.TCPConn).SetLinger(0)
	case 3: // inside of a frame
		s.C.Write([]byte(hubtest.FrameHeader(hubtest.RawText, 0x80, 1000) + "maskxxx"))
	}
	s.C.Close()
}

// soakStream is a stream of server-sent events.
type soakStream struct {
	c  net.Conn
	br *bufio.Reader
}

func (s *soakStream) next(deadline time.Time) ([]byte, error) {
	for {
		if err := await(s.c, s.br, deadline); err != nil {
			return nil, err
		}
		var id, data []byte
		for {
			line, err := s.br.ReadBytes('\n')
			if err != nil {
				return nil, err
			}
			if len(line) == 1 || line[0] == ':' && id == nil && data == nil { // a heartbeat is a line by itself
				break
			}
			if v, ok := bytes.CutPrefix(line, []byte("id: ")); ok {
				id = bytes.TrimSuffix(v, []byte("\n"))
			}
			if v, ok := bytes.CutPrefix(line, []byte("data: ")); ok {
				data = bytes.TrimSuffix(v, []byte("\n"))
			}
		}
		if data == nil {
			continue
		}
		if p, err := channels.ParsePosition(string(id)); len(id) > 0 && (err != nil || !bytes.Contains(data, []byte(fmt.Sprintf(`,"offset":%d,"epoch":%q`, p.Offset, p.Epoch)))) {
			return nil, &soakClosed{reason: fmt.Sprintf("the id %s of %s", id, data)}
		}
		return data, nil
	}
}

func (s *soakStream) send(string) error { return nil }

func (s *soakStream) leave(how int) {
	if how == 2 {
		s.c.(*net.TCPConn).SetLinger(0)
	}
	s.c.Close()
}

// soakSubscriber is a subscription in Go. What it yields is written as the
// hub would, so that all kinds of clients share the checks.
type soakSubscriber struct {
	sub   *channels.Subscription
	texts chan []byte
	err   error // set before texts is closed
	gone  sync.WaitGroup
	left  chan struct{}
}

func (c *soakClient) subscribe() (soakConn, error) {
	var from *channels.Position
	if c.pos.Epoch != "" {
		from = &c.pos
	}
	sub, err := c.k.s.Hub.Subscribe(context.Background(), c.room.name, from)
	if err != nil {
		return nil, err
	}
	s := &soakSubscriber{sub: sub, texts: make(chan []byte), left: make(chan struct{}), err: io.EOF}
	s.gone.Go(func() { // ends with Close
		defer close(s.texts)
		for m, err := range sub.Messages() {
			var text string
			var reset *channels.ResetError
			switch {
			case errors.As(err, &reset):
				text = fmt.Sprintf(`{"header":"reset","body":{"reason":%q},"offset":%d,"epoch":%q}`, reset.Reason, reset.Position.Offset, reset.Position.Epoch)
			case errors.Is(err, channels.ErrSlowSubscriber):
				text = `{"header":"error","body":{"code":"slow_subscriber"}}`
			case err != nil:
				s.err = &soakClosed{reason: err.Error()}
				return
			case m.Position.Epoch == "":
				text = fmt.Sprintf(`{"header":%q,"body":%s}`, m.Header, m.Body)
			default:
				text = fmt.Sprintf(`{"header":%q,"body":%s,"offset":%d,"epoch":%q,"time":%d}`, m.Header, m.Body, m.Position.Offset, m.Position.Epoch, m.Time.UnixMilli())
			}
			select {
			case s.texts <- []byte(text):
			case <-s.left:
				return
			}
		}
	})
	return s, nil
}

func (s *soakSubscriber) next(deadline time.Time) ([]byte, error) {
	select {
	case text, ok := <-s.texts:
		if !ok {
			return nil, s.err
		}
		return text, nil
	case <-time.After(time.Until(deadline)):
		return nil, errNothing
	}
}

func (s *soakSubscriber) send(string) error { return nil }

func (s *soakSubscriber) leave(int) {
	close(s.left)
	s.sub.Close()
	s.gone.Wait()
}
