package main

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A chart shows a line of the table as bars: ours first, then the limits, then the
// peers. A line that compares with nothing has none.
type chart struct {
	unit string
	bars []bar
	goal float64 // what ours should reach, in unit; 0 if that is no length of a bar
}

type bar struct {
	name  string
	kind  string // ours, limit or peer: its colour
	value float64
}

// bars returns the bars of values: ours, then so many limits, then the peers.
func bars(limits int, names []string, values []float64) []bar {
	all := make([]bar, len(names))
	for i, name := range names {
		kind := "peer"
		switch {
		case i == 0:
			kind = "ours"
		case i <= limits:
			kind = "limit"
		}
		all[i] = bar{name, kind, values[i]}
	}
	return all
}

// cpuChart is the chart of what something costs a processor. The goal is in nanoseconds,
// 0 for none.
func cpuChart(limits int, names []string, rs []result, goal float64) chart {
	values := make([]float64, len(rs))
	for i, r := range rs {
		values[i] = float64(r.cpu) / 1e3
	}
	return chart{"µs", bars(limits, names, values), goal / 1e3}
}

const (
	chartWidth = 720
	chartLeft  = 190 // where bars begin, after their names
	chartRight = 610 // where the longest ends, before its value
	chartStep  = 26  // from bar to bar
	chartLine  = 20  // of text
	chartWrap  = 80  // characters in a line of the title
)

// Bars have a contrast of at least 3 to the paper, texts of more than 7.
const chartStyle = `
    text { font: 14px system-ui, sans-serif; fill: #1d1d1b; stroke: #fff; stroke-width: 4px; paint-order: stroke }
    text.ours, text.title { font-weight: 600 }
    rect.paper { fill: #fff } rect.ours { fill: #0d6b5b } rect.limit { fill: #a07a2c } rect.peer { fill: #85827b }
    path { stroke: #1d1d1b; stroke-dasharray: 4 3 }
    @media (prefers-color-scheme: dark) {
      text { fill: #f0efeb; stroke: #161615 }
      rect.paper { fill: #161615 } rect.ours { fill: #4dbfa8 } rect.limit { fill: #d9b45f } rect.peer { fill: #8f8c86 }
      path { stroke: #f0efeb }
    }
  `

// svg draws the chart of a line. It needs no script and no font, and says all of it in
// words as well.
func (l line) svg() string {
	c := l.chart
	title := wrapped(l.work, chartWrap)
	top := 12 + chartLine*len(title)
	bottom := top + chartStep*len(c.bars)
	height := bottom + chartLine + 14
	longest := c.goal
	var said []string
	for _, b := range c.bars {
		longest = max(longest, b.value)
		said = append(said, b.name+" "+figure(b.value)+" "+c.unit)
	}
	x := func(v float64) float64 { return chartLeft + (chartRight-chartLeft)*v/cmp.Or(longest, 1) }

	var s strings.Builder
	put := func(format string, args ...any) {
		for i, a := range args {
			if text, ok := a.(string); ok {
				args[i] = escaped(text)
			}
		}
		fmt.Fprintf(&s, format+"\n", args...)
	}
	put(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-labelledby="title desc">`,
		chartWidth, height, chartWidth, height)
	put(`  <title id="title">%s</title>`, plain(l.work))
	put(`  <desc id="desc">%s. Goal: %s.</desc>`, strings.Join(said, ", "), plain(l.target))
	s.WriteString("  <style>" + chartStyle + "</style>\n")
	put(`  <rect class="paper" width="%d" height="%d"/>`, chartWidth, height)
	for i, text := range title {
		put(`  <text class="title" x="12" y="%d">%s</text>`, 22+chartLine*i, text)
	}
	for i, b := range c.bars {
		put(`  <rect class="%s" x="%d" y="%d" width="%.1f" height="20" rx="2"/>`, b.kind, chartLeft, top+chartStep*i, x(b.value)-chartLeft)
	}
	if c.goal > 0 {
		put(`  <path d="M%.1f %dV%d"/>`, x(c.goal), top-4, bottom)
	}
	for i, b := range c.bars { // last, so that the goal's line crosses no figure
		y := top + chartStep*i + 15
		put(`  <text class="%s" x="%d" y="%d" text-anchor="end">%s</text>`, b.kind, chartLeft-8, y, b.name)
		put(`  <text class="%s" x="%.1f" y="%d">%s</text>`, b.kind, x(b.value)+6, y, figure(b.value)+" "+c.unit)
	}
	put(`  <text x="%d" y="%d">goal: %s</text>`, chartLeft, bottom+chartLine-4, plain(l.target))
	put(`</svg>`)
	return s.String()
}

// figure returns a number with three digits or more.
func figure(v float64) string {
	if v < 99.95 {
		return strconv.FormatFloat(v, 'f', 1+max(0, 1-int(math.Log10(max(v, 1)))), 64)
	}
	s := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// plain removes Markdown's marks.
func plain(s string) string { return strings.NewReplacer("`", "", "**", "").Replace(s) }

func escaped(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s)) // a Builder does not fail
	return b.String()
}

// wrapped breaks a text into lines of at most n characters, if its words allow that.
func wrapped(s string, n int) (lines []string) {
	for _, word := range strings.Fields(plain(s)) {
		last := len(lines) - 1
		if last < 0 || len([]rune(lines[last]))+1+len([]rune(word)) > n {
			lines = append(lines, word)
			continue
		}
		lines[last] += " " + word
	}
	return lines
}

// draw writes the charts of a table into a folder, as bench-ROW.svg.
func (t *table) draw(dir string) error {
	for _, l := range t.lines {
		if l.chart.bars == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "bench-"+l.name+".svg"), []byte(l.svg()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
