package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/channels-go/channels"
)

// onChannels is the app on the hub.
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

// subscribed is a hub with 10,000 Go subscribers of one channel, for what it
// costs to queue a message for each of them and to wake its reader.
type subscribed struct {
	onChannels
	got atomic.Int64
}

const subscribers = 10_000

func newSubscribed() (app, error) {
	a, err := newChannels()
	if err != nil {
		return nil, err
	}
	s := &subscribed{onChannels: a.(onChannels)}
	for range subscribers {
		sub, err := s.hub.Subscribe(background, "c", nil)
		if err != nil {
			return nil, err
		}
		go func() {
			for range sub.Messages() {
				s.got.Add(1)
			}
		}()
	}
	return s, nil
}

// queue publishes n messages, and returns the nanoseconds and allocations for
// each subscriber. What the subscribers do with them is not counted.
func (s *subscribed) queue(n int) (string, error) {
	m := channels.Message{Header: "m", Body: json.RawMessage(`{"n":1}`)}
	const warm = 5
	var took time.Duration
	var allocs uint64
	for i := range warm + n {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		begin := time.Now()
		if _, err := s.hub.Publish(background, "c", m); err != nil {
			return "", err
		}
		d := time.Since(begin)
		runtime.ReadMemStats(&after)
		if i >= warm {
			took += d
			allocs += after.Mallocs - before.Mallocs
		}
		for s.got.Load() < int64(i+1)*subscribers {
			time.Sleep(time.Millisecond) // every reader waits again before the next
		}
	}
	each := n * subscribers
	return fmt.Sprintf("%.1f %.4f", float64(took.Nanoseconds())/float64(each), float64(allocs)/float64(each)), nil
}
