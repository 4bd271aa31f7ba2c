package admin

import (
	"cmp"
	"context"
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
	// listForgotten is how long after its last use a list is dropped.
	listForgotten = 30 * time.Second
)

// A lister is the part of a hub that lists channels.
type lister interface {
	Channels(context.Context, channels.ChannelsQuery) (channels.ChannelsPage, error)
}

// lists keeps lists of channels that several viewers share.
type lists struct {
	hub lister

	mu       sync.Mutex // guards the fields below, and those of lists that say so
	byPrefix map[string]*listing
}

// A listing is all channels whose names begin with a prefix, as they were at a moment.
type listing struct {
	done chan struct{} // closed when it is there; then the fields below do not change
	all  []channels.ChannelInfo
	more bool // there are channels beyond maxListed
	at   time.Time
	good time.Time // until when
	err  error

	used  time.Time // guarded by lists.mu
	found []*found  // guarded by lists.mu; the last used one first
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

// of returns the list of a prefix. If it is not good any more, or was never made, the
// caller makes it, and others who come meanwhile wait for that.
func (l *lists) of(prefix string) (*listing, error) {
	now := time.Now()
	l.mu.Lock()
	one := l.byPrefix[prefix]
	mine := one == nil || one.isDone() && now.After(one.good)
	if mine {
		size := 0 // it will be about as long as the one before
		if one != nil {
			size = len(one.all) + len(one.all)/64
		}
		one = &listing{done: make(chan struct{}), all: make([]channels.ChannelInfo, 0, size)}
		l.putLocked(prefix, one)
	}
	one.used = now
	l.mu.Unlock()
	if mine {
		one.fill(l.hub, prefix)
	}
	<-one.done
	return one, one.err
}

func (l *listing) isDone() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// putLocked keeps a list, instead of that of the same prefix, or of the one that was
// used the longest time ago.
func (l *lists) putLocked(prefix string, one *listing) {
	if l.byPrefix == nil {
		l.byPrefix = map[string]*listing{}
	}
	if _, ok := l.byPrefix[prefix]; !ok && len(l.byPrefix) >= maxLists {
		oldest := ""
		for p, other := range l.byPrefix {
			if o := l.byPrefix[oldest]; o == nil || other.used.Before(o.used) {
				oldest = p
			}
		}
		delete(l.byPrefix, oldest)
	}
	l.byPrefix[prefix] = one
}

// forget drops the lists that nobody looks at.
func (l *lists) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for prefix, one := range l.byPrefix {
		if one.isDone() && time.Since(one.used) > listForgotten {
			delete(l.byPrefix, prefix)
		}
	}
}

// fill makes the list. The context is no viewer's, since others share it.
func (l *listing) fill(hub lister, prefix string) {
	defer close(l.done)
	ctx, cancel := context.WithTimeout(context.Background(), listTimeout)
	defer cancel()
	began := time.Now()
	for q := (channels.ChannelsQuery{Prefix: prefix, Limit: 1000}); ; {
		page, err := hub.Channels(ctx, q)
		if err != nil {
			l.err = err
			l.at = time.Now()
			l.good = l.at // for those who wait already
			return
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
	l.good = l.at.Add(max(listFresh, took, min(listShare*took, listOld)))
}

// find returns the channels of a search in its order, as indices of l.all. The result is
// kept, since the page asks for it again and again.
func (l *lists) find(one *listing, s search) []int32 {
	l.mu.Lock()
	for i, f := range one.found {
		if f.search == s {
			one.found = slices.Insert(slices.Delete(one.found, i, i+1), 0, f)
			l.mu.Unlock()
			return f.order
		}
	}
	l.mu.Unlock()
	order := one.search(s)
	l.mu.Lock()
	defer l.mu.Unlock()
	one.found = slices.Insert(one.found, 0, &found{s, order})
	one.found = one.found[:min(len(one.found), maxFound)]
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
	slices.SortFunc(order, func(a, b int32) int {
		return cmp.Or(cmp.Compare(by(&l.all[b]), by(&l.all[a])), cmp.Compare(a, b))
	})
	return order
}
