package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"time"

	"github.com/channels-go/channels"
)

// onChannels is the app with the hub.
type onChannels struct {
	http.Handler
	hub *channels.Hub
}

func newChannels() (app, error) {
	hub, err := channels.New(channels.Options{})
	if err != nil {
		return nil, err
	}
	return onChannels{hub.Handler(), hub}, nil
}

func (a onChannels) publish(channel string, body []byte) error {
	_, err := a.hub.Publish(background, channel, channels.Message{Header: "m", Body: body})
	return err
}

func (a onChannels) subscribers() int { return int(a.hub.Stats().Connections) }

// queue publishes n messages. It returns the medians, for each subscriber, of
// the nanoseconds and allocations that Publish takes. With one processor, the
// writers run only after Publish.
func (a onChannels) queue(n int) (string, error) {
	m := channels.Message{Header: "m", Body: json.RawMessage(`{"n":1}`)}
	subscribers := float64(a.subscribers())
	var took, allocs []float64
	for range n {
		time.Sleep(100 * time.Millisecond) // the writers have finished the message before
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		begin := time.Now()
		if _, err := a.hub.Publish(background, "c0", m); err != nil {
			return "", err
		}
		took = append(took, float64(time.Since(begin).Nanoseconds())/subscribers)
		runtime.ReadMemStats(&after)
		allocs = append(allocs, float64(after.Mallocs-before.Mallocs)/subscribers)
	}
	slices.Sort(took)
	slices.Sort(allocs)
	return fmt.Sprintf("%.1f %.4f", took[n/2], allocs[n/2]), nil
}
