package channels_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/mesh/meshtest"
)

// shortMesh is a Mesh that is never used, because New refuses what it is in.
type shortMesh struct{ mesh.Mesh }

func (shortMesh) MaxBody() int { return 2000 }

// namedMesh has an id, and is not used otherwise.
type namedMesh struct{ mesh.Mesh }

func (namedMesh) ReplicaID() string { return "replica-1" }

func TestNewRefuses(t *testing.T) {
	m := newMemory(t)
	for name, c := range map[string]struct {
		o    channels.Options
		says []string // the field, what it is, and what it may be
	}{
		"MaxMessageBytes too small":    {channels.Options{MaxMessageBytes: 1023}, []string{"Options.MaxMessageBytes", "1023", "1024", "67108864"}},
		"MaxMessageBytes too large":    {channels.Options{MaxMessageBytes: 64<<20 + 1}, []string{"Options.MaxMessageBytes", "67108865", "1024", "67108864"}},
		"MaxMessageBytes negative":     {channels.Options{MaxMessageBytes: -1}, []string{"Options.MaxMessageBytes", "-1", "1024"}},
		"QueueBytes too small":         {channels.Options{MaxMessageBytes: 1024, QueueBytes: 2047}, []string{"Options.QueueBytes", "2047", "2048"}},
		"QueueBytes below the default": {channels.Options{QueueBytes: 512<<10 - 1}, []string{"Options.QueueBytes", "524287", "524288"}},
		"QueueBytes too large":         {channels.Options{QueueBytes: 1<<30 + 1}, []string{"Options.QueueBytes", "1073741825", "1073741824"}},
		"MaxUnfinishedBytes too small": {channels.Options{MaxMessageBytes: 1024, MaxUnfinishedBytes: 2*1024 + 64<<10 - 1}, []string{"Options.MaxUnfinishedBytes", "67583", "67584"}},
		"MaxUnfinishedBytes negative":  {channels.Options{MaxUnfinishedBytes: -1}, []string{"Options.MaxUnfinishedBytes", "-1"}},
		"MaxChannels negative":         {channels.Options{MaxChannels: -1}, []string{"Options.MaxChannels", "-1", "1"}},
		"PingPeriod too short":         {channels.Options{PingPeriod: time.Second - 1}, []string{"Options.PingPeriod", "999.999999ms", "1s", "10m0s"}},
		"PingPeriod too long":          {channels.Options{PingPeriod: 10*time.Minute + 1}, []string{"Options.PingPeriod", "10m0.000000001s", "1s", "10m0s"}},
		"PingPeriod of half seconds":   {channels.Options{PingPeriod: 1500 * time.Millisecond}, []string{"Options.PingPeriod", "1.5s", "whole seconds"}},
		"PingPeriod negative":          {channels.Options{PingPeriod: -1}, []string{"Options.PingPeriod", "-1ns"}},
		"WriteTimeout too short":       {channels.Options{WriteTimeout: 99 * time.Millisecond}, []string{"Options.WriteTimeout", "99ms", "100ms", "5m0s"}},
		"WriteTimeout too long":        {channels.Options{WriteTimeout: time.Hour}, []string{"Options.WriteTimeout", "1h0m0s", "100ms", "5m0s"}},
		"StoreTimeout too short":       {channels.Options{StoreTimeout: 9 * time.Millisecond}, []string{"Options.StoreTimeout", "9ms", "10ms", "1m0s"}},
		"StoreTimeout too long":        {channels.Options{StoreTimeout: 61 * time.Second}, []string{"Options.StoreTimeout", "1m1s", "10ms", "1m0s"}},
		"DrainTime too long":           {channels.Options{DrainTime: 11 * time.Minute}, []string{"Options.DrainTime", "11m0s", "10m0s"}},
		"StreamTime too short":         {channels.Options{StreamTime: time.Second - 1}, []string{"Options.StreamTime", "999.999999ms", "1s", "24h0m0s", "negative: never"}},
		"StreamTime too long":          {channels.Options{StreamTime: 24*time.Hour + 1}, []string{"Options.StreamTime", "24h0m0s"}},
		"ReplicaID too long":           {channels.Options{ReplicaID: long(65)}, []string{"Options.ReplicaID", long(65), "64"}},
		"ReplicaID with a space":       {channels.Options{ReplicaID: "a b"}, []string{"Options.ReplicaID", `"a b"`, "A-Z"}},
		"ReplicaID with a slash":       {channels.Options{ReplicaID: "a/b"}, []string{"Options.ReplicaID", `"a/b"`}},
		"ReplicaID beyond ASCII":       {channels.Options{ReplicaID: "é"}, []string{"Options.ReplicaID", `"é"`}},
		"ReplicaID with a line end":    {channels.Options{ReplicaID: "a\n"}, []string{"Options.ReplicaID", `"a\n"`}},
		"a mesh for shorter bodies": {channels.Options{MaxMessageBytes: 2001, Mesh: shortMesh{}, Store: m},
			[]string{"Options.MaxMessageBytes is 2001", "Options.Mesh", "up to 2000", "set MaxMessageBytes", "raise the mesh's own limit"}},
		"a mesh of another name": {channels.Options{ReplicaID: "replica-2", Mesh: namedMesh{}, Store: m},
			[]string{`Options.ReplicaID is "replica-2"`, `Options.Mesh has the id "replica-1"`, "give both the same", "leave Options.ReplicaID empty"}},
		"a mesh without a store": {channels.Options{Mesh: namedMesh{}}, []string{"Options.Mesh", "Options.Store", "store.NewMemory"}},
	} {
		t.Run(name, func(t *testing.T) {
			hub, err := channels.New(c.o)
			require.Error(t, err)
			require.Nil(t, hub)
			for _, s := range c.says {
				require.ErrorContains(t, err, s)
			}
		})
	}
	for _, origin := range []string{"", "app.example.com", "*.example.com", "https://", "https://*", "https://*.*.com", "https://a.*.com", "https://a*.com",
		"https://app.example.com/", "https://app.example.com/path", "https://app.example.com?", "https://app.example.com?a", "https://app.example.com#", "https://app.example.com#a",
		"https://user@app.example.com", "NULL", "//app.example.com", "https://app.example.com:port", "https://a b", "https://app.example.com ", "**", "https://app.example.com:"} {
		t.Run(fmt.Sprintf("origin %q", origin), func(t *testing.T) {
			hub, err := channels.New(channels.Options{AllowedOrigins: []string{"https://fine.example", origin}})
			if err == nil {
				hub.Shutdown(t.Context())
			}
			require.Error(t, err, "it could never match what a browser sends")
			require.ErrorContains(t, err, "Options.AllowedOrigins")
			require.ErrorContains(t, err, fmt.Sprintf("%q", origin))
			require.ErrorContains(t, err, "https://*.host")
		})
	}
}

// A browser leaves out the port that the scheme has anyway.
func TestOriginWithTheDefaultPort(t *testing.T) {
	for pattern, origin := range map[string]string{
		"https://app.example.com:443": "https://app.example.com",
		"http://app.example.com:80":   "http://app.example.com",
		"https://*.example.com:443":   "https://app.example.com",
	} {
		hub, err := channels.New(channels.Options{AllowedOrigins: []string{pattern}})
		if err != nil {
			require.ErrorContains(t, err, "Options.AllowedOrigins")
			continue
		}
		require.NoError(t, hub.Shutdown(t.Context()))
		s := serve(t, channels.Options{AllowedOrigins: []string{pattern}})
		require.Equal(t, 200, s.get("/v1/channel", "Origin", origin).status, "%s is taken, so it has to match", pattern)
	}
}

func TestNewTakesTheLimits(t *testing.T) {
	for name, o := range map[string]channels.Options{
		"nothing": {},
		"the least": {MaxMessageBytes: 1 << 10, QueueBytes: 2 << 10, MaxChannels: 1, CompressBytes: -1, PingPeriod: time.Second,
			WriteTimeout: 100 * time.Millisecond, StoreTimeout: 10 * time.Millisecond, DrainTime: -1, StreamTime: time.Second, ReplicaID: "a"},
		"the most": {MaxMessageBytes: 64 << 20, QueueBytes: 1 << 30, MaxChannels: 1 << 30, CompressBytes: 1 << 30, PingPeriod: 10 * time.Minute,
			WriteTimeout: 5 * time.Minute, StoreTimeout: time.Minute, DrainTime: 10 * time.Minute, StreamTime: 24 * time.Hour, ReplicaID: long(64)},
		"the longest messages": {MaxMessageBytes: 64 << 20},
		"origins":              {AllowedOrigins: []string{"*", "https://a.example", "http://localhost:3000", "https://*.a.example", "https://*.a.example:8443", "http://[::1]:8080", "chrome-extension://abc"}},
		"any letter in an id":  {ReplicaID: "Az09-_."},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, o)
			w := s.join("a", "")
			s.publish("a", "x", `1`)
			w.want("x", `1`)
		})
	}
}

// What is wrong with a channel's options is the app's to know, not the client's.
func TestChannelOptionsThatContradict(t *testing.T) {
	for field, o := range map[string]channels.ChannelOptions{
		"ChannelOptions.HistorySize is -1":              {HistorySize: -1},
		"ChannelOptions.HistorySize is 10000001":        {HistorySize: 10_000_001},
		"ChannelOptions.HistoryTTL is -1s":              {HistorySize: 1, HistoryTTL: -time.Second},
		"ChannelOptions.HistoryTTL is 1µs":              {HistorySize: 1, HistoryTTL: time.Microsecond},
		"HistoryTTL is 1h0m0s, but HistorySize is 0":    {HistoryTTL: time.Hour},
		"ChannelOptions.SlowSubscriber drops":           {HistorySize: 1, SlowSubscriber: channels.SlowDropOldest},
		"ChannelOptions.SlowSubscriber drops ":          {HistorySize: 1, SlowSubscriber: channels.SlowKeepLatest},
		"ChannelOptions.PresenceBy is 2":                {Presence: channels.PresenceList, PresenceBy: channels.PresenceByUser + 1},
		"PresenceBy is PresenceByUser, but Presence is": {PresenceBy: channels.PresenceByUser},
		"ChannelOptions.PresenceGrace is -1s":           {Presence: channels.PresenceList, PresenceBy: channels.PresenceByUser, PresenceGrace: -time.Second},
		"ChannelOptions.PresenceGrace is 1h0m1s":        {Presence: channels.PresenceList, PresenceBy: channels.PresenceByUser, PresenceGrace: time.Hour + time.Second},
		"PresenceGrace is 1s, but PresenceBy is":        {Presence: channels.PresenceList, PresenceGrace: time.Second},
		"ChannelOptions.SlowSubscriber is 3":            {SlowSubscriber: channels.SlowKeepLatest + 1},
		"ChannelOptions.Presence is 3":                  {Presence: channels.PresenceEvents + 1},
		"ChannelOptions.Publishers is 3":                {Publishers: channels.PublishersServer + 1},
	} {
		t.Run(field, func(t *testing.T) {
			s := serve(t, channels.Options{Channel: named(map[string]channels.ChannelOptions{"bad": o})})
			for _, a := range []answer{
				s.handshake("/channel/bad/"),
				s.getStream("/channel/bad/"),
				s.post("/v1/channel/bad/publish", `{"header":"x","body":1}`),
				s.get("/v1/channel/bad"),
				s.get("/v1/channel/bad/history"),
				s.get("/v1/channel/bad/presence"),
			} {
				a.wantFail(t, 500, "internal")
				require.NotContains(t, a.body, "Options")
			}
			_, err := s.hub.Publish(t.Context(), "bad", msg("x", "1"))
			require.ErrorIs(t, err, channels.ErrInternal)
			require.ErrorContains(t, err, field)
			_, err = s.hub.Subscribe(t.Context(), "bad", nil)
			require.ErrorContains(t, err, field)
			require.Contains(t, s.log.String(), field)
			require.Zero(t, s.hub.Stats().Channels)
			require.Zero(t, s.hub.Stats().Connects)
			s.publish("good", "x", `1`)
		})
	}
}

func TestChannelOptionsAtTheirLimits(t *testing.T) {
	for name, o := range map[string]channels.ChannelOptions{
		"zero":        {},
		"the longest": {HistorySize: 10_000_000, HistoryTTL: 1<<63 - 1},
		"the least":   {HistorySize: 1, HistoryTTL: time.Hour},
		"all":         {HistorySize: 1, Presence: channels.PresenceEvents, Publishers: channels.PublishersIdentified},
		"no history":  {SlowSubscriber: channels.SlowKeepLatest, Presence: channels.PresenceList},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, channels.Options{Channel: every(o)})
			w := s.join("a", "")
			for i := range 3 {
				publish(t, s.hub, "a", "x", fmt.Sprint(i))
			}
			for i := 0; i < 3; {
				if m := w.next(); m.Header == "x" { // not presence
					require.Equal(t, fmt.Sprint(i), string(m.Body))
					i++
				}
			}
		})
	}
}

// New copies the options: what the caller does to them later has no effect.
func TestOptionsAreCopied(t *testing.T) {
	o := channels.Options{AllowedOrigins: []string{"https://app.example.com"}, Channel: keeps}
	hub := newHub(t, o)
	o.AllowedOrigins[0] = "https://evil.example"
	o.Channel = nil
	require.Equal(t, 200, get(hub, "/v1/channel", "Origin", "https://app.example.com").Code)
	require.Equal(t, 403, get(hub, "/v1/channel", "Origin", "https://evil.example").Code)
	require.True(t, publish(t, hub, "h", "x", "1").Stored)
}

// A hub takes the id that its mesh has.
func TestReplicaIDOfTheMesh(t *testing.T) {
	m := newMemory(t)
	node := meshtest.NewNetwork(1).Join("replica-1")
	t.Cleanup(func() { require.NoError(t, node.Close()) })
	hub := newHub(t, channels.Options{Store: m, Mesh: namedMesh{node}})
	replicas, err := hub.Replicas(t.Context())
	require.NoError(t, err)
	require.Len(t, replicas, 1)
	require.Equal(t, "replica-1", replicas[0].ID)
}

// A Store that was given is the giver's to close.
func TestAGivenStoreIsNotClosed(t *testing.T) {
	m := newMemory(t)
	hub := newHub(t, channels.Options{Store: m, Channel: keeps, ReplicaID: "n"})
	publish(t, hub, "h", "x", "1")
	require.NoError(t, hub.Shutdown(t.Context()))
	tops, err := m.Tops(t.Context(), []string{"h"})
	require.NoError(t, err)
	require.Equal(t, uint64(1), tops[0].Offset)
	nodes, err := m.Replicas(t.Context())
	require.NoError(t, err)
	require.Empty(t, nodes, "the replica has left")
	require.NoError(t, m.Close())
}
