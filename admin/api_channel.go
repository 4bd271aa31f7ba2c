package admin

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/channels-go/channels"
)

// channelInfo is one channel.
type channelInfo struct {
	channelRow
	History  *historyInfo  `json:"history"`  // null if it keeps none
	Presence *presenceInfo `json:"presence"` // null if it keeps none
}

type historyInfo struct {
	Epoch    string        `json:"epoch"`
	Offset   string        `json:"offset"` // of the last message; text, since JavaScript's numbers end at 2⁵³
	First    string        `json:"first"`  // of the oldest one kept
	Messages []messageInfo `json:"messages"`
}

type presenceInfo struct {
	Total   int          `json:"total"`
	Members []memberInfo `json:"members"`
}

type memberInfo struct {
	Client string `json:"client"`
	User   string `json:"user,omitempty"`
	Info   string `json:"info,omitempty"` // JSON, perhaps cut short
}

// messageInfo is a message as the page shows it. Texts may be cut short.
type messageInfo struct {
	Header    string `json:"header"`
	Body      string `json:"body"` // JSON
	Bytes     int    `json:"bytes"`
	Offset    string `json:"offset,omitempty"`
	Time      int64  `json:"time_ms,omitempty"`   // Unix time
	Publisher string `json:"publisher,omitempty"` // the connection's id
	User      string `json:"user,omitempty"`
}

const (
	maxMessages = 100 // in one answer
	maxMembers  = 200 // in one answer
	maxShown    = 4 << 10
)

// serveChannel is GET /api/channel?name=&before=&messages=.
func (a *Admin) serveChannel(_ http.ResponseWriter, r *http.Request, _ operator) (any, error) {
	q, err := query(r, "name", "before", "messages")
	if err != nil {
		return nil, err
	}
	before, err := number(q, "before", 0, math.MaxInt64)
	if err != nil {
		return nil, err
	}
	messages, err := number(q, "messages", 50, maxMessages)
	if err != nil {
		return nil, err
	}
	name := q.Get("name")
	if err := channels.CheckName(name); err != nil { // so that none is remembered
		return nil, err
	}
	return a.rooms.get(room{name, uint64(before), max(1, int(messages))})
}

// A room is what somebody wants to see of a channel.
type room struct {
	name     string
	before   uint64 // 0: the newest messages
	messages int
}

// rooms keeps what was read of channels, which takes three calls of the Store.
type rooms struct{ sharing[room, *channelInfo] }

const (
	// maxRooms bounds what is kept. Each is up to 1 MB, and mostly a few KB.
	maxRooms = 32
	// roomFresh is how long it is good. The page asks every 2 s, so one viewer always
	// gets a new one, and further viewers cost nothing.
	roomFresh = 1900 * time.Millisecond
	// roomTimeout bounds the three calls.
	roomTimeout = 10 * time.Second
)

func (s *rooms) init(hub *channels.Hub, v *views) {
	s.most = maxRooms
	s.read = func(of room, _ *channelInfo) (*channelInfo, time.Time, error) {
		ctx, cancel := context.WithTimeout(context.Background(), roomTimeout)
		defer cancel()
		good := time.Now().Add(roomFresh) // from now, or a slow Store would make the page late
		info, err := readRoom(ctx, hub, of)
		if err == nil {
			info.Subscribers = v.without(of.name, info.Subscribers)
		}
		return info, good, err
	}
}

func readRoom(ctx context.Context, hub *channels.Hub, of room) (*channelInfo, error) {
	c, err := hub.Channel(ctx, of.name)
	if err != nil {
		return nil, err
	}
	info := &channelInfo{channelRow: channelRow{c.Name, c.Subscribers, c.Publishes}}
	h, err := hub.History(ctx, of.name, channels.HistoryQuery{Before: of.before, Limit: of.messages})
	switch {
	case err == nil:
		info.History = &historyInfo{h.Position.Epoch, offset(h.Position.Offset), offset(h.First), make([]messageInfo, len(h.Messages))}
		for i := range h.Messages {
			info.History.Messages[i] = shown(&h.Messages[i])
		}
	case !errors.Is(err, channels.ErrNoHistory):
		return nil, err
	}
	p, err := hub.Presence(ctx, of.name, maxMembers)
	switch {
	case err == nil:
		info.Presence = &presenceInfo{p.Total, make([]memberInfo, len(p.Members))}
		for i, m := range p.Members {
			info.Presence.Members[i] = memberInfo{m.ID, m.User, cut(m.Info)}
		}
	case !errors.Is(err, channels.ErrNoPresence):
		return nil, err
	}
	return info, nil
}

// shown is a message in an answer.
func shown(m *channels.Message) messageInfo {
	i := messageInfo{Header: m.Header, Body: cut(m.Body), Bytes: len(m.Body)}
	if m.Position != (channels.Position{}) {
		i.Offset = offset(m.Position.Offset)
	}
	if !m.Time.IsZero() {
		i.Time = m.Time.UnixMilli()
	}
	if p := m.Publisher; p != nil {
		i.Publisher, i.User = p.Client, p.User
	}
	return i
}

func offset(n uint64) string { return strconv.FormatUint(n, 10) }

// cut returns the beginning of a JSON text.
func cut(b json.RawMessage) string {
	if len(b) <= maxShown {
		return string(b)
	}
	n := maxShown
	for n > 0 && !utf8.RuneStart(b[n]) {
		n--
	}
	return string(b[:n]) + "…"
}

// nowMS is when a live message came, which it does not say itself.
func nowMS() int64 { return time.Now().UnixMilli() }
