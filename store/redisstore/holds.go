package redisstore

import (
	"context"
	"fmt"
	"slices"

	"github.com/channels-go/channels/store"
)

var _ store.Holder = (*Store)(nil)

// Hold implements [store.Holder]. Up to 1000 changes are one step and one round trip.
// With more, or with Full, some may have been applied if it fails.
func (s *Store) Hold(ctx context.Context, node string, h store.Holding) (store.Held, error) {
	if err := s.enter(ctx); err != nil {
		return store.Held{}, err
	}
	var held store.Held
	err := s.hold(ctx, node, h, &held)
	if err == nil && h.Full {
		err = s.findHeld(ctx, node, h, &held)
	}
	if err != nil {
		return store.Held{}, s.explain(ctx, fmt.Sprintf("change what replica %q holds", node), err)
	}
	return held, nil
}

// hold applies changes, and adds what became of them.
func (s *Store) hold(ctx context.Context, node string, h store.Holding, held *store.Held) error {
	for changes := h.Changes; len(changes) > 0 || held.Changes == nil; {
		part := changes[:min(len(changes), scriptItems)]
		changes = changes[len(part):]
		c := s.newHoldCall(node, len(part), h.Inherits)
		for i := range part {
			op := "+"
			if part[i].Released {
				op = "-"
			}
			c.args = append(c.args, op, part[i].Name, string(part[i].Data))
		}
		states, err := s.runHold(ctx, c, held)
		if err != nil {
			return err
		}
		for i := range part {
			states[i].Name = part[i].Name
		}
		held.Changes = append(held.Changes, states...)
		if held.Changes == nil {
			held.Changes = []store.HoldState{}
		}
	}
	return nil
}

// findHeld adds the names that the replica does not know of to the news.
func (s *Store) findHeld(ctx context.Context, node string, h store.Holding, held *store.Held) error {
	known := make(map[string]bool, len(h.Changes))
	for _, c := range h.Changes {
		known[c.Name] = !c.Released
	}
	for _, n := range held.News {
		known[n.Name] = true
	}
	c := newCall(heldScript, []string{s.keys.held(node)})
	if err := s.do(ctx, c); err != nil {
		return err
	}
	names, err := c.cmd.StringSlice()
	if err != nil {
		return unexpected("held", c.cmd.Val())
	}
	names = slices.DeleteFunc(names, func(name string) bool { return known[name] })
	for part := range slices.Chunk(names, scriptItems) {
		ask := s.newHoldCall(node, len(part), false)
		for _, name := range part {
			ask.args = append(ask.args, "?", name, "")
		}
		if _, err := s.runHold(ctx, ask, held); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) newHoldCall(node string, changes int, inherits bool) *call {
	budget := 0
	if inherits {
		budget = scriptItems
	}
	args := append(make([]any, 0, 3+3*changes), node, int(store.DeadAfter.Seconds()), budget)
	return newCall(holdScript, []string{s.keys.holds(), s.keys.holders(), s.keys.held(""), s.keys.news("")}, args...)
}

// runHold runs the script, and adds its news. It returns what became of the changes.
func (s *Store) runHold(ctx context.Context, c *call, held *store.Held) ([]store.HoldState, error) {
	if err := s.do(ctx, c); err != nil {
		return nil, err
	}
	reply, err := c.cmd.Slice()
	if err != nil || len(reply) != 3 {
		return nil, unexpected("hold", c.cmd.Val())
	}
	done, _ := reply[0].([]any)
	told, _ := reply[1].([]any)
	total, _ := reply[2].(int64)
	if len(done) != (len(c.args)-3)/3 {
		return nil, unexpected("hold", c.cmd.Val())
	}
	var states []store.HoldState
	for _, d := range done {
		f, _ := d.([]any)
		if len(f) != 3 {
			return nil, unexpected("hold", c.cmd.Val())
		}
		states = append(states, store.HoldState{Owner: text(f[0]), Holders: number(f[1]), Changed: f[2] == "1"})
	}
	for _, d := range told {
		f, _ := d.([]any)
		if len(f) != 5 {
			return nil, unexpected("hold", c.cmd.Val())
		}
		n := store.HoldState{Name: text(f[0]), Owner: text(f[1]), Holders: number(f[2]), Inherited: f[3] == "1"}
		if data := text(f[4]); data != "" {
			n.Data = []byte(data)
		}
		held.News = append(held.News, n)
	}
	held.Total = int(total)
	return states, nil
}

func text(v any) string { s, _ := v.(string); return s }

func number(v any) int { n, _ := v.(int64); return int(n) }

// unhold makes a replica count as dead for those that inherit what it holds.
func (s *Store) unhold(node string) *call {
	return newCall(unholdScript, []string{s.keys.holders()}, node)
}
