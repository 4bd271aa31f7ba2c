package redisstore_test

import (
	"context"
	"log"

	"github.com/redis/go-redis/v9"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/store/redisstore"
)

// Replicas of an app that are opened like this share history, presence and their
// numbers. For Sentinel and a Cluster, the client comes from
// redis.NewFailoverClient and redis.NewClusterClient.
func ExampleNew() {
	client := redis.NewClient(&redis.Options{Addr: "redis:6379", ContextTimeoutEnabled: true})
	defer client.Close()
	st, err := redisstore.New(client, redisstore.Options{Prefix: "myapp"})
	if err != nil {
		log.Fatal(err)
	}
	defer st.Close()
	hub, err := channels.New(channels.Options{
		Store: st,
		Channel: func(string) channels.ChannelOptions {
			return channels.ChannelOptions{HistorySize: 100}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Shutdown(context.Background()) // first of all: the hub uses the store to its end
}
