package e2e

import (
	"context"
	"fmt"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// becomes waits for a JavaScript condition of a page that is being reloaded or
// left. Until then, evaluations get no answer.
func (p *page) becomes(condition string) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		ctx, cancel := context.WithTimeout(p.ctx, 5*time.Second)
		defer cancel()
		met, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`Boolean(`+condition+`)`))
		return err == nil && met
	}, deadline, 20*time.Millisecond, condition)
}

// prefers shows the page to somebody who prefers, say, a "color-scheme" that is
// "dark". It undoes what was preferred before.
func (p *page) prefers(feature, value string) {
	p.t.Helper()
	p.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-" + feature, Value: value}},
		})
		return err
	}))
	p.until(fmt.Sprintf(`matchMedia("(prefers-%s: %s)").matches`, feature, value))
}

// fits requires that the page, and elements of it, are not wider than a phone.
func (p *page) fits(width int, elements ...string) {
	p.t.Helper()
	for _, e := range append(elements, `document.documentElement`) {
		assert.LessOrEqual(p.t, eval[int](p, e+`.scrollWidth`), width, e)
	}
}

const scrolled = `document.getElementById("scroll")`

// contrast returns the contrast between a text and its background: 4.5 or more
// is readable (WCAG 2.2, 1.4.3).
func (p *page) contrast(selector, pseudo string) float64 {
	p.t.Helper()
	return eval[float64](p, fmt.Sprintf(`(() => {
		const canvas = document.createElement("canvas").getContext("2d");
		const rgb = (color) => {
			canvas.clearRect(0, 0, 1, 1);
			canvas.fillStyle = color;
			canvas.fillRect(0, 0, 1, 1);
			return [...canvas.getImageData(0, 0, 1, 1).data];
		};
		const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
			.reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
		let e = document.querySelector(%q);
		const own = getComputedStyle(e, %q), text = light(rgb(own.color));
		while (e && rgb(getComputedStyle(e).backgroundColor)[3] < 255) e = e.parentElement;
		const behind = light(rgb(getComputedStyle(e).backgroundColor));
		return (Math.max(text, behind) + 0.05) / (Math.min(text, behind) + 0.05);
	})()`, selector, pseudo))
}
