package redismesh_test

import (
	"context"
	"log"
	"os"

	"github.com/redis/go-redis/v9"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh/redismesh"
	"github.com/channels-go/channels/store/redisstore"
)

// A replica with one Redis for everything: its store, and the mesh to the others.
// The hub and its mesh have the same id, which no other replica has.
func ExampleNew() {
	id, err := os.Hostname() // in Kubernetes, the name of the pod
	if err != nil {
		log.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Addr: "redis:6379", ContextTimeoutEnabled: true})
	defer client.Close()
	st, err := redisstore.New(client, redisstore.Options{Prefix: "myapp"})
	if err != nil {
		log.Fatal(err)
	}
	defer st.Close()
	m, err := redismesh.New(client, redismesh.Options{Prefix: "myapp", ReplicaID: id})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	hub, err := channels.New(channels.Options{Store: st, Mesh: m})
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Shutdown(context.Background()) // first of all: the hub uses both to its end
}
