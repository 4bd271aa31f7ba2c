package zmqmesh

import "errors"

// A gap is what a target knows about a link that has ended without a goodbye and
// has not come back, so that packets may be lost. Nothing is told when the link
// breaks. If the next attempt brings it up, its first echo reports the loss. If that
// attempt fails, the loss is told at once, since the link may never come up; what is
// published from then on is told when the link is up or given up.
type gap struct {
	id   string // the replica, or "" if nothing is missed
	told bool
}

// attempt is called after each attempt, with the link that has ended, or nil if
// there was none, and why.
func (g *gap) attempt(m *Mesh, ended *link, err error) {
	up := ended != nil && !ended.up.IsZero()
	switch {
	case ended != nil && (errors.Is(err, errDuplicate) || errors.Is(err, errAnotherLife)):
		*g = gap{} // the link in its place tells the loss
	case up && errors.Is(err, errBye):
		*g = gap{} // a replica that leaves has sent everything before
	case up:
		*g = gap{id: ended.id}
	case ended != nil && ended.owes && g.id == "":
		*g = gap{id: ended.id}
	}
	if g.id != "" && !g.told && !up && m.ctx.Err() == nil {
		g.told = true
		m.inbox.Lost("", g.id)
	}
}
