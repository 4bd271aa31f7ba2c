package admin

import (
	"context"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/channels-go/channels"
)

const (
	// maxListed bounds the channels of a list. Beyond it, a longer beginning of the
	// name finds the others.
	maxListed = 200_000
	// A list is good for listFresh, or for listShare times as long as it took to make,
	// so that those who look take at most that part of a processor: a list of 100,000
	// channels takes some 50 ms (BenchmarkList).
	listFresh = time.Second
	listShare = 300
	listOld   = 20 * time.Second // at most, unless it took longer itself
	// listTimeout bounds the reads for a list.
	listTimeout = 10 * time.Second
	// maxLists bounds the lists that are kept at a time, by prefix, and maxFound the
	// searches in each.
	maxLists = 4
	maxFound = 4
)

// A lister is the part of a hub that lists channels.
type lister interface {
	Channels(context.Context, channels.ChannelsQuery) (channels.ChannelsPage, error)
}

// lists keeps lists of channels by the beginning of their names.
type lists struct{ sharing[string, *listing] }

// A listing is all channels whose names begin with a prefix, as they were at a moment.
type listing struct {
	all  []channels.ChannelInfo
	more bool // there are channels beyond maxListed
	at   time.Time

	mu    sync.Mutex // guards the field below
	found []*found   // the last used one first
}

// found is the result of a search in a list, in an order.
type found struct {
	search search
	order  []int32 // indices of listing.all
}

// A search is for channels whose names contain a text, in an order.
type search struct {
	text string
	by   string // "name", "subscribers" or "publishes"
}

func (l *lists) init(hub lister, v *views) {
	l.most = maxLists
	l.read = func(prefix string, before *listing) (*listing, time.Time, error) {
		size := 0 // it will be about as long as the one before
		if before != nil {
			size = len(before.all) + len(before.all)/64
		}
		made, until, err := makeList(hub, prefix, size)
		if err == nil {
			for i := range made.all {
				c := &made.all[i]
				c.Subscribers = v.without(c.Name, c.Subscribers)
			}
		}
		return made, until, err
	}
}

// makeList makes a list, and says until when it is good.
func makeList(hub lister, prefix string, size int) (*listing, time.Time, error) {
	ctx, cancel := context.WithTimeout(context.Background(), listTimeout)
	defer cancel()
	began := time.Now()
	l := &listing{all: make([]channels.ChannelInfo, 0, size)}
	for q := (channels.ChannelsQuery{Prefix: prefix, Limit: 1000}); ; {
		page, err := hub.Channels(ctx, q)
		if err != nil {
			return nil, time.Time{}, err
		}
		l.all = append(l.all, page.Channels...)
		if q.Cursor = page.Next; q.Cursor == "" {
			break
		}
		if len(l.all) >= maxListed {
			l.more = true
			break
		}
	}
	l.at = time.Now()
	took := l.at.Sub(began)
	return l, l.at.Add(max(listFresh, took, min(listShare*took, listOld))), nil
}

// find returns the channels of a search in its order, as indices of l.all. The result is
// kept, since the page asks for it again and again.
func (l *listing) find(s search) []int32 {
	l.mu.Lock()
	for i, f := range l.found {
		if f.search == s {
			l.found = slices.Insert(slices.Delete(l.found, i, i+1), 0, f)
			l.mu.Unlock()
			return f.order
		}
	}
	l.mu.Unlock()
	order := l.search(s)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.found = slices.Insert(l.found, 0, &found{s, order})
	l.found = l.found[:min(len(l.found), maxFound)]
	return order
}

// search looks at each channel. The list is in the order of names, which stays among
// equals.
func (l *listing) search(s search) []int32 {
	order := make([]int32, 0, len(l.all))
	for i := range l.all {
		if strings.Contains(l.all[i].Name, s.text) {
			order = append(order, int32(i))
		}
	}
	by := func(c *channels.ChannelInfo) int { return c.Subscribers }
	switch s.by {
	case "name":
		return order
	case "publishes":
		by = func(c *channels.ChannelInfo) int { return c.Publishes }
	}
	// Numbers with the index behind them sort in a quarter of the time (BenchmarkList).
	keys := make([]uint64, len(order))
	for k, i := range order {
		keys[k] = uint64(math.MaxInt32-min(by(&l.all[i]), math.MaxInt32))<<32 | uint64(i)
	}
	slices.Sort(keys)
	for k, key := range keys {
		order[k] = int32(uint32(key))
	}
	return order
}
