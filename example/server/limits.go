package main

import (
	"errors"
	"flag"
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
	{"max-subscriptions", "MaxSubscriptions", func(o *channels.Options) any { return &o.MaxSubscriptions }, "`N`: the maximum number of channels on one connection of the client protocol (default 128)"},
	{"max-patterns", "MaxPatterns", func(o *channels.Options) any { return &o.MaxPatterns }, "`N`: the maximum number of different patterns that clients are subscribed to (default 1000)"},
	{"compress-bytes", "CompressBytes", func(o *channels.Options) any { return &o.CompressBytes }, "`N`: the length from which messages are compressed; -1 for never, if messages hold a secret next to other people's text (default 1024)"},
	{"ping-period", "PingPeriod", func(o *channels.Options) any { return &o.PingPeriod }, "`TIME` after which silent connections are pinged; less than the idle timeout of proxies (default 25s)"},
	{"write-timeout", "WriteTimeout", func(o *channels.Options) any { return &o.WriteTimeout }, "`TIME` within which a connection must accept some of the data written to it (default 10s)"},
	{"store-timeout", "StoreTimeout", func(o *channels.Options) any { return &o.StoreTimeout }, "`TIME` that Redis has for one answer (default 5s)"},
}

func (cfg *config) limitFlags(fs *flag.FlagSet) {
	for _, l := range limits {
		fs.Func(l.flag, l.usage, func(s string) error {
			switch to := l.to(&cfg.hub).(type) {
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
	o := cfg.hub
	o.Channel = cfg.channel
	return o
}
