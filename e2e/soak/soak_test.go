//go:build unix

// Package soak has 2,000 clients that make trouble, and checks every promise.
package soak

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	soakTime = flag.Duration("soak", soakDefault(), "how long TestSoak makes trouble; the environment's SOAK is its default")
	soakSeed = flag.Uint64("seed", 0, "what TestSoak does, to do it again; 0 is random")
)

func soakDefault() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("SOAK")); err == nil {
		return d
	}
	return 15 * time.Second
}

// TestSoak has 2,000 clients come and go, stall, resume and publish at random:
// over WebSocket, with and without compression, over server-sent events, and
// in Go. Whatever each of them gets is checked against what is promised:
//
//   - with history, a client gets each message once, in the order of offsets,
//     through all its connections, or a reset where the message is really
//     gone; and all clients get the same at the same offset;
//   - without, each publisher's messages come at most once and in order; and
//     all of them come where the policy is to close;
//   - what is acknowledged is stored, once, also if it was repeated with its key;
//   - a subscriber is closed for no reason but its slowness, with its code, and
//     not where the policy is to drop;
//   - the list and the presence are exact, and in the end nobody is left, no
//     goroutine, and no more memory than after a quarter of the time.
//
// A pause in here is what a client does, or the time between two looks.
//
// The same seed gives the same decisions, though not the same timing.
func TestSoak(t *testing.T) {
	seed := cmp.Or(*soakSeed, rand.Uint64())
	duration := *soakTime
	if testing.Short() {
		duration = min(duration, 3*time.Second)
	}
	var files syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files))
	n := min(2000, (int(min(files.Cur, 1<<20))-200)/2) // both ends are in this process
	require.Positive(t, n, "RLIMIT_NOFILE is %d", files.Cur)
	t.Logf("%v with %d clients (RLIMIT_NOFILE is %d); to repeat: -soak %v -seed %d", duration, n, files.Cur, duration, seed)

	before := hubtest.Used()
	k := newSoak(t, seed)
	k.start(n)
	quarter := k.sample(duration / 4)
	end := k.sample(duration - duration/4)
	k.settle()
	settled := hubtest.Used() // with all clients there, and nothing that waits for one
	k.leave()
	k.log()
	after := hubtest.Used()
	if t.Failed() {
		return
	}
	t.Logf("after a quarter %d MiB and %d goroutines, at the end %d MiB and %d, settled %d MiB, then %d MiB and %d",
		quarter.Heap>>20, quarter.Goroutines, end.Heap>>20, end.Goroutines, settled.Heap>>20, after.Heap>>20, after.Goroutines)
	// What waits for clients that are behind is bounded, and depends on the machine.
	require.Less(t, settled.Heap, quarter.Heap+32<<20)
	require.Less(t, end.Goroutines, 3*quarter.Goroutines/2+100)
	require.NoError(t, k.s.Hub.Shutdown(t.Context()))
	k.s.HTTP.Close()
	basetest.Eventually(t, "the goroutines have ended", func() bool { return runtime.NumGoroutine() <= before.Goroutines })
}

// soakRoom is a channel, and what is known of it.
type soakRoom struct {
	name    string
	share   int // of the clients
	rate    int // messages a second
	long    bool
	options channels.ChannelOptions

	clients, members int // who is in it in the end

	mu     sync.Mutex // guards the fields below
	epoch  string
	ledger []uint64 // by offset, counted from 0: which message it is; 0: not known yet
	acked  int      // messages that were acknowledged, and not as duplicates
}

func soakRooms() []*soakRoom {
	list := channels.PresenceList
	keep := func(size int, presence channels.PresenceMode) channels.ChannelOptions {
		return channels.ChannelOptions{HistorySize: size, Presence: presence}
	}
	slow := func(p channels.SlowPolicy) channels.ChannelOptions {
		return channels.ChannelOptions{SlowSubscriber: p, Presence: list}
	}
	return []*soakRoom{
		{name: "kept.a", share: 31, rate: 2, options: keep(2000, list)},
		{name: "kept.b", share: 22, rate: 3, options: keep(2000, channels.PresenceOff)},
		{name: "short", share: 17, rate: 8, options: keep(30, list)}, // soon trimmed
		{name: "kept.hot", share: 2, rate: 30, long: true, options: keep(1000, list)},
		{name: "plain", share: 21, rate: 2, options: slow(channels.SlowClose)},
		{name: "plain.hot", share: 2, rate: 30, long: true, options: slow(channels.SlowClose)},
		{name: "oldest.hot", share: 2, rate: 30, long: true, options: slow(channels.SlowDropOldest)},
		{name: "latest.hot", share: 2, rate: 30, long: true, options: slow(channels.SlowKeepLatest)},
		{name: "events", share: 1, rate: 5, options: channels.ChannelOptions{HistorySize: 500, Presence: channels.PresenceEvents}},
	}
}

// A message's number is its publisher's in the upper half, and in the lower
// half which of the publisher's it is, from 1. A publisher publishes one at a
// time, and the next when that one is acknowledged.
func soakNumber(publisher, n uint32) uint64 { return uint64(publisher)<<32 | uint64(n) }

func publisherOf(number uint64) (publisher, n uint32) { return uint32(number >> 32), uint32(number) }

var soakPad = strings.Repeat("so it goes, ", 400)

// body is a message's body: its number, and more whose length the number tells.
func (r *soakRoom) body(number uint64) string {
	p, n := publisherOf(number)
	length := (p*31 + n*17) % 300
	if r.long {
		length = 1000 + (p*31+n*17)%3000
	}
	return fmt.Sprintf(`"%d.%d.%s"`, p, n, soakPad[:length])
}

// see notes that a message has an offset, and says what is wrong with that.
func (r *soakRoom) see(p channels.Position, number uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.epoch == "" {
		r.epoch = p.Epoch
	}
	switch {
	case r.epoch != p.Epoch:
		return fmt.Errorf("%s: the epoch was %s and is %s", r.name, r.epoch, p.Epoch)
	case p.Offset == 0:
		return fmt.Errorf("%s: no offset", r.name)
	}
	for uint64(len(r.ledger)) < p.Offset {
		r.ledger = append(r.ledger, 0)
	}
	switch known := &r.ledger[p.Offset-1]; *known {
	case 0:
		*known = number
	case number:
	default:
		return fmt.Errorf("%s: offset %d is message %x and %x", r.name, p.Offset, *known, number)
	}
	return nil
}

type soak struct {
	t      *testing.T
	s      *hubtest.Server
	seed   uint64
	rooms  []*soakRoom
	faults atomic.Int32

	clients []*soakClient
	all     sync.WaitGroup // the clients
	pubs    sync.WaitGroup // the publishers

	publishers                     atomic.Uint32   // the last number that was given to one
	quiet                          context.Context // ends with the trouble, or with the first fault
	calm                           func()
	leaving                        chan struct{} // closed at the end of all
	settled, ended                 atomic.Int32  // clients that are in their last connection, and that have seen its end
	connects, resumes, resets      atomic.Int64
	received, published, repeated  atomic.Int64
	slow, cuts, stalls, unfinished atomic.Int64
}

func newSoak(t *testing.T, seed uint64) *soak {
	k := &soak{t: t, seed: seed, rooms: soakRooms(), leaving: make(chan struct{})}
	k.quiet, k.calm = context.WithCancel(t.Context())
	k.s = hubtest.New(t, channels.Options{
		PingPeriod: 5 * time.Second, WriteTimeout: 5 * time.Second,
		StoreTimeout: time.Minute, // the store is never away; it is the machine that may be busy
		QueueBytes:   64 << 10, MaxMessageBytes: 16 << 10,
		Logger: slog.New(slog.DiscardHandler),
		Channel: func(name string) channels.ChannelOptions {
			return k.rooms[slices.IndexFunc(k.rooms, func(r *soakRoom) bool { return r.name == name })].options
		},
	})
	k.s.HTTP.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		c.(*net.TCPConn).SetWriteBuffer(32 << 10) // so that the queues fill too
		return ctx
	}
	k.s.HTTP.Start()
	return k
}

// fault notes that a promise is broken. The first one ends the soak.
func (k *soak) fault(format string, args ...any) {
	k.calm()
	if k.faults.Add(1) <= 10 {
		k.t.Errorf("seed %d: "+format, append([]any{k.seed}, args...)...)
	}
}

func (k *soak) start(n int) {
	shares := 0
	for _, r := range k.rooms {
		shares += r.share
	}
	for i, r := range k.rooms {
		count := n * r.share / shares
		for j := range count {
			c := &soakClient{k: k, room: r, random: rand.New(rand.NewPCG(k.seed, uint64(len(k.clients)))), publisher: k.publishers.Add(1)}
			c.kind = []string{"ws", "ws", "ws", "ws", "deflate", "deflate", "sse", "go"}[j%8]
			c.talks = j%12 == 0
			r.clients++
			if c.kind != "go" {
				r.members++
			}
			k.clients = append(k.clients, c)
			k.all.Go(c.run)
		}
		k.pubs.Go(func() { k.publish(r, rand.New(rand.NewPCG(k.seed, uint64(1_000_000+i)))) })
	}
	k.pubs.Go(func() { k.post(rand.New(rand.NewPCG(k.seed, 2_000_000))) })
}

// sample waits, and measures a few times: the median is free of a moment's crowd.
func (k *soak) sample(d time.Duration) hubtest.Usage {
	k.pause(d)
	var us []hubtest.Usage
	for range 5 {
		us = append(us, hubtest.Used())
		k.pause(50 * time.Millisecond)
	}
	slices.SortFunc(us, func(a, b hubtest.Usage) int { return cmp.Compare(a.Heap, b.Heap) })
	return us[len(us)/2]
}

// acknowledged counts a message that was acknowledged, and notes its offset if
// the room keeps a history.
func (k *soak) acknowledged(r *soakRoom, p channels.Position, number uint64) error {
	k.published.Add(1)
	if r.options.HistorySize == 0 {
		return nil
	}
	r.mu.Lock()
	r.acked++
	r.mu.Unlock()
	return r.see(p, number)
}

func (k *soak) isQuiet() bool { return k.quiet.Err() != nil }

// pause waits, unless the trouble ends.
func (k *soak) pause(d time.Duration) {
	rest, cancel := context.WithTimeout(k.quiet, d)
	defer cancel()
	<-rest.Done()
}

// --- publishers

// publish publishes in Go, and now and then repeats a message with its key,
// or looks whether it is stored.
func (k *soak) publish(r *soakRoom, random *rand.Rand) {
	p := k.publishers.Add(1)
	pace := time.NewTicker(time.Second / time.Duration(r.rate))
	defer pace.Stop()
	for n := uint32(1); !k.isQuiet(); n++ {
		number := soakNumber(p, n)
		m := hubtest.Msg("s", r.body(number))
		var o channels.PublishOptions
		if r.options.HistorySize > 0 && random.IntN(3) == 0 {
			o.Key = fmt.Sprint(p, ".", n)
		}
		tried := time.Now()
		res, err := k.s.Hub.PublishWith(context.Background(), r.name, m, o)
		if err != nil || res.Duplicate {
			k.fault("%s: publish: %v, duplicate %v", r.name, err, res.Duplicate)
			return
		}
		if err := k.acknowledged(r, res.Position, number); err != nil {
			k.fault("%v", err)
		}
		if r.options.HistorySize > 0 && random.IntN(10) == 0 {
			k.look(r, res.Position, number)
		}
		if o.Key != "" && random.IntN(3) == 0 {
			again, err := k.s.Hub.PublishWith(context.Background(), r.name, m, o)
			err = errors.Join(err, hubtest.RepeatedInTime(tried))
			if err != nil || !again.Duplicate || again.Position != res.Position {
				k.fault("%s: repeated with its key: %v, %+v and %+v", r.name, err, res, again)
			}
			k.repeated.Add(1)
		}
		select {
		case <-pace.C:
		case <-k.quiet.Done():
		}
	}
}

// look wants an acknowledged message in the store, unless newer ones have
// pushed it out.
func (k *soak) look(r *soakRoom, p channels.Position, number uint64) {
	since := channels.Position{Epoch: p.Epoch, Offset: p.Offset - 1}
	h, err := k.s.Hub.History(context.Background(), r.name, channels.HistoryQuery{Since: &since, Limit: 1})
	switch {
	case err != nil:
		k.fault("%s: history: %v", r.name, err)
	case h.First > p.Offset:
	case len(h.Messages) == 0 || h.Messages[0].Position != p || string(h.Messages[0].Body) != r.body(number):
		k.fault("%s: %v was acknowledged and is not stored: %+v", r.name, p, h)
	}
}

// post publishes over HTTP, in all rooms.
func (k *soak) post(random *rand.Rand) {
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	client := http.Client{Transport: tr, Timeout: basetest.Patience}
	next := make([]uint32, len(k.rooms))
	p := k.publishers.Add(1)
	for !k.isQuiet() {
		i := random.IntN(len(k.rooms))
		r := k.rooms[i]
		next[i]++
		number := soakNumber(p, next[i])
		req, err := http.NewRequest("POST", k.s.HTTP.URL+"/v1/channel/"+r.name+"/publish", strings.NewReader(`{"header":"s","body":`+r.body(number)+`}`))
		if err != nil {
			k.fault("%v", err)
			return
		}
		resp, err := client.Do(req)
		if err != nil {
			k.fault("%s: POST: %v", r.name, err)
			return
		}
		var a struct {
			Status, Epoch string
			Offset        uint64
		}
		err = json.NewDecoder(resp.Body).Decode(&a)
		resp.Body.Close()
		if err != nil || a.Status != "ok" {
			k.fault("%s: POST: %v, %+v", r.name, err, a)
			return
		}
		if err := k.acknowledged(r, channels.Position{Epoch: a.Epoch, Offset: a.Offset}, number); err != nil {
			k.fault("%v", err)
		}
		k.pause(time.Duration(random.IntN(200)) * time.Millisecond)
	}
}

// --- the end

// until waits for something that has to come true, unless a fault ends it.
func (k *soak) until(what string, ok func() bool) {
	for end := time.Now().Add(3 * basetest.Patience); !ok() && k.faults.Load() == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			k.fault("never: %s", what)
		}
	}
}

// settle ends the trouble: everybody connects once more, and stays until it
// has what is to be had. Then the numbers have to be exact.
func (k *soak) settle() {
	k.calm()
	k.pubs.Wait()
	k.until("everybody is there", func() bool { return int(k.settled.Load()) == len(k.clients) })
	k.until("everybody is answered", func() bool {
		return !slices.ContainsFunc(k.clients, func(c *soakClient) bool { return c.pending.Load() })
	})
	k.until("the list is exact", func() bool { return k.listed(func(r *soakRoom) int { return r.clients }) })
	for _, r := range k.rooms {
		if r.options.Presence != channels.PresenceOff {
			k.until(r.name+": the presence is exact", func() bool { return k.present(r) == r.members })
		}
	}
	ends := make(map[*soakRoom]int)
	k.until("everybody has seen the end", func() bool {
		for _, r := range k.rooms { // more than once: who was slow has dropped the first
			res, err := k.s.Hub.Publish(context.Background(), r.name, hubtest.Msg("end", "0"))
			if err != nil {
				k.fault("%s: %v", r.name, err)
			} else if res.Stored {
				ends[r]++
				if err := r.see(res.Position, soakNumber(0, 1+uint32(res.Position.Offset))); err != nil {
					k.fault("%v", err)
				}
			}
		}
		time.Sleep(500 * time.Millisecond) // between two ends
		return int(k.ended.Load()) == len(k.clients)
	})
	for _, r := range k.rooms {
		if r.options.HistorySize > 0 && k.faults.Load() == 0 {
			k.checkHistory(r, ends[r])
		}
	}
}

func (k *soak) listed(want func(*soakRoom) int) bool {
	page, err := k.s.Hub.Channels(context.Background(), channels.ChannelsQuery{Limit: 1000})
	if err != nil {
		k.fault("the list: %v", err)
		return true
	}
	counts := map[string]int{}
	for _, c := range page.Channels {
		counts[c.Name] = c.Subscribers
	}
	return !slices.ContainsFunc(k.rooms, func(r *soakRoom) bool { return counts[r.name] != want(r) })
}

func (k *soak) present(r *soakRoom) int {
	ms, err := k.s.Hub.Presence(context.Background(), r.name, 0)
	if err != nil || len(ms.Members) != ms.Total {
		k.fault("%s: presence: %v", r.name, err)
	}
	return ms.Total
}

// checkHistory wants in the store what was acknowledged, each once, in each
// publisher's order, and nothing else.
func (k *soak) checkHistory(r *soakRoom, ends int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, err := k.s.Hub.Channel(context.Background(), r.name)
	if err != nil {
		k.fault("%s: %v", r.name, err)
		return
	}
	top := int(now.Position.Offset)
	if top != len(r.ledger) || top != r.acked+ends {
		k.fault("%s: the last offset is %d; %d were seen, and %d and %d ends acknowledged", r.name, top, len(r.ledger), r.acked, ends)
	}
	last := map[uint32]uint32{}
	for i, number := range r.ledger {
		p, n := publisherOf(number)
		if number == 0 || n <= last[p] {
			k.fault("%s: offset %d is message %d of publisher %d, behind %d", r.name, i+1, n, p, last[p])
			return
		}
		last[p] = n
	}
	since := channels.Position{Epoch: now.Position.Epoch, Offset: now.First - 1}
	if kept := min(top, r.options.HistorySize); top-int(since.Offset) != kept {
		k.fault("%s: %d to %d are kept, of %d", r.name, now.First, top, r.options.HistorySize)
	}
	for int(since.Offset) < top {
		h, err := k.s.Hub.History(context.Background(), r.name, channels.HistoryQuery{Since: &since, Limit: 1000})
		if err != nil || len(h.Messages) == 0 || h.Missed {
			k.fault("%s: history since %v: %v, %d messages, missed %v", r.name, since, err, len(h.Messages), h.Missed)
			return
		}
		for _, m := range h.Messages {
			number := r.ledger[m.Position.Offset-1]
			if m.Position.Offset != since.Offset+1 || m.Header == "s" && string(m.Body) != r.body(number) {
				k.fault("%s: behind %v is stored %v %.50s, and message %x was sent", r.name, since, m.Position, m.Body, number)
				return
			}
			since = m.Position
		}
	}
}

// leave has everybody go. Then there is nobody.
func (k *soak) leave() {
	close(k.leaving)
	k.all.Wait()
	k.until("nobody is connected", func() bool { return k.s.Hub.Stats().Connections == 0 })
	k.until("the list is empty", func() bool { return k.listed(func(*soakRoom) int { return 0 }) })
	for _, r := range k.rooms {
		if r.options.Presence != channels.PresenceOff {
			k.until(r.name+": the presence is empty", func() bool { return k.present(r) == 0 })
		}
	}
}

// log says what has happened; what has not happened was not tested.
func (k *soak) log() {
	stats := k.s.Hub.Stats()
	k.t.Logf("%d connects, %d of them resumed, %d resets; %d messages published, %d repeated with their key, %d received; "+
		"%d stalls, %d closed as slow, %d messages dropped, %d cut without a word, %d of these without a stall",
		k.connects.Load(), k.resumes.Load(), k.resets.Load(), k.published.Load(), k.repeated.Load(), k.received.Load(),
		k.stalls.Load(), k.slow.Load(), stats.Dropped, k.cuts.Load()+k.unfinished.Load(), k.unfinished.Load())
	if *soakTime < 10*time.Second || k.t.Failed() {
		return
	}
	for what, n := range map[string]int64{
		"resumes": k.resumes.Load(), "resets": k.resets.Load(), "repeated": k.repeated.Load(), "stalls": k.stalls.Load(),
		"closed as slow": k.slow.Load(), "dropped": stats.Dropped,
	} {
		require.Positive(k.t, n, "%s: the soak has not tested it", what)
	}
}
