package channels_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/mesh"
	"github.com/channels-go/channels/store"
)

// openStore is a Store to which other programs write: change does what they did.
type openStore struct {
	*store.Memory
	change func(*store.Page)
}

func (s *openStore) Range(ctx context.Context, channel string, q store.Query) (store.Page, error) {
	page, err := s.Memory.Range(ctx, channel, q)
	s.change(&page)
	return page, err
}

// serveOpen has ten messages, 1 to 10, on the channel c.
func serveOpen(t *testing.T, change func(*store.Page)) (*server, channels.Position) {
	m := newMemory(t)
	s := serve(t, channels.Options{Store: &openStore{m, change}, Channel: keep(100)})
	var last channels.Position
	for n := range 10 {
		last = publish(t, s.hub, "c", "n", fmt.Sprint(n+1)).Position
	}
	return s, last
}

// A message that somebody has removed, or that cannot be one, keeps nobody
// waiting for it: there is a reset, and the others come.
func TestMessagesThatTheStoreLacks(t *testing.T) {
	at := func(offset uint64, change func(*store.Entry)) func(*store.Page) {
		return func(page *store.Page) {
			for i := range page.Entries {
				if e := &page.Entries[i]; e.Offset == offset {
					change(e)
				}
			}
		}
	}
	for name, change := range map[string]func(*store.Page){
		"removed": func(page *store.Page) {
			page.Entries = slices.DeleteFunc(page.Entries, func(e store.Entry) bool { return e.Offset == 5 })
		},
		"a body that is an event":       at(5, func(e *store.Entry) { e.Body = json.RawMessage("1\n\nevent: x\ndata: 2") }),
		"a body that is no JSON":        at(5, func(e *store.Entry) { e.Body = json.RawMessage(`1},{"x":2`) }),
		"a body in Latin-1":             at(5, func(e *store.Entry) { e.Body = json.RawMessage("\"\xe9\"") }),
		"a body that is deep":           at(5, func(e *store.Entry) { e.Body = json.RawMessage(strings.Repeat("[", 1<<20)) }),
		"no body":                       at(5, func(e *store.Entry) { e.Body = nil }),
		"no header":                     at(5, func(e *store.Entry) { e.Header = "" }),
		"a header of the hub's own":     at(5, func(e *store.Entry) { e.Header = "reset" }),
		"a header that is not in UTF-8": at(5, func(e *store.Entry) { e.Header = "\xe9" }),
	} {
		t.Run(name, func(t *testing.T) {
			s, last := serveOpen(t, change)
			since := last.Epoch + ":3"
			w, e := s.join("c", "?since="+since), s.stream("c", "?since="+since)
			for _, want := range []string{"n4", `reset{"reason":"trimmed"}`, "n6", "n7", "n8", "n9", "n10"} {
				m := w.next()
				require.Equal(t, want, m.Header+string(m.Body))
				m = e.next().message()
				require.Equal(t, want, m.Header+string(m.Body))
			}
			e.close()
			from := channels.Position{Epoch: last.Epoch, Offset: 3}
			h := historyOf(t, s.hub, "c", channels.HistoryQuery{Since: &from})
			require.True(t, h.Missed)
			require.Len(t, h.Messages, 6)
			require.Equal(t, http.StatusOK, s.get("/v1/channel/c/history").status)
			if name != "removed" {
				require.Equal(t, 1, strings.Count(s.log.String(), "has an entry that cannot be a message"), "logged once, not each time")
			}
		})
	}
}

// The last messages can be removed, too.
func TestTheLastMessageThatTheStoreLacks(t *testing.T) {
	s, last := serveOpen(t, func(page *store.Page) {
		page.Entries = slices.DeleteFunc(page.Entries, func(e store.Entry) bool { return e.Offset > 8 })
	})
	w := s.join("c", "?since="+last.Epoch+":7")
	w.want("n", "8")
	require.Equal(t, "?since="+last.String(), w.want("reset", `{"reason":"trimmed"}`).Since())
}

// A body on several lines is put on one.
func TestMessagesOfSeveralLines(t *testing.T) {
	s, last := serveOpen(t, func(page *store.Page) {
		for i := range page.Entries {
			page.Entries[i].Body = json.RawMessage("[\r\n1\n]")
		}
	})
	e := s.stream("c", "?since="+last.Epoch+":9")
	require.Equal(t, "[1]", string(e.next().message().Body))
}

// An epoch stands in the id of each event.
func TestAnEpochThatIsNone(t *testing.T) {
	for _, epoch := range []string{"a\nevent: x", "a b", "\u2028", long(65)} {
		s, _ := serveOpen(t, func(page *store.Page) { page.Top.Epoch = epoch })
		_, err := s.hub.History(t.Context(), "c", channels.HistoryQuery{})
		require.ErrorIs(t, err, channels.ErrStoreUnavailable, epoch)
		require.ErrorContains(t, errors.Unwrap(err), "epoch", epoch)
	}
}

// Replicas get new options in turn: what has a position comes also where this
// one keeps no history, and nothing of it is kept.
func TestPositionsWhereNoHistoryIsKept(t *testing.T) {
	s := serve(t, channels.Options{})
	w := s.join("c", "")
	for n := range 3 {
		p := mesh.Packet{Channel: "c", Header: "x", Body: json.RawMessage(fmt.Sprint(n)), Epoch: "e", Offset: uint64(n + 7), Origin: "other"}
		channels.Take(s.hub, p)
		m := w.want("x", fmt.Sprint(n))
		require.Zero(t, m.Offset)
	}
	require.Eventually(t, func() bool { return s.hub.Stats().Queued == 0 }, time.Minute, time.Millisecond)
}
