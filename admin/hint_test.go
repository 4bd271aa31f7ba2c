package admin

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

func TestHint(t *testing.T) {
	// cpus are replicas a, b, c, … on two processors, without connections.
	cpus := func(inUse ...float64) (all []load) {
		for i, cpu := range inUse {
			all = append(all, load{string(rune('a' + i)), cpu, 2, 0, 1000})
		}
		return all
	}
	for name, c := range map[string]struct {
		serving     []load
		least, most int
		want        string
	}{
		"nobody":        {nil, 1, 9, ""},
		"well":          {cpus(1, 1.2), 1, 9, ""},
		"at the mark":   {cpus(1.4, 0), 1, 9, "a uses 70 % of its processors: one more would bring the busiest below 70 %"},
		"one more":      {cpus(1, 1.6, 1), 1, 9, "b uses 80 % of its processors: one more would bring the busiest below 70 %"},
		"two more":      {cpus(2, 2, 2, 2), 1, 9, "a uses 100 % of its processors: two more would bring the busiest below 70 %"},
		"just allowed":  {cpus(2, 2, 2, 2), 1, 6, "a uses 100 % of its processors: two more would bring the busiest below 70 %"},
		"too many":      {cpus(2, 2, 2, 2), 1, 5, "a uses 100 % of its processors, and the limit of 5 replicas is too low to bring it below 70 %"},
		"many":          {cpus(14), 1, 99, "a uses 700 % of its processors: 10 more would bring the busiest below 70 %"},
		"connections":   {[]load{{"a", 0.1, 2, 900, 1000}, {"b", 1.5, 2, 10, 1000}}, 1, 9, "a uses 90 % of its connections: one more would bring the busiest below 70 %"},
		"one fewer":     {cpus(0.1, 0.6, 0.1), 1, 9, "the busiest, b, uses 30 % of its processors: one fewer would leave it below 50 %"},
		"not below 50":  {cpus(0.1, 0.7, 0.1), 1, 9, ""},
		"the last":      {cpus(0), 0, 9, ""},
		"the least":     {cpus(0, 0, 0), 3, 9, ""},
		"idle":          {cpus(0, 0, 0.09), 1, 9, "the busiest, c, uses less than 5 % of its processors: one fewer would leave it below 50 %"},
		"the last two":  {cpus(0, 0), 1, 9, ""},
		"an older one":  {[]load{{replica: "old"}, {"new", 1.8, 2, 0, 0}}, 1, 9, "new uses 90 % of its processors: one more would bring the busiest below 70 %"},
		"only old ones": {[]load{{replica: "old"}, {replica: "old too", cpu: 1, connections: 5}}, 1, 9, ""},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			require.Equal(t, c.want, hint(c.serving, c.least, c.most))
		})
	}
}

// While replicas come or go, the load of those that are there says little.
func TestNoHintWhileReplicasComeOrGo(t *testing.T) {
	one := watched{Replica: channels.Replica{ID: "a", Status: channels.ReplicaGreen, Processors: 2}, cpu: 2}
	for ready, want := range map[int]bool{1: false, 2: true, 3: false} {
		a := &Admin{opts: Options{ScaleMin: 1, ScaleMax: 9}, scaling: scaling{scaler: noScaler{}, at: time.Now().Add(time.Hour), ready: ready, wanted: 2}}
		require.Equal(t, want, a.scalingInfo(&view{replicas: []watched{one}}).Hint != "", "%d of 2 are ready", ready)
	}
}

// noScaler is not asked.
type noScaler struct{ Scaler }

// The hint counts the replicas that will go on to serve, and takes their processors
// over half a minute.
func TestHintIsSteady(t *testing.T) {
	began := time.Now()
	t0 := tally{}.next(channels.Replica{CPU: 1}, began)
	peak := t0.next(channels.Replica{CPU: 2}, began.Add(time.Second))
	require.InDelta(t, 1.03, peak.cpu, 0.01)
	after := peak
	for i := range 120 {
		after = after.next(channels.Replica{CPU: 2}, began.Add(time.Duration(i+2)*time.Second))
	}
	require.InDelta(t, 2, after.cpu, 0.03)

	one := func(id string, status channels.ReplicaStatus, draining bool) watched {
		return watched{Replica: channels.Replica{ID: id, Status: status, Draining: draining, Processors: 2, MaxConnections: 10, Stats: channels.Stats{Connections: 9}}, cpu: 1}
	}
	v := &view{replicas: []watched{one("a", channels.ReplicaGreen, false), one("b", channels.ReplicaRed, false), one("c", channels.ReplicaYellow, true), one("d", channels.ReplicaYellow, false)}}
	require.Equal(t, []load{{"a", 1, 2, 9, 10}, {"d", 1, 2, 9, 10}}, v.loads())
}
