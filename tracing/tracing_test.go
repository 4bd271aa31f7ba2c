package tracing_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/meshtest"
	"github.com/channels-go/channels/mesh/redismesh"
	"github.com/channels-go/channels/mesh/zmqmesh"
	"github.com/channels-go/channels/store/redisstore/redistest"
	"github.com/channels-go/channels/tracing"
)

var quiet = slog.New(slog.DiscardHandler)

func keep(string) channels.ChannelOptions { return channels.ChannelOptions{HistorySize: 10} }

const (
	traceID = "0af7651916cd43dd8448eb211c80319c"
	spanID  = "b7ad6b7169203331"
	sampled = "00-" + traceID + "-" + spanID + "-01"
	dropped = "00-" + traceID + "-" + spanID + "-00"
)

// The trace of a request that publishes on one replica goes through the Store and the
// mesh to the subscribers of another one.
func TestATraceGoesToTheOtherReplica(t *testing.T) {
	t.Parallel()
	meshes := map[string]func(t *testing.T) func(id string) mesh.Mesh{
		"zmqmesh": func(t *testing.T) func(string) mesh.Mesh {
			return func(id string) mesh.Mesh {
				m, err := zmqmesh.New(zmqmesh.Options{ReplicaID: id, Listen: "tcp://127.0.0.1:0", Logger: quiet})
				require.NoError(t, err)
				return m
			}
		},
		"redismesh": func(t *testing.T) func(string) mesh.Mesh {
			redis := redistest.Start(t)
			return func(id string) mesh.Mesh {
				m, err := redismesh.New(redis.Client(), redismesh.Options{ReplicaID: id, Logger: quiet})
				require.NoError(t, err)
				return m
			}
		},
	}
	for name, with := range meshes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st, open := hubtest.NewMemory(t), with(t)
			both := map[string]*replica{}
			for _, id := range []string{"a", "b"} {
				m := open(id)
				t.Cleanup(func() { require.NoError(t, m.Close()) })
				both[id] = start(t, channels.Options{ReplicaID: id, Mesh: m, Store: st, Channel: keep}, onlyAsked)
			}
			a, b := both["a"], both["b"]
			sub, err := b.Hub.Subscribe(t.Context(), "c", nil)
			require.NoError(t, err)
			defer sub.Close()
			b.linkTo(a, "c")

			a.post("c", sampled)
			basetest.Eventually(t, "the other replica ends its span", func() bool { return len(b.spans.GetSpans()) > 0 })
			require.Equal(t, []string{"producer publish in " + spanID, "client store append in publish", "internal relay in publish"}, a.told())
			require.Equal(t, []string{"consumer receive in publish"}, b.told(a.spans.GetSpans()...))
			for _, s := range append(a.spans.GetSpans(), b.spans.GetSpans()...) {
				require.Equal(t, traceID, s.SpanContext.TraceID().String(), s.Name)
			}

			publish, receive := attributes(a.span("publish")), attributes(b.span("receive"))
			id := publish["messaging.message.id"]
			require.NotEmpty(t, id)
			require.Equal(t, map[string]string{
				"messaging.system": "channels", "messaging.operation.name": "publish", "messaging.operation.type": "send",
				"messaging.destination.name": "c", "messaging.message.body.size": "4", "messaging.message.id": id, "channels.receivers": "0",
			}, publish)
			require.Equal(t, map[string]string{
				"messaging.system": "channels", "messaging.operation.name": "receive", "messaging.operation.type": "process",
				"messaging.destination.name": "c", "messaging.message.body.size": "4", "messaging.message.id": id, "channels.receivers": "1", "channels.origin": "a",
			}, receive)
			require.Equal(t, map[string]string{"messaging.destination.name": "c", "channels.store.call": "append"}, attributes(a.span("store append")))
			require.True(t, b.span("receive").Parent.IsRemote())
		})
	}
}

// pair starts two replicas on a network in memory, of which b has a subscriber of c.
func pair(t *testing.T, sampler sdk.Sampler, o channels.Options) (a, b *replica, packets *spy) {
	net := meshtest.NewNetwork(1)
	packets = &spy{Mesh: net.Join("a")}
	o.Store = hubtest.NewMemory(t)
	o.ReplicaID, o.Mesh = "a", packets
	a = start(t, o, sampler)
	o.ReplicaID, o.Mesh = "b", net.Join("b")
	b = start(t, o, onlyAsked)
	sub, err := b.Hub.Subscribe(t.Context(), "c", nil)
	require.NoError(t, err)
	t.Cleanup(func() { sub.Close() })
	return a, b, packets
}

// A spy keeps the last Trace that went through a mesh.
type spy struct {
	mesh.Mesh
	trace []byte
}

func (s *spy) Publish(ctx context.Context, p mesh.Packet) error {
	if p.Kind == mesh.KindMessage {
		s.trace = p.Trace
	}
	return s.Mesh.Publish(ctx, p)
}

// A trace that is not sampled costs the other replicas nothing.
func TestATraceThatIsNotSampledStaysHere(t *testing.T) {
	t.Parallel()
	a, b, packets := pair(t, onlyAsked, channels.Options{})
	for _, parent := range []string{"", dropped, "nonsense"} {
		before := b.Hub.Metrics().Received
		packets.trace = []byte("none")
		a.post("c", parent)
		require.Empty(t, packets.trace)
		basetest.Eventually(t, "it arrives", func() bool { return b.Hub.Metrics().Received > before })
	}
	require.Empty(t, a.spans.GetSpans())
	require.Empty(t, b.spans.GetSpans())
}

// A publish from Go, or over a connection, begins a trace, if the provider says so.
func TestAPublishBeginsATrace(t *testing.T) {
	t.Parallel()
	a, b, packets := pair(t, sdk.AlwaysSample(), channels.Options{})
	a.PublishGo("c", "1")
	basetest.Eventually(t, "it arrives", func() bool { return len(b.spans.GetSpans()) > 0 })
	require.Equal(t, []string{"producer publish", "internal relay in publish"}, a.told())
	require.Equal(t, []string{"consumer receive in publish"}, b.told(a.spans.GetSpans()...))
	sc := a.span("publish").SpanContext
	require.Equal(t, "00-"+sc.TraceID().String()+"-"+sc.SpanID().String()+"-01", strings.Replace(string(packets.trace), "-03", "-01", 1))

	a.spans.Reset()
	c := a.DialRaw()
	c.Upgrade("/channel/c/", "traceparent", sampled)
	c.Send(hubtest.WSFrame(0x81, hubtest.Say("1")))
	basetest.Eventually(t, "it is published", func() bool { return len(a.spans.GetSpans()) > 1 })
	require.Equal(t, []string{"producer publish", "internal relay in publish"}, a.told(), "the handshake may be days ago")
}

// The span of the app's own middleware is the parent, whatever the header says.
func TestTheAppsSpanIsTheParent(t *testing.T) {
	t.Parallel()
	var a *replica
	own := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, span := a.provider.Tracer("app").Start(r.Context(), "POST", trace.WithSpanKind(trace.SpanKindServer))
			defer span.End()
			next.ServeHTTP(w, r.WithContext(ctx))
		})
	}
	a = start(t, channels.Options{Channel: keep}, sdk.AlwaysSample(), own)
	a.post("c", sampled)
	basetest.Eventually(t, "the app ends its span", func() bool { return len(a.spans.GetSpans()) == 3 })
	require.Equal(t, []string{"server POST", "producer publish in POST", "client store append in publish"}, a.told())
}

// Calls of the Store are traced within the app's spans, and not for themselves.
func TestCallsOfTheStore(t *testing.T) {
	t.Parallel()
	a := start(t, channels.Options{Channel: keep}, sdk.AlwaysSample())
	_, err := a.Hub.History(t.Context(), "c", channels.HistoryQuery{})
	require.NoError(t, err)
	require.Empty(t, a.told())
	ctx, span := a.provider.Tracer("app").Start(t.Context(), "own")
	_, err = a.Hub.History(ctx, "c", channels.HistoryQuery{})
	require.NoError(t, err)
	span.End()
	require.Equal(t, []string{"internal own", "client store range in own"}, a.told())
}

// Spans say what went wrong, by codes of which there are few.
func TestErrors(t *testing.T) {
	t.Parallel()
	failing := errors.New("no store")
	st := &failingStore{Memory: hubtest.NewMemory(t)}
	a := start(t, channels.Options{Channel: keep, Store: st}, sdk.AlwaysSample())
	for err, want := range map[error]string{failing: "_OTHER", context.Canceled: "cancelled", context.DeadlineExceeded: "timeout"} {
		a.spans.Reset()
		st.err.Store(&err)
		_, got := a.Hub.Publish(t.Context(), "c", hubtest.Msg("x", "1"))
		require.ErrorIs(t, got, channels.ErrStoreUnavailable)
		require.Equal(t, []string{"producer publish: Error", "client store append in publish: Error"}, a.told())
		require.Equal(t, "store_unavailable", attributes(a.span("publish"))["error.type"])
		require.Equal(t, want, attributes(a.span("store append"))["error.type"])
	}
	st.err.Store(nil)

	// A key that was used for another message is the publisher's fault.
	a.spans.Reset()
	key := channels.PublishOptions{Key: "k"}
	_, err := a.Hub.PublishWith(t.Context(), "c", hubtest.Msg("x", "1"), key)
	require.NoError(t, err)
	a.spans.Reset()
	_, err = a.Hub.PublishWith(t.Context(), "c", hubtest.Msg("x", "2"), key)
	require.ErrorIs(t, err, channels.ErrKeyReused)
	require.Equal(t, "key_reused", attributes(a.span("publish"))["error.type"])
	require.Equal(t, codes.Unset, a.span("store append").Status.Code)
}

// A name that no channel has may be long, and no UTF-8, so that no exporter takes it.
func TestNamesThatAreNone(t *testing.T) {
	t.Parallel()
	a := start(t, channels.Options{}, sdk.AlwaysSample())
	for _, name := range []string{"\xff", strings.Repeat("n", 1<<20)} {
		a.spans.Reset()
		_, err := a.Hub.Publish(t.Context(), name, hubtest.Msg("x", "1"))
		require.ErrorIs(t, err, channels.ErrBadChannel)
		span := a.span("publish")
		require.Equal(t, "bad_channel", attributes(span)["error.type"])
		require.NotContains(t, attributes(span), "messaging.destination.name")
		require.True(t, utf8.ValidString(span.Status.Description))
		require.Less(t, len(span.Status.Description), 1000)
	}
}

// A replica that traces gets on with one that does not.
func TestOneReplicaTraces(t *testing.T) {
	t.Parallel()
	net, st := meshtest.NewNetwork(1), hubtest.NewMemory(t)
	plain := hubtest.NewHub(t, channels.Options{ReplicaID: "plain", Mesh: net.Join("plain"), Store: st})
	a := start(t, channels.Options{ReplicaID: "a", Mesh: net.Join("a"), Store: st}, sdk.AlwaysSample())
	for from, to := range map[*channels.Hub]*channels.Hub{plain: a.Hub, a.Hub: plain} {
		sub, err := to.Subscribe(t.Context(), "c", nil)
		require.NoError(t, err)
		_, err = from.Publish(t.Context(), "c", hubtest.Msg("x", "1"))
		require.NoError(t, err)
		for m, err := range sub.Messages() {
			require.NoError(t, err)
			require.Equal(t, "x", m.Header)
			break
		}
		sub.Close()
	}
	require.Equal(t, []string{"producer publish", "internal relay in publish"}, a.told(), "the other replica names no trace")
}

// Without a provider, everything works and nothing is traced.
func TestWithoutAProvider(t *testing.T) {
	t.Parallel()
	var traced *tracing.Tracing
	s := hubtest.Serve(t, channels.Options{}, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { traced.Middleware(next).ServeHTTP(w, r) })
	})
	traced = tracing.New(s.Hub, tracing.Options{})
	(&replica{Server: s}).post("c", sampled)
	require.EqualValues(t, 1, s.Hub.Stats().Published)
}
