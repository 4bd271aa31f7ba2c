package channels_test

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/clientproto"
	"github.com/channels-go/channels/mesh"
)

// Every door has the time at which the Store took a message, live and after a cut. On a
// channel without history, messages have none.
func TestMessagesHaveATime(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps})
	w, e, named := s.join("h", ""), s.stream("h", ""), s.stream("h", "?format=event")
	text, binary := s.session(), s.protobufSession()
	binary.format = clientproto.Protobuf
	for _, c := range []*sessionClient{text, binary} {
		require.NotNil(t, c.ask(&clientproto.Command{ID: 1, Connect: &clientproto.ConnectRequest{}}).Connect)
		require.NotNil(t, c.ask(&clientproto.Command{ID: 2, Subscribe: &clientproto.SubscribeRequest{Channel: "h"}}).Subscribe)
	}
	sub, err := s.hub.Subscribe(t.Context(), "h", nil)
	require.NoError(t, err)
	defer sub.Close()
	pattern, err := s.hub.SubscribePattern(t.Context(), "h*")
	require.NoError(t, err)
	defer pattern.Close()
	s.publish("h", "x", `1`)
	kept := historyOf(t, s.hub, "h", channels.HistoryQuery{}).Messages[0].Time
	require.WithinRange(t, kept, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	ms := kept.UnixMilli()

	require.Equal(t, ms, w.want("x", `1`).Time)
	ev := e.want("x", `1`)
	require.Equal(t, ms, ev.message().Time)
	require.Contains(t, ev.data, fmt.Sprintf(`","time":%d}`, ms))
	require.Equal(t, "1", named.next().data)
	for _, c := range []*sessionClient{text, binary} {
		require.Equal(t, ms, c.next().Push.Pub.Time)
	}
	for _, sub := range []*channels.Subscription{sub, pattern} {
		require.True(t, kept.Equal(next(t, sub).Time))
	}

	for _, query := range []string{"?last=1", "?since=:0"} {
		require.Equal(t, ms, s.join("h", query).want("x", `1`).Time, query)
	}
	require.Equal(t, ms, text.ask(&clientproto.Command{ID: 3, History: &clientproto.HistoryRequest{Channel: "h", Limit: -1}}).History.Publications[0].Time)
	require.NotNil(t, text.ask(&clientproto.Command{ID: 4, Unsubscribe: &clientproto.UnsubscribeRequest{Channel: "h"}}).Unsubscribe)
	recovered := text.ask(&clientproto.Command{ID: 5, Subscribe: &clientproto.SubscribeRequest{Channel: "h", Recover: true}}).Subscribe
	require.Equal(t, ms, recovered.Publications[0].Time)

	plain := s.join("plain", "")
	s.publish("plain", "x", `1`)
	_, raw, err := plain.c.Read(ctxT(t))
	require.NoError(t, err)
	require.Equal(t, `{"header":"x","body":1}`, string(raw))
}

// On another replica the time is the same: of what comes over the mesh, and of what is
// fetched since the mesh has lost it.
func TestMessagesHaveTheirTimeOnAllReplicas(t *testing.T) {
	inBubble(t, 2, history, func(r *replicas) {
		here, there := subscription(r.t, r.hubs[0], "h", nil), subscription(r.t, r.hubs[1], "h", nil)
		synctest.Wait()
		for i := range 3 {
			time.Sleep(time.Millisecond)
			if i == 1 {
				r.net.Cut("r0", "r1") // and the hub there fetches it
			}
			publish(r.t, r.hubs[0], "h", "x", fmt.Sprint(i))
			r.net.Heal()
		}
		settle(10 * time.Second)
		kept := historyOf(r.t, r.hubs[1], "h", channels.HistoryQuery{}).Messages
		require.Len(r.t, kept, 3)
		for _, m := range kept {
			for _, sub := range []*channels.Subscription{here, there} {
				got := next(r.t, sub)
				require.Equal(r.t, m.Position, got.Position)
				require.True(r.t, m.Time.Equal(got.Time), "%v, but %v", m.Time, got.Time)
			}
		}
	})
}

// A replica of a version before this does not send the time. Its messages have none here.
func TestMessagesOfOlderReplicasHaveNoTime(t *testing.T) {
	s := serve(t, channels.Options{Channel: keeps})
	w := s.join("h", "")
	who := &channels.Publisher{Client: "a-1", User: "ann"}
	info, err := channels.EncodePublisher(who)
	require.NoError(t, err)
	sub := subscription(t, s.hub, "h", nil)
	at := publish(t, s.hub, "h", "x", "0").Position
	w.want("x", "0")
	next(t, sub)
	p := mesh.Packet{Channel: "h", Header: "x", Body: []byte(`1`), Epoch: at.Epoch, Offset: at.Offset + 1, Info: info}
	channels.Take(s.hub, p)
	require.Zero(t, w.want("x", `1`).Time)
	m := next(t, sub)
	require.Equal(t, who, m.Publisher)
	require.Zero(t, m.Time)
	p.Offset, p.Info = at.Offset+2, channels.PacketInfo(info, time.UnixMilli(1764421200123))
	require.Equal(t, who, channels.DecodePublisher(p.Info), "which is how the older ones read it")
	channels.Take(s.hub, p)
	require.EqualValues(t, 1764421200123, w.want("x", `1`).Time)
	require.Equal(t, who, next(t, sub).Publisher)
}

// FuzzPacketTime: a packet's Info comes apart as it was put together, and what is no time
// stays as it is.
func FuzzPacketTime(f *testing.F) {
	for _, info := range []string{"", `{}`, `{"client":"a-1"}`, `{"time":1}`, `{"time":1,"client":"a"}`, `{"time":1}x`, `{"time":-1}`, `{"time":1.5}`, `{"time":`, `{"time":99999999999999999999}`} {
		f.Add([]byte(info), int64(1764421200123))
	}
	f.Fuzz(func(t *testing.T, info []byte, ms int64) {
		given := bytes.Clone(info)
		at, rest := channels.TakeTime(info)
		if at.IsZero() {
			require.Equal(t, given, rest)
		} else if rest != nil {
			require.Equal(t, byte('{'), rest[0])
		}
		if ms <= 0 || ms > 4102444800000 || len(given) > 0 && given[0] != '{' {
			return
		}
		at, rest = channels.TakeTime(channels.PacketInfo(given, time.UnixMilli(ms)))
		require.Equal(t, ms, at.UnixMilli())
		require.Equal(t, string(given), string(rest))
	})
}
