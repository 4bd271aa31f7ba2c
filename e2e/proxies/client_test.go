//go:build linux

package proxies

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// site is the name by which clients know the app.
const site = "app.example.com"

// home is the clients' address. The proxy's is another one.
const home = "127.0.0.9"

// A client makes requests through a proxy.
type client struct {
	http   *http.Client
	ws     *http.Client // for handshakes, which are HTTP/1.1
	scheme string
}

// newClient returns one that knows the site by its name, and finds it at the proxy.
func newClient(t *testing.T, p *proxy) *client {
	t.Helper()
	scheme := "http"
	if p.tls != nil {
		scheme = "https"
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(home)}}
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, p.addr)
	}
	transport := func(h2 bool) *http.Transport {
		var protocols http.Protocols
		protocols.SetHTTP1(true)
		protocols.SetHTTP2(h2)
		tr := &http.Transport{DialContext: dial, TLSClientConfig: p.tls.Clone(), Protocols: &protocols}
		t.Cleanup(tr.CloseIdleConnections)
		return tr
	}
	return &client{&http.Client{Transport: transport(true)}, &http.Client{Transport: transport(false)}, scheme}
}

func (c *client) url(path string) string { return c.scheme + "://" + site + path }

func (c *client) request(ctx context.Context, method, path, body string, header ...string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.url(path), strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Set(header[i], header[i+1])
	}
	return c.http.Do(r)
}

// answer makes a request and returns its status and body.
func (c *client) answer(ctx context.Context, method, path, body string, header ...string) (int, string, error) {
	resp, err := c.request(ctx, method, path, body, header...)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// An event is what a reader gets: a message with its position, or a ping.
type event struct {
	body, at string
	ping     bool
}

// A reader is subscribed to a channel. What arrives comes to events, which is closed
// with the connection.
type reader struct {
	events  chan event
	publish func(body string) error // what the client says on its own connection; nil where it cannot
	http2   bool
	done    chan struct{} // closed when the reader has ended
	hangUp  func()
}

// end ends the reader.
func (r *reader) end() {
	r.hangUp()
	<-r.done
}

// doors are the ways into a channel. since is where the client was, and may be empty.
var doors = map[string]func(c *client, ctx context.Context, channel, since string) (*reader, error){
	"websocket":              (*client).socket,
	"events":                 (*client).stream,
	"connection/websocket":   (*client).session,
	"connection/http_stream": (*client).lines,
}

// read starts a reader's goroutine, which ends with ctx or the connection.
func read(ctx context.Context, loop func(ctx context.Context, give func(event)) error, hangUp func()) *reader {
	ctx, cancel := context.WithCancel(ctx)
	r := &reader{events: make(chan event, 100), done: make(chan struct{})}
	r.hangUp = func() {
		cancel()
		hangUp()
	}
	go func() {
		defer close(r.done)
		defer close(r.events)
		loop(ctx, func(e event) {
			select {
			case r.events <- e:
			case <-ctx.Done():
			}
		})
	}()
	return r
}

// A message is what the doors to one channel send.
type message struct {
	Header string
	Body   string
	Epoch  string
	Offset uint64
}

// socket is a WebSocket to one channel.
func (c *client) socket(ctx context.Context, channel, since string) (*reader, error) {
	pings := make(chan struct{}, 100)
	ws, err := c.dial(ctx, "/channel/"+channel+"/"+query(since), websocket.DialOptions{OnPingReceived: func(context.Context, []byte) bool {
		pings <- struct{}{}
		return true
	}})
	if err != nil {
		return nil, err
	}
	frames := make(chan []byte)
	r := read(ctx, func(ctx context.Context, give func(event)) error {
		go func() { // ends with the connection
			defer close(frames)
			for {
				_, b, err := ws.Read(ctx)
				if err != nil {
					return
				}
				select {
				case frames <- b:
				case <-ctx.Done():
					return
				}
			}
		}()
		for {
			select {
			case <-pings:
				give(event{ping: true})
			case b, ok := <-frames:
				if !ok {
					return io.EOF
				}
				var m message
				if json.Unmarshal(b, &m) == nil && m.Header == "m" {
					give(event{body: m.Body, at: fmt.Sprintf("%s:%d", m.Epoch, m.Offset)})
				}
			}
		}
	}, func() {
		ws.CloseNow()
		for range frames { // until its goroutine has ended
		}
	})
	r.publish = func(body string) error {
		return ws.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"header":"m","body":%q}`, body))
	}
	return r, nil
}

func query(since string) string {
	if since == "" {
		return ""
	}
	return "?since=" + since
}

func (c *client) dial(ctx context.Context, path string, o websocket.DialOptions) (*websocket.Conn, error) {
	o.HTTPClient = c.ws
	ws, resp, err := websocket.Dial(ctx, c.url(path), &o)
	if err != nil && resp != nil {
		return nil, fmt.Errorf("%w: %s", err, resp.Status)
	}
	return ws, err
}

// stream is server-sent events of one channel.
func (c *client) stream(ctx context.Context, channel, since string) (*reader, error) {
	ctx, cancel := context.WithCancel(ctx)
	resp, err := c.request(ctx, "GET", "/channel/"+channel+"/", "", "Accept", "text/event-stream", "Last-Event-ID", since)
	if err != nil {
		cancel()
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		cancel()
		resp.Body.Close()
		return nil, errors.New(resp.Status)
	}
	r := read(ctx, func(_ context.Context, give func(event)) error {
		defer resp.Body.Close()
		id := ""
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ":")
			value = strings.TrimPrefix(value, " ")
			switch name {
			case "": // a comment is a ping, and the empty line ends an event
				if lines.Text() != "" {
					give(event{ping: true})
				}
			case "id":
				id = value
			case "data":
				var m message
				if json.Unmarshal([]byte(value), &m) == nil && m.Header == "m" {
					give(event{body: m.Body, at: id})
				}
			}
		}
		return lines.Err()
	}, cancel)
	r.http2 = resp.ProtoMajor == 2
	return r, nil
}

// A reply is a line of the client protocol, as far as a reader uses it.
type reply struct {
	Error   *struct{ Message string }
	Connect *struct {
		Session, Node string
		Pong          bool
	}
	Subscribe *struct {
		Epoch        string
		Publications []publication
	}
	Push *struct {
		Pub        *publication
		Disconnect *struct{ Reason string }
	}
}

type publication struct {
	Data   string
	Offset uint64
}

// commands are a client's first ones.
func commands(channel, since string) string {
	recover := ""
	if epoch, offset, ok := strings.Cut(since, ":"); ok {
		recover = fmt.Sprintf(`,"recover":true,"epoch":%q,"offset":%s`, epoch, offset)
	}
	return fmt.Sprintf("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":%q%s}}", channel, recover)
}

// A session reads the lines of the client protocol.
type session struct {
	node, key  string // of a session whose commands are sent beside its stream
	epoch      string
	pong       bool
	subscribed chan struct{} // closed when it is
}

func newSession() *session { return &session{subscribed: make(chan struct{})} }

// wait waits until the session is subscribed, or its reader has ended.
func (s *session) wait(r *reader) (*reader, error) {
	select {
	case <-s.subscribed:
		return r, nil
	case <-r.done:
		return nil, errors.New("the session has ended before it was subscribed")
	}
}

func (s *session) take(line string, give func(event), send func(string)) error {
	if line == "{}" {
		if s.pong {
			send("{}")
		}
		give(event{ping: true})
		return nil
	}
	var r reply
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		return err
	}
	message := func(p publication) { give(event{body: p.Data, at: fmt.Sprintf("%s:%d", s.epoch, p.Offset)}) }
	switch {
	case r.Error != nil:
		return errors.New(r.Error.Message)
	case r.Connect != nil:
		s.node, s.key, s.pong = r.Connect.Node, r.Connect.Session, r.Connect.Pong
	case r.Subscribe != nil:
		s.epoch = r.Subscribe.Epoch
		close(s.subscribed)
		for _, p := range r.Subscribe.Publications {
			message(p)
		}
	case r.Push != nil && r.Push.Pub != nil:
		message(*r.Push.Pub)
	case r.Push != nil && r.Push.Disconnect != nil:
		return errors.New(r.Push.Disconnect.Reason)
	}
	return nil
}

// ids are of commands after the first two.
var ids atomic.Uint32

func publishes(channel, body string) string {
	return fmt.Sprintf(`{"id":%d,"publish":{"channel":%q,"data":%q}}`, ids.Add(1)+2, channel, body)
}

// session is the client protocol over a WebSocket.
func (c *client) session(ctx context.Context, channel, since string) (*reader, error) {
	ws, err := c.dial(ctx, "/connection/websocket", websocket.DialOptions{})
	if err != nil {
		return nil, err
	}
	send := func(text string) error { return ws.Write(ctx, websocket.MessageText, []byte(text)) }
	if err := send(commands(channel, since)); err != nil {
		ws.CloseNow()
		return nil, err
	}
	s := newSession()
	r := read(ctx, func(ctx context.Context, give func(event)) error {
		for {
			_, b, err := ws.Read(ctx)
			if err != nil {
				return err
			}
			for line := range strings.SplitSeq(strings.TrimSpace(string(b)), "\n") {
				if err := s.take(line, give, func(pong string) { send(pong) }); err != nil {
					return err
				}
			}
		}
	}, func() { ws.CloseNow() })
	r.publish = func(body string) error { return send(publishes(channel, body)) }
	return s.wait(r)
}

// lines is the client protocol over a stream, with requests beside it.
func (c *client) lines(ctx context.Context, channel, since string) (*reader, error) {
	ctx, cancel := context.WithCancel(ctx)
	resp, err := c.request(ctx, "POST", "/connection/http_stream", commands(channel, since))
	if err != nil {
		cancel()
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		cancel()
		resp.Body.Close()
		return nil, errors.New(resp.Status)
	}
	s := newSession()
	send := func(text string) error {
		status, body, err := c.answer(ctx, "POST", "/emulation", fmt.Sprintf(`{"session":%q,"node":%q,"data":%q}`, s.key, s.node, text))
		if err == nil && status != http.StatusNoContent {
			err = fmt.Errorf("%d %s", status, body)
		}
		return err
	}
	r := read(ctx, func(_ context.Context, give func(event)) error {
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			if err := s.take(lines.Text(), give, func(pong string) { send(pong) }); err != nil {
				return err
			}
		}
		return lines.Err()
	}, cancel)
	r.publish = func(body string) error { return send(publishes(channel, body)) }
	return s.wait(r)
}

// open opens a door, and requires that it opens.
func open(t *testing.T, c *client, door, channel string) *reader {
	t.Helper()
	r, err := doors[door](c, t.Context(), channel, "")
	require.NoError(t, err)
	t.Cleanup(r.end)
	return r
}
