package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/channels-go/channels/example/internal/web"
	"github.com/channels-go/channels/internal/redisclient"
	"github.com/channels-go/channels/store/redisstore"
)

// redisConfig is the Redis that this replica shares with others. An empty url
// means none.
type redisConfig struct{ url, prefix string }

const redisForms = "redis://HOST:PORT/DB, rediss:// (with TLS), redis+cluster://HOST:PORT?addr=HOST:PORT, rediss+cluster://, redis+sentinel://HOST:PORT/DB?master_name=NAME&addr=HOST:PORT, rediss+sentinel:// or unix:///PATH"

func (c *redisConfig) flags(fs *flag.FlagSet) {
	fs.StringVar(&c.url, "redis", "", "`URL` of the Redis that replicas share: "+redisForms+"; set a URL with a password in the environment instead")
	fs.StringVar(&c.prefix, "redis-prefix", "channels", "`TEXT` that the names of all keys and pub/sub channels in Redis begin with")
}

// check refuses an invalid URL, and a URL with a password on the command line,
// which everyone on the machine could read. For the same reason its errors do
// not show the URL.
func (c *redisConfig) check(onCommandLine bool) error {
	if c.url == "" {
		return nil
	}
	name := "CHANNELS_REDIS"
	if onCommandLine {
		name = "-redis"
	}
	if err := cmp.Or(checkText([]byte(c.url)), checkLine(c.url)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	u, err := url.Parse(c.url)
	if err != nil {
		return fmt.Errorf("%s is not a URL; it must be %s", name, redisForms)
	}
	if strings.Contains(u.Path+u.RawQuery+u.Fragment, "@") { // errors would show a part of the password as the path
		return fmt.Errorf("%s has an @ after the host: in a password, write / ? # @ and %% as %%2F %%3F %%23 %%40 %%25", name)
	}
	_, secret := u.User.Password()
	if onCommandLine && (secret || u.Query().Has("password") || u.Query().Has("sentinel_password")) {
		return errors.New("-redis has a password, which others on this machine can read: set CHANNELS_REDIS in the environment instead")
	}
	if err := redisclient.CheckPrefix(c.prefix); err != nil {
		return fmt.Errorf("-redis-prefix %w", err)
	}
	client, err := c.client()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return client.Close()
}

// client makes the client that the URL describes, without connecting.
func (c *redisConfig) client() (redis.UniversalClient, error) {
	scheme, rest, isURL := strings.Cut(c.url, "://")
	base, kind, _ := strings.Cut(scheme, "+")
	switch u, err := url.Parse(c.url); {
	case !isURL: // it is not shown: it may be a password
		return nil, fmt.Errorf("it is not a URL; it must be %s", redisForms)
	case base != "redis" && base != "rediss" && scheme != "unix",
		!slices.Contains([]string{"", "cluster", "sentinel"}, kind):
		return nil, fmt.Errorf("the scheme %.20q is not known; the URL must be %s", scheme, redisForms)
	case err != nil || scheme != "unix" && u.Host == "":
		return nil, fmt.Errorf("it has no host; it must be %s", redisForms)
	}
	plain := base + "://" + rest
	switch kind {
	case "cluster":
		o, err := redis.ParseClusterURL(plain)
		if err != nil {
			return nil, hideURL(err)
		}
		o.ContextTimeoutEnabled, o.ConnMaxIdleTime = true, cmp.Or(o.ConnMaxIdleTime, idleTime)
		return redis.NewClusterClient(o), nil
	case "sentinel":
		o, err := redis.ParseFailoverURL(plain)
		if err != nil {
			return nil, hideURL(err)
		}
		if o.MasterName == "" {
			return nil, errors.New("a Sentinel URL has to name the master: redis+sentinel://HOST:PORT/DB?master_name=NAME")
		}
		o.ContextTimeoutEnabled, o.ConnMaxIdleTime = true, cmp.Or(o.ConnMaxIdleTime, idleTime)
		return redis.NewFailoverClient(o), nil
	}
	o, err := redis.ParseURL(plain)
	if err != nil {
		return nil, hideURL(err)
	}
	o.ContextTimeoutEnabled, o.ConnMaxIdleTime = true, cmp.Or(o.ConnMaxIdleTime, idleTime)
	return redis.NewClient(o), nil
}

// idleTime is how long a connection may be idle before it is closed, unless the
// URL has a conn_max_idle_time. It is less than usual servers and load balancers
// wait before they close it: over TLS, go-redis does not notice that.
const idleTime = time.Minute

// hideURL removes the URL, which may have a password, from an error.
func hideURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// open returns the client and its Store. Close them in reverse order, after hub
// and mesh. open does not wait for Redis: until Redis answers, the server is
// not ready.
func (c *redisConfig) open(log *slog.Logger) (redis.UniversalClient, *redisstore.Store, error) {
	redis.SetLogger(web.RedisLog{Log: log})
	client, err := c.client()
	if err != nil {
		return nil, nil, err
	}
	st, err := redisstore.New(client, redisstore.Options{Prefix: c.prefix})
	if err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	return client, st, nil
}
