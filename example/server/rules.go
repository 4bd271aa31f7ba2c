package main

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/channels-go/channels"
)

// rules are values for channels, by pattern. The first match counts. Patterns
// match names like path.Match: * matches any text, since names have no slash.
type rules[T any] []rule[T]

type rule[T any] struct {
	pattern string
	value   T
}

func (r *rules[T]) add(pattern string, value T) error {
	*r = append(*r, rule[T]{pattern, value})
	_, err := path.Match(pattern, "")
	return err
}

// of returns the value for a channel, or the default.
func (r rules[T]) of(name string, otherwise T) T {
	for _, one := range r {
		if ok, _ := path.Match(one.pattern, name); ok {
			return one.value
		}
	}
	return otherwise
}

// kept is what a channel keeps: its history.
type kept struct {
	size int
	ttl  time.Duration
}

func (cfg *config) addHistory(s string) error {
	pattern, limits, ok := cutLast(s, "=")
	size, ttl, ok2 := strings.Cut(limits, ",")
	if !ok || !ok2 || pattern == "" {
		return fmt.Errorf("%q does not have the form PATTERN=SIZE,TTL, e.g. chat.*=1000,24h", s)
	}
	n, err := strconv.Atoi(size)
	if err != nil || n < 1 || n > 10_000_000 {
		return fmt.Errorf("the size %q in %q has to be a number from 1 to 10000000", size, s)
	}
	d, err := time.ParseDuration(ttl)
	if err != nil || d < time.Millisecond {
		return fmt.Errorf("the time %q in %q must be 1ms or more, e.g. 90s, 24h", ttl, s)
	}
	if err := cfg.history.add(pattern, kept{n, d}); err != nil {
		return fmt.Errorf("the pattern %q: %w", pattern, err)
	}
	return nil
}

func (cfg *config) addPresence(s string) error {
	pattern, word, _ := cutLast(s, "=")
	mode, ok := presenceModes[word]
	if !ok { // no mode; the pattern itself may have an equals sign
		pattern, mode = s, channels.PresenceEvents
	}
	if err := cfg.presence.add(pattern, mode); err != nil {
		return fmt.Errorf("the pattern %q: %w", s, err)
	}
	return nil
}

func (cfg *config) addGrace(s string) error {
	pattern, text, _ := cutLast(s, "=")
	d, err := time.ParseDuration(text)
	if err != nil || pattern == "" || d < 0 || d > time.Hour {
		return fmt.Errorf("%q does not have the form PATTERN=TIME, with a time of up to 1h, e.g. chat.*=10s", s)
	}
	if err := cfg.grace.add(pattern, d); err != nil {
		return fmt.Errorf("the pattern %q: %w", pattern, err)
	}
	return nil
}

var (
	presenceBy    = map[string]channels.PresenceBy{"connection": channels.PresenceByConnection, "user": channels.PresenceByUser}
	presenceModes = map[string]channels.PresenceMode{"off": channels.PresenceOff, "list": channels.PresenceList, "events": channels.PresenceEvents}
	slowPolicies  = map[string]channels.SlowPolicy{"close": channels.SlowClose, "drop-oldest": channels.SlowDropOldest, "keep-latest": channels.SlowKeepLatest}
	publishers    = map[string]channels.Publishers{"anyone": channels.PublishersAnyone, "identified": channels.PublishersIdentified, "server": channels.PublishersServer}
)

// choice adds a flag that chooses one of the values for a pattern.
func choice[T cmp.Ordered](fs *flag.FlagSet, name string, to *rules[T], usage string, values map[string]T) {
	words := slices.SortedFunc(maps.Keys(values), func(a, b string) int { return cmp.Compare(values[a], values[b]) })
	last := len(words) - 1
	choices := strings.Join(words[:last], ", ") + " or " + words[last]
	list(fs, name, "`PATTERN=CHOICE`: "+choices+": "+usage+"; repeatable, the first match counts; separated by spaces in the environment", func(s string) error {
		pattern, word, _ := cutLast(s, "=")
		value, ok := values[word]
		if err := to.add(pattern, value); err != nil || !ok || pattern == "" {
			return fmt.Errorf("%q does not have the form PATTERN=CHOICE, with one of %s", s, choices)
		}
		return nil
	})
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// channel returns a channel's options.
func (cfg *config) channel(name string) channels.ChannelOptions {
	history := cfg.history.of(name, kept{})
	o := channels.ChannelOptions{
		HistorySize:    history.size,
		HistoryTTL:     history.ttl,
		Presence:       cfg.presence.of(name, channels.PresenceList),
		Publishers:     cfg.publishers.of(name, channels.PublishersAnyone),
		HidePublishers: cfg.hidden.of(name, false),
	}
	if o.Presence != channels.PresenceOff {
		o.PresenceBy = cfg.presenceBy.of(name, channels.PresenceByConnection)
	}
	if o.PresenceBy == channels.PresenceByUser { // a connection never comes back
		o.PresenceGrace = cfg.grace.of(name, 0)
	}
	if o.HistorySize == 0 { // with history, the hub closes slow subscribers so that they miss nothing
		o.SlowSubscriber = cfg.slow.of(name, channels.SlowClose)
	}
	return o
}
