package main

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
	"github.com/lxzan/gws"
	"github.com/olahol/melody"
)

// The peers' apps follow their documentation and examples: a queue and a
// writing goroutine for each connection, if the library has none of its own,
// with room for all messages of a burst.
const peerQueue = 2048

// rooms holds the subscribers of each channel.
type rooms[C comparable] struct {
	mu sync.RWMutex
	m  map[string]map[C]struct{}
	n  int
}

func (r *rooms[C]) join(channel string, c C) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m == nil {
		r.m = make(map[string]map[C]struct{})
	}
	if r.m[channel] == nil {
		r.m[channel] = make(map[C]struct{})
	}
	r.m[channel][c] = struct{}{}
	r.n++
}

func (r *rooms[C]) leave(channel string, c C) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.m[channel], c)
	r.n--
	if len(r.m[channel]) == 0 {
		delete(r.m, channel)
	}
}

func (r *rooms[C]) each(channel string, f func(C)) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for c := range r.m[channel] {
		f(c)
	}
}

func (r *rooms[C]) count() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.n
}

// onCoder uses coder/websocket alone.
type onCoder struct{ rooms rooms[chan []byte] }

func newCoder() *onCoder { return &onCoder{} }

func (a *onCoder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, err := coder.Accept(w, r, &coder.AcceptOptions{CompressionMode: coder.CompressionNoContextTakeover, CompressionThreshold: 512})
	if err != nil {
		return
	}
	defer c.CloseNow()
	queue := make(chan []byte, peerQueue)
	a.rooms.join(channelOf(r), queue)
	defer a.rooms.leave(channelOf(r), queue)
	ctx := c.CloseRead(context.Background())
	for {
		select {
		case b := <-queue:
			if err := c.Write(ctx, coder.MessageText, b); err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (a *onCoder) subscribers() int { return a.rooms.count() }

func (a *onCoder) publish(channel string, body []byte) error {
	b := message(body)
	a.rooms.each(channel, func(queue chan []byte) { queue <- b })
	return nil
}

// onGorilla uses gorilla/websocket with prepared messages.
type onGorilla struct {
	up    gorilla.Upgrader
	rooms rooms[chan *gorilla.PreparedMessage]
}

func newGorilla() *onGorilla {
	return &onGorilla{up: gorilla.Upgrader{EnableCompression: true, CheckOrigin: func(*http.Request) bool { return true }}}
}

func (a *onGorilla) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, err := a.up.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer c.Close()
	queue, done := make(chan *gorilla.PreparedMessage, peerQueue), make(chan struct{})
	a.rooms.join(channelOf(r), queue)
	defer a.rooms.leave(channelOf(r), queue)
	go func() {
		defer close(done)
		for {
			if _, _, err := c.NextReader(); err != nil {
				return
			}
		}
	}()
	for {
		select {
		case m := <-queue:
			c.SetWriteDeadline(time.Now().Add(10 * time.Second))
			if err := c.WritePreparedMessage(m); err != nil {
				return
			}
		case <-done:
			return
		}
	}
}

func (a *onGorilla) subscribers() int { return a.rooms.count() }

func (a *onGorilla) publish(channel string, body []byte) error {
	m, err := gorilla.NewPreparedMessage(gorilla.TextMessage, message(body))
	if err != nil {
		return err
	}
	a.rooms.each(channel, func(queue chan *gorilla.PreparedMessage) { queue <- m })
	return nil
}

// onGWS uses lxzan/gws with its broadcaster.
type onGWS struct {
	gws.BuiltinEventHandler
	up    *gws.Upgrader
	rooms rooms[*gws.Conn]
	slots *pingSlots // nil: it does not ping
}

// pingSlots are an app's connections, over the 250 tenths of a second of a period of 25 s.
type pingSlots struct {
	mu    sync.Mutex // guards the fields below
	next  int
	conns [250]map[*gws.Conn]struct{}
}

// newPingingGWS is newGWS with what the hub does by itself, and an app on gws has to add:
// it pings each connection every 25 s, and some of them ten times a second.
func newPingingGWS() *onGWS {
	a := newGWS(false)
	a.slots = &pingSlots{}
	go func() {
		for now := range time.Tick(time.Second / 10) {
			a.slots.ping(int(now.UnixMilli()/100) % len(a.slots.conns))
		}
	}()
	return a
}

func (s *pingSlots) ping(slot int) {
	s.mu.Lock()
	conns := slices.Collect(maps.Keys(s.conns[slot]))
	s.mu.Unlock()
	for _, c := range conns {
		c.WritePing(nil)
	}
}

func (s *pingSlots) join(c *gws.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := s.next % len(s.conns)
	s.next++
	if s.conns[slot] == nil {
		s.conns[slot] = make(map[*gws.Conn]struct{})
	}
	s.conns[slot][c] = struct{}{}
	c.Session().Store("slot", slot)
}

func (s *pingSlots) leave(c *gws.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slot, ok := c.Session().Load("slot"); ok {
		delete(s.conns[slot.(int)], c)
	}
}

// newGWS makes the app with or without compression, for which gws keeps 17 MB ready from
// the start. With a heap as large as that, the garbage collector hardly runs in any row.
func newGWS(deflate bool) *onGWS {
	a := &onGWS{}
	a.up = gws.NewUpgrader(a, &gws.ServerOption{PermessageDeflate: gws.PermessageDeflate{Enabled: deflate}})
	return a
}

func (a *onGWS) OnClose(c *gws.Conn, _ error) {
	if v, ok := c.Session().Load("channel"); ok {
		a.rooms.leave(v.(string), c)
	}
	if a.slots != nil {
		a.slots.leave(c)
	}
}

func (a *onGWS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, err := a.up.Upgrade(w, r)
	if err != nil {
		return
	}
	channel := channelOf(r)
	c.Session().Store("channel", channel)
	a.rooms.join(channel, c)
	if a.slots != nil {
		a.slots.join(c)
	}
	go c.ReadLoop() // in a goroutine of its own, to free net/http's, as its README recommends
}

func (a *onGWS) subscribers() int { return a.rooms.count() }

func (a *onGWS) publish(channel string, body []byte) error {
	b := gws.NewBroadcaster(gws.OpcodeText, message(body))
	defer b.Close()
	var first error
	a.rooms.each(channel, func(c *gws.Conn) {
		if err := b.Broadcast(c); err != nil && first == nil {
			first = err
		}
	})
	return first
}

// onMelody uses olahol/melody, which has no rooms: with more than one channel,
// it filters.
type onMelody struct{ m *melody.Melody }

func newMelody() *onMelody {
	m := melody.New()
	m.Config.MessageBufferSize = peerQueue
	m.Upgrader.CheckOrigin = func(*http.Request) bool { return true }
	return &onMelody{m}
}

func (a *onMelody) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.m.HandleRequest(w, r) }

func (a *onMelody) publish(_ string, body []byte) error { return a.m.Broadcast(message(body)) }

func (a *onMelody) subscribers() int { return a.m.Len() }
