package zmqgateway_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/go-zeromq/zmq4"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/zmtp/zmtptest"
)

// A program is a running Python program.
type program struct {
	cmd   *exec.Cmd
	in    io.Writer
	lines chan string // what it prints
	ended chan error  // has its end, once
}

// run starts a Python program, with all that zmq has, and sys.argv.
func run(t testing.TB, text string, args ...string) *program {
	t.Helper()
	cmd := exec.Command(zmtptest.Python(t), append([]string{"-u", "-c", text}, args...)...)
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

// Four SUB sockets of libzmq, with its heartbeats on, read a channel, a
// beginning, everything, and a channel on which nothing comes. Without answers to
// its PINGs, libzmq would disconnect after 3 s.
func TestReadersOfLibzmq(t *testing.T) {
	t.Parallel()
	hub, g := start(t)
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
`, pubOf(g))
	ready := map[string]bool{}
	eventually(t, "three of them read", func() bool {
		publish(t, hub, "news", "probe", "0")
		for len(p.lines) > 0 {
			var line []any
			require.NoError(t, json.Unmarshal([]byte(p.line(t)), &line))
			ready[line[0].(string)] = true
		}
		return len(ready) == 3
	})
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

// Two PUSH sockets of libzmq publish, each in its order. A third deals to two
// replicas, and a fourth is killed while it sends.
func TestPublishersOfLibzmq(t *testing.T) {
	t.Parallel()
	hub := newHub(t, channels.Options{QueueBytes: 256 << 20})
	a, b := newGateway(t, nobody(hub)), newGateway(t, nobody(hub))
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
`, pullOf(a), pullOf(b))
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
		if m.Header != "hé3" { // goes two ways
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
`, pullOf(a))
	last := dialPush(t, a)
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

// REQ and DEALER sockets of libzmq get the answers of HTTP.
func TestRequestsOfLibzmq(t *testing.T) {
	t.Parallel()
	hub := newHub(t, channels.Options{Authorize: func(_ context.Context, r channels.Request) error {
		if r.Identity.ID != "zmq" || strings.HasPrefix(r.Channel, "closed") {
			return channels.ErrForbidden
		}
		return nil
	}})
	g := newGateway(t, hub.Bridge(channels.Identity{ID: "zmq"}))
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
`, repOf(g))
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

// The programs of docs/zeromq.md, unchanged except for the ports.
func TestProgramsOfTheDocs(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/zeromq.md")
	require.NoError(t, err)
	_, chapter, _ := bytes.Cut(page, []byte("\n## Reading and publishing\n"))
	blocks := strings.Split(string(chapter), "```python\n")
	require.GreaterOrEqual(t, len(blocks), 3)
	hub, g := start(t)
	text := func(i int) string {
		text, _, _ := strings.Cut(blocks[i], "```")
		return strings.NewReplacer("tcp://127.0.0.1:10022", pubOf(g), "tcp://127.0.0.1:10023", pullOf(g), "tcp://127.0.0.1:10024", repOf(g)).Replace(text)
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
