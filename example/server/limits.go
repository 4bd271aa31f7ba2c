package main

import (
	"errors"
	"flag"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/channels-go/channels"
)

// A limit is a field of the hub's options that a flag sets. The hub checks its
// value.
type limit struct {
	flag, field string
	to          func(*channels.Options) any // an *int or a *time.Duration
	usage       string
}

var limits = []limit{
	{"max-message-bytes", "MaxMessageBytes", func(o *channels.Options) any { return &o.MaxMessageBytes }, "`N`: the maximum size of a message and a request body (default 262144)"},
	{"queue-bytes", "QueueBytes", func(o *channels.Options) any { return &o.QueueBytes }, "`N`: the bytes that may wait for one slow receiver; see -slow (default 1 MiB or 4 times -max-message-bytes)"},
	{"max-queued-bytes", "MaxQueuedBytes", func(o *channels.Options) any { return &o.MaxQueuedBytes }, "`N`: the bytes waiting for all receivers, above which new connections are refused (default 1 GiB)"},
	{"max-unfinished-bytes", "MaxUnfinishedBytes", func(o *channels.Options) any { return &o.MaxUnfinishedBytes }, "`N`: the bytes held of all incomplete bodies and messages (default 64 MiB)"},
	{"max-channels", "MaxChannels", func(o *channels.Options) any { return &o.MaxChannels }, "`N`: the maximum number of channels (default 1000000)"},
	{"compress-bytes", "CompressBytes", func(o *channels.Options) any { return &o.CompressBytes }, "`N`: the length from which messages are compressed; -1 for never, if messages hold a secret next to other people's text (default 1024)"},
	{"ping-period", "PingPeriod", func(o *channels.Options) any { return &o.PingPeriod }, "`TIME` after which silent connections are pinged; less than the idle timeout of proxies (default 25s)"},
	{"write-timeout", "WriteTimeout", func(o *channels.Options) any { return &o.WriteTimeout }, "`TIME` within which a connection must accept some of the data written to it (default 10s)"},
	{"store-timeout", "StoreTimeout", func(o *channels.Options) any { return &o.StoreTimeout }, "`TIME` that Redis has for one answer (default 5s)"},
}

func (cfg *config) limitFlags(fs *flag.FlagSet) {
	for _, l := range limits {
		fs.Func(l.flag, l.usage, func(s string) error {
			switch to := l.to(&cfg.limits).(type) {
			case *int:
				n, err := strconv.Atoi(s)
				if err != nil || n == 0 { // 0 would be the default
					return errors.New("it must be a number, not 0")
				}
				*to = n
			case *time.Duration:
				d, err := time.ParseDuration(s)
				if err != nil || d <= 0 {
					return errors.New("it must be a time of more than 0, with a unit: 500ms, 30s, 2m")
				}
				*to = d
			}
			return nil
		})
	}
}

// inFlags replaces the fields in an error of the hub by their flags.
func inFlags(err error) error {
	if err == nil {
		return nil
	}
	text := strings.TrimPrefix(err.Error(), "channels: ")
	for _, l := range limits {
		text = strings.ReplaceAll(text, "Options."+l.field+" ", "-"+l.flag+" ")
	}
	return errors.New(text)
}

// options returns the hub's options, except those that have to be opened first.
func (cfg *config) options() channels.Options {
	o := cfg.limits
	o.ReplicaID, o.AllowedOrigins, o.Hosts, o.Channel = cfg.node, cfg.origins, cfg.hosts, cfg.channel
	o.DrainTime, o.DrainDelay = max(cfg.drain, 1), cfg.drainDelay // 0 would be the default
	o.StreamTime = cfg.stream
	o.MaxConnections, o.MaxConnectionsPerAddress = cfg.maxConnections, cfg.maxConnectionsPerAddress
	return o
}

// channel returns a channel's options.
func (cfg *config) channel(name string) channels.ChannelOptions {
	o := cfg.history.options(name)
	if o.HistorySize == 0 { // with history, the hub closes slow subscribers so that they miss nothing
		o.SlowSubscriber = channels.SlowPolicy(cfg.slow.of(name))
	}
	o.Publishers = channels.Publishers(cfg.publishers.of(name))
	return o
}

var (
	slowPolicies = map[string]uint8{"close": uint8(channels.SlowClose), "drop-oldest": uint8(channels.SlowDropOldest), "keep-latest": uint8(channels.SlowKeepLatest)}
	publishers   = map[string]uint8{"anyone": uint8(channels.PublishersAnyone), "identified": uint8(channels.PublishersIdentified), "server": uint8(channels.PublishersServer)}
)

// choices are the values chosen for channels, by pattern.
type choices []choice

type choice struct {
	pattern string
	value   uint8
}

// flag adds a flag that chooses one of the values for a pattern.
func (c *choices) flag(fs *flag.FlagSet, name, usage string, values map[string]uint8) {
	fs.Func(name, "`PATTERN=CHOICE`: "+usage+"; repeatable, the first match counts; separated by spaces in the environment", func(s string) error {
		for _, f := range strings.Fields(s) {
			pattern, word, _ := cutLast(f, "=")
			value, ok := values[word]
			if _, err := path.Match(pattern, ""); err != nil || !ok || pattern == "" {
				return fmt.Errorf("%q does not have the form PATTERN=CHOICE, with one of %s", f, strings.SplitN(usage, ":", 2)[0])
			}
			*c = append(*c, choice{pattern, value})
		}
		return nil
	})
}

// of returns the value chosen for a channel, or 0.
func (c choices) of(name string) uint8 {
	for _, one := range c {
		if ok, _ := path.Match(one.pattern, name); ok {
			return one.value
		}
	}
	return 0
}

// number adds a flag for a number from lo to hi.
func number(fs *flag.FlagSet, name string, to *int, lo, hi int, usage string) {
	fs.Func(name, usage, func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || n < lo || n > hi {
			return fmt.Errorf("it must be %d to %d", lo, hi)
		}
		*to = n
		return nil
	})
}

// boolFlag is fs.BoolVar with an error that tells what is allowed.
func boolFlag(fs *flag.FlagSet, name string, to *bool, usage string) {
	fs.BoolFunc(name, usage, func(s string) (err error) {
		if *to, err = strconv.ParseBool(s); err != nil {
			return errors.New("it must be true or false")
		}
		return nil
	})
}

// drainTime adds a flag for a time of up to 10 minutes.
func drainTime(fs *flag.FlagSet, name string, to *time.Duration, usage string) {
	fs.Func(name, usage, func(s string) error {
		d, err := time.ParseDuration(s)
		if err != nil || d < 0 || d > 10*time.Minute {
			return errors.New("it must be 0 to 10m, with a unit: 5s, 2m")
		}
		*to = d
		return nil
	})
}
