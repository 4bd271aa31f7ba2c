package redisstore

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/channels-go/channels/store"
)

// scriptItems is the maximum number of channels or members for one run of a
// script, so that it blocks the server for a few milliseconds at most.
const scriptItems = 1000

// deadAfter and forgottenAfter are how long a replica's keys live after its
// last report, in milliseconds. forgottenAfter is for its card, deadAfter for
// the rest.
var (
	deadAfter      = store.DeadAfter.Milliseconds()
	forgottenAfter = store.ForgottenAfter.Milliseconds()
)

// Report implements [store.Registry]. It takes one pipeline. Up to 1000 counts
// and members are recorded in one step, and so is a Full report of any length.
// A longer report that is not Full is recorded in steps of 1000; if Report then
// fails, some of them may have been recorded.
//
// A replica must report through one Store. Another Store does not know the
// record that it finds, and returns false.
func (s *Store) Report(ctx context.Context, r store.Report) (known bool, err error) {
	if err := s.enter(ctx); err != nil {
		return false, err
	}
	rec, err := s.records.take(ctx, s, r.Replica.ID)
	if err != nil {
		return false, s.explain(ctx, fmt.Sprintf("report of replica %q", r.Replica.ID), err)
	}
	defer rec.leave()
	id := rand.Text()
	calls := s.reportCalls(r, id, rec.last)
	at := len(calls) - 1 // the call whose answer counts
	if !r.Full {
		at = 0
	}
	answer := calls[at]
	calls = append(calls, newCall(beatScript, []string{s.keys.nodes()}, r.Replica.ID))
	if err := s.do(ctx, calls...); err != nil {
		return false, s.explain(ctx, fmt.Sprintf("report of replica %q", r.Replica.ID), err)
	}
	n, err := answer.cmd.Int64()
	if err != nil {
		return false, unexpected("report", answer.cmd.Val())
	}
	rec.last = id
	return n == 1, nil
}

func (s *Store) reportCalls(r store.Report, id, last string) []*call {
	counts := latest(r.Channels, func(c store.Count) string { return c.Channel })
	var members []store.PresenceChange
	if r.Full {
		members = latest(r.Members, func(c store.PresenceChange) string { return place(c.Channel, c.Member.ID) })
		members = slices.DeleteFunc(members, func(c store.PresenceChange) bool { return c.Left })
		counts = slices.DeleteFunc(counts, isZero)
	}
	keys := s.keys.replica(r.Replica.ID)
	report := func(keys []string, channels, members, n int) *call {
		keys = append(keys[:len(keys):len(keys)], s.keys.card(r.Replica.ID))
		return newCall(reportScript, keys, deadAfter, forgottenAfter, id, last, r.Replica.Started.UnixMilli(), string(r.Replica.Info), flag(r.Full), channels, members, n)
	}
	switch {
	case len(counts)+len(members) <= scriptItems:
		c := report(keys, 0, 0, len(counts))
		c.args = appendCounts(c.args, counts)
		c.args = appendMembers(c.args, members)
		return []*call{c}
	case !r.Full:
		var calls []*call
		for part := range slices.Chunk(counts, scriptItems) {
			c := report(keys, 0, 0, len(part))
			c.args = appendCounts(c.args, part)
			calls = append(calls, c)
		}
		return calls
	}
	// A long Full report is staged first and then put in place.
	staged := make([]string, 4)
	for i, key := range keys[1:] {
		staged[i] = key + ":" + id
	}
	var calls []*call
	for part := range slices.Chunk(counts, scriptItems) {
		calls = append(calls, newCall(stageScript, staged[:2], appendCounts([]any{deadAfter}, part)...))
	}
	for part := range slices.Chunk(members, scriptItems) {
		calls = append(calls, newCall(stageScript, staged[2:], appendMembers([]any{deadAfter}, part)...))
	}
	return append(calls, report(append(keys, staged...), len(counts), len(members), 0))
}

// latest removes all but the last of the items with the same key.
func latest[T any](items []T, key func(T) string) []T {
	seen := make(map[string]bool, len(items))
	out := make([]T, 0, len(items))
	for _, item := range slices.Backward(items) {
		if k := key(item); !seen[k] {
			seen[k] = true
			out = append(out, item)
		}
	}
	return out
}

func isZero(c store.Count) bool { return c.Subscribers == 0 && c.Publishes == 0 }

// appendCounts adds pairs of a channel and its numbers. Zero numbers are "".
func appendCounts(args []any, counts []store.Count) []any {
	for _, c := range counts {
		numbers := ""
		if !isZero(c) {
			numbers = strconv.Itoa(c.Subscribers) + " " + strconv.Itoa(c.Publishes)
		}
		args = append(args, c.Channel, numbers)
	}
	return args
}

// appendMembers adds pairs of a member's place and its data.
func appendMembers(args []any, members []store.PresenceChange) []any {
	for _, c := range members {
		args = append(args, place(c.Channel, c.Member.ID), packMember(c.Member))
	}
	return args
}

// addCount adds numbers as appendCounts wrote them to sum.
func addCount(sum *store.Count, numbers string) error {
	subscribers, publishes, _ := strings.Cut(numbers, " ")
	n, err := strconv.Atoi(subscribers)
	m, err2 := strconv.Atoi(publishes)
	if err != nil || err2 != nil {
		return fmt.Errorf("redisstore: the numbers of channel %q are %q, which this library did not write", sum.Channel, numbers)
	}
	sum.Subscribers += n
	sum.Publishes += m
	return nil
}

// Forget implements [store.Registry].
func (s *Store) Forget(ctx context.Context, node string) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	err := s.do(ctx, newCall(forgetScript, append(s.keys.replica(node), s.keys.card(node))), newCall(unlistScript, []string{s.keys.nodes()}, node), s.unhold(node))
	if err != nil {
		return s.explain(ctx, fmt.Sprintf("forget replica %q", node), err)
	}
	s.records.forget(node)
	return nil
}

// listed returns the replicas that have been silent for at most d, plus 2 s.
// Their own keys, which expire by themselves, decide whether they live.
func (s *Store) listed(ctx context.Context, d time.Duration) ([]string, error) {
	c := newCall(nodesScript, []string{s.keys.nodes()}, int(d/time.Second)+2)
	if err := s.do(ctx, c); err != nil {
		return nil, err
	}
	return c.cmd.StringSlice()
}

// ask runs a script for each replica that reported within d. All run in one
// round trip, after the one that lists the replicas.
func (s *Store) ask(ctx context.Context, d time.Duration, one func(node string) *call) ([]*call, error) {
	nodes, err := s.listed(ctx, d)
	if err != nil || len(nodes) == 0 {
		return nil, err
	}
	calls := make([]*call, len(nodes))
	for i, node := range nodes {
		calls[i] = one(node)
	}
	return calls, s.do(ctx, calls...)
}

// Replicas implements [store.Registry].
func (s *Store) Replicas(ctx context.Context) ([]store.Replica, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	var ids []string
	calls, err := s.ask(ctx, store.ForgottenAfter, func(node string) *call {
		ids = append(ids, node)
		return newCall(nodeScript, []string{s.keys.card(node)})
	})
	if err != nil {
		return nil, s.explain(ctx, "list the replicas", err)
	}
	nodes := make([]store.Replica, 0, len(calls))
	for i, c := range calls {
		fields, err := c.cmd.Slice()
		if err != nil || len(fields) != 4 {
			return nil, unexpected("replicas", c.cmd.Val())
		}
		started, ok := fields[0].(string)
		if !ok {
			continue // forgotten
		}
		info, _ := fields[1].(string)
		seen, _ := fields[2].(string)
		now, _ := fields[3].(string)
		n := store.Replica{ID: ids[i], Started: parseMillis(started), Seen: parseMillis(seen)}
		n.Silent = max(0, parseMillis(now).Sub(n.Seen)) // the clock may have been set, or be another server's
		if info != "" {
			n.Info = json.RawMessage(info)
		}
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, func(a, b store.Replica) int { return strings.Compare(a.ID, b.ID) })
	return nodes, nil
}

func parseMillis(s string) time.Time {
	ms, _ := strconv.ParseInt(s, 10, 64)
	return time.UnixMilli(ms).UTC()
}

// Channels implements [store.Registry]. It takes two round trips for each 1000
// of limit. Each replica's keys give at most 1000 names per round.
func (s *Store) Channels(ctx context.Context, prefix, after string, limit int) ([]store.Count, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	var all []store.Count
	for len(all) < limit {
		n := min(limit-len(all), scriptItems)
		page, err := s.channels(ctx, prefix, after, n)
		if err != nil {
			return nil, s.explain(ctx, "list the channels", err)
		}
		all = append(all, page...)
		if len(page) < n {
			break
		}
		after = page[n-1].Channel
	}
	return all, nil
}

func (s *Store) channels(ctx context.Context, prefix, after string, limit int) ([]store.Count, error) {
	from, to := between(prefix, after)
	calls, err := s.ask(ctx, store.DeadAfter, func(node string) *call {
		return newCall(pageScript, []string{s.keys.names(node), s.keys.counts(node)}, from, to, limit, 0)
	})
	if err != nil {
		return nil, err
	}
	// A name that is among the first of the sum is among the first of each
	// replica that has it.
	sums := make(map[string]store.Count)
	for _, c := range calls {
		_, err := eachOf(c.cmd, func(name, numbers string) error {
			sum := sums[name]
			sum.Channel = name
			err := addCount(&sum, numbers)
			sums[name] = sum
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	page := slices.SortedFunc(maps.Values(sums), func(a, b store.Count) int { return cmp.Compare(a.Channel, b.Channel) })
	return page[:min(limit, len(page))], nil
}

// between returns the bounds for ZRANGEBYLEX of the names that begin with
// prefix and are greater than after.
func between(prefix, after string) (from, to string) {
	from, to = "-", "+"
	if prefix != "" {
		from = "[" + prefix
		if end := successor(prefix); end != "" {
			to = "(" + end
		}
	}
	if after != "" && after >= prefix {
		from = "(" + after
	}
	return from, to
}

// successor returns the least string that is greater than all strings that
// begin with s, or "" if there is none.
func successor(s string) string {
	b := bytes.TrimRight([]byte(s), "\xff")
	if len(b) == 0 {
		return ""
	}
	b[len(b)-1]++
	return string(b)
}

// eachOf calls f for each pair that the page script returned. It returns the
// script's count.
func eachOf(cmd *redis.Cmd, f func(name, value string) error) (total int64, err error) {
	reply, err := cmd.Slice()
	if err != nil || len(reply) != 3 {
		return 0, unexpected("page", cmd.Val())
	}
	total, _ = reply[0].(int64)
	names, _ := reply[1].([]any)
	values, _ := reply[2].([]any)
	for i, name := range names[:min(len(names), len(values))] {
		n, _ := name.(string)
		v, ok := values[i].(string)
		if !ok {
			continue // its hash was evicted; the replica's next Report returns false
		}
		if err := f(n, v); err != nil {
			return 0, err
		}
	}
	return total, nil
}

// Channel implements [store.Registry].
func (s *Store) Channel(ctx context.Context, name string) (store.Count, error) {
	if err := s.enter(ctx); err != nil {
		return store.Count{}, err
	}
	sum := store.Count{Channel: name}
	calls, err := s.ask(ctx, store.DeadAfter, func(node string) *call {
		return newCall(countScript, []string{s.keys.counts(node)}, name)
	})
	if err != nil {
		return store.Count{}, s.explain(ctx, fmt.Sprintf("read the numbers of %q", name), err)
	}
	for _, c := range calls {
		if numbers, ok := c.cmd.Val().(string); ok {
			if err := addCount(&sum, numbers); err != nil {
				return store.Count{}, err
			}
		}
	}
	return sum, nil
}
