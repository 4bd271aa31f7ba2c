package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/channels-go/channels"
)

const (
	// maxTails bounds the live tails of a replica.
	maxTails = 32
	// A tail sends what has come every tailPeriod, and the newest tailMessages of it:
	// nobody reads more.
	tailPeriod   = 250 * time.Millisecond
	tailMessages = 50
	// tailTimeout is how long a viewer may take nothing of it.
	tailTimeout = 10 * time.Second
	// tailBeat is after how long without a message something is sent all the same, so
	// that an end is noticed.
	tailBeat = 15 * time.Second
)

// tailInfo is what a tail sends at once.
type tailInfo struct {
	Messages []messageInfo `json:"messages"`
	Skipped  int           `json:"skipped"` // that came before these, and were too many to be shown
}

// serveTail is GET /api/tail?name=, an event stream.
func (a *Admin) serveTail(w http.ResponseWriter, r *http.Request, who operator) (any, error) {
	q, err := query(r, "name")
	if err != nil {
		return nil, err
	}
	select {
	case a.tails <- struct{}{}:
		defer func() { <-a.tails }()
	default:
		return nil, refused("too_many_tails", http.StatusServiceUnavailable, "too many pages follow a channel at this replica; close one")
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if !who.ends.IsZero() { // the session
		ctx, cancel = context.WithDeadline(ctx, who.ends)
		defer cancel()
	}
	sub, err := a.hub.Subscribe(ctx, q.Get("name"), nil)
	if err != nil {
		return nil, err
	}
	a.views.add(q.Get("name"), +1)
	defer a.views.add(q.Get("name"), -1)
	t := &tail{}
	var reading sync.WaitGroup
	reading.Go(func() { // ends with the subscription
		defer cancel()
		t.read(sub)
	})
	defer reading.Wait()
	defer sub.Close()
	a.send(ctx, w, t)
	return nil, nil
}

// send sends what a tail has until ctx ends, the viewer goes, or the page is closed.
func (a *Admin) send(ctx context.Context, w http.ResponseWriter, t *tail) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Time{})
	write := func(text string) bool {
		rc.SetWriteDeadline(time.Now().Add(tailTimeout))
		_, err := w.Write([]byte(text))
		return err == nil && rc.Flush() == nil
	}
	ticks := time.NewTicker(tailPeriod)
	defer ticks.Stop()
	ok := write(": live\n\n")
	for sent := time.Now(); ok; {
		select {
		case <-ctx.Done():
			if why := t.why(); why != "" {
				b, _ := json.Marshal(why) // a text cannot fail
				write("event: over\ndata: " + string(b) + "\n\n")
			}
			return
		case <-a.ctx.Done():
			return
		case now := <-ticks.C:
			if batch := t.take(); batch != nil {
				b, _ := json.Marshal(batch) // texts and numbers cannot fail
				ok, sent = write("data: "+string(b)+"\n\n"), now
			} else if now.Sub(sent) > tailBeat {
				ok, sent = write(": live\n\n"), now
			}
		}
	}
}

// A tail holds the newest messages that were not sent yet. They are made texts only when
// they are sent, since most messages of a busy channel never are.
type tail struct {
	mu    sync.Mutex // guards the fields below
	came  [tailMessages]arrival
	count int    // how many have come since the last take; the newest are in came, each at its number modulo tailMessages
	over  string // why it has ended by itself
}

// An arrival is a message and when it came.
type arrival struct {
	message channels.Message
	at      int64 // Unix time in milliseconds
}

// read takes what comes, until the subscription ends.
func (t *tail) read(sub *channels.Subscription) {
	for m, err := range sub.Messages() {
		if reset := (*channels.ResetError)(nil); errors.As(err, &reset) {
			continue // it goes on
		}
		t.mu.Lock()
		if err != nil {
			if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
				t.over = err.Error()
			}
			t.mu.Unlock()
			return
		}
		t.came[t.count%tailMessages] = arrival{m, nowMS()}
		t.count++
		t.mu.Unlock()
	}
}

// take returns what has come since the last take, or nil.
func (t *tail) take() *tailInfo {
	t.mu.Lock()
	came, count := t.came, t.count
	if count > 0 {
		t.came, t.count = [tailMessages]arrival{}, 0
	}
	t.mu.Unlock()
	if count == 0 {
		return nil
	}
	batch := &tailInfo{Skipped: max(0, count-tailMessages)}
	for i := batch.Skipped; i < count; i++ {
		a := &came[i%tailMessages]
		one := shown(&a.message)
		one.Time = a.at
		batch.Messages = append(batch.Messages, one)
	}
	return batch
}

func (t *tail) why() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.over
}
