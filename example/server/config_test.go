package main

import (
	"bytes"
	"errors"
	"flag"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

func lookup(env map[string]string) func(string) (string, bool) {
	return func(key string) (string, bool) {
		v, ok := env[key]
		return v, ok
	}
}

func TestConfig(t *testing.T) {
	defaults := config{addr: "127.0.0.1:8080", hub: channels.Options{DrainTime: 5 * time.Second, DrainDelay: 5 * time.Second}, redis: redisConfig{prefix: "channels"}}
	with := func(f func(*config)) config {
		c := defaults
		f(&c)
		return c
	}
	chat := rule[kept]{"chat.*", kept{1000, 24 * time.Hour}}
	news := rule[kept]{"news", kept{1, time.Millisecond}}
	several := with(func(c *config) {
		c.addr, c.hub.ReplicaID, c.hub.DrainTime, c.logLevel = ":9000", "n1", 90*time.Second, slog.LevelDebug
		c.history = rules[kept]{chat, news}
		c.presence = rules[channels.PresenceMode]{{"chat.*", channels.PresenceEvents}, {"p?", channels.PresenceEvents}}
		c.hub.AllowedOrigins = []string{"https://a.example", "https://b.example"}
	})
	for name, c := range map[string]struct {
		args []string
		env  map[string]string
		want config
	}{
		"nothing": {want: defaults},
		"flags": {
			args: []string{"-addr", ":9000", "-node", "n1", "-history", "chat.*=1000,24h", "-history", "news=1,1ms", "-presence", "chat.*", "-presence", "p?",
				"-origin", "https://a.example", "-origin", "https://b.example", "-drain", "90s", "-log-level", "debug"},
			want: several,
		},
		"the environment": {
			env: map[string]string{"CHANNELS_ADDR": ":9000", "CHANNELS_NODE": "n1", "CHANNELS_HISTORY": "chat.*=1000,24h  news=1,1ms", "CHANNELS_PRESENCE": "chat.* p?",
				"CHANNELS_ORIGIN": "https://a.example https://b.example", "CHANNELS_DRAIN": "1m30s", "CHANNELS_LOG_LEVEL": "debug", "ADDR": ":1", "CHANNELS_OTHER": "x"},
			want: several,
		},
		"a flag overrides its variable": {
			args: []string{"-history", "news=1,1ms", "-addr", ":1"},
			env:  map[string]string{"CHANNELS_HISTORY": "chat.*=1000,24h", "CHANNELS_ADDR": ":2", "CHANNELS_NODE": "n2"},
			want: with(func(c *config) { c.addr, c.hub.ReplicaID, c.history = ":1", "n2", rules[kept]{news} }),
		},
		"a pattern with an equals sign": {
			args: []string{"-history", "a=b=1,1h"},
			want: with(func(c *config) { c.history = rules[kept]{{"a=b", kept{1, time.Hour}}} }),
		},
		"the longest history": {args: []string{"-history", "*=10000000,1h"}, want: with(func(c *config) { c.history = rules[kept]{{"*", kept{10_000_000, time.Hour}}} })},
		"limits": {args: []string{"-max-connections", "9", "-max-connections-per-address", "2"},
			want: with(func(c *config) { c.hub.MaxConnections, c.hub.MaxConnectionsPerAddress = 9, 2 })},
		"a gateway": {args: []string{"-zmq-pub", "tcp://127.0.0.1:1", "-zmq-insecure"},
			env: map[string]string{"CHANNELS_ZMQ_PULL": "tcp://127.0.0.1:2", "CHANNELS_ZMQ_REP": "tcp://127.0.0.1:3", "CHANNELS_ZMQ_TOKEN": "0123456789abcdef\n"},
			want: with(func(c *config) {
				c.gateway = gatewayConfig{"tcp://127.0.0.1:1", "tcp://127.0.0.1:2", "tcp://127.0.0.1:3", true}
				c.security.zmqToken = []byte("0123456789abcdef")
			})},
		"hosts": {args: []string{"-host", "app.example.com", "-host", "*.live.example.com"}, env: map[string]string{"CHANNELS_DRAIN_DELAY": "0"},
			want: with(func(c *config) { c.hub.Hosts, c.hub.DrainDelay = []string{"app.example.com", "*.live.example.com"}, 0 })},
		"no time for the drain": {args: []string{"-drain", "0"}, want: with(func(c *config) { c.hub.DrainTime = -1 })},
		"streams for so long":   {env: map[string]string{"CHANNELS_STREAM_TIME": "90s"}, want: with(func(c *config) { c.hub.StreamTime = 90 * time.Second })},
		"streams for ever":      {args: []string{"-stream-time", "0"}, want: with(func(c *config) { c.hub.StreamTime = -1 })},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, parsed(t, c.env, c.args...))
		})
	}
	for value, want := range map[string]time.Duration{"0": -1, "1ns": 1} { // Options.DrainTime 0 would be the default
		cfg := parsed(t, nil, "-drain", value)
		require.Equal(t, want, cfg.options().DrainTime, "-drain %s", value)
	}
}

// refuses wants a flag and its variable to refuse a value, with an error that
// names the source and says what is allowed.
func refuses(t *testing.T, flag, value, allowed string) {
	t.Helper()
	wantRefused(t, nil, []string{flag, value}, allowed, flag)
	wantRefused(t, map[string]string{variable(flag[1:]): value}, nil, allowed, variable(flag[1:]))
}

// Each error names the source of the value, the value, and what is allowed.
func TestConfigErrors(t *testing.T) {
	for name, c := range map[string]struct{ flag, value, allowed string }{
		"history without limits":     {"-history", "chat.*", "PATTERN=SIZE,TTL"},
		"history without a time":     {"-history", "chat.*=10", "PATTERN=SIZE,TTL"},
		"history without a pattern":  {"-history", "=10,1h", "PATTERN=SIZE,TTL"},
		"history of size 0":          {"-history", "a=0,1h", "1 to 10000000"},
		"history of too many":        {"-history", "a=10000001,1h", "1 to 10000000"},
		"history, not a number":      {"-history", "a=x,1h", "1 to 10000000"},
		"history of a negative size": {"-history", "a=-1,1h", "1 to 10000000"},
		"history for no time":        {"-history", "a=1,0", "1ms or more"},
		"history for too short":      {"-history", "a=1,1us", "1ms or more"},
		"history without a unit":     {"-history", "a=1,24", "24h"},
		"history, the second is bad": {"-history", "a=1,1h b", "PATTERN=SIZE,TTL"},
		"history with a bad pattern": {"-history", "[=1,1h", `"["`},
		"presence":                   {"-presence", "a[", `"a["`},
		"presence by":                {"-presence-by", "a=nobody", `"a=nobody"`},
		"presence grace":             {"-presence-grace", "a=2h", `"a=2h"`},
		"drain":                      {"-drain", "5", "5s"},
		"max-connections":            {"-max-connections", "0", "1 to"},
		"max-connections, text":      {"-max-connections-per-address", "many", "1 to"},
		"drain, negative":            {"-drain", "-1s", "0 to 10m"},
		"drain for ages":             {"-drain", "1h", "0 to 10m"},
		"a delay without a unit":     {"-drain-delay", "5", "0 to 10m"},
		"a host with a port":         {"-host", "fine.example app.example.com:80", `"app.example.com:80" is not a host name`},
		"a limit of 0":               {"-queue-bytes", "0", "not 0"},
		"a time without a unit":      {"-ping-period", "20", "30s"},
		"an unknown policy":          {"-slow", "a=fast", "close, drop-oldest or keep-latest"},
		"a policy without a pattern": {"-publishers", "identified", "anyone, identified or server"},
		"stream-time":                {"-stream-time", "15", "0: 90s, 15m"},
		"stream-time, negative":      {"-stream-time", "-1s", "1s to 24h"},
		"stream-time for days":       {"-stream-time", "25h", "1s to 24h"},
		"a node":                     {"-node", "a b", "1 to 64 of"},
		"an origin without a scheme": {"-origin", "https://a.example app.example.com", `"app.example.com" is not an origin like`},
		"log level":                  {"-log-level", "loud", "debug, info, warn or error"},
		"metrics without a port":     {"-metrics", "127.0.0.1", "HOST:PORT"},
		"metrics of too many":        {"-metrics-channels", strings.Repeat("a ", 33), "up to 32 patterns"},
		"metrics of a bad pattern":   {"-metrics-channels", "a[", `"a["`},
		"metrics of nowhere":         {"-metrics-channels", "chat.*", "needs -metrics HOST:PORT"},
	} {
		t.Run(name, func(t *testing.T) {
			refuses(t, c.flag, c.value, c.allowed)
		})
	}
	for says, args := range map[string][]string{"-nonsense": {"-nonsense", "1"}, "argument 1 of 1 is not a flag": {"serve"}, "argument 3 of 4 is not a flag": {"-addr", ":1", "rest", "-node"}} {
		t.Run(says, func(t *testing.T) { wantRefused(t, nil, args, says) })
	}
	t.Run("help names every flag", func(t *testing.T) {
		var out bytes.Buffer
		_, err := parse([]string{"-h"}, lookup(nil), &out)
		require.True(t, errors.Is(err, flag.ErrHelp))
		new(config).flags().VisitAll(func(f *flag.Flag) { require.Contains(t, out.String(), "  -"+f.Name) })
	})
}

func TestChannelOptions(t *testing.T) {
	cfg := parsed(t, nil, "-history", "chat.vip=5,1h chat.*=10,2h", "-presence", "chat.* room?")
	for name, want := range map[string]channels.ChannelOptions{
		"chat.vip": {HistorySize: 5, HistoryTTL: time.Hour, Presence: channels.PresenceEvents}, // the first matching rule counts
		"chat.a":   {HistorySize: 10, HistoryTTL: 2 * time.Hour, Presence: channels.PresenceEvents},
		"chat":     {Presence: channels.PresenceList},
		"room1":    {Presence: channels.PresenceEvents},
		"room12":   {Presence: channels.PresenceList},
		"xchat.a":  {Presence: channels.PresenceList},
		"채팅":       {Presence: channels.PresenceList},
	} {
		require.Equal(t, want, cfg.channel(name), name)
	}
}
