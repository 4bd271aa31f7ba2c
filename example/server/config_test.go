package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"log/slog"
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
	defaults := config{addr: "127.0.0.1:8080", drain: 5 * time.Second, drainDelay: 5 * time.Second, redis: redisConfig{prefix: "channels"}}
	with := func(f func(*config)) config {
		c := defaults
		f(&c)
		c.history.presence = c.presence
		return c
	}
	chat := historyRule{"chat.*", 1000, 24 * time.Hour}
	news := historyRule{"news", 1, time.Millisecond}
	for name, c := range map[string]struct {
		args []string
		env  map[string]string
		want config
	}{
		"nothing": {want: defaults},
		"flags": {
			args: []string{"-addr", ":9000", "-node", "n1", "-history", "chat.*=1000,24h", "-history", "news=1,1ms", "-presence", "chat.*", "-presence", "p?",
				"-origin", "https://a.example", "-origin", "https://b.example", "-drain", "90s", "-log-level", "debug"},
			want: with(func(c *config) {
				c.addr, c.node, c.drain, c.logLevel = ":9000", "n1", 90*time.Second, slog.LevelDebug
				c.history.rules = []historyRule{chat, news}
				c.presence = patterns{"chat.*", "p?"}
				c.origins = []string{"https://a.example", "https://b.example"}
			}),
		},
		"the environment": {
			env: map[string]string{"CHANNELS_ADDR": ":9000", "CHANNELS_NODE": "n1", "CHANNELS_HISTORY": "chat.*=1000,24h  news=1,1ms", "CHANNELS_PRESENCE": "chat.* p?",
				"CHANNELS_ORIGIN": "https://a.example https://b.example", "CHANNELS_DRAIN": "1m30s", "CHANNELS_LOG_LEVEL": "debug", "ADDR": ":1", "CHANNELS_OTHER": "x"},
			want: with(func(c *config) {
				c.addr, c.node, c.drain, c.logLevel = ":9000", "n1", 90*time.Second, slog.LevelDebug
				c.history.rules = []historyRule{chat, news}
				c.presence = patterns{"chat.*", "p?"}
				c.origins = []string{"https://a.example", "https://b.example"}
			}),
		},
		"a flag overrides its variable": {
			args: []string{"-history", "news=1,1ms", "-addr", ":1"},
			env:  map[string]string{"CHANNELS_HISTORY": "chat.*=1000,24h", "CHANNELS_ADDR": ":2", "CHANNELS_NODE": "n2"},
			want: with(func(c *config) { c.addr, c.node, c.history.rules = ":1", "n2", []historyRule{news} }),
		},
		"a pattern with an equals sign": {
			args: []string{"-history", "a=b=1,1h"},
			want: with(func(c *config) { c.history.rules = []historyRule{{"a=b", 1, time.Hour}} }),
		},
		"the longest history": {args: []string{"-history", "*=10000000,1h"}, want: with(func(c *config) { c.history.rules = []historyRule{{"*", 10_000_000, time.Hour}} })},
		"limits": {args: []string{"-max-connections", "9", "-max-connections-per-address", "2"},
			want: with(func(c *config) { c.maxConnections, c.maxConnectionsPerAddress = 9, 2 })},
		"a gateway": {args: []string{"-zmq-pub", "tcp://127.0.0.1:1", "-zmq-insecure"},
			env: map[string]string{"CHANNELS_ZMQ_PULL": "tcp://127.0.0.1:2", "CHANNELS_ZMQ_REP": "tcp://127.0.0.1:3", "CHANNELS_ZMQ_TOKEN": "0123456789abcdef\n"},
			want: with(func(c *config) {
				c.gateway = gatewayConfig{"tcp://127.0.0.1:1", "tcp://127.0.0.1:2", "tcp://127.0.0.1:3", true}
				c.security.zmqToken = []byte("0123456789abcdef")
			})},
		"hosts": {args: []string{"-host", "app.example.com", "-host", "*.live.example.com"}, env: map[string]string{"CHANNELS_DRAIN_DELAY": "0"},
			want: with(func(c *config) { c.hosts, c.drainDelay = []string{"app.example.com", "*.live.example.com"}, 0 })},
		"no time for the drain": {args: []string{"-drain", "0"}, want: with(func(c *config) { c.drain = 0 })},
		"streams for so long":   {env: map[string]string{"CHANNELS_STREAM_TIME": "90s"}, want: with(func(c *config) { c.stream = 90 * time.Second })},
		"streams for ever":      {args: []string{"-stream-time", "0"}, want: with(func(c *config) { c.stream = -1 })},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parse(c.args, lookup(c.env), io.Discard)
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}

// Each error names the source of the value, the value, and what is allowed.
func TestConfigErrors(t *testing.T) {
	for name, c := range map[string]struct {
		flag, variable, value string
		allowed               string
	}{
		"history without limits":     {"-history", "CHANNELS_HISTORY", "chat.*", "PATTERN=SIZE,TTL"},
		"history without a time":     {"-history", "CHANNELS_HISTORY", "chat.*=10", "PATTERN=SIZE,TTL"},
		"history without a pattern":  {"-history", "CHANNELS_HISTORY", "=10,1h", "PATTERN=SIZE,TTL"},
		"history of size 0":          {"-history", "CHANNELS_HISTORY", "a=0,1h", "1 to 10000000"},
		"history of too many":        {"-history", "CHANNELS_HISTORY", "a=10000001,1h", "1 to 10000000"},
		"history, not a number":      {"-history", "CHANNELS_HISTORY", "a=x,1h", "1 to 10000000"},
		"history of a negative size": {"-history", "CHANNELS_HISTORY", "a=-1,1h", "1 to 10000000"},
		"history for no time":        {"-history", "CHANNELS_HISTORY", "a=1,0", "1ms or more"},
		"history for too short":      {"-history", "CHANNELS_HISTORY", "a=1,1us", "1ms or more"},
		"history without a unit":     {"-history", "CHANNELS_HISTORY", "a=1,24", "24h"},
		"history, the second is bad": {"-history", "CHANNELS_HISTORY", "a=1,1h b", "PATTERN=SIZE,TTL"},
		"history with a bad pattern": {"-history", "CHANNELS_HISTORY", "[=1,1h", `"["`},
		"presence":                   {"-presence", "CHANNELS_PRESENCE", "a[", `"a["`},
		"drain":                      {"-drain", "CHANNELS_DRAIN", "5", "5s"},
		"max-connections":            {"-max-connections", "CHANNELS_MAX_CONNECTIONS", "0", "1 to"},
		"max-connections, text":      {"-max-connections-per-address", "CHANNELS_MAX_CONNECTIONS_PER_ADDRESS", "many", "1 to"},
		"drain, negative":            {"-drain", "CHANNELS_DRAIN", "-1s", "0 to 10m"},
		"drain for ages":             {"-drain", "CHANNELS_DRAIN", "1h", "0 to 10m"},
		"a delay without a unit":     {"-drain-delay", "CHANNELS_DRAIN_DELAY", "5", "0 to 10m"},
		"a host with a port":         {"-host", "CHANNELS_HOST", "fine.example app.example.com:80", `"app.example.com:80" is not a host name`},
		"a limit of 0":               {"-queue-bytes", "CHANNELS_QUEUE_BYTES", "0", "not 0"},
		"a time without a unit":      {"-ping-period", "CHANNELS_PING_PERIOD", "20", "30s"},
		"an unknown policy":          {"-slow", "CHANNELS_SLOW", "a=fast", "close, drop-oldest or keep-latest"},
		"a policy without a pattern": {"-publishers", "CHANNELS_PUBLISHERS", "identified", "anyone, identified or server"},
		"stream-time":                {"-stream-time", "CHANNELS_STREAM_TIME", "15", "0: 90s, 15m"},
		"stream-time, negative":      {"-stream-time", "CHANNELS_STREAM_TIME", "-1s", "1s to 24h"},
		"stream-time for days":       {"-stream-time", "CHANNELS_STREAM_TIME", "25h", "1s to 24h"},
		"a node":                     {"-node", "CHANNELS_NODE", "a b", "1 to 64 of"},
		"an origin without a scheme": {"-origin", "CHANNELS_ORIGIN", "https://a.example app.example.com", `"app.example.com" is not an origin like`},
		"log level":                  {"-log-level", "CHANNELS_LOG_LEVEL", "loud", "debug, info, warn or error"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse([]string{c.flag, c.value}, lookup(nil), io.Discard)
			require.ErrorContains(t, err, c.allowed)
			require.ErrorContains(t, err, c.flag)
			_, err = parse(nil, lookup(map[string]string{c.variable: c.value}), io.Discard)
			require.ErrorContains(t, err, c.allowed)
			require.ErrorContains(t, err, c.variable)
		})
	}
	for says, args := range map[string][]string{"-nonsense": {"-nonsense", "1"}, "argument 1 of 1 is not a flag": {"serve"}, "argument 3 of 4 is not a flag": {"-addr", ":1", "rest", "-node"}} {
		t.Run(says, func(t *testing.T) {
			_, err := parse(args, lookup(nil), io.Discard)
			require.ErrorContains(t, err, says)
		})
	}
	t.Run("help names every flag", func(t *testing.T) {
		var out bytes.Buffer
		_, err := parse([]string{"-h"}, lookup(nil), &out)
		require.True(t, errors.Is(err, flag.ErrHelp))
		for _, f := range []string{"-addr", "-node", "-history", "-presence", "-origin", "-drain", "-stream-time", "-log-level", "-max-connections", "-max-connections-per-address", "-jwt-secret-file", "-jwt-public-key", "-jwt-issuer", "-jwt-audience", "-jwt-cookie", "-api-keys-file",
			"-anonymous", "-rate-address", "-rate-user", "-rate-connection", "-trusted-proxy", "-log-requests",
			"-mesh", "-mesh-listen", "-mesh-advertise", "-mesh-peers", "-mesh-dns", "-mesh-key-file", "-mesh-cert", "-mesh-tls-key", "-mesh-ca", "-mesh-insecure",
			"-zmq-pub", "-zmq-pull", "-zmq-rep", "-zmq-token-file", "-zmq-insecure"} {
			require.Contains(t, out.String(), f)
		}
	})
}

func TestChannelOptions(t *testing.T) {
	cfg, err := parse([]string{"-history", "chat.vip=5,1h chat.*=10,2h", "-presence", "chat.* room?"}, lookup(nil), io.Discard)
	require.NoError(t, err)
	for name, want := range map[string]channels.ChannelOptions{
		"chat.vip": {HistorySize: 5, HistoryTTL: time.Hour, Presence: channels.PresenceEvents}, // the first matching rule counts
		"chat.a":   {HistorySize: 10, HistoryTTL: 2 * time.Hour, Presence: channels.PresenceEvents},
		"chat":     {Presence: channels.PresenceList},
		"room1":    {Presence: channels.PresenceEvents},
		"room12":   {Presence: channels.PresenceList},
		"xchat.a":  {Presence: channels.PresenceList},
		"채팅":       {Presence: channels.PresenceList},
	} {
		require.Equal(t, want, cfg.history.options(name), name)
	}
}
