package connect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"

	"github.com/channels-go/channels/e2e/internal/chromium"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/proctest"
)

// An agent is a program that drives clients of the JavaScript SDK as ../js/agent.mjs
// says: one for each platform and format, shared by all tests. It connects to the
// test. All methods may be called concurrently.
type agent struct {
	socket *websocket.Conn
	gone   chan struct{} // closed when it has ended

	mu      sync.Mutex // guards the fields below
	last    int        // the newest id of a command, or of a client
	answers map[int]chan answer
	tell    map[int]func(event) // by client
}

// An answer is what the agent says about a command.
type answer struct {
	result json.RawMessage
	err    error
}

type agentKey struct {
	platform string
	protobuf bool
}

// agents start at the first test that needs them. Stop ends them.
var agents = map[agentKey]func() (*agent, error){}

// home is the tests' own server: it has the pages' scripts, and the agents connect
// to it. dir has the profile of Chromium.
var home struct {
	*httptest.Server
	dir    string
	joined map[agentKey]chan *websocket.Conn
	stop   []func() error
}

// The SDK's files for pages, by format. They are those of its npm package.
var bundles = map[bool]string{false: "centrifuge.js", true: "centrifuge.protobuf.js"}

// startHome starts the server.
func startHome() (err error) {
	if home.dir, err = os.MkdirTemp("", "connect"); err != nil {
		return err
	}
	home.joined = map[agentKey]chan *websocket.Conn{}
	mux := http.NewServeMux()
	for protobuf, bundle := range bundles {
		mux.HandleFunc("/"+bundle, func(w http.ResponseWriter, r *http.Request) {
			http.ServeFile(w, r, filepath.Join("../js/node_modules/centrifuge/dist", bundle))
		})
		mux.HandleFunc("/page/"+bundle, func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `<!doctype html><title>agent</title><link rel="icon" href="data:,"><script src="/%s"></script>
				<script type="module">
					import { serve } from "/agent.mjs";
					serve(new WebSocket("ws://" + location.host + "/agent/page/%t"), { Centrifuge, protobuf: %[2]t, options: {} });
				</script>`, bundle, protobuf)
		})
		for platform, start := range map[string]func(protobuf bool) error{"node": startNode, "page": startPage} {
			key := agentKey{platform, protobuf}
			joined := make(chan *websocket.Conn, 1)
			home.joined[key] = joined
			mux.HandleFunc(fmt.Sprintf("/agent/%s/%t", platform, protobuf), func(w http.ResponseWriter, r *http.Request) {
				if c, err := websocket.Accept(w, r, nil); err == nil {
					c.SetReadLimit(-1)
					joined <- c
				}
			})
			agents[key] = sync.OnceValues(func() (*agent, error) {
				if err := start(protobuf); err != nil {
					return nil, err
				}
				ctx, cancel := context.WithTimeout(context.Background(), basetest.Patience)
				defer cancel()
				select {
				case c := <-joined:
					return newAgent(c), nil
				case <-ctx.Done():
					return nil, fmt.Errorf("the agent in %s has not connected", platform)
				}
			})
		}
	}
	mux.HandleFunc("/agent.mjs", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "../js/agent.mjs") })
	home.Server = httptest.NewServer(mux)
	return nil
}

// endHome ends the agents and the server.
func endHome() (err error) {
	for _, stop := range home.stop {
		err = errors.Join(err, stop())
	}
	home.Close()
	return errors.Join(err, os.RemoveAll(home.dir))
}

// atEnd has endHome call stop, too.
var atEnd = func() func(stop func() error) {
	var mu sync.Mutex
	return func(stop func() error) {
		mu.Lock()
		defer mu.Unlock()
		home.stop = append(home.stop, stop)
	}
}()

func startNode(protobuf bool) error {
	url := fmt.Sprintf("%s/agent/node/%t", home.URL, protobuf)
	node := exec.Command("node", "../js/agent-node.mjs", quoted(map[string]any{"url": url, "protobuf": protobuf}))
	node.Stdout, node.Stderr = os.Stdout, os.Stderr // it says nothing, unless it fails
	if err := proctest.Start(node); err != nil {
		return err
	}
	atEnd(func() error {
		node.Process.Kill()
		node.Wait()
		return nil
	})
	return nil
}

// browser is the Chromium of both formats.
var browser = sync.OnceValues(func() (context.Context, error) {
	running, err := chromium.Start(filepath.Join(home.dir, "chromium"))
	if err == nil {
		atEnd(func() error { return chromium.End(running, basetest.Patience) })
	}
	return running, err
})

func startPage(protobuf bool) error {
	running, err := browser()
	if err != nil {
		return err
	}
	tab, _ := chromedp.NewContext(running) // ends with Chromium
	return chromedp.Do(tab, chromedp.Navigate(home.URL+"/page/"+bundles[protobuf]))
}

func newAgent(c *websocket.Conn) *agent {
	a := &agent{socket: c, gone: make(chan struct{}), answers: map[int]chan answer{}, tell: map[int]func(event){}}
	go a.read() // ends with the agent
	return a
}

// read takes what the agent says.
func (a *agent) read() {
	defer close(a.gone)
	for {
		_, b, err := a.socket.Read(context.Background())
		if err != nil {
			return
		}
		var m struct {
			Client int
			Event  event
			ID     int
			Result json.RawMessage
			Error  *refusal
		}
		if err := json.Unmarshal(b, &m); err != nil {
			panic(fmt.Sprintf("%v in what an agent says: %s", err, b))
		}
		a.mu.Lock()
		tell, answered := a.tell[m.Client], a.answers[m.ID]
		delete(a.answers, m.ID)
		a.mu.Unlock()
		switch {
		case m.ID == 0:
			if tell != nil {
				tell(m.Event)
			}
		case answered == nil:
		case m.Error != nil:
			answered <- answer{err: m.Error}
		default:
			answered <- answer{result: m.Result}
		}
	}
}

// do sends a command for a client and returns its result.
func (a *agent) do(client int, command string, parameters any) (json.RawMessage, error) {
	answered := make(chan answer, 1)
	a.mu.Lock()
	a.last++
	id := a.last
	a.answers[id] = answered
	a.mu.Unlock()

	fields := map[string]any{}
	if err := json.Unmarshal([]byte(quoted(parameters)), &fields); err != nil {
		return nil, err
	}
	fields["id"], fields["client"], fields["command"] = id, client, command
	ctx, cancel := context.WithTimeout(context.Background(), basetest.Patience)
	defer cancel()
	if err := a.socket.Write(ctx, websocket.MessageText, []byte(quoted(fields))); err != nil {
		return nil, err
	}
	select {
	case got := <-answered:
		return got.result, got.err
	case <-a.gone:
		return nil, errors.New("the agent has ended")
	case <-ctx.Done():
		return nil, fmt.Errorf("the agent does not answer %s %v", command, fields)
	}
}
