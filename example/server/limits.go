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

// A limit is a field of the hub's options that a flag sets. The hub knows what
// it may be.
type limit struct {
	flag, field string
	to          func(*channels.Options) any // an *int or a *time.Duration
	usage       string
}

var limits = []limit{
	{"max-message-bytes", "MaxMessageBytes", func(o *channels.Options) any { return &o.MaxMessageBytes }, "`N`: the longest message and body (default 262144)"},
	{"queue-bytes", "QueueBytes", func(o *channels.Options) any { return &o.QueueBytes }, "`N`: what may wait for one slow receiver, see -slow (default 1 MiB or 4 times -max-message-bytes)"},
	{"max-queued-bytes", "MaxQueuedBytes", func(o *channels.Options) any { return &o.MaxQueuedBytes }, "`N`: the sum of what waits from which new connections are refused (default 1 GiB)"},
	{"max-unfinished-bytes", "MaxUnfinishedBytes", func(o *channels.Options) any { return &o.MaxUnfinishedBytes }, "`N`: the sum of what is held of bodies and messages whose rest has not come (default 64 MiB)"},
	{"max-channels", "MaxChannels", func(o *channels.Options) any { return &o.MaxChannels }, "`N`: the most channels at a time (default 1000000)"},
	{"compress-bytes", "CompressBytes", func(o *channels.Options) any { return &o.CompressBytes }, "`N`: from which length messages are compressed, -1 for never: where a message has a secret beside text of others (default 1024)"},
	{"ping-period", "PingPeriod", func(o *channels.Options) any { return &o.PingPeriod }, "`TIME` after which silent connections are asked for a sign of life, less than proxies wait (default 25s)"},
	{"write-timeout", "WriteTimeout", func(o *channels.Options) any { return &o.WriteTimeout }, "`TIME` in which a connection has to take something of what is written to it (default 10s)"},
	{"store-timeout", "StoreTimeout", func(o *channels.Options) any { return &o.StoreTimeout }, "`TIME` that Redis has for one answer (default 5s)"},
}

func (cfg *config) limitFlags(fs *flag.FlagSet) {
	for _, l := range limits {
		fs.Func(l.flag, l.usage, func(s string) error {
			switch to := l.to(&cfg.limits).(type) {
			case *int:
				n, err := strconv.Atoi(s)
				if err != nil || n == 0 { // which would be the default
					return errors.New("it has to be a number, and not 0")
				}
				*to = n
			case *time.Duration:
				d, err := time.ParseDuration(s)
				if err != nil || d <= 0 {
					return errors.New("it has to be a time of more than 0, with its unit: 500ms, 30s, 2m")
				}
				*to = d
			}
			return nil
		})
	}
}

// inFlags names in an error of the hub's the flags, and not their fields.
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

// options are the hub's, but for what has to be opened first.
func (cfg *config) options() channels.Options {
	o := cfg.limits
	o.ReplicaID, o.AllowedOrigins, o.Hosts, o.Channel = cfg.node, cfg.origins, cfg.hosts, cfg.channel
	o.DrainTime, o.DrainDelay = max(cfg.drain, 1), cfg.drainDelay // 0 would be the default
	o.StreamTime = cfg.stream
	o.MaxConnections, o.MaxConnectionsPerAddress = cfg.maxConnections, cfg.maxConnectionsPerAddress
	return o
}

// channel is what a channel is like.
func (cfg *config) channel(name string) channels.ChannelOptions {
	o := cfg.history.options(name)
	if o.HistorySize == 0 { // which promises each message, and so closes
		o.SlowSubscriber = channels.SlowPolicy(cfg.slow.of(name))
	}
	o.Publishers = channels.Publishers(cfg.publishers.of(name))
	return o
}

var (
	slowPolicies = map[string]uint8{"close": uint8(channels.SlowClose), "drop-oldest": uint8(channels.SlowDropOldest), "keep-latest": uint8(channels.SlowKeepLatest)}
	publishers   = map[string]uint8{"anyone": uint8(channels.PublishersAnyone), "identified": uint8(channels.PublishersIdentified), "server": uint8(channels.PublishersServer)}
)

// choices are what is chosen for channels by the patterns of their names.
type choices []choice

type choice struct {
	pattern string
	value   uint8
}

// flag adds a flag with which one of the values is chosen for a pattern.
func (c *choices) flag(fs *flag.FlagSet, name, usage string, values map[string]uint8) {
	fs.Func(name, "`PATTERN=CHOICE`: "+usage+"; repeatable, the first that matches counts; in the environment separated by spaces", func(s string) error {
		for _, f := range strings.Fields(s) {
			pattern, word, _ := cutLast(f, "=")
			value, ok := values[word]
			if _, err := path.Match(pattern, ""); err != nil || !ok || pattern == "" {
				return fmt.Errorf("%q has not the form PATTERN=CHOICE, with one of %s", f, strings.SplitN(usage, ":", 2)[0])
			}
			*c = append(*c, choice{pattern, value})
		}
		return nil
	})
}

// of returns what is chosen for a channel; 0 where nothing is.
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
			return fmt.Errorf("it may be %d to %d", lo, hi)
		}
		*to = n
		return nil
	})
}

// boolFlag is fs.BoolVar with an error that says what is allowed.
func boolFlag(fs *flag.FlagSet, name string, to *bool, usage string) {
	fs.BoolFunc(name, usage, func(s string) (err error) {
		if *to, err = strconv.ParseBool(s); err != nil {
			return errors.New("it may be true or false")
		}
		return nil
	})
}
