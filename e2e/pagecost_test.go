package e2e

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/css"
	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/cdproto/heapprofiler"
	cdpnetwork "github.com/chromedp/cdproto/network"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/admin"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// What the operators' page costs, and how soon it shows something:
//
//	go test -run '^$' -bench Page -benchtime 1x -count 3 .

// newLargeCluster is a replica that has the page, and 15 others that report 100,000
// channels.
func newLargeCluster(b *testing.B) *cluster {
	c := newCluster(b, 1, admin.Options{})
	require.NoError(b, hubtest.ReportOthers(b.Context(), c.store, 15, 100_000))
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() { // ends with ctx
		defer close(ended)
		for tick := time.NewTicker(time.Second); ; {
			select {
			case <-tick.C:
				hubtest.ReportOthers(ctx, c.store, 15, 0)
			case <-ctx.Done():
				return
			}
		}
	}()
	b.Cleanup(func() { cancel(); <-ended })
	return c
}

// The time from the address to all lights, charts and links.
func BenchmarkPageFirstView(b *testing.B) {
	p := newLargeCluster(b).operate(newBrowser(b), 1280, 1000)
	n, sum := 0, 0.0
	for b.Loop() {
		for range 10 {
			p.do(chromedp.Reload())
			p.becomes(`performance.getEntriesByName("first view").length === 1 && document.querySelectorAll("#replicas [data-replica]").length === 16`)
			sum += eval[float64](p, `performance.getEntriesByName("first view")[0].startTime`)
			n++
		}
	}
	b.ReportMetric(sum/float64(n), "ms/view")
	b.ReportMetric(0, "ns/op")
}

// The processor time of a replica for each part of the page while that is open, beyond
// what the replica takes without it: over 20 s, in percent of one processor.
func BenchmarkPageOpen(b *testing.B) {
	const long = 20 * time.Second
	c := newLargeCluster(b)
	for _, view := range []string{"/", "/channels", "/channel/channel-3-7"} {
		b.Run(view, func(b *testing.B) {
			for b.Loop() {
				time.Sleep(time.Second)
				idle := processorTime(b, long)
				p := c.operate(newBrowser(b), 1280, 1000)
				p.goes("#" + view)
				p.unobserved()
				time.Sleep(time.Second)
				open := processorTime(b, long)
				p.stop()
				b.ReportMetric(100*idle.Seconds()/long.Seconds(), "%closed")
				b.ReportMetric(100*(open-idle).Seconds()/long.Seconds(), "%open")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// unobserved has Chromium tell this process no more of what happens on the page, which
// would take more time than to serve it.
func (p *page) unobserved() {
	p.t.Helper()
	p.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) (err error) {
		for _, off := range []cdp.Command[cdp.Empty, cdp.Empty]{css.Disable, dom.Disable, cdpnetwork.Disable, cdppage.Disable} {
			if _, one := cdp.Call(ctx, t, off, cdp.Empty{}); one != nil {
				err = one
			}
		}
		return err
	}))
}

// processorTime is what this process takes while it does nothing itself.
func processorTime(b *testing.B, long time.Duration) time.Duration {
	used := func() time.Duration {
		var u syscall.Rusage
		require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	time.Sleep(long)
	return used() - before
}

// The memory that half an hour of points adds to a page that has a quarter of one.
func BenchmarkPageHalfAnHour(b *testing.B) {
	p := newCluster(b, 1, admin.Options{}).operate(newBrowser(b), 1280, 1000)
	p.until(`document.querySelectorAll("#charts figure").length === 6`)
	for b.Loop() {
		p.points(0, 900)
		full := p.heap()
		p.points(900, 2700)
		b.ReportMetric(full/1e6, "MB")
		b.ReportMetric((p.heap()-full)/1e6, "MB/growth")
	}
	b.ReportMetric(0, "ns/op")
}

// points has the page draw made-up points, one for each second.
func (p *page) points(from, to int) {
	p.t.Helper()
	eval[bool](p, fmt.Sprintf(`(async () => {
		const { Points } = await import("./points.js"), { drawCharts } = await import("./overview.js");
		const points = (window.madeUp ??= new Points()), names = ["replicas", "green", "connections", "requests_s", "publishes_s", "deliveries_s", "latency_p50_ms", "latency_p99_ms"];
		for (let second = %d; second < %d; second++) {
			points.add({ seconds: [second], ...Object.fromEntries(names.map((n) => [n, [Math.random() * 1000]])) }, second);
			drawCharts(points);
		}
		return true;
	})()`, from+1, to+1), chromedp.EvalAwaitPromise)
}

// heap is what the page's scripts hold, in bytes.
func (p *page) heap() (used float64) {
	p.t.Helper()
	p.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		if _, err := cdp.Call(ctx, t, heapprofiler.CollectGarbage, cdp.Empty{}); err != nil {
			return err
		}
		r, err := cdp.Call(ctx, t, runtime.GetHeapUsage, cdp.Empty{})
		used = r.UsedSize
		return err
	}))
	return used
}

// The time from a change, here a replica that drains, to its light on the page of
// another: of ten changes, each at another moment between two looks of the page.
func BenchmarkPageLightTurns(b *testing.B) {
	var took []float64
	for b.Loop() {
		for i := range 10 {
			c := newCluster(b, 2, admin.Options{})
			p := c.operate(newBrowser(b), 1280, 1000)
			p.lit("replica-1 green", "replica-2 green")
			p.noteWhen("replica-2", "draining")
			time.Sleep(time.Duration(i) * 100 * time.Millisecond)
			ctx, cancel := context.WithCancel(b.Context())
			began := time.Now()
			go c.hubs[1].Drain(ctx)
			took = append(took, p.noted(began))
			cancel()
			p.stop()
		}
	}
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2], "s/change")
	b.ReportMetric(took[len(took)-1], "s/slowest")
	b.ReportMetric(0, "ns/op")
}

// The time from kill -9 of a replica of the demo to its red light.
func BenchmarkPageRedAfterKill(b *testing.B) {
	redis := redistest.Start(b)
	for b.Loop() {
		s := run(b, "replicas", "-n", "3", "-redis", "redis://"+redis.Addr+"/0")
		p := newBrowser(b).visit(s.operators(), "operator", 1280, 1000)
		p.sums("All 3 replicas are green")
		p.noteWhen("replica-2", "red")
		began := time.Now()
		require.NoError(b, syscall.Kill(s.readyPIDs(3)[1], syscall.SIGKILL))
		b.ReportMetric(p.noted(began), "s/kill")
		p.stop()
		s.terminate()
	}
	b.ReportMetric(0, "ns/op")
}

// noteWhen has the page note when a replica's light turns to a status.
func (p *page) noteWhen(replica, status string) {
	p.t.Helper()
	eval[bool](p, fmt.Sprintf(`(() => {
		const look = () => {
			if (!window.turned && document.querySelector('#replicas [data-replica="%s"][data-status="%s"]')) window.turned = Date.now();
		};
		new MutationObserver(look).observe(document.getElementById("replicas"), { childList: true, subtree: true, attributes: true });
		return true;
	})()`, replica, status))
}

// noted waits for that, and returns how many seconds it was after a moment.
func (p *page) noted(from time.Time) float64 {
	p.t.Helper()
	p.until(`window.turned`)
	return (eval[float64](p, `window.turned`) - float64(from.UnixMilli())) / 1000
}
