package channels

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/channels-go/channels/internal/fanout"
)

// pathEvents is where several channels come on one event stream.
const pathEvents = "/v1/events"

// eventsQuery is what a client asks for when it opens a stream of several channels.
type eventsQuery struct {
	channelQuery // its start is without since
	channels     []string
	patterns     []string
	since        map[string]*Position // by channel, for those that the client has been in
	lost         bool                 // it has been somewhere, but nobody knows where
}

// serveEvents is GET /v1/events: what /channel/{name}/ sends as an event stream, of several
// channels and patterns.
func (h *Hub) serveEvents(w http.ResponseWriter, r *http.Request, _ string, _ url.Values) error {
	q, err := h.eventsQueryOf(r)
	if err != nil {
		return err
	}
	if err := h.checkReferer(r); err != nil {
		return err
	}
	info := Client{Transport: transportSSE}
	if _, err := h.arrives(r, &info); err != nil {
		return err
	}
	leave := sync.OnceFunc(h.fan.Conns.Leave)
	defer leave()
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	s := newStream(w, cancel)
	defer s.returned()
	s.Init(h.fan, s, q.as)
	h.initClient(&s.client, &s.Outbox, "", info)
	s.heartbeat = q.heartbeat
	s.several = &several{positions: newPositions(q.channels)}
	if err := s.letInSeveral(ctx, q); err != nil {
		return err
	}
	d := h.opts.streamTime(w)
	if s.several.again && (d == 0 || d > askAgainTime) {
		d = askAgainTime
	}
	defer s.endAfter(d)()
	return s.serve(ctx, w, leave, func() {
		s.admit()
		for _, sub := range s.several.live {
			s.welcome(ctx, sub)
		}
	})
}

// askAgainTime is how long a stream lasts, about, if one of its channels was refused for a
// reason that passes: its client comes again, and asks for all of them.
const askAgainTime = 15 * time.Second

// endAfter ends the stream after about d, so that its client comes again; 0 is never. The
// result stops that.
func (s *stream) endAfter(d time.Duration) (stop func()) {
	if d <= 0 {
		return func() {}
	}
	t := time.AfterFunc(d*3/4+rand.N(d/2), func() { s.End([]*fanout.Frame{newCloseFrame(closeGoingAway, "")}, errStreamTime, false) })
	return func() { t.Stop() }
}

// eventsQueryOf reads the query. Last-Event-ID is newer than since, and if it is not
// valid, each channel gets a reset, as on a stream of one channel.
func (h *Hub) eventsQueryOf(r *http.Request) (q eventsQuery, err error) {
	v, err := queryWithLists(r, []string{"channel", "pattern"}, "since", "last", "heartbeat", "position", "format", "datastar")
	if err != nil {
		return q, err
	}
	if err := q.readNames(v, h.opts.MaxSubscriptions); err != nil {
		return q, err
	}
	if err := q.readForm(v); err != nil {
		return q, err
	}
	switch q.as {
	case fanout.Named:
		q.as = fanout.ChannelsNamed
	case fanout.BodyEvents:
		return q, ErrBadQuery.saying("format=body is for one channel, since a body does not say which it is from")
	default:
		q.as = fanout.Channels
	}
	at := newPositions(q.channels)
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		if q.since, err = at.parse(id); err != nil {
			q.lost = true
		}
		if q.last, err = lastOf(v); err != nil { // of channels in which the client has not been yet
			q.last = 0
		}
		return q, nil
	}
	if since := v.Get("since"); since != "" {
		if q.since, err = at.parse(since); err != nil {
			return q, err
		}
	}
	if q.last, err = lastOf(v); err == nil && q.last > 0 && v.Get("since") != "" {
		err = errLastSince
	}
	return q, err
}

// readNames reads which channels and patterns the client wants, up to most of both.
func (q *eventsQuery) readNames(v url.Values, most int) error {
	q.channels, q.patterns = v["channel"], v["pattern"]
	switch n := len(q.channels) + len(q.patterns); {
	case n == 0:
		return ErrBadQuery.saying("no channel is given; name each with channel=NAME or pattern=PATTERN")
	case n > most:
		return ErrBadQuery.saying("%d channels and patterns are given; one stream has up to %d, which is Options.MaxSubscriptions", n, most)
	}
	seen := make(map[string]bool)
	for _, name := range q.channels {
		if err := CheckName(name); err != nil {
			return err
		}
		if seen[name] {
			return ErrBadQuery.saying("the channel %q is given twice", name)
		}
		seen[name] = true
	}
	for i, text := range q.patterns {
		p, err := compilePattern(text)
		if err != nil {
			return err
		}
		q.patterns[i] = p.String()
		if !isPattern(q.patterns[i]) {
			return ErrBadQuery.saying("the pattern %q has neither * nor ?; name a single channel with channel=", text)
		}
		if seen[q.patterns[i]] {
			return ErrBadQuery.saying("the pattern %q is given twice", text)
		}
		seen[q.patterns[i]] = true
	}
	return nil
}
