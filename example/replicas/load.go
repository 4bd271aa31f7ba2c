package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// The load is bounded: a laptop with all replicas on it hardly notices.
const (
	loadPrefix      = "load."
	loadChannels    = 8
	loadSubscribers = 12                    // of each channel
	loadPeriod      = 40 * time.Millisecond // between two messages of a channel
)

// load is traffic on request, so that there is something to see: clients that
// connect through the balancer, talk, and come back when their replica has gone.
// All methods may be called concurrently.
type load struct {
	url string // of the balancer, ws://HOST:PORT

	received atomic.Int64
	missed   atomic.Int64 // known only if the channels keep a history

	mu      sync.Mutex // guards the fields below
	end     context.CancelFunc
	clients sync.WaitGroup
}

// start begins the load, unless it is there already.
func (l *load) start() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end != nil {
		return
	}
	var ctx context.Context
	ctx, l.end = context.WithCancel(context.Background())
	for c := range loadChannels {
		for n := range loadSubscribers {
			l.clients.Go(func() { l.subscribe(ctx, fmt.Sprint(loadPrefix, c+1), n == 0) }) // ends with ctx
		}
	}
}

// stop ends the load, and returns when its clients are gone.
func (l *load) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end == nil {
		return
	}
	l.end()
	l.clients.Wait()
	l.end = nil
}

// loadState is what the page says of the load.
type loadState struct {
	On       bool  `json:"on"`
	Clients  int   `json:"clients"`
	Received int64 `json:"received"`
	Missed   int64 `json:"missed"`
}

func (l *load) state() loadState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return loadState{l.end != nil, loadChannels * loadSubscribers, l.received.Load(), l.missed.Load()}
}

// subscribe keeps a client connected. One client of each channel also talks.
func (l *load) subscribe(ctx context.Context, channel string, talks bool) {
	var at seen
	for ctx.Err() == nil {
		l.listen(ctx, channel, &at, talks)
		pause := time.NewTimer(time.Duration(100+rand.IntN(400)) * time.Millisecond) // not all at once
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
}

// seen is the position of the last message that a client has got.
type seen struct {
	epoch  string
	offset int64
}

// listen is one connection of a client, until it ends.
func (l *load) listen(ctx context.Context, channel string, at *seen, talks bool) {
	url := l.url + "/channel/" + channel + "/"
	if at.epoch != "" {
		url += fmt.Sprintf("?since=%s:%d", at.epoch, at.offset)
	}
	dialing, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(dialing, url, nil)
	if err != nil {
		return // a replica that is just ending; the next attempt finds another
	}
	defer c.CloseNow()
	if talks {
		ctx, cancel := context.WithCancel(ctx)
		var talking sync.WaitGroup
		talking.Go(func() { talk(ctx, c) }) // ends with ctx
		defer talking.Wait()
		defer cancel()
	}
	for {
		_, b, err := c.Read(ctx)
		if err != nil {
			return
		}
		l.take(b, at)
	}
}

// talk publishes until ctx ends or the connection does.
func talk(ctx context.Context, c *websocket.Conn) {
	ticks := time.NewTicker(loadPeriod)
	defer ticks.Stop()
	for n := 1; ; n++ {
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
		if c.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"header":"say","body":{"text":"message %d"}}`, n)) != nil {
			return
		}
	}
}

// take counts a message, and what is missing before it.
func (l *load) take(b []byte, at *seen) {
	var m struct {
		Header string
		Epoch  string
		Offset int64
	}
	if json.Unmarshal(b, &m) != nil {
		return
	}
	switch m.Header {
	case "say":
	case "reset": // the history does not reach back so far
		l.missed.Add(max(1, m.Offset-at.offset))
		*at = seen{}
		return
	default: // answers, and that the replica ends soon
		return
	}
	l.received.Add(1)
	if m.Epoch == "" {
		return
	}
	if m.Epoch == at.epoch && m.Offset > at.offset+1 {
		l.missed.Add(m.Offset - at.offset - 1)
	}
	*at = seen{m.Epoch, m.Offset}
}
