package metrics_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/metrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var eventually = basetest.Eventually

// meshed are the options of a hub that has everything.
func meshed(t testing.TB) channels.Options {
	return channels.Options{Mesh: &fakeMesh{}, Store: hubtest.NewMemory(t)}
}

// register returns a registry with the metrics of a hub.
func register(t testing.TB, hub *channels.Hub, o metrics.Options) *prometheus.Registry {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	require.NoError(t, reg.Register(metrics.New(hub, o)))
	return reg
}

// A scraped is one scrape: what each series has. A histogram has its count.
type scraped struct {
	values map[string]float64    // by name{label="value",…}
	types  map[string]string     // by name
	helps  map[string]string     // by name
	labels map[string][]string   // by name
	series map[string]([]string) // by name
}

func scrape(t testing.TB, reg prometheus.Gatherer) scraped {
	t.Helper()
	all, err := reg.Gather()
	require.NoError(t, err)
	s := scraped{map[string]float64{}, map[string]string{}, map[string]string{}, map[string][]string{}, map[string][]string{}}
	for _, f := range all {
		name := f.GetName()
		s.types[name], s.helps[name] = strings.ToLower(f.GetType().String()), f.GetHelp()
		for _, m := range f.GetMetric() {
			var labels, names []string
			for _, l := range m.GetLabel() {
				labels, names = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue())), append(names, l.GetName())
			}
			series := name
			if len(labels) > 0 {
				series += "{" + strings.Join(labels, ",") + "}"
			}
			s.values[series] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			s.labels[name], s.series[name] = names, append(s.series[name], series)
		}
	}
	return s
}

func TestNamesFollowTheConventionsOfPrometheus(t *testing.T) {
	hub := hubtest.NewHub(t, meshed(t))
	problems, err := testutil.GatherAndLint(register(t, hub, metrics.Options{Channels: []string{"*"}}))
	require.NoError(t, err)
	require.Empty(t, problems)
}

func TestPatternsAreFewAndValid(t *testing.T) {
	hub := hubtest.NewHub(t, channels.Options{})
	refused := func(says string, patterns ...string) {
		t.Helper()
		c := metrics.New(hub, metrics.Options{Channels: patterns})
		require.ErrorContains(t, prometheus.NewRegistry().Register(c), says)
	}
	refused(`the class "[" has no end`, "[")
	many := make([]string, channels.MaxWatched+1)
	for i := range many {
		many[i] = fmt.Sprint(i, ".*")
	}
	refused("at most 32 patterns, these would make 33", many...)
	reg := register(t, hub, metrics.Options{Channels: append(many[:channels.MaxWatched], "0.*")}) // once is enough
	require.Len(t, scrape(t, reg).series["channels_pattern_channels"], channels.MaxWatched)
}

func TestNoChannelsNameIsALabelUnlessAPatternIs(t *testing.T) {
	s := hubtest.Serve(t, channels.Options{})
	s.For(t).DialMany(1, "visitors-choice")
	plain, patterned := register(t, s.Hub, metrics.Options{}), register(t, s.Hub, metrics.Options{Channels: []string{"visitors-*", "others-*"}})
	s.PublishGo("visitors-choice", `1`)
	without, with := scrape(t, plain), scrape(t, patterned)
	for series := range maps.Keys(without.values) {
		require.NotContains(t, series, "visitors")
	}
	require.Equal(t, []string{`channels_pattern_channels{pattern="others-*"}`, `channels_pattern_channels{pattern="visitors-*"}`}, with.series["channels_pattern_channels"])
	for name, want := range map[string]float64{"channels": 1, "subscriptions": 1, "published_messages_total": 1, "deliveries_total": 1} {
		require.Equal(t, want, with.values["channels_pattern_"+name+`{pattern="visitors-*"}`], name)
		require.Zero(t, with.values["channels_pattern_"+name+`{pattern="others-*"}`], name)
	}
}

// A series that is there from the beginning at 0 can be told from one that nobody
// scrapes, and rate() sees its first event.
func TestSeriesAreThereFromTheBeginning(t *testing.T) {
	s := scrape(t, register(t, hubtest.NewHub(t, meshed(t)), metrics.Options{Channels: []string{"a"}}))
	var missing []string
	for _, name := range names(t) {
		if len(s.series[name]) == 0 {
			missing = append(missing, name)
		}
	}
	require.Equal(t, []string{ // whose labels nobody knows before
		"channels_handshakes_refused_total", "channels_http_requests_refused_total", "channels_status_reason",
	}, missing)
	require.Len(t, s.series["channels_publishes_total"], 8*2) // ok and duplicate
}

// names are those of all metrics, sorted.
func names(t testing.TB) (all []string) {
	t.Helper()
	c := metrics.New(hubtest.NewHub(t, channels.Options{}), metrics.Options{})
	descs := make(chan *prometheus.Desc, 256)
	c.Describe(descs)
	close(descs)
	for d := range descs {
		_, name, _ := strings.Cut(d.String(), `fqName: "`)
		name, _, _ = strings.Cut(name, `"`)
		all = append(all, name)
	}
	slices.Sort(all)
	require.Equal(t, slices.Compact(slices.Clone(all)), all)
	return all
}

func TestManyScrapeAtOnce(t *testing.T) {
	s := hubtest.Serve(t, meshed(t))
	reg := register(t, s.Hub, metrics.Options{Channels: []string{"*"}})
	done := make(chan struct{})
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
					s.PublishGo(fmt.Sprintf("c%d.%d", i, n%10), `1`)
				}
			}
		})
	}
	var scrapes sync.WaitGroup
	for range 4 {
		scrapes.Go(func() {
			last := 0.0
			for range 10 {
				n := scrape(t, reg).values[`channels_publishes_total{door="go",outcome="ok"}`]
				if n < last {
					t.Errorf("the counter fell from %v to %v", last, n)
				}
				last = n
			}
		})
	}
	scrapes.Wait()
	close(done)
	all.Wait()
}

// BenchmarkScrape has 100,000 channels.
func BenchmarkScrape(b *testing.B) {
	hub := hubtest.NewHub(b, channels.Options{MaxChannels: 200_000})
	for i := range 100_000 {
		_, err := hub.Publish(b.Context(), fmt.Sprintf("chat.%d", i), hubtest.Msg("m", `1`))
		require.NoError(b, err)
	}
	for name, o := range map[string]metrics.Options{"no patterns": {}, "a pattern for all": {Channels: []string{"chat.*"}}, "a pattern for a tenth": {Channels: []string{"chat.1*"}}} {
		b.Run(name, func(b *testing.B) {
			reg := register(b, hub, o)
			b.ReportAllocs()
			for b.Loop() {
				_, err := reg.Gather()
				require.NoError(b, err)
			}
		})
	}
}
