package zmqmesh_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-zeromq/zmq4"
	"github.com/go-zeromq/zmq4/security/null"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh/zmqmesh"
	"github.com/channels-go/channels/store"
)

// newHub has history on channels whose names begin with "keep.".
func newHub(t testing.TB, o channels.Options) *channels.Hub {
	t.Helper()
	o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	o.Channel = func(name string) channels.ChannelOptions {
		if strings.HasPrefix(name, "keep.") {
			return channels.ChannelOptions{HistorySize: 1000}
		}
		return channels.ChannelOptions{}
	}
	hub, err := channels.New(o)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, hub.Shutdown(ctx))
	})
	return hub
}

// newGateway opens a gateway with all three sockets.
func newGateway(t testing.TB, hub zmqmesh.GatewayHub, change func(*zmqmesh.GatewayOptions)) *zmqmesh.Gateway {
	t.Helper()
	o := zmqmesh.GatewayOptions{Hub: hub, Pub: "tcp://127.0.0.1:0", Pull: "tcp://127.0.0.1:0", Rep: "tcp://127.0.0.1:0",
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	if change != nil {
		change(&o)
	}
	g, err := zmqmesh.NewGateway(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.Close()) })
	return g
}

// python is the first python3 that has libzmq's binding.
var python = sync.OnceValue(func() string {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/bin") {
		p := filepath.Join(dir, "python3")
		if exec.Command(p, "-c", "import zmq").Run() == nil {
			return p
		}
	}
	return ""
})

// A program is a Python program that is running.
type program struct {
	cmd   *exec.Cmd
	in    io.Writer
	lines chan string // what it prints
	ended chan error  // has its end, once
}

// run starts a Python program, with all that zmq has, and sys.argv.
func run(t testing.TB, text string, args ...string) *program {
	t.Helper()
	require.NotEmpty(t, python(), "python3-zmq is not installed: make setup")
	cmd := exec.Command(python(), append([]string{"-u", "-c", text}, args...)...)
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	p := &program{cmd: cmd, in: in, lines: make(chan string, 100_000), ended: make(chan error, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
		close(p.lines)
		p.ended <- cmd.Wait()
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-done
	})
	return p
}

// line is the next line that the program prints.
func (p *program) line(t testing.TB) string {
	t.Helper()
	select {
	case s, ok := <-p.lines:
		require.True(t, ok, "the program has ended")
		return s
	case <-time.After(patience):
		require.FailNow(t, "the program prints nothing")
	}
	return ""
}

func (p *program) end(t testing.TB) {
	t.Helper()
	select {
	case err := <-p.ended:
		require.NoError(t, err)
	case <-time.After(patience):
		require.FailNow(t, "the program does not end")
	}
}

// A socket is a ZeroMQ socket of our own, for what libzmq would not do.
type socket struct {
	*zmq4.Conn
	tcp net.Conn
}

func dialSocket(t testing.TB, address string, typ zmq4.SocketType) *socket {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(address, "tcp://"))
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	z, err := zmq4.Open(c, null.Security(), typ, nil, false, nil)
	require.NoError(t, err)
	return &socket{z, c}
}

func (s *socket) send(t testing.TB, frames ...string) {
	t.Helper()
	var m zmq4.Msg
	for _, f := range frames {
		m.Frames = append(m.Frames, []byte(f))
	}
	require.NoError(t, s.SendMsg(m))
}

// next is the next message, as texts.
func (s *socket) next(t testing.TB) (frames []string) {
	t.Helper()
	m, err := s.RecvMsg()
	require.NoError(t, err)
	for _, f := range m.Frames {
		frames = append(frames, string(f))
	}
	return frames
}

// ready publishes probes on a channel until the reader gets one, and leaves
// the probes out of what comes then.
func (s *socket) ready(t testing.TB, hub *channels.Hub, channel string) {
	t.Helper()
	stop := make(chan struct{})
	var probing sync.WaitGroup
	probing.Go(func() {
		for {
			publish(t, hub, channel, "probe", "0")
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	require.Equal(t, "probe", s.next(t)[1])
	close(stop)
	probing.Wait()
	publish(t, hub, channel, "begin", "0")
	for s.next(t)[1] != "begin" {
	}
}

func publish(t testing.TB, hub *channels.Hub, channel, header, body string) {
	_, err := hub.Publish(context.Background(), channel, channels.Message{Header: header, Body: json.RawMessage(body)})
	require.NoError(t, err)
}

// Four SUB sockets of libzmq, with its heartbeats on: a channel, a beginning,
// everything, and a channel on which nothing comes. Without an answer to its
// PINGs, libzmq disconnects after 3 s.
func TestGatewayReadersOfLibzmq(t *testing.T) {
	hub := newHub(t, channels.Options{})
	g := newGateway(t, hub.Bridge(channels.Identity{}), nil)
	pub, _, _ := g.Addresses()
	p := run(t, `
import json, sys, zmq
from zmq.utils.monitor import recv_monitor_message
ctx, poller, names, watch = zmq.Context(), zmq.Poller(), {}, []
for topic in (b'news\0', b'new', b'', b'nothing\0'):
    s = ctx.socket(zmq.SUB)
    s.setsockopt(zmq.HEARTBEAT_IVL, 50); s.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3000)
    watch.append(s.get_monitor_socket(zmq.EVENT_DISCONNECTED))
    s.setsockopt(zmq.SUBSCRIBE, topic); s.connect(sys.argv[1])
    poller.register(s, zmq.POLLIN); names[s] = topic.decode()
while True:
    for s, _ in poller.poll():
        f = s.recv_multipart()
        print(json.dumps([names[s], f[0].decode(), f[1].decode('latin-1'), f[2].decode('ascii'), len(f)]))
        if f[1] == b'heart' and not names[s]:
            print(json.dumps([''] if any(w.poll(0) for w in watch[1:]) or watch[0].poll(5000) else ['alive']))
`, pub)
	ready := map[string]bool{}
	for len(ready) < 3 {
		publish(t, hub, "news", "probe", "0")
		for len(p.lines) > 0 {
			var line []any
			require.NoError(t, json.Unmarshal([]byte(p.line(t)), &line))
			ready[line[0].(string)] = true
		}
		time.Sleep(10 * time.Millisecond) // between probes
	}
	body := `{"text":"안녕 😀 é\u00e9","deep":["\\u","\u007f"]}`
	publish(t, hub, "news", "hé", body)
	publish(t, hub, "news2", "two", "2")
	publish(t, hub, "olds", "한a", "3")
	publish(t, hub, "new", "four", "4")
	publish(t, hub, "news", "heart", "null")
	type message struct{ channel, header, body string }
	ascii := `{"text":"\uc548\ub155 \ud83d\ude00 \u00e9\u00e9","deep":["\\u","\u007f"]}`
	want := map[string][]message{
		"news\x00": {{"news\x00", "hé", ascii}, {"news\x00", "heart", "null"}},
		"new":      {{"news\x00", "hé", ascii}, {"news2\x00", "two", "2"}, {"new\x00", "four", "4"}, {"news\x00", "heart", "null"}},
		"":         {{"news\x00", "hé", ascii}, {"news2\x00", "two", "2"}, {"olds\x00", "?a", "3"}, {"new\x00", "four", "4"}, {"news\x00", "heart", "null"}},
	}
	got := map[string][]message{}
	alive := false
	for len(got["news\x00"]) < 2 || len(got["new"]) < 4 || len(got[""]) < 5 || !alive {
		var line []any
		require.NoError(t, json.Unmarshal([]byte(p.line(t)), &line))
		if len(line) == 1 {
			require.Equal(t, "alive", line[0], "libzmq has disconnected: its PINGs were not answered")
			alive = true
			continue
		}
		require.EqualValues(t, 3, line[4])
		m := message{line[1].(string), line[2].(string), line[3].(string)}
		if m.header != "probe" {
			got[line[0].(string)] = append(got[line[0].(string)], m)
		}
	}
	require.Equal(t, want, got)
}

// Two PUSH sockets of libzmq publish, each in its order; a third deals to two
// replicas; a fourth is killed while it sends.
func TestGatewayPublishersOfLibzmq(t *testing.T) {
	hub := newHub(t, channels.Options{QueueBytes: 256 << 20})
	a := newGateway(t, hub.Bridge(channels.Identity{}), nil)
	b := newGateway(t, hub.Bridge(channels.Identity{}), nil)
	_, pullA, _ := a.Addresses()
	_, pullB, _ := b.Addresses()
	sub, err := hub.Subscribe(t.Context(), "pushed", nil)
	require.NoError(t, err)
	p := run(t, `
import sys, threading, zmq
ctx = zmq.Context()
def push(n, *to):
    s = ctx.socket(zmq.PUSH)
    s.setsockopt(zmq.HEARTBEAT_IVL, 50); s.setsockopt(zmq.HEARTBEAT_TIMEOUT, 60000)
    s.setsockopt(zmq.IMMEDIATE, 1)
    for i, a in enumerate(to):
        m = s.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED, 'inproc://m%s%d' % (n.decode(), i))
        s.connect(a); m.recv_multipart(); s.disable_monitor()
    for i in range(200):
        s.send_multipart([b'pushed\0', b'h\xe9' + n, ('{"i":%d,"t":"\u00e9 \uc548"}' % i).encode()])
    s.close()
all = [threading.Thread(target=push, args=a) for a in ((b'1', sys.argv[1]), (b'2', sys.argv[1]), (b'3', sys.argv[1], sys.argv[2]))]
for t in all: t.start()
for t in all: t.join()
ctx.term()
`, pullA, pullB)
	next := map[string]int{}
	n := 0
	for m, err := range sub.Messages() {
		require.NoError(t, err)
		var body struct {
			I int
			T string
		}
		require.NoError(t, json.Unmarshal(m.Body, &body))
		require.Equal(t, "é 안", body.T)
		if m.Header != "hé3" { // which takes two ways
			require.Equal(t, next[m.Header], body.I, m.Header)
		}
		next[m.Header]++
		if n++; n == 600 {
			break
		}
	}
	require.Equal(t, map[string]int{"hé1": 200, "hé2": 200, "hé3": 200}, next)
	p.end(t)
	require.EqualValues(t, 500, a.Stats().Published)
	require.EqualValues(t, 100, b.Stats().Published, "the third has dealt fairly")

	killed := run(t, `
import sys, zmq
s = zmq.Context().socket(zmq.PUSH); s.connect(sys.argv[1])
while True: s.send_multipart([b'pushed\0', b'big', b'"' + b'x' * 100000 + b'"'])
`, pullA)
	last := dialSocket(t, pullA, zmq4.Push)
	n = 0
	for m, err := range sub.Messages() {
		require.NoError(t, err)
		if m.Header == "last" {
			break
		}
		require.Len(t, m.Body, 100002, "nothing half")
		if n++; n == 20 {
			require.NoError(t, killed.cmd.Process.Kill())
			go func() { // what is on its way still comes
				<-killed.ended
				last.SendMsg(zmq4.NewMsgFrom([]byte("pushed\x00"), []byte("last"), []byte("1")))
			}()
		}
	}
	require.Zero(t, a.Stats().Rejected)
}

// REQ and DEALER of libzmq get what HTTP answers.
func TestGatewayRequestsOfLibzmq(t *testing.T) {
	hub := newHub(t, channels.Options{Authorize: func(_ context.Context, r channels.Request) error {
		if r.Identity.ID != "zmq" || strings.HasPrefix(r.Channel, "closed") {
			return channels.ErrForbidden
		}
		return nil
	}})
	g := newGateway(t, hub.Bridge(channels.Identity{ID: "zmq"}), nil)
	_, _, rep := g.Addresses()
	p := run(t, `
import json, sys, zmq
ctx = zmq.Context()
s = ctx.socket(zmq.REQ); s.setsockopt(zmq.HEARTBEAT_IVL, 50); s.setsockopt(zmq.HEARTBEAT_TIMEOUT, 60000); s.connect(sys.argv[1])
def ask(*f):
    s.send_multipart(f); r = s.recv_multipart()
    assert len(r) == 1, r
    print(r[0].decode('ascii'))
ask(b'publish', b'keep.a\0', b'h', '"안"'.encode())
ask(b'publish', '한국'.encode(), b'h', b'1')
ask(b'publish', b'closed', b'h', b'1')
ask(b'publish', b'a b', b'h', b'1')
ask(b'publish', b'a', b'h', b'{')
ask(b'channel', b'keep.a\0')
ask(b'list')
ask(b'list', b'keep.', b'1')
ask(b'list', b'', b'x')
ask(b'publish', b'a')
ask(b'')
d = ctx.socket(zmq.DEALER); d.connect(sys.argv[1])
for i in range(50): d.send_multipart([b'%d' % i, b'', b'publish', b'keep.a', b'h', b'1'])
for i in range(50):
    r = d.recv_multipart()
    assert len(r) == 3 and r[0] == b'%d' % i and r[1] == b'' and json.loads(r[2])['offset'] == 2 + i, (i, r)
d.send_multipart([b'channel', b'closed'])
print(d.recv_multipart()[0].decode())
`, rep)
	var got []string
	for range 12 {
		got = append(got, p.line(t))
	}
	p.end(t)
	as := func(method, path, body string) string {
		t.Helper()
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		w := httptest.NewRecorder()
		hub.Handler().ServeHTTP(w, r.WithContext(channels.WithIdentity(r.Context(), channels.Identity{ID: "zmq"})))
		return strings.TrimSpace(w.Body.String())
	}
	info, err := hub.Channel(t.Context(), "keep.a")
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf(`{"status":"ok","offset":1,"epoch":%q}`, info.Position.Epoch), got[0])
	require.Equal(t, `{"status":"ok"}`, got[1])
	require.Equal(t, as("POST", "/v1/channel/closed/publish", `{"header":"h","body":1}`), got[2])
	require.Contains(t, got[2], `"code":"forbidden"`)
	require.Equal(t, as("POST", "/v1/channel/a%20b/publish", `{"header":"h","body":1}`), got[3])
	require.Contains(t, got[4], `"code":"bad_message"`)
	require.Equal(t, fmt.Sprintf(`{"data":{"channel_name":"keep.a","cnt":0,"rpm":1,"offset":1,"epoch":%q,"first":1}}`, info.Position.Epoch), got[5])
	require.Equal(t, `{"data":[{"channel_name":"keep.a","cnt":0,"rpm":1},{"channel_name":"\ud55c\uad6d","cnt":0,"rpm":1}],"next":""}`, got[6])
	require.Equal(t, `{"data":[{"channel_name":"keep.a","cnt":0,"rpm":1}],"next":""}`, got[7])
	require.Equal(t, as("GET", "/v1/channel?limit=x", ""), got[8])
	for _, bad := range got[9:11] {
		require.Contains(t, bad, `{"status":"fail","error":{"code":"bad_request","message":"a request is`)
	}
	require.Equal(t, as("GET", "/v1/channel/closed", ""), got[11])
	require.EqualValues(t, 52, g.Stats().Published)
	require.EqualValues(t, 5, g.Stats().Rejected, "three publishes and two requests")
}

func TestGatewayToken(t *testing.T) {
	hub := newHub(t, channels.Options{})
	const token = "0123456789abcdef"
	g := newGateway(t, hub.Bridge(channels.Identity{}), func(o *zmqmesh.GatewayOptions) { o.Token = []byte(token) })
	_, pull, rep := g.Addresses()
	sub, err := hub.Subscribe(t.Context(), "a", nil)
	require.NoError(t, err)
	push, req := dialSocket(t, pull, zmq4.Push), dialSocket(t, rep, zmq4.Req)
	push.send(t, "a\x00", "none", "1")
	push.send(t, "a\x00", "wrong", "1", "0123456789abcdeF")
	push.send(t, "a\x00", "short", "1", "")
	push.send(t, "a\x00", "right", "1", token)
	for m, err := range sub.Messages() {
		require.NoError(t, err)
		require.Equal(t, "right", m.Header)
		break
	}
	require.EqualValues(t, 3, g.Stats().Rejected)
	for _, refused := range [][]string{{"", "list"}, {"", "list", token[1:]}, {"", "channel", "a"}, {"", "publish", "a", "h", "1"}} {
		req.send(t, refused...)
		require.Equal(t, []string{"", `{"status":"fail","error":{"code":"bad_token","message":"the message's last frame has to be the token"}}`}, req.next(t))
	}
	req.send(t, "", "publish", "b", "h", "1", token)
	require.Equal(t, []string{"", `{"status":"ok"}`}, req.next(t))
	req.send(t, "", "list", "b", token)
	require.Equal(t, []string{"", `{"data":[{"channel_name":"b","cnt":0,"rpm":1}],"next":""}`}, req.next(t))
}

// PINGs are answered on each socket, with what they bring.
func TestGatewayAnswersPings(t *testing.T) {
	hub := newHub(t, channels.Options{})
	g := newGateway(t, hub.Bridge(channels.Identity{}), nil)
	pub, pull, rep := g.Addresses()
	for address, typ := range map[string]zmq4.SocketType{pub: zmq4.Sub, pull: zmq4.Push, rep: zmq4.Dealer} {
		s := dialSocket(t, address, typ)
		require.NoError(t, s.SendCmd(zmq4.CmdPing, []byte("\x00\x01context")))
		pong, err := s.RecvCmd()
		require.NoError(t, err)
		require.Equal(t, zmq4.CmdPong, pong.Name)
		require.Equal(t, "context", string(pong.Body))
	}
}

// A reader that stops reading loses messages, and then its connection; others
// lose nothing and do not wait, and the hub is not held up.
func TestGatewaySlowReader(t *testing.T) {
	hub := newHub(t, channels.Options{})
	g := newGateway(t, hub.Bridge(channels.Identity{}), func(o *zmqmesh.GatewayOptions) { o.QueueBytes = 1 << 20 })
	pub, _, _ := g.Addresses()
	slow, fast := dialSocket(t, pub, zmq4.Sub), dialSocket(t, pub, zmq4.Sub)
	slow.send(t, "\x01")
	slow.ready(t, hub, "a")
	fast.send(t, "\x01a")
	fast.ready(t, hub, "a")
	body := `"` + strings.Repeat("x", 100_000) + `"`
	for i := range 200 { // 20 MB
		publish(t, hub, "a", fmt.Sprint(i), body)
		require.Equal(t, []string{"a\x00", fmt.Sprint(i), body}, fast.next(t))
	}
	require.Positive(t, g.Stats().Dropped)
	eventually(t, "the slow one is gone", func() bool { return g.Stats().Readers == 1 })
	publish(t, hub, "a", "after", "1")
	require.Equal(t, "after", fast.next(t)[1])
}

// A reader that wants a channel by its name and by two beginnings gets its
// messages once, and goes on getting them by what is left.
func TestGatewayReaderGetsEachMessageOnce(t *testing.T) {
	hub := newHub(t, channels.Options{})
	g := newGateway(t, hub.Bridge(channels.Identity{}), nil)
	pub, _, _ := g.Addresses()
	s := dialSocket(t, pub, zmq4.Sub)
	expect := func(headers ...string) {
		t.Helper()
		for _, h := range headers {
			require.Equal(t, h, s.next(t)[1])
		}
	}
	s.send(t, "\x01keep.a\x00")
	s.ready(t, hub, "keep.a")
	s.send(t, "\x01keep")
	s.ready(t, hub, "keep.b")
	s.send(t, "\x01")
	s.send(t, "\x01") // repeated: one "leave" ends both
	s.ready(t, hub, "z")
	for i := range 3 {
		publish(t, hub, "keep.a", fmt.Sprint("m", i), "1")
	}
	expect("m0", "m1", "m2")
	publish(t, hub, "keep.b", "b", "1")
	publish(t, hub, "z", "z", "1")
	expect("b", "z")
	s.send(t, "\x00keep.a\x00")
	eventually(t, "the hub has no subscriber", func() bool {
		c, err := hub.Channel(t.Context(), "keep.a")
		return err == nil && c.Subscribers == 0
	})
	publish(t, hub, "keep.a", "by beginning", "1")
	expect("by beginning")
	s.send(t, "\x00")
	s.send(t, "\x00keep")
	s.send(t, "\x01z\x00")
	eventually(t, "all that was asked is done", func() bool {
		c, err := hub.Channel(t.Context(), "z")
		return err == nil && c.Subscribers == 1
	})
	publish(t, hub, "keep.a", "for nobody", "1")
	publish(t, hub, "z", "end", "1")
	expect("end")
}

// A reader of everything at one replica gets what others publish on channels
// of which that one has never heard, and once each.
func TestGatewayReaderOfAllReplicas(t *testing.T) {
	a, b := open(t, options(t, "a")), open(t, options(t, "b"))
	one := newHub(t, channels.Options{Mesh: a, ReplicaID: "a", Store: memory(t)})
	two := newHub(t, channels.Options{Mesh: b, ReplicaID: "b", Store: memory(t)})
	a.SetPeers(map[string]string{"b": b.Address()})
	b.SetPeers(map[string]string{"a": a.Address()})
	g := newGateway(t, one.Bridge(channels.Identity{}), nil)
	pub, _, _ := g.Addresses()
	s := dialSocket(t, pub, zmq4.Sub)
	s.send(t, "\x01")
	s.ready(t, two, "x")
	sub, err := one.Subscribe(t.Context(), "x", nil)
	require.NoError(t, err)
	defer sub.Close()
	for i := range 10 {
		publish(t, two, "x", fmt.Sprint("x", i), "1")
		require.Equal(t, fmt.Sprint("x", i), s.next(t)[1])
		publish(t, two, fmt.Sprint("y", i), "y", "1")
		require.Equal(t, []string{fmt.Sprint("y", i, "\x00"), "y", "1"}, s.next(t))
		publish(t, one, "x", "own", "1")
		require.Equal(t, "own", s.next(t)[1])
	}
}

func memory(t *testing.T) store.Store {
	m, err := store.NewMemory(store.MemoryOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

// Close sends what is queued, also to a reader that takes its time.
func TestGatewayCloseSendsWhatIsQueued(t *testing.T) {
	hub := newHub(t, channels.Options{})
	g := newGateway(t, hub.Bridge(channels.Identity{}), nil)
	pub, _, _ := g.Addresses()
	s := dialSocket(t, pub, zmq4.Sub)
	require.NoError(t, s.tcp.(*net.TCPConn).SetReadBuffer(32<<10)) // the system keeps less than all of it
	s.send(t, "\x01")
	s.ready(t, hub, "a")
	for i := range 150 {
		publish(t, hub, "a", fmt.Sprint(i), `"`+strings.Repeat("x", 50_000)+`"`)
	}
	closed := make(chan error, 1)
	go func() { closed <- g.Close() }()
	for i := range 150 {
		require.Equal(t, fmt.Sprint(i), s.next(t)[1])
	}
	require.NoError(t, <-closed)
	_, err := s.RecvMsg()
	require.ErrorIs(t, err, io.EOF)
}

func TestGatewayBounds(t *testing.T) {
	hub := newHub(t, channels.Options{})
	var log logbook
	g := newGateway(t, hub.Bridge(channels.Identity{}), func(o *zmqmesh.GatewayOptions) {
		o.MaxTopics, o.MaxConnections, o.Logger = 3, 2, log.logger()
	})
	pub, _, _ := g.Addresses()
	idle := dialSocket(t, pub, zmq4.Sub)
	eventually(t, "it is there", func() bool { return g.Stats().Readers == 1 })
	idle.send(t, "\x00x") // is no use
	a := dialSocket(t, pub, zmq4.Sub)
	eventually(t, "both are there", func() bool { return g.Stats().Readers == 2 })
	b := dialSocket(t, pub, zmq4.Sub)
	_, err := idle.RecvMsg()
	require.Error(t, err, "it made way")
	eventually(t, "it is counted", func() bool { return g.Stats().Refused == 1 })
	eventually(t, "it is logged", func() bool { return log.has("made way for another") })

	a.send(t, "\x01"+strings.Repeat("n", 202)) // matches no name, so it costs nothing
	a.send(t, "\x02ignored")
	a.send(t, "\x01x\x00")
	a.send(t, "\x01y\x00")
	a.send(t, "\x01z")
	a.ready(t, hub, "y")
	a.send(t, "\x01x\x00")
	a.send(t, "\x01too many")
	_, err = a.RecvMsg()
	require.Error(t, err)
	eventually(t, "it is counted", func() bool { return g.Stats().Refused == 2 })
	a = dialSocket(t, pub, zmq4.Sub)
	a.send(t, "\x01z")
	a.send(t, "\x01x\x00")
	a.send(t, "\x00z")
	a.send(t, "\x01y\x00")
	a.ready(t, hub, "y")
	b.send(t, "\x01b")
	b.ready(t, hub, "b")
	c := dialSocket(t, pub, zmq4.Sub)
	_, err = c.RecvMsg()
	require.Error(t, err, "nobody makes way")
	eventually(t, "it is counted", func() bool { return g.Stats().Refused == 3 })
	publish(t, hub, "y", "still", "1")
	require.Equal(t, "still", a.next(t)[1])
}

// A reader that takes all topics there are, again and again, keeps nobody out
// who wants no more than an equal share.
func TestGatewayGreedyReader(t *testing.T) {
	hub := newHub(t, channels.Options{})
	var log logbook
	g := newGateway(t, hub.Bridge(channels.Identity{}), func(o *zmqmesh.GatewayOptions) {
		o.MaxTopics, o.MaxConnections, o.Logger = 9, 3, log.logger()
	})
	pub, _, _ := g.Addresses()
	greedy := func(n int) *socket {
		t.Helper()
		s := dialSocket(t, pub, zmq4.Sub)
		var all []byte
		for i := range n {
			all = append(all, frame(0, fmt.Sprintf("\x01greedy%d\x00", i))...)
		}
		_, err := s.tcp.Write(all) // at once, as it is hung up before it has read all
		require.NoError(t, err)
		return s
	}
	refused := int64(0)
	requireEnded := func(s *socket) {
		t.Helper()
		requireHungUp(t, s.tcp)
		refused++
		eventually(t, "it is counted, and nobody else", func() bool { return g.Stats().Refused == refused })
	}
	first := greedy(9)
	first.ready(t, hub, "greedy8")
	var honest []*socket
	for _, name := range []string{"a", "b"} {
		s := dialSocket(t, pub, zmq4.Sub)
		honest = append(honest, s)
		s.send(t, "\x01"+name+"1\x00")
		s.send(t, "\x01"+name)
		s.ready(t, hub, name+"1")
	}
	requireEnded(first)
	for range 20 {
		requireEnded(greedy(100))
	}
	last := greedy(5) // what is left
	last.ready(t, hub, "greedy4")
	honest[0].send(t, "\x01a3")
	requireEnded(last)
	for i, name := range []string{"a", "b"} {
		publish(t, hub, name+"1", "still", "1")
		require.Equal(t, "still", honest[i].next(t)[1])
	}
	// Who would have as many as the one that has the most does not end it.
	last = greedy(4)
	last.ready(t, hub, "greedy3")
	honest[0].send(t, "\x01a4")
	requireEnded(honest[0])
	publish(t, hub, "greedy3", "still", "1")
	require.Equal(t, "still", last.next(t)[1])
	eventually(t, "it is logged", func() bool { return log.has("MaxTopics") })
}

// slowHub publishes only when it is let.
type slowHub struct {
	zmqmesh.GatewayHub
	let chan struct{}
}

func (s slowHub) Publish(ctx context.Context, _, _ string, _ json.RawMessage) ([]byte, error) {
	select {
	case <-s.let:
		return []byte(`{}`), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// While publishing is slow, a PUSH socket is not read: it has to wait.
func TestGatewayHoldsPublishersUp(t *testing.T) {
	let := make(chan struct{})
	g := newGateway(t, slowHub{let: let}, nil)
	_, pull, _ := g.Addresses()
	s := dialSocket(t, pull, zmq4.Push)
	body := `"` + strings.Repeat("x", 1<<19) + `"`
	require.NoError(t, s.tcp.SetWriteDeadline(time.Now().Add(time.Second)))
	n := 0
	for ; n < 200 && s.SendMsg(zmq4.NewMsgFrom([]byte("a"), []byte("h"), []byte(body))) == nil; n++ {
	}
	require.Less(t, n, 100, "so much is not read ahead")
	let <- struct{}{}
	let <- struct{}{} // the next one was read only then
	eventually(t, "both are counted", func() bool { return g.Stats().Published == 2 })
}

func TestGatewayOptions(t *testing.T) {
	hub := slowHub{}
	for want, o := range map[string]zmqmesh.GatewayOptions{
		"zmqmesh: GatewayOptions.Hub is missing":                                {Pub: "tcp://127.0.0.1:0"},
		"zmqmesh: GatewayOptions has no address: set Pub, Pull or Rep":          {Hub: hub},
		"zmqmesh: GatewayOptions.Token has 3 bytes, which must be 16 or more":   {Hub: hub, Pull: "tcp://127.0.0.1:0", Token: []byte("abc")},
		`zmqmesh: GatewayOptions.Pull has "127.0.0.1:0", which must be tcp://h`: {Hub: hub, Pull: "127.0.0.1:0"},
		`GatewayOptions.Pub is "tcp://0.0.0.0:0", which others can reach`:       {Hub: hub, Pub: "tcp://0.0.0.0:0", Token: []byte("0123456789abcdef")},
		`GatewayOptions.Pull is "tcp://:0", which others can reach: set Token`:  {Hub: hub, Pull: "tcp://:0"},
		`GatewayOptions.Rep is "tcp://[::]:0", which others can reach`:          {Hub: hub, Rep: "tcp://[::]:0"},
		"GatewayOptions.MaxMessageBytes is 5, which must be 1024 to 67108864":   {Hub: hub, Rep: "tcp://127.0.0.1:0", MaxMessageBytes: 5},
		"GatewayOptions.MaxConnections is -1, which must be 1 to 4000":          {Hub: hub, Rep: "tcp://127.0.0.1:0", MaxConnections: -1},
		"GatewayOptions.MaxUnfinishedBytes is 9, which must be 2097152 to 107":  {Hub: hub, Rep: "tcp://127.0.0.1:0", MaxUnfinishedBytes: 9},
	} {
		_, err := zmqmesh.NewGateway(o)
		require.ErrorContains(t, err, want)
	}
	g := newGateway(t, hub, func(o *zmqmesh.GatewayOptions) { o.Pub, o.MaxMessageBytes = "", 64<<20 })
	pub, pull, _ := g.Addresses()
	require.Empty(t, pub)
	_, err := zmqmesh.NewGateway(zmqmesh.GatewayOptions{Hub: hub, Pub: "tcp://127.0.0.1:0", Pull: pull})
	require.ErrorContains(t, err, "address already in use")
	open := newGateway(t, hub, func(o *zmqmesh.GatewayOptions) { o.Pull, o.Token = "tcp://:0", []byte("0123456789abcdef") })
	require.NoError(t, open.Close())
	require.NoError(t, open.Close())
}

// The programs of docs/zeromq.md, unchanged except for the ports.
func TestGatewayProgramsOfTheDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/zeromq.md")
	require.NoError(t, err)
	blocks := strings.Split(string(page), "```python\n")
	require.GreaterOrEqual(t, len(blocks), 3)
	hub := newHub(t, channels.Options{})
	g := newGateway(t, hub.Bridge(channels.Identity{}), nil)
	pub, pull, rep := g.Addresses()
	text := func(i int) string {
		text, _, _ := strings.Cut(blocks[i], "```")
		return strings.NewReplacer("tcp://127.0.0.1:10022", pub, "tcp://127.0.0.1:10023", pull, "tcp://127.0.0.1:10024", rep).Replace(text)
	}
	reader := run(t, text(1))
	eventually(t, "the reader is subscribed", func() bool {
		c, err := hub.Channel(t.Context(), "news")
		return err == nil && c.Subscribers == 1
	})
	writer := run(t, text(2))
	require.Equal(t, "hello {'text': '안녕'}", reader.line(t))
	writer.end(t)
}
