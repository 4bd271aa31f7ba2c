package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/middleware"
)

// config is the configuration from flags and environment.
type config struct {
	addr     string
	node     string
	history  historyRules
	presence patterns
	origins  []string
	drain    time.Duration
	stream   time.Duration // negative: streams do not end by themselves
	logLevel slog.Level
	security security
	redis    redisConfig
	mesh     meshConfig
	gateway  gatewayConfig

	hosts      []string
	drainDelay time.Duration
	slow       choices
	publishers choices
	limits     channels.Options // the numbers and times; 0: the hub's default

	maxConnections, maxConnectionsPerAddress int // 0: the hub's default
}

var nodeNames = regexp.MustCompile(`^[A-Za-z0-9_.-]{0,64}$`)

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
	if err == nil {
		err = readSecrets(&cfg, env, given)
	}
	if err == nil {
		err = cfg.redis.check(given["redis"] == "-redis")
	}
	if err == nil {
		err = cfg.mesh.check(cfg.redis.url != "", len(cfg.history.rules) > 0)
	}
	if err == nil {
		err = cfg.gateway.check(&cfg.security)
	}
	cfg.history.presence = cfg.presence
	return cfg, err
}

// flags returns all flags. They set cfg.
func (cfg *config) flags() *flag.FlagSet {
	fs := flag.NewFlagSet("server", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&cfg.addr, "addr", "127.0.0.1:8080", "`HOST:PORT` to listen on")
	fs.Func("node", "this replica's `NAME`, unique among the replicas: 1 to 64 of A-Z, a-z, 0-9, - _ and .; random if empty", func(s string) error {
		if !nodeNames.MatchString(s) {
			return errors.New("it may have 1 to 64 of A-Z, a-z, 0-9, '-', '_' and '.'")
		}
		cfg.node = s
		return nil
	})
	fs.Var(&cfg.history, "history", "`PATTERN=SIZE,TTL`: channels whose names match keep SIZE messages for the time TTL, e.g. 'chat.*=1000,24h'; repeatable, the first match counts; separated by spaces in the environment")
	fs.Var(&cfg.presence, "presence", "`PATTERN` of channels that tell their subscribers who joins and leaves, e.g. 'chat.*' (every other channel only lists its members), or PATTERN=MODE with the mode events, list or off; repeatable, the first match counts; separated by spaces in the environment")
	cfg.slow.flag(fs, "slow", "close, drop-oldest or keep-latest: what happens to a subscriber of these channels when its queue is full, if they keep no history (default close)", slowPolicies)
	cfg.publishers.flag(fs, "publishers", "anyone, identified or server: which clients may publish on these channels; with server only Go code may, and this service has none (default anyone)", publishers)
	fs.Func("host", "`NAME` that this server answers to besides localhost and IP addresses, e.g. app.example.com, *.example.com or * for any; repeatable, separated by spaces in the environment (default: any; only localhost and IP addresses if -addr is a loopback address and no tokens or keys are required)", func(s string) error {
		for _, f := range strings.Fields(s) {
			if _, err := middleware.Hosts(f); err != nil {
				return fmt.Errorf("%q is not a host name like app.example.com, *.example.com or *, without a scheme and a port", f)
			}
			cfg.hosts = append(cfg.hosts, f)
		}
		return nil
	})
	fs.Func("origin", "`ORIGIN` of other websites or apps whose pages may connect, e.g. https://app.example.com or capacitor://localhost; repeatable, separated by spaces in the environment", func(s string) error {
		for _, f := range strings.Fields(s) {
			if _, err := middleware.CORS(middleware.CORSOptions{Origins: []string{f}}); err != nil {
				return fmt.Errorf("%q is not an origin like https://app.example.com, https://*.example.com, app://name, file://, null or *", f)
			}
			cfg.origins = append(cfg.origins, f)
		}
		return nil
	})
	cfg.drain = 5 * time.Second
	drainTime(fs, "drain", &cfg.drain, "the `TIME` over which clients' reconnects are spread at shutdown, e.g. 30s; 0 is at once (default 5s)")
	cfg.drainDelay = 5 * time.Second
	drainTime(fs, "drain-delay", &cfg.drainDelay, "the `TIME` at shutdown for which /readyz answers 503 while everything else goes on, so that load balancers notice before clients are told to reconnect; a second signal ends it (default 5s)")
	fs.Func("stream-time", "the `TIME` after which an event stream ends, give or take a quarter, so that a client that has gone behind a proxy is noticed; the others reconnect; 0 is never (default 15m)", func(s string) error {
		d, err := time.ParseDuration(s)
		if err != nil || d != 0 && (d < time.Second || d > 24*time.Hour) {
			return fmt.Errorf("it must be 1s to 24h, with a unit, or 0: 90s, 15m")
		}
		if cfg.stream = d; d == 0 {
			cfg.stream = -1
		}
		return nil
	})
	cfg.limitFlags(fs)
	number(fs, "max-connections", &cfg.maxConnections, 1, 1<<30, "`N`: the maximum number of connections (default 1000000)")
	number(fs, "max-connections-per-address", &cfg.maxConnectionsPerAddress, 1, 1<<30, "`N`: the maximum number of connections from one IPv4 address or IPv6 /64 network (default: no limit)")
	fs.Func("log-level", "`LEVEL`: debug, info, warn or error (default info)", func(s string) error {
		if err := cfg.logLevel.UnmarshalText([]byte(s)); err != nil {
			return fmt.Errorf("it must be debug, info, warn or error")
		}
		return nil
	})
	cfg.redis.flags(fs)
	cfg.security.flags(fs)
	cfg.mesh.flags(fs, &cfg.security)
	cfg.gateway.flags(fs, &cfg.security)
	return fs
}

// variable returns the name of the environment variable for a flag.
func variable(flag string) string {
	return "CHANNELS_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// patterns are those of -presence. They match channel names like path.Match: *
// matches any text, since names have no slash.
type patterns []string

func (p *patterns) String() string { return strings.Join(*p, " ") }

func (p *patterns) Set(s string) error {
	for _, f := range strings.Fields(s) {
		pattern, _ := presenceMode(f)
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("the pattern %q: %w", f, err)
		}
		*p = append(*p, f)
	}
	return nil
}

// presenceMode splits a pattern and its mode. The pattern itself may contain an
// equals sign.
func presenceMode(s string) (pattern string, mode channels.PresenceMode) {
	for name, mode := range map[string]channels.PresenceMode{"off": channels.PresenceOff, "list": channels.PresenceList, "events": channels.PresenceEvents} {
		if p, ok := strings.CutSuffix(s, "="+name); ok {
			return p, mode
		}
	}
	return s, channels.PresenceEvents
}

// mode returns the presence mode of a channel.
func (p patterns) mode(name string) channels.PresenceMode {
	for _, s := range p {
		pattern, mode := presenceMode(s)
		if ok, _ := path.Match(pattern, name); ok {
			return mode
		}
	}
	return channels.PresenceList
}

type historyRule struct {
	pattern string
	size    int
	ttl     time.Duration
}

// historyRules are what channels keep, by pattern.
type historyRules struct {
	rules    []historyRule
	presence patterns
}

func (h *historyRules) String() string {
	var s []string
	for _, r := range h.rules {
		s = append(s, fmt.Sprintf("%s=%d,%v", r.pattern, r.size, r.ttl))
	}
	return strings.Join(s, " ")
}

func (h *historyRules) Set(s string) error {
	for _, f := range strings.Fields(s) {
		pattern, limits, ok := cutLast(f, "=")
		size, ttl, ok2 := strings.Cut(limits, ",")
		if !ok || !ok2 || pattern == "" {
			return fmt.Errorf("%q does not have the form PATTERN=SIZE,TTL, e.g. chat.*=1000,24h", f)
		}
		var one patterns
		if err := one.Set(pattern); err != nil {
			return err
		}
		n, err := strconv.Atoi(size)
		if err != nil || n < 1 || n > 10_000_000 {
			return fmt.Errorf("the size %q in %q has to be a number from 1 to 10000000", size, f)
		}
		d, err := time.ParseDuration(ttl)
		if err != nil || d < time.Millisecond {
			return fmt.Errorf("the time %q in %q must be 1ms or more, e.g. 90s, 24h", ttl, f)
		}
		h.rules = append(h.rules, historyRule{pattern, n, d})
	}
	return nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func (h *historyRules) options(name string) channels.ChannelOptions {
	o := channels.ChannelOptions{Presence: h.presence.mode(name)}
	for _, r := range h.rules {
		if ok, _ := path.Match(r.pattern, name); ok {
			o.HistorySize, o.HistoryTTL = r.size, r.ttl
			break
		}
	}
	return o
}
