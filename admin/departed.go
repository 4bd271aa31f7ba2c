package admin

import (
	"cmp"
	"slices"
	"time"

	"github.com/channels-go/channels"
)

const (
	// departedKept is for how long the page tells of a replica that has died. The hub
	// itself forgets it after a minute.
	departedKept = 15 * time.Minute
	// departedMost is how many of them it tells of: the latest.
	departedMost = 20
)

// A departed replica has died or was cut off for so long that it counts as dead: it left
// the list of replicas without a goodbye.
type departed struct {
	id   string
	at   time.Time // of its last heartbeat
	fate fate
}

// A fate is what became of a dead replica's place.
type fate struct {
	filled bool   // as many run as before, or as are wanted
	by     string // the replica that took the place, if it is known
}

// bury returns the replicas that have died: those of before, and those that have left the
// list since without a word. One that is there again has not died.
func bury(before []departed, seen map[string]tally, v *view) []departed {
	var all []departed
	for _, d := range before {
		if _, back := v.find(d.id); !back && v.at.Sub(d.at) < departedKept {
			all = append(all, d)
		}
	}
	for id, t := range seen {
		if _, there := v.find(id); !there && t.silent && !t.draining {
			all = append(all, departed{id: id, at: t.at})
		}
	}
	slices.SortFunc(all, func(a, b departed) int { return cmp.Or(b.at.Compare(a.at), cmp.Compare(a.id, b.id)) })
	return all[:min(len(all), departedMost)]
}

// find returns a replica of the list.
func (v *view) find(id string) (watched, bool) {
	for _, r := range v.replicas {
		if r.ID == id {
			return r, true
		}
	}
	return watched{}, false
}

// isDead reports whether nothing has been heard of a replica for so long that it counts as
// lost.
func (r *watched) isDead() bool { return r.silent && r.Status == channels.ReplicaRed && !r.Draining }

// serves reports whether a replica is there and will stay.
func (r *watched) serves() bool { return !r.old && !r.Draining }

// settle says which places of dead replicas are filled. If it is known how many replicas
// are wanted, all are as soon as so many serve. In any case, each one that has started
// since a replica died takes the place of one.
func settle(v *view, wanted int) {
	var dead []*fate
	var died []time.Time
	for i := len(v.departed) - 1; i >= 0; i-- { // the oldest first
		dead, died = append(dead, &v.departed[i].fate), append(died, v.departed[i].at)
	}
	var listed, young []*watched
	serving := 0
	for i := range v.replicas {
		r := &v.replicas[i]
		switch {
		case r.isDead():
			listed = append(listed, r)
		case r.serves():
			serving++
			if r.Uptime > 0 {
				young = append(young, r)
			}
		}
	}
	slices.SortFunc(listed, func(a, b *watched) int { return cmp.Compare(b.Seen, a.Seen) })
	for _, r := range listed {
		dead, died = append(dead, &r.fate), append(died, v.at.Add(-r.Seen))
	}
	slices.SortFunc(young, func(a, b *watched) int { return cmp.Compare(b.Uptime+b.Seen, a.Uptime+a.Seen) })
	for i, f := range dead {
		*f = fate{filled: wanted > 0 && serving >= wanted}
		for k, r := range young {
			if v.at.Add(-r.Seen - r.Uptime).After(died[i]) {
				*f = fate{filled: true, by: r.ID}
				young = slices.Delete(young, k, k+1)
				break
			}
		}
	}
}
