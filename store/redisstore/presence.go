package redisstore

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/channels-go/channels/store"
)

// UpdatePresence implements [store.Presence]. Up to 1000 changes are one step.
// With more, some may have been applied if it fails.
func (s *Store) UpdatePresence(ctx context.Context, node string, changes []store.PresenceChange) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	if len(changes) == 0 {
		return nil
	}
	rec, err := s.records.take(ctx, s, node)
	if err != nil {
		return s.explain(ctx, fmt.Sprintf("update the presence on replica %q", node), err)
	}
	defer rec.leave()
	keys := []string{s.keys.node(node), s.keys.members(node), s.keys.infos(node)}
	for part := range slices.Chunk(changes, scriptItems) {
		id := rand.Text()
		args := append(make([]any, 0, 2+3*len(part)), id, rec.last)
		for _, c := range part {
			if c.Left {
				args = append(args, "-", place(c.Channel, c.Member.ID), "")
			} else {
				args = append(args, "+", place(c.Channel, c.Member.ID), packMember(c.Member))
			}
		}
		// One after the other: a part that has to be sent again must not
		// overtake the next one.
		if err := s.do(ctx, newCall(presenceScript, keys, args...)); err != nil {
			return s.explain(ctx, fmt.Sprintf("update the presence on replica %q", node), err)
		}
		rec.last = id // even if it was dropped: the next Report returns false
	}
	return nil
}

// Members implements [store.Presence]. It takes two round trips for each 1000
// of limit.
func (s *Store) Members(ctx context.Context, channel string, limit int) (members []store.Member, total int, err error) {
	if err := s.enter(ctx); err != nil {
		return nil, 0, err
	}
	prefix := place(channel, "")
	from, to := between(prefix, "")
	for first := true; first || len(members) < limit; first = false {
		n := min(max(limit-len(members), 0), scriptItems)
		page, sum, err := s.members(ctx, len(prefix), from, to, n, first)
		if err != nil {
			return nil, 0, s.explain(ctx, fmt.Sprintf("list the members of %q", channel), err)
		}
		if first {
			total = sum
		}
		members = append(members, page...)
		if len(page) < n || n == 0 {
			break
		}
		from = "(" + prefix + page[n-1].ID
	}
	return members, max(total, len(members)), nil
}

func (s *Store) members(ctx context.Context, skip int, from, to string, limit int, count bool) ([]store.Member, int, error) {
	calls, err := s.ask(ctx, store.DeadAfter, func(node string) *call {
		return newCall(pageScript, []string{s.keys.members(node), s.keys.infos(node)}, from, to, limit, flag(count))
	})
	if err != nil {
		return nil, 0, err
	}
	var members []store.Member
	total := 0
	for _, c := range calls {
		n, err := eachOf(c.cmd, func(name, value string) error {
			m, err := unpackMember(name[skip:], value)
			members = append(members, m)
			return err
		})
		if err != nil {
			return nil, 0, err
		}
		total += int(n)
	}
	slices.SortFunc(members, func(a, b store.Member) int { return strings.Compare(a.ID, b.ID) })
	members = slices.CompactFunc(members, func(a, b store.Member) bool { return a.ID == b.ID })
	return members[:min(limit, len(members))], total, nil
}

// packMember writes a member's data without the ID: the length of User, ":",
// User, Info.
func packMember(m store.Member) string {
	return strconv.Itoa(len(m.User)) + ":" + m.User + string(m.Info)
}

func unpackMember(id, text string) (store.Member, error) {
	m := store.Member{ID: id}
	length, rest, ok := strings.Cut(text, ":")
	n, err := strconv.Atoi(length)
	if !ok || err != nil || n < 0 || n > len(rest) {
		return m, fmt.Errorf("redisstore: the data of member %q is %.100q, which this library did not write", id, text)
	}
	m.User = rest[:n]
	if n < len(rest) {
		m.Info = json.RawMessage(rest[n:])
	}
	return m, nil
}
