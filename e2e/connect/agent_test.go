package connect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"

	"github.com/channels-go/channels/client/js"
	"github.com/channels-go/channels/e2e/internal/chromium"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/proctest"
)

// An agent is a program that drives clients of a JavaScript SDK as ../js/agent.mjs
// says: one for each platform and SDK, shared by all tests. It connects to the
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

type agentKey struct{ platform, sdk string }

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

// The SDKs: npm's, for each of its formats, and the hub's own. They are named after
// their files for pages.
const (
	sdkJSON     = "centrifuge.js"
	sdkProtobuf = "centrifuge.protobuf.js"
	sdkOwn      = "channels.js"
)

// startHome starts the server.
func startHome() (err error) {
	if home.dir, err = os.MkdirTemp("", "connect"); err != nil {
		return err
	}
	home.joined = map[agentKey]chan *websocket.Conn{}
	mux := http.NewServeMux()
	for _, sdk := range []string{sdkJSON, sdkProtobuf, sdkOwn} {
		mux.HandleFunc("/"+sdk, func(w http.ResponseWriter, r *http.Request) {
			if sdk == sdkOwn { // as a hub serves it
				w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
				io.WriteString(w, js.Module())
				return
			}
			http.ServeFile(w, r, filepath.Join("../js/node_modules/centrifuge/dist", sdk))
		})
		mux.HandleFunc("/page/"+sdk, func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `<!doctype html><title>agent</title><link rel="icon" href="data:,">`+pages[sdk], sdk)
		})
		for platform, start := range map[string]func(sdk string) error{"node": startNode, "page": startPage} {
			key := agentKey{platform, sdk}
			joined := make(chan *websocket.Conn, 1)
			home.joined[key] = joined
			mux.HandleFunc("/agent/"+platform+"/"+sdk, func(w http.ResponseWriter, r *http.Request) {
				if c, err := websocket.Accept(w, r, nil); err == nil {
					c.SetReadLimit(-1)
					joined <- c
				}
			})
			agents[key] = sync.OnceValues(func() (*agent, error) {
				if err := start(sdk); err != nil {
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
	for _, file := range []string{"agent.mjs", "agent-channels.mjs"} {
		mux.HandleFunc("/"+file, func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "../js/"+file) })
	}
	home.Server = httptest.NewServer(mux)
	return nil
}

// pages are the agents in a page, by the name of their SDK, which they are given.
var pages = map[string]string{
	sdkJSON:     pageOfCentrifuge,
	sdkProtobuf: pageOfCentrifuge,
	sdkOwn: `<script type="module">
		import { connect } from "/%s";
		import { serve } from "/agent-channels.mjs";
		serve(new WebSocket("ws://" + location.host + "/agent/page/%[1]s"), { connect, options: {} });
	</script>`,
}

const pageOfCentrifuge = `<script src="/%s"></script>
	<script type="module">
		import { serve } from "/agent.mjs";
		const sdk = "%[1]s";
		serve(new WebSocket("ws://" + location.host + "/agent/page/" + sdk), { Centrifuge, protobuf: sdk.includes("protobuf"), options: {} });
	</script>`

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

func startNode(sdk string) error {
	node := exec.Command("node", "../js/agent-node.mjs", quoted(map[string]any{"url": home.URL + "/agent/node/" + sdk, "sdk": sdk}))
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

// browser is the Chromium of all pages.
var browser = sync.OnceValues(func() (context.Context, error) {
	running, err := chromium.Start(filepath.Join(home.dir, "chromium"))
	if err == nil {
		atEnd(func() error { return chromium.End(running, basetest.Patience) })
	}
	return running, err
})

func startPage(sdk string) error {
	running, err := browser()
	if err != nil {
		return err
	}
	tab, _ := chromedp.NewContext(running) // ends with Chromium
	return chromedp.Do(tab, chromedp.Navigate(home.URL+"/page/"+sdk))
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
