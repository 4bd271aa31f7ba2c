package main

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/store/redisstore"
)

// onHistory is the app with a hub that keeps its channels' messages on Redis. It counts
// the reads.
type onHistory struct {
	onChannels
	trips *trips
}

// newHistory takes the address of Redis.
func newHistory(args []string) (app, error) {
	if len(args) != 1 {
		return nil, fmt.Errorf("no Redis in %q", args)
	}
	text, err := script("range")
	if err != nil {
		return nil, err
	}
	a := onHistory{trips: &trips{}}
	c := redis.NewClient(&redis.Options{Addr: args[0], ContextTimeoutEnabled: true})
	if a.trips.rangeSHA, err = c.ScriptLoad(context.Background(), text).Result(); err != nil {
		return nil, err
	}
	c.AddHook(a.trips)
	s, err := redisstore.New(c, redisstore.Options{})
	if err != nil {
		return nil, err
	}
	hub, err := channels.New(channels.Options{Store: s, Channel: func(string) channels.ChannelOptions {
		return channels.ChannelOptions{HistorySize: 1000}
	}})
	if err != nil {
		return nil, err
	}
	a.onChannels = onChannels{hub.Handler(), hub}
	return a, nil
}

// position returns where a channel is, as newStorm wants it.
func (a onHistory) position(channel string) (string, error) {
	res, err := a.hub.History(background, channel, channels.HistoryQuery{Limit: 1})
	return fmt.Sprintf("%d,%s", res.Position.Offset, res.Position.Epoch), err
}
