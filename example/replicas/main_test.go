package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/channels-go/channels/example/internal/webtest"
	"github.com/channels-go/channels/internal/hubtest"
)

// asProgram is the environment variable that makes the test binary run the
// program.
const asProgram = "REPLICAS_AS_PROGRAM"

// TestMain also runs the program that the tests start, and its replicas.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == replicaCommand || os.Getenv(asProgram) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for an event that must come.
const patience = time.Minute

// program runs the program with n replicas until the test ends, and returns its
// address.
func program(t *testing.T, n int) (address string) {
	t.Helper()
	out, in := io.Pipe()
	webtest.Run(t, func(ctx context.Context) error {
		defer in.Close()
		return run(ctx, "127.0.0.1:0", n, replicaConfig{}, false, in)
	})
	line := make([]byte, 200)
	k, err := out.Read(line)
	require.NoError(t, err)
	return addressIn(string(line[:k]))
}

// addressIn returns the first address in what the program prints.
func addressIn(text string) string {
	_, address, _ := strings.Cut(text, "http://")
	address, _, _ = strings.Cut(address, "/")
	return address
}

func call(t *testing.T, method, url string, header ...string) (int, string) {
	t.Helper()
	return webtest.Call(t, http.DefaultClient, method, url, "", header...)
}

// wantStatus makes a request that must get this status, and returns the answer.
func wantStatus(t *testing.T, status int, method, url string, header ...string) string {
	t.Helper()
	return webtest.Want(t, http.DefaultClient, status, method, url, "", header...)
}

func states(t *testing.T, address string) []state {
	t.Helper()
	_, body := call(t, "GET", "http://"+address+"/replicas")
	var list struct{ Data []state }
	require.NoError(t, json.Unmarshal([]byte(body), &list))
	return list.Data
}

// ready waits until n replicas are ready.
func ready(t *testing.T, address string, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		count := 0
		for _, s := range states(t, address) {
			if s.Ready {
				count++
			}
		}
		return count == n
	}, patience, 20*time.Millisecond)
}

// join enters the lobby, until t ends.
func join(t *testing.T, address string) *websocket.Conn {
	t.Helper()
	c, _, err := hubtest.Dial(t, "http://"+address+"/channel/lobby/", websocket.DialOptions{})
	require.NoError(t, err)
	return c
}

func TestBalancerSkipsKilledReplicas(t *testing.T) {
	a := program(t, 3)
	ready(t, a, 3)
	for _, n := range []string{"1", "3"} {
		wantStatus(t, http.StatusNoContent, "POST", "http://"+a+"/replicas/"+n+"/kill")
		for range 10 { // immediately, and every time
			wantStatus(t, http.StatusOK, "GET", "http://"+a+"/v1/channel")
		}
	}
	s := states(t, a)
	require.Zero(t, s[0].PID)
	require.NotZero(t, s[1].PID)
	wantStatus(t, http.StatusNoContent, "POST", "http://"+a+"/replicas/2/kill")
	body := wantStatus(t, http.StatusBadGateway, "GET", "http://"+a+"/v1/channel")
	require.Contains(t, body, "no replica can be reached")

	for _, n := range []string{"1", "2", "2"} { // started twice, it runs once
		wantStatus(t, http.StatusNoContent, "POST", "http://"+a+"/replicas/"+n+"/start")
	}
	ready(t, a, 2)
}

// The balancer sends each WebSocket to the replica with the fewest connections.
// When the program ends, clients are told when to reconnect.
func TestWebSocketsAreSpreadAndDrained(t *testing.T) {
	var conns []*websocket.Conn
	outer := t
	t.Run("run", func(t *testing.T) {
		a := program(t, 3)
		ready(t, a, 3)
		seen := map[string]bool{}
		for i := range 3 {
			c, _, err := hubtest.Dial(outer, "http://"+a+"/channel/lobby/", websocket.DialOptions{}) // for longer than this subtest
			require.NoError(t, err)
			text := fmt.Sprint("from ", i)
			require.NoError(t, c.Write(t.Context(), websocket.MessageText, fmt.Appendf(nil, `{"header":"say","body":{"text":%q}}`, text)))
			for said := (say{}); said.Text != text; { // beside who joins, and the answer
				m, err := webtest.Next(c)
				require.NoError(t, err)
				if m.Header == "say" {
					require.NoError(t, json.Unmarshal(m.Body, &said))
					seen[said.Node] = true
				}
			}
			conns = append(conns, c)
		}
		require.Len(t, seen, 3)
	})
	for _, c := range conns {
		told := false
		m, err := webtest.Next(c)
		for ; err == nil; m, err = webtest.Next(c) {
			told = told || m.Header == "reconnect"
		}
		require.Equal(t, websocket.StatusGoingAway, websocket.CloseStatus(err), "%v", err)
		require.True(t, told)
	}
}

// A restarted replica listens on another port, and the others find it.
func TestReplicasFindEachOther(t *testing.T) {
	a := program(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	for range 2 {
		ready(t, a, 3)
		var all []*websocket.Conn
		for range 3 { // one at each replica
			all = append(all, join(t, a))
		}
		heard := make([]map[string]bool, len(all)) // by client: the replicas that it has heard
		for i := range heard {
			heard[i] = map[string]bool{}
		}
		for slices.ContainsFunc(heard, func(h map[string]bool) bool { return len(h) < len(all) }) { // linking takes a moment
			for _, c := range all {
				require.NoError(t, c.Write(ctx, websocket.MessageText, []byte(`{"header":"say","body":{"text":"hello"}}`)))
			}
			for i, c := range all {
				for answered := false; !answered; {
					m, err := webtest.Next(c)
					require.NoError(t, err, "heard: %v", heard)
					switch answered = m.Header == "exchange"; m.Header {
					case "say":
						var s say
						require.NoError(t, json.Unmarshal(m.Body, &s))
						heard[i][s.Node] = true
					case "error":
						require.FailNow(t, "refused", "%s", m.Body)
					}
				}
			}
		}
		for _, c := range all {
			c.CloseNow()
		}
		for _, what := range []string{"/kill", "/start"} {
			wantStatus(t, http.StatusNoContent, "POST", "http://"+a+"/replicas/2"+what)
		}
	}
}

// Only a user of this machine can kill a replica; a page of another website
// cannot.
func TestOnlyThisMachineKillsReplicas(t *testing.T) {
	a := program(t, 1)
	kill := "http://" + a + "/replicas/1/kill"
	for name, header := range map[string][]string{
		"another website":             {"Origin", "https://evil.example"},
		"another website, no Origin":  {"Sec-Fetch-Site", "cross-site"},
		"a name that points here":     {"Host", "evil.example"},
		"a name that looks like this": {"Host", "127.0.0.1.evil.example:80"},
	} {
		want := http.StatusForbidden
		if header[0] == "Host" { // the program serves no such host
			want = http.StatusMisdirectedRequest
		}
		t.Run(name, func(t *testing.T) { wantStatus(t, want, "POST", kill, header...) })
	}
	for path, want := range map[string]int{"/replicas/0/kill": 404, "/replicas/2/kill": 404, "/replicas/x/start": 404} {
		wantStatus(t, want, "POST", "http://"+a+path)
	}
	code, _ := call(t, "GET", kill)
	require.NotEqual(t, http.StatusNoContent, code)
	require.NotZero(t, states(t, a)[0].PID)
	wantStatus(t, http.StatusNoContent, "POST", kill, "Origin", "http://"+a)

	for host, is := range map[string]bool{"127.0.0.1:80": true, "localhost": true, "[::1]:1": true, "127.8.8.8:1": true,
		"192.0.2.1:1": false, "": false, "localhost.evil.example": false} {
		require.Equal(t, is, loopback(host), host)
	}
}

func TestPageLoadsOnlyItsOwn(t *testing.T) {
	webtest.PageLoadsOnlyItsOwn(t, routes(&supervisor{}, &load{}), page)
}

func TestWhatIsRefused(t *testing.T) {
	for _, n := range []int{0, 10} {
		require.ErrorContains(t, run(t.Context(), "127.0.0.1:0", n, replicaConfig{}, false, io.Discard), "1 to 9")
	}
	require.ErrorContains(t, run(t.Context(), "no address", 1, replicaConfig{}, false, io.Discard), "-addr: ")
	err := run(t.Context(), "127.0.0.1:0", 1, replicaConfig{Redis: "http://:hush@a"}, false, io.Discard)
	require.ErrorContains(t, err, "redis://HOST:PORT")
	require.NotContains(t, err.Error(), "hush")
	require.ErrorContains(t, runReplica(strings.NewReader(""), io.Discard), "no configuration")
	require.Error(t, runReplica(strings.NewReader("{\n"), io.Discard))
}

// If a replica runs but does not accept connections, the balancer tries the
// next one and gives back the count.
func TestBalancerTriesTheNext(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) }))
	defer backend.Close()
	none := httptest.NewServer(nil)
	none.Close()
	self, err := os.FindProcess(os.Getpid())
	require.NoError(t, err)
	lame := &replica{process: self, ready: true, at: addresses{HTTP: none.Listener.Addr().String()}}
	well := &replica{process: self, ready: true, conns: 5, at: addresses{HTTP: backend.Listener.Addr().String()}}
	s := &supervisor{all: []*replica{lame, well}}
	front := httptest.NewServer(balance(s, s.choose))
	defer front.Close()
	body := wantStatus(t, http.StatusOK, "GET", front.URL)
	http.DefaultClient.CloseIdleConnections()
	require.Equal(t, front.Listener.Addr().String(), body, "the request keeps the Host that the page used")
	require.Eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return lame.conns == 0 && well.conns == 5
	}, patience, time.Millisecond)
}

// The operators' page stays with one replica as long as that is ready, however
// many connections it has.
func TestOperatorsStayWithOneReplica(t *testing.T) {
	old, young := &replica{number: 1, conns: 9, at: addresses{HTTP: "old"}}, &replica{number: 2, ready: true, at: addresses{HTTP: "young"}}
	s := &supervisor{all: []*replica{old, young}}
	next := func(tried ...*replica) string {
		_, address := s.first(tried)
		return address
	}
	require.Equal(t, "young", next(), "the other one is not ready")
	old.ready = true
	require.Equal(t, "old", next())
	require.Equal(t, "young", next(old))
	require.Empty(t, next(old, young))
	young.conns = 0
	_, address := s.choose(nil)
	require.Equal(t, "young", address, "everything else is spread")
}
