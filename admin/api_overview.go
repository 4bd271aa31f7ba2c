package admin

import (
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/channels-go/channels"
)

// overview is all replicas at this moment, as the page shows them.
type overview struct {
	Replica  string        `json:"replica"` // that answers
	Time     int64         `json:"time_ms"` // Unix time
	Replicas []replicaInfo `json:"replicas"`
	Totals   totalsInfo    `json:"totals"`
	Departed []deadInfo    `json:"departed"` // that have died in the last minutes, and are listed no more
	Store    storeInfo     `json:"store"`
	Scaling  *scalingInfo  `json:"scaling"`  // null if there is no Scaler
	Again    int64         `json:"again_ms"` // when to ask again, since a light may turn then
}

// totalsInfo is the newest point of the charts, as it is at this moment: the same numbers
// by the same names.
type totalsInfo struct {
	Replicas    int      `json:"replicas"`
	Green       int      `json:"green"`
	Connections int      `json:"connections"`
	Requests    *float64 `json:"requests_s"` // null where no replica's is known
	Publishes   *float64 `json:"publishes_s"`
	Deliveries  *float64 `json:"deliveries_s"`
	LatencyP50  *float64 `json:"latency_p50_ms"` // of the slowest replica; null where nothing was delivered
	LatencyP99  *float64 `json:"latency_p99_ms"`
	Queued      int64    `json:"queued"`
}

type replicaInfo struct {
	ID          string    `json:"id"`
	Status      string    `json:"status"`
	Reasons     []reason  `json:"reasons"`
	Seen        int64     `json:"seen_ms"`
	Silent      bool      `json:"silent"`      // nothing is heard of it
	Old         bool      `json:"old"`         // the numbers are of the time before, and not in the totals
	Replaced    bool      `json:"replaced"`    // it is dead, and as many run as before or as are wanted
	ReplacedBy  string    `json:"replaced_by"` // the replica in its place, or "" if it is not known
	Started     time.Time `json:"started"`
	Uptime      int64     `json:"uptime_s"`
	Version     string    `json:"version"`
	Go          string    `json:"go"`
	Draining    bool      `json:"draining"`
	Connections int       `json:"connections"`
	Channels    int       `json:"channels"`
	Requests    *float64  `json:"requests_s"` // null if it is not known
	Publishes   *float64  `json:"publishes_s"`
	Deliveries  *float64  `json:"deliveries_s"`
	Queued      int64     `json:"queued"`
	Memory      int64     `json:"memory"`
	CPU         float64   `json:"cpu"`
	Processors  int       `json:"processors"`
	LatencyP50  *float64  `json:"latency_p50_ms"` // null if nothing was delivered
	LatencyP99  *float64  `json:"latency_p99_ms"`
	Mesh        *meshInfo `json:"mesh"` // null if it has none, or does not say
}

// deadInfo is a replica that has died.
type deadInfo struct {
	ID         string `json:"id"`
	Seen       int64  `json:"seen_ms"` // how long ago its last heartbeat came
	Replaced   bool   `json:"replaced"`
	ReplacedBy string `json:"replaced_by"`
}

// reason is why a replica is not green, in a few words and in a sentence, and what to do.
type reason struct {
	Reason string `json:"reason"`
	Words  string `json:"words"`
	Do     string `json:"do"`
}

type meshInfo struct {
	Up      int        `json:"up"`
	Down    int        `json:"down"`
	Dropped int64      `json:"dropped"`
	Lost    int64      `json:"lost"`
	Refused int64      `json:"refused"`
	Peers   []peerInfo `json:"peers"`
}

type peerInfo struct {
	ID  string  `json:"id"` // empty for a broker, or if it is not known
	Up  bool    `json:"up"`
	RTT float64 `json:"rtt_ms"`
}

// storeInfo is how the Store does, as the worst of the replicas says that can tell.
type storeInfo struct {
	Status string  `json:"status"`
	Brief  string  `json:"brief"` // what it does wrong, as a sentence goes on; "" if nothing
	Words  string  `json:"words"`
	Took   float64 `json:"ms"`      // for the canary of the replica that answers; 0 if none came back
	Seen   int64   `json:"seen_ms"` // how long ago it last took something of the replica that answers
	Own    bool    `json:"own"`     // other replicas do not share it
}

// serveOverview is GET /api/overview.
func (a *Admin) serveOverview(_ http.ResponseWriter, r *http.Request, _ operator) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	v := a.watch.look()
	if v.err != nil {
		return nil, v.err
	}
	o := overview{Time: v.at.UnixMilli(), Replicas: make([]replicaInfo, len(v.replicas)), Again: max(50, v.again().Milliseconds())}
	for i, one := range v.replicas {
		o.Replicas[i] = one.info(v.at)
	}
	o.Departed = make([]deadInfo, len(v.departed))
	for i, d := range v.departed {
		o.Departed[i] = deadInfo{d.id, v.at.Sub(d.at).Milliseconds(), d.fate.filled, d.fate.by}
	}
	o.Totals = v.point().totals()
	o.Replica = a.hub.ReplicaID()
	o.Store = v.store(o.Replica)
	o.Store.Own = a.alone(v)
	o.Scaling = a.scalingInfo(v)
	return o, nil
}

func (p point) totals() totalsInfo {
	return totalsInfo{p.replicas, p.green, p.connections, known(p.requests), known(p.publishes), known(p.deliveries),
		known(somethingOf(p.p50)), known(somethingOf(p.p99)), int64(p.queued)}
}

// known is a number as it is sent, or nil if it is not known.
func known(x float64) *float64 {
	if math.IsNaN(x) {
		return nil
	}
	x = round(x, 1000)
	return &x
}

func (r watched) info(now time.Time) replicaInfo {
	if r.silent {
		now = now.Add(-r.Seen) // nobody knows whether it has lived longer
	}
	i := replicaInfo{
		ID: r.ID, Status: string(r.Status), Reasons: make([]reason, len(r.Reasons)), Seen: r.Seen.Milliseconds(), Silent: r.silent, Old: r.old, Replaced: r.fate.filled, ReplacedBy: r.fate.by,
		Started: r.Started, Uptime: max(0, int64(now.Sub(r.Started)/time.Second)), Version: r.Version, Go: r.GoVersion, Draining: r.Draining,
		Connections: r.Connections, Channels: r.Channels, Queued: r.Queued, Memory: r.Memory, CPU: round(r.CPU, 1000), Processors: r.Processors,
	}
	if r.Started.IsZero() { // it has not said
		i.Uptime = 0
	}
	if r.LatencyP99 > 0 {
		p50, p99 := milliseconds(r.LatencyP50), milliseconds(r.LatencyP99)
		i.LatencyP50, i.LatencyP99 = &p50, &p99
	}
	for k, why := range r.Reasons {
		a := adviceFor(why)
		i.Reasons[k] = reason{why, a.means, a.do}
	}
	if r.known {
		for to, n := range map[**float64]float64{&i.Requests: r.perSecond.requests, &i.Publishes: r.perSecond.publishes, &i.Deliveries: r.perSecond.deliveries} {
			n = round(n, 10)
			*to = &n
		}
	}
	if m := r.Mesh; m != nil {
		i.Mesh = &meshInfo{m.Up, m.Down, m.Dropped, m.Lost, m.Refused, make([]peerInfo, len(m.Peers))}
		for k, p := range m.Peers {
			i.Mesh.Peers[k] = peerInfo{p.ID, p.Up, milliseconds(p.RTT)}
		}
	}
	return i
}

// alone reports whether there are other replicas, which do not share this one's Store.
func (a *Admin) alone(v *view) bool { return len(v.replicas) > 1 && a.hub.OwnStore() }

func round(x, parts float64) float64 { return math.Round(x*parts) / parts }

// pause is for how long the Store may take nothing of a replica, which reports each
// second, before it does not count as slow, but as taking nothing.
const pause = 2500 * time.Millisecond

// store sums up what the replicas say of the Store. self answers.
func (v *view) store(self string) storeInfo {
	s := storeInfo{Status: string(channels.ReplicaGreen), Words: "It takes what it is given."}
	var nothing, refused, late []string // replicas
	longest := time.Duration(0)
	for _, r := range v.replicas {
		lost := slices.Contains(r.Reasons, "canary lost: store") || slices.Contains(r.Reasons, "reports lost: store")
		if lost {
			s.Status = string(channels.ReplicaRed)
		}
		switch age := r.StoreSeen + r.Seen; {
		case !r.silent && r.StoreSeen > pause: // what is silent says nothing of it
			nothing = append(nothing, r.ID)
			longest = max(longest, age)
		case lost:
			refused = append(refused, r.ID)
		case slices.ContainsFunc(r.Reasons, func(s string) bool { return strings.HasSuffix(s, "late: store") }):
			late = append(late, r.ID)
		}
		if r.ID == self {
			s.Took, s.Seen = milliseconds(r.StoreTime), (r.StoreSeen + r.Seen).Milliseconds()
		}
	}
	switch {
	case len(nothing) > 0:
		s.Brief, s.Words = "takes nothing", "It has taken nothing from "+names(nothing)+" for "+strconv.Itoa(int(longest/time.Second))+" s."
	case len(refused) > 0:
		s.Brief, s.Words = "takes no messages", "It takes no messages from "+names(refused)+"."
	case len(late) > 0:
		s.Brief, s.Words = "is slow", "It is slow for "+names(late)+"."
	}
	if s.Brief != "" && s.Status == string(channels.ReplicaGreen) {
		s.Status = string(channels.ReplicaYellow)
	}
	return s
}

// names lists some replicas.
func names(ids []string) string {
	const most = 4
	if n := len(ids) - most; n > 0 {
		return strings.Join(ids[:most], ", ") + " and others"
	}
	return strings.Join(ids, ", ")
}
