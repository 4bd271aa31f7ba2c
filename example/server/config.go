package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/admin"
	"github.com/channels-go/channels/admin/scale"
	"github.com/channels-go/channels/internal/replica"
	"github.com/channels-go/channels/middleware"
)

// config is the configuration from flags and environment.
type config struct {
	addr     string
	hub      channels.Options // what flags set of it; a number or time of 0 is the hub's default
	logLevel slog.Level
	security security
	redis    redisConfig
	mesh     meshConfig
	gateway  gatewayConfig
	metrics  metricsConfig
	admin    admin.Options // without a Token, there is no page
	scale    scale.KubernetesOptions

	history    rules[kept]
	presence   rules[channels.PresenceMode]
	presenceBy rules[channels.PresenceBy]
	grace      rules[time.Duration]
	slow       rules[channels.SlowPolicy]
	publishers rules[channels.Publishers]
	hidden     rules[bool] // whose publishers are hidden
}

// parse reads the flags. Flags that are not given come from CHANNELS_…
// variables. It writes the usage to out only if help was asked for: an error
// would be lost among all the flags.
func parse(args []string, env func(string) (string, bool), out io.Writer) (config, error) {
	var cfg config
	fs := cfg.flags()
	if err := refuseSecrets(args); err != nil {
		return cfg, err
	}
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fs.SetOutput(out)
			fs.Usage()
		}
		return cfg, err
	}
	if err := cfg.security.takeFailed(); err != nil {
		return cfg, err
	}
	if n := fs.NArg(); n > 0 { // not repeated, since it may be a secret
		return cfg, fmt.Errorf("argument %d of %d is not a flag (it is not shown, since it may be a secret): a flag begins with -, and a value with spaces or * needs quotes", len(args)-n+1, len(args))
	}
	given := map[string]string{} // for each flag that is set: the flag or the variable that set it
	fs.Visit(func(f *flag.Flag) { given[f.Name] = "-" + f.Name })
	var err error
	fs.VisitAll(func(f *flag.Flag) {
		key := variable(f.Name)
		if v, ok := env(key); ok && given[f.Name] == "" && err == nil {
			given[f.Name] = key
			if e := f.Value.Set(v); e != nil {
				err = fmt.Errorf("%s=%q: %w", key, v, e)
			} else if e := cfg.security.takeFailed(); e != nil {
				err = fmt.Errorf("%s: %w", key, e)
			}
		}
	})
	if err != nil {
		return cfg, err
	}
	err = cmp.Or( // the first of them
		readSecrets(&cfg, env, given),
		cfg.redis.check(given["redis"] == "-redis"),
		cfg.mesh.check(cfg.redis.url != "", len(cfg.history) > 0),
		cfg.gateway.check(&cfg.security),
		cfg.metrics.check(),
		cfg.checkScale())
	return cfg, err
}

// flags returns all flags. They set cfg.
func (cfg *config) flags() *flag.FlagSet {
	fs := flag.NewFlagSet("server", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&cfg.addr, "addr", "127.0.0.1:8080", "`HOST:PORT` to listen on")
	fs.Func("node", "this replica's `NAME`, unique among the replicas: 1 to 64 of A-Z, a-z, 0-9, - _ and .; random if empty", func(s string) error {
		if s != "" && replica.CheckID(s) != nil {
			return errors.New("it may have 1 to 64 of A-Z, a-z, 0-9, '-', '_' and '.'")
		}
		cfg.hub.ReplicaID = s
		return nil
	})
	list(fs, "history", "`PATTERN=SIZE,TTL`: channels whose names match keep SIZE messages for the time TTL, e.g. 'chat.*=1000,24h'; repeatable, the first match counts; separated by spaces in the environment", cfg.addHistory)
	list(fs, "presence", "`PATTERN` of channels that tell their subscribers who joins and leaves, e.g. 'chat.*' (every other channel only lists its members), or PATTERN=MODE with the mode events, list or off; repeatable, the first match counts; separated by spaces in the environment", cfg.addPresence)
	choice(fs, "presence-by", &cfg.presenceBy, "who is a member of these channels: each connection, or each user with all connections (default connection)", presenceBy)
	list(fs, "presence-grace", "`PATTERN=TIME`: how long a user may be away from channels with -presence-by user without leaving, e.g. 'chat.*=10s'; up to 1h; repeatable, the first match counts; separated by spaces in the environment (default 0)", cfg.addGrace)
	choice(fs, "slow", &cfg.slow, "what happens to a subscriber of these channels when its queue is full, if they keep no history (default close)", slowPolicies)
	choice(fs, "publishers", &cfg.publishers, "which clients may publish on these channels; with server only Go code may, and this service has none (default anyone)", publishers)
	list(fs, "hide-publishers", "`PATTERN` of channels that do not tell which connection published a message; repeatable, separated by spaces in the environment", func(s string) error {
		if err := cfg.hidden.add(s, true); err != nil {
			return fmt.Errorf("the pattern %q: %w", s, err)
		}
		return nil
	})
	list(fs, "host", "`NAME` that this server answers to besides localhost and IP addresses, e.g. app.example.com, *.example.com or * for any; repeatable, separated by spaces in the environment (default: any; only localhost and IP addresses if -addr is a loopback address and no tokens or keys are required)", func(s string) error {
		if _, err := middleware.Hosts(s); err != nil {
			return fmt.Errorf("%q is not a host name like app.example.com, *.example.com or *, without a scheme and a port", s)
		}
		cfg.hub.Hosts = append(cfg.hub.Hosts, s)
		return nil
	})
	list(fs, "origin", "`ORIGIN` of other websites or apps whose pages may connect, e.g. https://app.example.com or capacitor://localhost; repeatable, separated by spaces in the environment", func(s string) error {
		if _, err := middleware.CORS(middleware.CORSOptions{Origins: []string{s}}); err != nil {
			return fmt.Errorf("%q is not an origin like https://app.example.com, https://*.example.com, app://name, file://, null or *", s)
		}
		cfg.hub.AllowedOrigins = append(cfg.hub.AllowedOrigins, s)
		return nil
	})
	cfg.hub.DrainTime, cfg.hub.DrainDelay = 5*time.Second, 5*time.Second
	duration(fs, "drain", &cfg.hub.DrainTime, 0, 10*time.Minute, -1, "0 to 10m, with a unit: 5s, 2m",
		"the `TIME` over which clients' reconnects are spread at shutdown, e.g. 30s; 0 is at once (default 5s)")
	duration(fs, "drain-delay", &cfg.hub.DrainDelay, 0, 10*time.Minute, 0, "0 to 10m, with a unit: 5s, 2m",
		"the `TIME` at shutdown for which /readyz answers 503 while everything else goes on, so that load balancers notice before clients are told to reconnect; a second signal ends it (default 5s)")
	duration(fs, "stream-time", &cfg.hub.StreamTime, time.Second, 24*time.Hour, -1, "1s to 24h, with a unit, or 0: 90s, 15m",
		"the `TIME` after which an event stream ends, give or take a quarter, so that a client that has gone behind a proxy is noticed; the others reconnect; 0 is never (default 15m)")
	cfg.limitFlags(fs)
	number(fs, "max-connections", &cfg.hub.MaxConnections, 1, 1<<30, "`N`: the maximum number of connections (default 1000000)")
	number(fs, "max-connections-per-address", &cfg.hub.MaxConnectionsPerAddress, 1, 1<<30, "`N`: the maximum number of connections from one IPv4 address or IPv6 /64 network (default: no limit)")
	fs.Func("log-level", "`LEVEL`: debug, info, warn or error (default info)", func(s string) error {
		if err := cfg.logLevel.UnmarshalText([]byte(s)); err != nil {
			return fmt.Errorf("it must be debug, info, warn or error")
		}
		return nil
	})
	cfg.redis.flags(fs)
	cfg.security.flags(fs)
	cfg.mesh.flags(fs, &cfg.security)
	cfg.gateway.flags(fs)
	cfg.scaleFlags(fs)
	cfg.metrics.flags(fs)
	for _, s := range secrets {
		cfg.security.file(fs, s.name+"-file", s.usage, func(b []byte) error { return s.add(cfg, b) })
	}
	return fs
}

// variable returns the name of the environment variable for a flag.
func variable(flag string) string {
	return "CHANNELS_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}
