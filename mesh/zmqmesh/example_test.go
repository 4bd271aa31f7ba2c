package zmqmesh_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"log/slog"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh/zmqmesh"
	"github.com/channels-go/channels/store"
)

// Two replicas, here in one process: what is published on one reaches the
// subscribers of the other. Replicas on several machines share a Store in Redis,
// through which they find each other, and a Key or TLS.
func ExampleNew() {
	ctx := context.Background()
	shared, err := store.NewMemory(store.MemoryOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer shared.Close()
	open := func(id string, peers ...string) (*channels.Hub, *zmqmesh.Mesh) {
		m, err := zmqmesh.New(zmqmesh.Options{
			ReplicaID: id, // the hub has it from here; no other replica may have it
			Listen:    "tcp://127.0.0.1:0",
			Peers:     peers,
			Key:       []byte("16 random bytes or more"),
			Logger:    slog.New(slog.DiscardHandler),
		})
		if err != nil {
			log.Fatal(err)
		}
		hub, err := channels.New(channels.Options{
			Store:  shared,
			Mesh:   m,
			Logger: slog.New(slog.DiscardHandler),
			Channel: func(string) channels.ChannelOptions {
				return channels.ChannelOptions{HistorySize: 100}
			},
		})
		if err != nil {
			log.Fatal(err)
		}
		return hub, m
	}
	a, meshA := open("a")
	defer meshA.Close() // after the hub
	defer a.Shutdown(ctx)
	b, meshB := open("b", meshA.Address())
	defer meshB.Close()
	defer b.Shutdown(ctx)

	sub, err := a.Subscribe(ctx, "orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer sub.Close()
	if _, err := b.Publish(ctx, "orders", channels.Message{Header: "new", Body: json.RawMessage(`{"id":1}`)}); err != nil {
		log.Fatal(err)
	}
	for m, err := range sub.Messages() {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(m.Header, string(m.Body))
		break
	}
	// Output:
	// new {"id":1}
}
