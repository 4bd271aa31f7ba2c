package channels_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/meshtest"
)

// What the mesh brings and cannot be a message is dropped and counted, before
// it breaks a frame that a client reads, and what is right comes.
func TestPacketsThatAreNoMessages(t *testing.T) {
	s := serve(t, channels.Options{})
	ok := mesh.Packet{Channel: "c", Header: "x", Body: json.RawMessage(`1`), Origin: "other"}
	bad := map[string]func(*mesh.Packet){
		"no name":                    func(p *mesh.Packet) { p.Channel = "" },
		"a name that is none":        func(p *mesh.Packet) { p.Channel = "a b" },
		"a name that is long":        func(p *mesh.Packet) { p.Channel = long(channels.MaxNameBytes + 1) },
		"no header":                  func(p *mesh.Packet) { p.Header = "" },
		"a header that is long":      func(p *mesh.Packet) { p.Header = long(channels.MaxHeaderBytes + 1) },
		"a header in Latin-1":        func(p *mesh.Packet) { p.Header = "\xe9" },
		"a header of the hub's":      func(p *mesh.Packet) { p.Header = "reset" },
		"no body":                    func(p *mesh.Packet) { p.Body = nil },
		"a body that is no JSON":     func(p *mesh.Packet) { p.Body = json.RawMessage(`1}`) },
		"a body in Latin-1":          func(p *mesh.Packet) { p.Body = json.RawMessage("\"\xe9\"") },
		"a body that is an event":    func(p *mesh.Packet) { p.Body = json.RawMessage("1\n\ndata: 2") },
		"a body that is deep":        func(p *mesh.Packet) { p.Body = json.RawMessage(strings.Repeat("[", 5000) + strings.Repeat("]", 5000)) },
		"a body that is long":        func(p *mesh.Packet) { p.Body = json.RawMessage(`"` + long(1<<20) + `"`) },
		"an epoch without an offset": func(p *mesh.Packet) { p.Epoch = "e" },
		"an offset without an epoch": func(p *mesh.Packet) { p.Offset = 1 },
		"an epoch that is long":      func(p *mesh.Packet) { p.Epoch, p.Offset = long(65), 1 },
		"an epoch with a line's end": func(p *mesh.Packet) { p.Epoch, p.Offset = "e\ndata: x", 1 },
		"a sender that is long":      func(p *mesh.Packet) { p.Sender = long(257) },
		"an event with a position":   func(p *mesh.Packet) { p.Kind, p.Epoch, p.Offset = mesh.KindPresence, "e", 1 },
		"an event that is no JSON":   func(p *mesh.Packet) { p.Kind, p.Body = mesh.KindPresence, json.RawMessage(`{`) },
	}
	w, e := s.join("c", ""), s.stream("c", "")
	n := int64(0)
	for name, change := range bad {
		p := ok
		change(&p)
		channels.Take(s.hub, p)
		n++
		require.Equal(t, n, s.hub.Stats().BadPackets, name)
	}
	lines := ok
	lines.Body = json.RawMessage("[1,\r\n2]")
	channels.Take(s.hub, lines)
	channels.Take(s.hub, mesh.Packet{Kind: mesh.KindPresence, Channel: "c", Body: json.RawMessage(`{}`)})
	for _, want := range []string{"x[1,2]", "presence{}"} {
		m := w.next()
		require.Equal(t, want, m.Header+string(m.Body))
		m = e.next().message()
		require.Equal(t, want, m.Header+string(m.Body))
	}
	require.Equal(t, n, s.hub.Stats().BadPackets)
	require.Equal(t, 1, strings.Count(s.log.String(), "cannot be a message"), "logged once, not each time")
}

// FuzzTake hands a hub whatever a peer might send: what reaches a subscriber is a
// message, and the list of replicas can be shown.
func FuzzTake(f *testing.F) {
	node := meshtest.NewNetwork(1).Join("self")
	f.Cleanup(func() { node.Close() })
	hub := newHub(f, channels.Options{
		ReplicaID: "self", Mesh: node, Store: newMemory(f), MaxMessageBytes: 1 << 10, QueueBytes: 64 << 10,
		Channel: func(name string) channels.ChannelOptions {
			if strings.HasPrefix(name, "h") {
				return channels.ChannelOptions{HistorySize: 10}
			}
			return channels.ChannelOptions{Presence: channels.PresenceEvents}
		},
	})
	subscription(f, hub, "c", nil)
	f.Add(byte(0), "c", "x", []byte(`1`), "", uint64(0), "", "n", []byte(nil))
	f.Add(byte(0), "c", "x", []byte(`1`), "", uint64(0), "", "n", []byte(`{"client":"n-1","user":"ann","info":{"a":1}}`))
	f.Add(byte(0), "h", "x", []byte("[1,\n2]"), "e", uint64(1), "n-1", "n", []byte(nil))
	f.Add(byte(0), "h", "x", []byte(`1`), "e", uint64(3), "", "n", []byte(nil))
	f.Add(byte(1), "c", "", []byte(`{"event":"join"}`), "", uint64(0), "", "n", []byte(nil))
	f.Add(byte(1), "c", "", []byte(`{}`), "", uint64(0), "", "n", []byte(nil))
	f.Add(byte(2), "", "canary", []byte(`{"v":1,"n":3}`), "", uint64(0), "", "n", []byte(nil))
	f.Add(byte(2), "", "canary", []byte(`{"v":1,"n":1,"epoch":"e","node":{"node":"a","status":"green","mesh":{"peers":[]}}}`), "", uint64(0), "", "n", []byte(nil))
	f.Add(byte(2), "", "disconnect", []byte(`{"v":1,"who":"YQ=="}`), "", uint64(0), "", "n", []byte(nil))
	f.Add(byte(2), "", "disconnect", []byte(`{"v":1,"kind":"user","who":"YW5u"}`), "", uint64(0), "", "n", []byte(nil))
	f.Add(byte(2), "", "echo", []byte(`{"v":1,"n":1}`), "", uint64(0), "", "n", []byte(nil))
	f.Add(byte(mesh.KindAgain), "h", "x", []byte(`1`), "e", uint64(2), "", "n", []byte(nil))
	f.Add(byte(mesh.KindAgain), "h", "x", []byte(`1`), "", uint64(0), "", "n", []byte(nil))
	f.Add(byte(mesh.KindLost), "c", "", []byte(nil), "", uint64(0), "", "n", []byte(nil))
	f.Add(byte(mesh.KindLost), "h", "", []byte(nil), "", uint64(0), "", "n", []byte(nil))
	f.Add(byte(mesh.KindLost), "", "", []byte(nil), "", uint64(0), "", "", []byte(nil))
	f.Fuzz(func(t *testing.T, kind byte, channel, header string, body []byte, epoch string, offset uint64, sender, origin string, info []byte) {
		sub, err := hub.Subscribe(t.Context(), channel, nil)
		if err == nil {
			defer sub.Close()
		}
		before := hub.Stats().BadPackets
		channels.Take(hub, mesh.Packet{Kind: mesh.Kind(kind), Channel: channel, Header: header, Body: body, Epoch: epoch, Offset: offset, Sender: sender, Origin: origin, Info: bytes.Clone(info)})
		nodes, notListed := hub.Replicas(t.Context())
		require.NoError(t, notListed)
		_, notJSON := json.Marshal(nodes)
		require.NoError(t, notJSON)
		if err != nil || kind > 1 || hub.Stats().BadPackets > before || offset > 0 {
			return // it is not for this subscriber, or not its turn
		}
		if sender == sub.ID() {
			return
		}
		for m, err := range sub.Messages() {
			require.NoError(t, err)
			require.True(t, utf8.ValidString(m.Header) && utf8.Valid(m.Body) && json.Valid(m.Body), "%q %q", m.Header, m.Body)
			require.NotContains(t, string(m.Body), "\n")
			require.Zero(t, m.Time)
			if len(info) <= channels.MaxPublisher { // or it may be shorter without the time
				require.Equal(t, channels.DecodePublisher(info), m.Publisher)
			}
			break
		}
	})
}

// A version before traces gets this from redismesh behind a message with a trace.
func TestATrailerIsIgnored(t *testing.T) {
	s := serve(t, channels.Options{})
	w := s.join("c", "")
	channels.Take(s.hub, mesh.Packet{Kind: mesh.KindControl, Channel: "c", To: "\x00", Info: []byte("00-1-2-01"), Origin: "other"})
	channels.Take(s.hub, mesh.Packet{Channel: "c", Header: "x", Body: json.RawMessage(`1`), Origin: "other"})
	w.want("x", "1")
	require.Zero(t, s.hub.Stats().BadPackets)
}

func BenchmarkCheckPacket(b *testing.B) {
	hub := newHub(b, channels.Options{})
	for _, size := range []int{64, 1 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			body, _ := json.Marshal(map[string]any{"n": 17, "text": strings.Repeat("word ", size/5)})
			p := mesh.Packet{Channel: "orders", Header: "created", Body: body, Epoch: "k3f9", Offset: 12}
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				if err := channels.CheckPacket(hub, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
