// Package metrics gives a hub's numbers to Prometheus:
//
//	registry.MustRegister(metrics.New(hub, metrics.Options{}))
//
// docs/metrics.md lists the metrics, and has alerts and a dashboard for them.
package metrics

import (
	"fmt"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/channels-go/channels"
)

// Options are what New may be told.
type Options struct {
	// Channels are patterns, such as "chat.*": see [channels.Hub.WatchChannels]. Each gets
	// series with the sums over the channels whose names it matches. All Collectors of a
	// hub together may have [channels.MaxWatched]. Without patterns, nothing tells the
	// channels apart: their names often come from visitors, who could make any number of
	// series.
	Channels []string
}

// A Collector is a prometheus.Collector for one hub. It reads the hub's numbers at each
// scrape, and keeps nothing. Its methods may be called concurrently.
type Collector struct {
	hub      *channels.Hub
	patterns []string
	wrong    error // with the options
}

var _ prometheus.Collector = (*Collector)(nil)

// New returns a Collector. If the options cannot work, registering it fails and says
// why.
func New(hub *channels.Hub, o Options) *Collector {
	c := &Collector{hub: hub, patterns: slices.Compact(slices.Sorted(slices.Values(o.Channels)))}
	if err := hub.WatchChannels(c.patterns...); err != nil {
		c.wrong = fmt.Errorf("metrics: Options.Channels: %w", err)
	}
	return c
}

// Describe is for the registry.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	if c.wrong != nil {
		to <- prometheus.NewInvalidDesc(c.wrong)
		return
	}
	for _, f := range families {
		to <- f.desc
	}
	for _, f := range patternFamilies {
		to <- f.desc
	}
}

// Collect is for the registry.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	if c.wrong != nil { // it is not registered
		return
	}
	m := c.hub.Metrics()
	for _, f := range families {
		f.read(&m, sink{f.desc, to})
	}
	for _, p := range c.patterns {
		sums := m.Watched[p]
		for _, f := range patternFamilies {
			f.read(&sums, p, sink{f.desc, to})
		}
	}
}

// A sink takes the series of one metric.
type sink struct {
	desc *prometheus.Desc
	to   chan<- prometheus.Metric
}

func (s sink) gauge(v float64, labels ...string) {
	s.to <- prometheus.MustNewConstMetric(s.desc, prometheus.GaugeValue, v, labels...)
}

func (s sink) counter(n int64, labels ...string) {
	s.to <- prometheus.MustNewConstMetric(s.desc, prometheus.CounterValue, float64(n), labels...)
}

// counters has a series for each label.
func (s sink) counters(n map[string]int64) {
	for label, n := range n {
		s.counter(n, label)
	}
}

func (s sink) histogram(h channels.Histogram, labels ...string) {
	buckets := make(map[float64]uint64, len(h.Bounds))
	n := uint64(0)
	for i, bound := range h.Bounds {
		n += h.Counts[i]
		buckets[bound.Seconds()] = n
	}
	s.to <- prometheus.MustNewConstHistogram(s.desc, h.Count(), h.Sum.Seconds(), buckets, labels...)
}
