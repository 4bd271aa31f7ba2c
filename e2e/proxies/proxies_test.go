//go:build linux

package proxies

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/middleware"
)

// behind is an app with channels behind a proxy.
type behind struct {
	*proxy
	*client
	hub   *channels.Hub
	came  chan channels.Client // connections that were let in
	ended context.Context      // of what /silent holds
}

// serve starts an app as docs/operations.md and docs/security.md say, and a proxy.
func serve(t *testing.T, kind string) *behind {
	t.Helper()
	b := &behind{came: make(chan channels.Client, 1000)}
	trust, err := middleware.TrustProxies(netip.MustParsePrefix("127.0.0.1/32"))
	require.NoError(t, err)
	var stop context.CancelFunc
	b.ended, stop = context.WithCancel(context.Background())
	app := hubtest.Serve(t, channels.Options{
		PingPeriod: pingPeriod,
		Hosts:      []string{site},
		Channel: func(name string) (o channels.ChannelOptions) {
			if strings.HasPrefix(name, "keep") {
				o.HistorySize, o.HistoryTTL = 100_000, time.Hour
			}
			return o
		},
		OnConnect: func(_ context.Context, c channels.Client) error {
			b.came <- c
			return nil
		},
	}, b.orSilence, trust)
	t.Cleanup(stop) // before the server, which waits for its requests
	b.hub = app.Hub
	host, port, err := net.SplitHostPort(app.HTTP.Listener.Addr().String())
	require.NoError(t, err)
	b.proxy = start(t, kind, target{host: host, port: port})
	b.client = newClient(t, b.proxy)
	return b
}

// orSilence serves /silent: a WebSocket or a stream that opens, and says nothing more.
func (b *behind) orSilence(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/silent" {
			next.ServeHTTP(w, r)
			return
		}
		if r.Header.Get("Upgrade") == "" {
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
		} else if ws, err := websocket.Accept(w, r, nil); err == nil {
			defer ws.CloseNow()
		}
		<-b.ended.Done()
	})
}

func TestProxies(t *testing.T) {
	for kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := serve(t, kind)
			t.Run("together", func(t *testing.T) { // since they mostly wait
				for door := range doors {
					t.Run("passes each message at once/"+door, func(t *testing.T) {
						t.Parallel()
						b.passes(t, door)
					})
					t.Run("keeps what is idle/"+door, func(t *testing.T) {
						t.Parallel()
						b.keeps(t, door)
					})
				}
				if b.cuts {
					t.Run("cuts what is silent", func(t *testing.T) {
						t.Parallel()
						b.cutsSilence(t)
					})
				}
			})
			t.Run("tells who a client is", b.tells)
			t.Run("tells by which name and from which page", b.asks)
			t.Run("logs no query", b.logs)
			t.Run("is reloaded and restarted", b.restarts)
		})
	}
}

// passes requires that each message arrives while its stream is open and nothing follows
// it, in both directions.
func (b *behind) passes(t *testing.T, door string) {
	channel := "passes-" + strings.ReplaceAll(door, "/", "-")
	r := open(t, b.client, door, "keep-"+channel)
	if door == "events" {
		assert.Equal(t, b.tls != nil, r.http2, "HTTP/2")
	}
	for i := range 5 {
		body := fmt.Sprint("server ", i)
		_, err := b.hub.Publish(t.Context(), "keep-"+channel, hubtest.Msg("m", fmt.Sprintf("%q", body)))
		require.NoError(t, err)
		require.Equal(t, body, r.next(t).body)
	}
	if r.publish == nil {
		return
	}
	for i := range 5 {
		body := fmt.Sprint("client ", i)
		require.NoError(t, r.publish(body))
		require.Equal(t, body, r.next(t).body)
	}
}

// next returns the next message.
func (r *reader) next(t *testing.T) event {
	t.Helper()
	for began := time.Now(); ; {
		if e := r.event(t); !e.ping {
			return e
		}
		require.Less(t, time.Since(began), basetest.Patience, "only pings come")
	}
}

// event returns what comes next, be it a ping.
func (r *reader) event(t *testing.T) (e event) {
	t.Helper()
	select {
	case e, ok := <-r.events:
		require.True(t, ok, "the connection has ended")
		return e
	case <-time.After(basetest.Patience):
		require.FailNow(t, "nothing comes")
		return e
	}
}

// keeps requires that a connection on which only pings come is kept for longer than the
// proxy's timeout.
func (b *behind) keeps(t *testing.T, door string) {
	channel := "keep-idle-" + strings.ReplaceAll(door, "/", "-")
	r := open(t, b.client, door, channel)
	limit, err := time.ParseDuration(idle)
	require.NoError(t, err)
	began := time.Now()
	for time.Since(began) < limit+time.Second {
		require.True(t, r.event(t).ping)
	}
	_, err = b.hub.Publish(t.Context(), channel, hubtest.Msg("m", `"still there"`))
	require.NoError(t, err)
	require.Equal(t, "still there", r.next(t).body)
}

// cutsSilence requires that the proxy's timeout ends what has no pings. So they are what
// keeps the others.
func (b *behind) cutsSilence(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), basetest.Patience)
	defer cancel()
	ws, err := b.dial(ctx, "/silent", websocket.DialOptions{})
	require.NoError(t, err)
	defer ws.CloseNow()
	resp, err := b.request(ctx, "GET", "/silent", "")
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)

	_, _, err = ws.Read(ctx)
	require.Error(t, err)
	require.NoError(t, ctx.Err(), "the WebSocket is still open")
	io.Copy(io.Discard, resp.Body)
	require.NoError(t, ctx.Err(), "the stream is still open")
}

// tells requires that the hub knows the client's address, whatever the client says.
func (b *behind) tells(t *testing.T) {
	for _, said := range []string{"", "203.0.113.9"} {
		for len(b.came) > 0 { // those before
			<-b.came
		}
		ws, err := b.dial(t.Context(), "/channel/who/", websocket.DialOptions{HTTPHeader: hubtest.Pairs([]string{"X-Forwarded-For", said})})
		require.NoError(t, err)
		ws.CloseNow()
		select {
		case c := <-b.came:
			host, _, err := net.SplitHostPort(c.RemoteAddr)
			if err != nil {
				host = c.RemoteAddr
			}
			require.Equal(t, home, host)
		case <-time.After(basetest.Patience):
			require.FailNow(t, "nobody has come")
		}
	}
}

// asks requires that the hub sees by which name it was called, and from which page.
func (b *behind) asks(t *testing.T) {
	from := func(origin string) (int, error) {
		status, _, err := b.answer(t.Context(), "POST", "/v1/channel/caf%C3%A9/publish", `{"header":"m","body":1}`, "Origin", origin)
		return status, err
	}
	status, err := from(b.scheme + "://" + site)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)
	status, err = from("https://evil.example")
	require.NoError(t, err)
	require.Equal(t, http.StatusForbidden, status)

	ws, err := b.dial(t.Context(), "/channel/page/", websocket.DialOptions{HTTPHeader: hubtest.Pairs([]string{"Origin", b.scheme + "://" + site})})
	require.NoError(t, err)
	ws.CloseNow()
	_, err = b.dial(t.Context(), "/channel/page/", websocket.DialOptions{HTTPHeader: hubtest.Pairs([]string{"Origin", "https://evil.example"})})
	require.ErrorContains(t, err, "403")

	status, body, err := b.answer(t.Context(), "GET", "/v1/channel/page", "", "Host", "evil.example")
	require.NoError(t, err)
	if b.tls != nil { // Caddy has no such site, and answers itself
		require.Empty(t, body)
		return
	}
	require.Equal(t, http.StatusMisdirectedRequest, status, body)
}

// logs requires that what a URL may hide is not written down.
func (b *behind) logs(t *testing.T) {
	_, _, err := b.answer(t.Context(), "GET", "/v1/channel/logged?token=hush", "")
	require.NoError(t, err)
	status, _, err := b.answer(t.Context(), "GET", "/healthz", "")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)
	if b.cuts { // Caddy logs no requests unless it is told to
		basetest.Eventually(t, "the proxy logs requests", func() bool { return b.log.Has("/healthz") && b.log.Has("/v1/channel/logged") })
	}
	require.False(t, b.log.Has("hush"))
}

// restarts requires that clients of each door lose nothing while the proxy reads its
// configuration again, and while it is restarted.
func (b *behind) restarts(t *testing.T) {
	const channel = "keep-restarts"
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	published := 0
	more := func(n int) (last channels.Result) {
		t.Helper()
		for range n {
			published++
			var err error
			last, err = b.hub.Publish(t.Context(), channel, hubtest.Msg("m", fmt.Sprintf(`"%d"`, published)))
			require.NoError(t, err)
		}
		return last
	}
	first := more(1).Position
	all := map[string]*follower{}
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	for door := range doors {
		f := &follower{c: b.client, door: door, channel: channel, at: fmt.Sprintf("%s:%d", first.Epoch, first.Offset-1)}
		all[door] = f
		running.Go(func() { f.run(ctx) })
	}
	caughtUp := func() {
		t.Helper()
		for door, f := range all {
			basetest.Eventually(t, door+" has everything", func() bool {
				got, _ := f.state()
				return len(got) >= published
			})
		}
	}
	more(20)
	caughtUp()
	b.reload()
	more(20)
	caughtUp()

	before := map[string]int{}
	for door, f := range all {
		_, before[door] = f.state()
	}
	b.stop()
	more(20) // nobody can come
	b.run()
	more(20)
	caughtUp()
	stop()
	running.Wait()
	var want []string
	for i := range published {
		want = append(want, fmt.Sprint(i+1))
	}
	for door, f := range all {
		got, connects := f.state()
		require.Equal(t, want, got, door)
		require.Greater(t, connects, before[door], "%s came back", door)
	}
}

// A follower reads a channel through one door, and comes back when the connection ends.
type follower struct {
	c             *client
	door, channel string

	mu       sync.Mutex // guards the fields below
	got      []string
	at       string // where it was, at first before the first message
	connects int
}

func (f *follower) state() (got []string, connects int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.got, f.connects
}

func (f *follower) run(ctx context.Context) {
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for ctx.Err() == nil {
		r, err := doors[f.door](f.c, ctx, f.channel, f.since())
		if err != nil {
			select {
			case <-again.C: // the proxy is away
			case <-ctx.Done():
			}
			continue
		}
		f.mu.Lock()
		f.connects++
		f.mu.Unlock()
		for e := range r.events {
			if !e.ping {
				f.mu.Lock()
				f.got, f.at = append(f.got, e.body), e.at
				f.mu.Unlock()
			}
		}
		r.end()
	}
}

// since is where the follower was.
func (f *follower) since() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at
}
