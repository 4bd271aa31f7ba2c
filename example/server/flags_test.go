package main

import (
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/admin"
	"github.com/channels-go/channels/admin/scale"
	"github.com/channels-go/channels/metrics"
	"github.com/channels-go/channels/middleware"
)

// told says which flags set a field of the library's options, to other than the
// default, or why the field has no flag.
type told struct {
	flags string // separated by spaces
	not   string
}

// Every field of the library's options has a flag or a reason not to have one.
// A field that is added to the library and forgotten here fails the test.
func TestEverythingHasAFlag(t *testing.T) {
	secret := " -jwt-secret-file " + strings.ReplaceAll(file(t, testSecret), " ", "\x01")
	keys := " -api-keys-file " + strings.ReplaceAll(file(t, testKeys), " ", "\x01")
	const goCode, log = "it is Go code that only an app has", "the process has one log, with -log-level"
	for _, c := range []struct {
		of     any
		get    func(*testing.T, config) any // the options that a configuration makes
		fields map[string]told
	}{
		{channels.Options{}, func(t *testing.T, cfg config) any {
			o := cfg.options()
			_, err := cfg.security.around(&o, slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			return o
		}, map[string]told{
			"Store": {not: "it is made of -redis, when the server starts"}, "Mesh": {not: "it is made of -mesh, when the server starts"},
			"ReplicaID": {flags: "-node n"}, "Channel": {not: "its answers are those of ChannelOptions below"}, "Authorize": {flags: secret}, "Authenticate": {flags: secret},
			"AllowedOrigins": {flags: "-origin https://a.example"}, "Hosts": {flags: "-host a.example"},
			"OnConnect": {flags: "-log-requests"}, "OnDisconnect": {flags: "-log-requests"}, "OnSubscribe": {not: goCode}, "OnOccupied": {not: goCode}, "OnVacated": {not: goCode}, "OnPublish": {not: goCode}, "OnCall": {not: goCode}, "OnReceive": {flags: "-rate-connection 1"}, "MaxUnfinishedBytes": {flags: "-max-unfinished-bytes 8388608"},
			"MaxMessageBytes": {flags: "-max-message-bytes 2048"}, "QueueBytes": {flags: "-queue-bytes 4194304"}, "MaxChannels": {flags: "-max-channels 5"}, "MaxConnections": {flags: "-max-connections 5"},
			"MaxConnectionsPerAddress": {flags: "-max-connections-per-address 5"}, "MaxQueuedBytes": {flags: "-max-queued-bytes 4194304"}, "CompressBytes": {flags: "-compress-bytes -1"}, "MaxSubscriptions": {flags: "-max-subscriptions 5"}, "MaxPatterns": {flags: "-max-patterns 5"},
			"PingPeriod": {flags: "-ping-period 10s"}, "WriteTimeout": {flags: "-write-timeout 5s"}, "StoreTimeout": {flags: "-store-timeout 1s"},
			"StreamTime": {flags: "-stream-time 90s"}, "DrainTime": {flags: "-drain 1s"}, "DrainDelay": {flags: "-drain-delay 1s"}, "Logger": {not: log},
		}},
		{channels.ChannelOptions{}, func(_ *testing.T, cfg config) any { return cfg.channel("a") }, map[string]told{
			"HistorySize": {flags: "-history a=1,1h"}, "HistoryTTL": {flags: "-history a=1,1h"}, "MaxMessageBytes": {not: "-max-message-bytes is for all channels; one's own is Go code's to choose"}, "Presence": {flags: "-presence a=off"},
			"PresenceBy": {flags: "-presence-by a=user"}, "PresenceGrace": {flags: "-presence-by a=user -presence-grace a=5s"},
			"SlowSubscriber": {flags: "-slow a=keep-latest"}, "Publishers": {flags: "-publishers a=identified"}, "HidePublishers": {flags: "-hide-publishers a"},
		}},
		{middleware.JWTOptions{}, func(_ *testing.T, cfg config) any { return cfg.security.jwt }, map[string]told{
			"Keys": {flags: secret}, "Issuer": {flags: "-jwt-issuer us"}, "Audience": {flags: "-jwt-audience chat"}, "Leeway": {flags: "-jwt-leeway 1s"}, "Cookie": {flags: "-jwt-cookie c"},
			"Optional":      {not: "-anonymous, -anonymous-publish and -anonymous-list decide it"},
			"AllowNoExpiry": {flags: "-jwt-allow-no-expiry"}, "AllowNoSubject": {flags: "-jwt-allow-no-subject"}, "Default": {flags: "-jwt-default-subscribe a"}, "Logger": {not: log},
		}},
		{middleware.JWTKey{}, func(_ *testing.T, cfg config) any {
			return append(cfg.security.jwt.Keys, middleware.JWTKey{})[0]
		}, map[string]told{
			"ID": {not: "a key without an ID is tried for every token, so keys can be replaced without IDs"}, "Key": {flags: secret},
		}},
		{middleware.Grants{}, func(_ *testing.T, cfg config) any { return cfg.security.jwt.Default }, map[string]told{
			"Subscribe": {flags: "-jwt-default-subscribe a"}, "Publish": {flags: "-jwt-default-publish a"}, "List": {flags: "-jwt-default-list"},
		}},
		{middleware.Grants{}, func(_ *testing.T, cfg config) any { // for requests without a token
			return cfg.security.anonymous
		}, map[string]told{
			"Subscribe": {flags: "-anonymous a"}, "Publish": {flags: "-anonymous-publish a"}, "List": {flags: "-anonymous-list"},
		}},
		{middleware.APIKeyOptions{}, nil, map[string]told{
			"Keys": {not: "its elements are ServerKeys, below"}, "Limiter": {not: "it is that of -rate-address"}, "Logger": {not: log},
		}},
		{middleware.ServerKey{}, func(_ *testing.T, cfg config) any {
			return append(cfg.security.apiKeys, middleware.ServerKey{})[0]
		}, map[string]told{"Name": {flags: keys}, "Key": {flags: keys}, "Grants": {flags: keys}}},
		{middleware.RateLimitOptions{}, func(_ *testing.T, cfg config) any { return cfg.security.rates }, map[string]told{
			"Address": {flags: "-rate-address 1"}, "User": {flags: "-rate-user 1"}, "Connection": {flags: "-rate-connection 1"},
			"IPv6Prefix": {flags: "-rate-ipv6-prefix 56"}, "MaxEntries": {flags: "-rate-entries 2048"},
		}},
		{middleware.Rate{}, func(_ *testing.T, cfg config) any { return cfg.security.rates.Address }, map[string]told{
			"PerSecond": {flags: "-rate-address 1"}, "Burst": {flags: "-rate-address 1,5"},
		}},
		{middleware.CORSOptions{}, nil, map[string]told{
			"Origins": {not: "they are those of -origin"}, "Methods": {not: "the endpoints have the default methods only"},
			"Headers": {not: "what a preflight asks for is allowed"}, "Exposed": {not: "the answers have no other headers"}, "MaxAge": {not: "the default is 10 minutes, which is cheap"},
		}},
		{metrics.Options{}, func(_ *testing.T, cfg config) any { return cfg.metrics.options }, map[string]told{
			"Channels": {flags: "-metrics 127.0.0.1:9090 -metrics-channels a"},
		}},
		{admin.Options{}, func(_ *testing.T, cfg config) any { return cfg.admin }, map[string]told{
			"Token": {flags: adminToken(t)}, "Authorize": {not: "it is Go code that only an app has"},
			"SessionTime": {not: "12 hours are a working day"}, "Scaler": {not: "it is that of -admin-scale, below"}, "ScaleMin": {flags: "-admin-scale-min 2"}, "ScaleMax": {flags: "-admin-scale-max 20"}, "Logger": {not: log},
		}},
		{scale.KubernetesOptions{}, func(_ *testing.T, cfg config) any { return cfg.scale }, map[string]told{
			"Name": {flags: "-admin-scale deployment/app" + " " + adminToken(t)}, "Kind": {flags: "-admin-scale statefulset/app" + " " + adminToken(t)},
			"Namespace": {not: "it is the pod's own"}, "Server": {not: "Kubernetes tells each pod"}, "Account": {not: "it is where Kubernetes mounts it"}, "Timeout": {not: "the page waits no longer than its default"},
		}},
		{middleware.LogOptions{}, nil, map[string]told{
			"Logger": {not: log}, "Level": {not: "-log-requests asks for these records, so they have the default level"}, "Skip": {not: "only probes are left out"},
		}},
	} {
		kind := reflect.TypeOf(c.of)
		t.Run(kind.String(), func(t *testing.T) {
			for i := range kind.NumField() {
				field := kind.Field(i)
				if !field.IsExported() {
					continue
				}
				how, ok := c.fields[field.Name]
				require.True(t, ok, "%s.%s has neither a flag nor a reason not to have one", kind, field.Name)
				require.NotEqual(t, how.flags == "", how.not == "", "%s: either flags or a reason", field.Name)
				if how.flags == "" {
					continue
				}
				value := func(args ...string) reflect.Value {
					// With a secret, so that flags about tokens are accepted.
					for i := range args {
						args[i] = strings.ReplaceAll(args[i], "\x01", " ")
					}
					return reflect.ValueOf(c.get(t, parsed(t, nil, args...))).FieldByName(field.Name)
				}
				before, after := value(), value(strings.Fields(how.flags)...)
				if field.Type.Kind() == reflect.Func {
					require.True(t, before.IsNil() && !after.IsNil(), "%s does not set %s", how.flags, field.Name)
					continue
				}
				require.NotEqual(t, before.Interface(), after.Interface(), "%s does not change %s", how.flags, field.Name)
			}
			for name := range c.fields {
				_, ok := kind.FieldByName(name)
				require.True(t, ok, "%s has no field %s any more", kind, name)
			}
		})
	}
	var cfg config // each limit has to name its field
	for _, l := range limits {
		require.Equal(t, reflect.ValueOf(&cfg.hub).Elem().FieldByName(l.field).Addr().Interface(), l.to(&cfg.hub), l.flag)
	}
}

// Errors of the library are reported in the words of the command line.
func TestLimitsAreCheckedByTheHub(t *testing.T) {
	for _, c := range []struct{ flag, value, says string }{
		{"-max-message-bytes", "5", "-max-message-bytes is 5; it must be 1024 to"}, {"-queue-bytes", "5", "-queue-bytes is 5; it must be"}, {"-max-channels", "-1", "-max-channels is -1; it must be"},
		{"-ping-period", "1ms", "-ping-period is 1ms; it must be"}, {"-write-timeout", "1h", "-write-timeout is 1h0m0s; it must be"}, {"-store-timeout", "1h", "-store-timeout is 1h0m0s; it must be"},
	} {
		cfg := parsed(t, nil, "-addr", "127.0.0.1:0", c.flag, c.value)
		require.ErrorContains(t, run(t.Context(), cfg, slog.New(slog.DiscardHandler)), c.says)
	}
}

func TestChoicesOfChannels(t *testing.T) {
	cfg := parsed(t, nil, "-slow", "a*=drop-oldest", "-slow", "b=close *=keep-latest", "-publishers", "a1=server x=y=identified",
		"-presence", "a1=off x=y a*=list", "-history", "ah=1,1h", "-presence-by", "b=connection a*=user", "-presence-grace", "b=5s ah=0s a*=10s")
	for name, want := range map[string]channels.ChannelOptions{
		"a1":  {SlowSubscriber: channels.SlowDropOldest, Publishers: channels.PublishersServer, Presence: channels.PresenceOff},
		"a2":  {SlowSubscriber: channels.SlowDropOldest, Presence: channels.PresenceList, PresenceBy: channels.PresenceByUser, PresenceGrace: 10e9},
		"b":   {Presence: channels.PresenceList},
		"x=y": {SlowSubscriber: channels.SlowKeepLatest, Publishers: channels.PublishersIdentified, Presence: channels.PresenceEvents},
		"ah":  {HistorySize: 1, HistoryTTL: 3600e9, Presence: channels.PresenceList, PresenceBy: channels.PresenceByUser}, // with history, slow subscribers are always closed
	} {
		require.Equal(t, want, cfg.channel(name), name)
	}
}
