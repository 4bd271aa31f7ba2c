package admin

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
)

// pointsInfo is what the charts show, column by column: it is shorter than row by row,
// and a reload asks for 900 of them.
type pointsInfo struct {
	Replica     string          `json:"replica"` // that answers
	Seconds     json.RawMessage `json:"seconds"` // Unix time; where one is missing, nothing is known
	Replicas    json.RawMessage `json:"replicas"`
	Green       json.RawMessage `json:"green"`
	Connections json.RawMessage `json:"connections"`
	Requests    json.RawMessage `json:"requests_s"` // null where no replica's is known
	Publishes   json.RawMessage `json:"publishes_s"`
	Deliveries  json.RawMessage `json:"deliveries_s"`
	LatencyP50  json.RawMessage `json:"latency_p50_ms"` // of the slowest replica; null where nothing was delivered
	LatencyP99  json.RawMessage `json:"latency_p99_ms"`
}

// servePoints is GET /api/points?after=.
func (a *Admin) servePoints(_ http.ResponseWriter, r *http.Request, _ operator) (any, error) {
	q, err := query(r, "after")
	if err != nil {
		return nil, err
	}
	after, err := number(q, "after", 0, math.MaxInt64)
	if err != nil {
		return nil, err
	}
	all := a.watch.since(after)
	return pointsInfo{
		Replica:     a.hub.ReplicaID(),
		Seconds:     column(all, func(p point) float64 { return float64(p.second) }),
		Replicas:    column(all, func(p point) float64 { return float64(p.replicas) }),
		Green:       column(all, func(p point) float64 { return float64(p.green) }),
		Connections: column(all, func(p point) float64 { return float64(p.connections) }),
		Requests:    column(all, func(p point) float64 { return p.requests }),
		Publishes:   column(all, func(p point) float64 { return p.publishes }),
		Deliveries:  column(all, func(p point) float64 { return p.deliveries }),
		LatencyP50:  column(all, func(p point) float64 { return somethingOf(p.p50) }),
		LatencyP99:  column(all, func(p point) float64 { return somethingOf(p.p99) }),
	}, nil
}

// somethingOf takes 0 for nothing.
func somethingOf(x float64) float64 {
	if x == 0 {
		return math.NaN()
	}
	return x
}

// column encodes one number of each point.
func column(all []point, get func(point) float64) json.RawMessage {
	b := make([]byte, 1, 2+8*len(all))
	b[0] = '['
	for i, p := range all {
		if i > 0 {
			b = append(b, ',')
		}
		if x := get(p); math.IsNaN(x) {
			b = append(b, "null"...)
		} else {
			b = strconv.AppendFloat(b, round(x, 1000), 'f', -1, 64)
		}
	}
	return append(b, ']')
}
