package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/store"
)

// Without a Store, a hub keeps its history in a Memory of 256 MiB. An app opens one
// of its own for another bound, or for a history that outlives the hub.
func ExampleMemory() {
	m, err := store.NewMemory(store.MemoryOptions{MaxBytes: 1 << 30})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close() // after the hub's Shutdown

	ctx := context.Background()
	options := channels.Options{Store: m, Channel: func(string) channels.ChannelOptions {
		return channels.ChannelOptions{HistorySize: 100}
	}}
	for range 2 { // one hub after the other
		hub, err := channels.New(options)
		if err != nil {
			log.Fatal(err)
		}
		if _, err := hub.Publish(ctx, "orders", channels.Message{Header: "new", Body: json.RawMessage(`{"id":1}`)}); err != nil {
			log.Fatal(err)
		}
		past, err := hub.History(ctx, "orders", channels.HistoryQuery{})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("kept:", len(past.Messages))
		if err := hub.Shutdown(ctx); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// kept: 1
	// kept: 2
}

// A Log can be used without a hub.
func ExampleLog() {
	m, err := store.NewMemory(store.MemoryOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	ctx := context.Background()
	keep := store.AppendOptions{Size: 2, TTL: store.MetaTTL}
	for _, text := range []string{`"a"`, `"b"`, `"c"`} {
		if _, err := m.Append(ctx, "log", store.Entry{Header: "line", Body: json.RawMessage(text)}, keep); err != nil {
			log.Fatal(err)
		}
	}
	page, err := m.Range(ctx, "log", store.Query{After: 2, Limit: 10})
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range page.Entries {
		fmt.Println(e.Offset, string(e.Body))
	}
	fmt.Println("kept from", page.First, "to", page.Top.Offset)
	// Output:
	// 3 "c"
	// kept from 2 to 3
}
