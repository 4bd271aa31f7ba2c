package zmqmesh

import "errors"

// A gap is what a target knows of a link that has ended without a goodbye,
// and has not come back. A link that is up again tells of it. One that does not
// come up at the next attempt may never do so, and is told at once; what is
// published after that, when it is up or given up.
type gap struct {
	id   string // the replica, or "" where nothing is missed
	told bool
}

// attempt is called with a link that has ended, or nil where there was none, and why.
func (g *gap) attempt(m *Mesh, ended *link, err error) {
	up := ended != nil && !ended.up.IsZero()
	switch {
	case ended != nil && (errors.Is(err, errDuplicate) || errors.Is(err, errAnotherLife)):
		*g = gap{} // the link in its place tells of it
	case up && errors.Is(err, errBye):
		*g = gap{} // who leaves has sent all before
	case up:
		*g = gap{id: ended.id}
	case ended != nil && ended.owes && g.id == "":
		*g = gap{id: ended.id}
	}
	if g.id != "" && !g.told && !up && m.ctx.Err() == nil {
		g.told = true
		m.deliverLost("", g.id)
	}
}
