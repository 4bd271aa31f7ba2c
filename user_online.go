package channels

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/channels-go/channels/mesh"
)

const (
	// maxOnline bounds the users of one Online.
	maxOnline = 1000
	// onlineTime is how long the other replicas have to answer it.
	onlineTime = 3 * time.Second
	// questionBytes bounds the ids in one question, in base64.
	questionBytes = maxControlBytes * 3 / 4
)

// Online returns those of some users (Identity.ID) who have a connection at this
// moment: by any door, on any replica, whatever it is subscribed to. Go subscribers do
// not count. The empty user is nobody, and never online.
//
// It asks the other replicas over the Mesh, so it costs nothing until it is called. If
// one of them lives and does not answer within 3 s, or cannot be reached, the error is
// [ErrMeshUnavailable], and what Online returns is right as far as it goes: it lacks
// those who are there only. So it is for up to 10 s after a replica was killed, and if
// replicas share a Store and have no Mesh.
//
// It takes up to 1000 users; for more, or an id of more than about 12,000 bytes, the
// error is [ErrTooLarge]. The other errors are [ErrStoreUnavailable] (without a Mesh,
// only the Store knows whether there are other replicas), [ErrClosed] and the context's.
func (h *Hub) Online(ctx context.Context, users ...string) (map[string]bool, error) {
	if len(users) > maxOnline {
		return nil, ErrTooLarge.saying("Online takes at most %d users at a time, not %d", maxOnline, len(users))
	}
	if !h.calls.Enter() {
		return nil, ErrClosed
	}
	defer h.calls.Leave()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	online := make(map[string]bool)
	var missing []string
	for _, user := range users {
		switch {
		case user == "":
		case h.isHere(user):
			online[user] = true
		default:
			missing = append(missing, user)
		}
	}
	if len(missing) == 0 {
		return online, nil
	}
	slices.Sort(missing)
	found, err := h.askOthers(ctx, slices.Compact(missing))
	for _, user := range found {
		online[user] = true
	}
	return online, err
}

// isHere reports whether a user has a connection on this replica that was not told to go.
func (h *Hub) isHere(user string) bool {
	return slices.ContainsFunc(h.clients.connected(user), func(c *client) bool {
		ended, _ := c.out.Ended()
		return !ended
	})
}

// askOthers returns those of some users who have a connection on another replica.
func (h *Hub) askOthers(ctx context.Context, users []string) (found []string, err error) {
	linked, silent, err := h.whoToAsk(ctx)
	if err != nil {
		return nil, err
	}
	if len(linked) == 0 {
		return nil, unanswered(silent)
	}
	within, cancel := context.WithTimeout(ctx, onlineTime)
	defer cancel()
	var asked []*question
	for len(users) > 0 {
		n, bytes := 0, 0
		for ; n < len(users) && (n == 0 || bytes < questionBytes); n++ {
			bytes += len(users[n])*4/3 + 8
		}
		if bytes >= questionBytes && n > 1 {
			n--
		}
		q := h.questions.ask(users[:n], linked)
		defer h.questions.forget(q)
		users = users[n:]
		c := control{N: q.n}
		for _, user := range q.users {
			c.Users = append(c.Users, []byte(user))
		}
		if err := h.control(within, "", controlOnline, c); err != nil {
			return nil, err
		}
		asked = append(asked, q)
	}
	for _, q := range asked {
		select {
		case <-q.done:
		case <-within.Done():
		}
		here, waiting := h.questions.answers(q)
		found = append(found, here...)
		silent = append(silent, waiting...)
	}
	if err := ctx.Err(); err != nil {
		return found, err
	}
	return found, unanswered(silent)
}

// unanswered is the error if some replicas have not answered, or could not be asked.
func unanswered(silent []string) error {
	if len(silent) == 0 {
		return nil
	}
	slices.Sort(silent)
	return ErrMeshUnavailable.because(fmt.Errorf("no answer from %s, which may have more of the users", strings.Join(slices.Compact(silent), ", ")))
}

// whoToAsk returns the other replicas that live: those that can answer, and those that
// cannot be reached.
func (h *Hub) whoToAsk(ctx context.Context) (linked, unlinked []string, err error) {
	within, cancel := context.WithTimeout(ctx, min(replicasTimeout, h.opts.StoreTimeout))
	defer cancel()
	stored, _, err := h.askReplicas(within)
	switch {
	case err == nil:
	case h.mesh == nil:
		return nil, nil, ErrStoreUnavailable.because(err)
	default: // what it said last, and the mesh, have to do
		h.warn.storeFails(err)
		h.others.mu.Lock()
		stored = maps.Clone(h.others.stored)
		h.others.mu.Unlock()
	}
	var s mesh.Status
	if h.mesh != nil {
		s = h.mesh.Status()
	}
	for id, up := range h.others.living(stored, s) {
		if up && h.mesh != nil {
			linked = append(linked, id)
		} else {
			unlinked = append(unlinked, id)
		}
	}
	return linked, unlinked, nil
}

// living returns the other replicas that may have connections, by all that is known of
// them, and whether the mesh can reach each.
func (a *otherReplicas) living(stored map[string]otherReplica, s mesh.Status) map[string]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	living := make(map[string]bool)
	// left reports whether a replica has said goodbye since a time. It may have been
	// started again.
	left := func(id string, since time.Time) bool {
		n := a.heard[id]
		return n.left && !since.After(n.at)
	}
	for id, n := range stored {
		if time.Since(n.at) < deadAfter && !left(id, n.at) {
			living[id] = true
		}
	}
	for id, n := range a.heard {
		if !n.left && time.Since(n.at) < deadAfter {
			living[id] = true
		}
	}
	for _, p := range s.Peers {
		_, known := stored[p.ID]
		switch {
		case p.ID == "": // a broker, or a peer that is not known yet
		case p.Up && !known && !left(p.ID, p.Since): // it may have another Store
			living[p.ID] = true
		case !p.Up && living[p.ID]:
			living[p.ID] = false
		}
	}
	return living
}

// A question is one that Online has sent to the other replicas.
type question struct {
	n     uint64
	users []string
	done  chan struct{} // closed when all have answered

	waiting map[string]bool // for these replicas; guarded by questions.mu, as is found
	found   []string
}

// questions are those that are open. All its methods may be called concurrently.
type questions struct {
	mu   sync.Mutex // guards the field below
	open map[uint64]*question
}

func (qs *questions) ask(users, replicas []string) *question {
	// Nobody answers what another process has asked under this replica's id.
	q := &question{n: rand.Uint64(), users: users, done: make(chan struct{}), waiting: make(map[string]bool)}
	for _, id := range replicas {
		q.waiting[id] = true
	}
	qs.mu.Lock()
	defer qs.mu.Unlock()
	if qs.open == nil {
		qs.open = make(map[uint64]*question)
	}
	qs.open[q.n] = q
	return q
}

func (qs *questions) forget(q *question) {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	delete(qs.open, q.n)
}

// answered takes a replica's answer.
func (qs *questions) answered(from string, c *control) {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	q := qs.open[c.N]
	if q == nil {
		return // too late
	}
	for _, i := range c.Found {
		if i >= 0 && i < len(q.users) {
			q.found = append(q.found, q.users[i])
		}
	}
	if q.waiting[from] {
		if delete(q.waiting, from); len(q.waiting) == 0 {
			close(q.done)
		}
	}
}

// answers returns what has come, and which replicas have not answered.
func (qs *questions) answers(q *question) (found, waiting []string) {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	return q.found, slices.Collect(maps.Keys(q.waiting))
}

// answerOnline answers another replica's question, unless many answers wait: the echoes
// of canaries need the room.
func (h *Hub) answerOnline(from string, c *control) {
	if len(h.letters) > maxLetters/2 {
		return
	}
	answer := control{N: c.N}
	for i, user := range c.Users {
		if h.isHere(string(user)) {
			answer.Found = append(answer.Found, i)
		}
	}
	h.reply(from, controlHere, answer)
}
