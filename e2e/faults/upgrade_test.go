//go:build linux

package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/redismesh"
	"github.com/channels-go/channels/mesh/zmqmesh"
	"github.com/channels-go/channels/store/redisstore"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// earlier is the commit that stands for the build that an upgrade replaces: the
// last one before the client protocol. Since then, packets of the mesh and entries
// of the Store have got more parts. Once there is a release, it is the last one.
const earlier = "4bee52010e691550f9163c0b294c740ae0282ed7"

// buildEarlier builds example/server of the commit earlier from the history.
func buildEarlier(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	run := func(in string, argv ...string) string {
		cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
		cmd.Dir = in
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s\n%s", cmd, out)
		return strings.TrimSpace(string(out))
	}
	const root = "../.."
	require.Equal(t, "false", run(root, "git", "rev-parse", "--is-shallow-repository"), "the earlier build comes from the history: git fetch --unshallow")
	source, server := filepath.Join(dir, "source"), filepath.Join(dir, "server")
	run(root, "git", "archive", "--prefix=source/", "--output="+source+".tar", earlier)
	run(dir, "tar", "-xf", source+".tar")
	run(source, "go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", server, "./example/server")
	return server
}

// runs makes the replica one of a build. An earlier one refuses a variable that it does
// not know.
func (r *replica) runs(build string) {
	r.argv[0], r.env = build, nil
	if build != binary {
		r.env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "CHANNELS_POLLER=") })
	}
}

// Replicas are upgraded one after the other under load, and one is taken back.
// Builds side by side understand each other: what is published on one arrives at
// the other, nothing is lost where there is a history, and clients resume on
// either.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	old := buildEarlier(t)
	for _, kind := range []string{"zmq", "redis"} {
		t.Run(kind+", traced", func(t *testing.T) {
			t.Parallel()
			readTraced(t, kind, old)
		})
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			all := three(t, redistest.Start(t), quiet, func(r *replica) {
				r.runs(old)
				if kind == "redis" {
					r.overRedis()
				}
			})
			c := check(t, all, 6, 4, *pace)
			replace := func(r *replica, by string) {
				t.Helper()
				c.more(50)
				r.terminate()
				r.runs(by)
				r.start()
				linked(t, all...)
				c.more(50)
			}
			replace(all[0], binary)
			understand(t, all[0], all[1])
			replace(all[1], binary)
			replace(all[0], old)
			understand(t, all[1], all[0])
			replace(all[0], binary)
			replace(all[2], binary)
			c.verify()
			green(t, all...)
		})
	}
}

// understand requires that two builds understand each other.
func understand(t *testing.T, one, other *replica) {
	t.Helper()
	green(t, one, other)
	for _, way := range [][]*replica{{one, other}, {other, one}} {
		from, to := way[0], way[1]
		channel := fmt.Sprintf("from-%s-to-%s", from.name, to.name)
		f := listen(t, to, channel)
		for range 20 {
			f.publish(from)
		}
		ws, err := dial(t.Context(), from, channel+"/")
		require.NoError(t, err)
		say(t, ws, f.n)
		ws.CloseNow()
		m, err := receive(t.Context(), f.ws)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(f.n), text(m))
		for _, r := range way { // one of them has the subscriber, and both say so
			eventually(t, "each lists the subscriber", func() bool {
				var a struct{ Data struct{ Cnt int } }
				_, body := r.get("/v1/channel/" + channel)
				return json.Unmarshal(body, &a) == nil && a.Data.Cnt == 1
			})
		}
		resumes(t, from, to)
	}
}

// resumes has a client read on one replica, and then on the other from where it
// was, and the first one again. Each time, it publishes before it leaves.
func resumes(t *testing.T, one, other *replica) {
	t.Helper()
	channel := fmt.Sprintf("keep-%s-%s", one.name, other.name)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	at, n := "", 0
	var want []string
	publish := func(by func()) {
		n++
		want = append(want, fmt.Sprint(n))
		by()
	}
	for _, r := range []*replica{one, other, one} {
		for _, by := range []*replica{one, other} {
			publish(func() {
				a, err := post(patient, by, channel, fmt.Sprint(n), "")
				require.NoError(t, err)
				if at == "" { // where the client begins
					at = fmt.Sprintf("%s:%d", a.Epoch, a.Offset-1)
				}
			})
		}
		ws, err := dial(ctx, r, channel+"/?since="+at)
		require.NoError(t, err)
		var got []string
		for range want {
			m, err := receive(ctx, ws)
			require.NoError(t, err)
			got, at = append(got, text(m)), fmt.Sprintf("%s:%d", m.Epoch, m.Offset)
		}
		require.Equal(t, want, got, "on %s", r.name)
		want = nil
		publish(func() { say(t, ws, n) })
		ws.CloseNow()
	}
}

// tracer traces every message. It counts them.
type tracer struct{ n atomic.Int64 }

func (*tracer) Begin(ctx context.Context, _ channels.Step) context.Context { return ctx }
func (*tracer) End(context.Context, channels.Step, error)                  {}
func (*tracer) Extract(ctx context.Context, _ []byte) context.Context      { return ctx }
func (tr *tracer) Inject(context.Context) []byte {
	tr.n.Add(1)
	return []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
}

// readTraced has a hub of this build, in this process, send messages with traces to an
// earlier build, which knows no traces.
func readTraced(t *testing.T, kind, old string) {
	t.Helper()
	redis := redistest.Start(t)
	r := newReplica(t, "a", "127.0.0.1", nil, "-redis", "redis://"+redis.Addr+"/0")
	quiet(r)
	r.runs(old)
	client := redistest.NewClient(t, redis.Addr)
	var m mesh.Mesh
	var err error
	if kind == "redis" {
		r.overRedis()
		m, err = redismesh.New(client, redismesh.Options{ReplicaID: "traced"})
	} else {
		m, err = zmqmesh.New(zmqmesh.Options{ReplicaID: "traced", Listen: "tcp://127.0.0.1:0"})
	}
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	st, err := redisstore.New(client, redisstore.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { st.Close() })
	r.start()
	hub := hubtest.NewHub(t, channels.Options{Store: st, Mesh: m, Channel: func(name string) (o channels.ChannelOptions) {
		if name == kept {
			o.HistorySize, o.HistoryTTL = 1000, time.Hour
		}
		return o
	}})
	tr := &tracer{}
	hub.Observe(tr)
	publish := func(channel, body string) {
		t.Helper()
		_, err := hub.Publish(t.Context(), channel, hubtest.Msg("m", fmt.Sprintf("%q", body)))
		require.NoError(t, err)
	}
	free, keep := listen(t, r, "free"), listen(t, r, kept)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	first := make(chan error, 1)
	go func() { // ends with ctx
		_, err := receive(ctx, free.ws)
		first <- err
	}()
	eventually(t, "the earlier build hears this one", func() bool {
		publish("free", "first")
		return len(first) > 0
	})
	require.NoError(t, <-first)
	var want []string
	for n := range 50 {
		want = append(want, fmt.Sprint(n))
		publish("free", fmt.Sprint(n))
		publish(kept, fmt.Sprint(n))
	}
	keep.reads(strings.Join(want, " "))
	for len(free.got) < len(want) {
		m, err := receive(ctx, free.ws)
		require.NoError(t, err)
		if body := text(m); body != "first" {
			free.got = append(free.got, body)
		}
	}
	require.Equal(t, want, free.got)
	require.GreaterOrEqual(t, tr.n.Load(), int64(2*len(want)))
	require.Equal(t, 0, r.nodes()["a"].Mesh.Refused)
}

// say publishes over a connection, which makes its client the message's publisher,
// and waits for the answer.
func say(t *testing.T, ws *websocket.Conn, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, ws.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"header":"m","body":"%d"}`, n)))
	for {
		m, err := receive(ctx, ws)
		require.NoError(t, err)
		if m.Header == "exchange" {
			return
		}
		require.Equal(t, "m", m.Header, "it received %+v", m) // its own message comes first or last
	}
}
