package main

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// drawing is what a test looks for in a chart.
type drawing struct {
	Title string `xml:"title"`
	Desc  string `xml:"desc"`
	Style string `xml:"style"`
	Rects []struct {
		Class string  `xml:"class,attr"`
		X     float64 `xml:"x,attr"`
		Width float64 `xml:"width,attr"`
	} `xml:"rect"`
	Texts []struct {
		X    float64 `xml:"x,attr"`
		Text string  `xml:",chardata"`
	} `xml:"text"`
	Goal struct {
		D string `xml:"d,attr"`
	} `xml:"path"`
}

func parse(t *testing.T, svg string) (d drawing) {
	t.Helper()
	if err := xml.Unmarshal([]byte(svg), &d); err != nil {
		t.Fatalf("%v in %s", err, svg)
	}
	return d
}

func sample() line {
	return line{
		name: "fanout", work: "`wss://` & <many> subscribers", target: "≤ 1.10 ×",
		chart: chart{"µs", bars(1, []string{"channels", "raw", "gws"}, []float64{8.05, 7.8, 16.1}), 8.58},
	}
}

func TestChartHasBarsInProportion(t *testing.T) {
	d := parse(t, sample().svg())
	if len(d.Rects) != 4 { // the paper is the first
		t.Fatalf("%d rectangles", len(d.Rects))
	}
	for i, class := range []string{"paper", "ours", "limit", "peer"} {
		if d.Rects[i].Class != class {
			t.Errorf("rectangle %d is %q, not %q", i, d.Rects[i].Class, class)
		}
	}
	if ours, gws := d.Rects[1].Width, d.Rects[3].Width; ours != 210 || gws != 420 {
		t.Errorf("8.05 and 16.1 are %v and %v wide", ours, gws)
	}
	if !strings.HasPrefix(d.Goal.D, "M413.8 ") { // 190 + 420 × 8.58 / 16.1
		t.Errorf("the goal's line is %q", d.Goal.D)
	}
}

func TestChartSaysAllInWords(t *testing.T) {
	d := parse(t, sample().svg())
	if d.Title != "wss:// & <many> subscribers" {
		t.Errorf("title %q", d.Title)
	}
	if want := "channels 8.05 µs, raw 7.80 µs, gws 16.1 µs. Goal: ≤ 1.10 ×."; d.Desc != want {
		t.Errorf("desc %q, not %q", d.Desc, want)
	}
	if !strings.Contains(d.Style, "prefers-color-scheme: dark") {
		t.Error("no dark colours")
	}
	var texts []string
	for _, s := range d.Texts {
		texts = append(texts, s.Text)
	}
	if got, want := strings.Join(texts, "|"), "wss:// & <many> subscribers|channels|8.05 µs|raw|7.80 µs|gws|16.1 µs|goal: ≤ 1.10 ×"; got != want {
		t.Errorf("texts %q, not %q", got, want)
	}
}

// A goal beyond the longest bar, and bars of nothing, stay inside the picture.
func TestChartStaysInside(t *testing.T) {
	l := sample()
	l.chart.goal = 100
	if d := parse(t, l.svg()); !strings.HasPrefix(d.Goal.D, "M610.0 ") || d.Rects[3].Width != 67.6 {
		t.Errorf("goal %q, longest bar %v", d.Goal.D, d.Rects[3].Width)
	}
	l.chart = chart{"µs", bars(0, []string{"channels"}, []float64{0}), 0}
	if d := parse(t, l.svg()); d.Rects[1].Width != 0 || d.Goal.D != "" {
		t.Errorf("nothing is %v wide, and has a goal %q", d.Rects[1].Width, d.Goal.D)
	}
}

func TestFigures(t *testing.T) {
	for v, want := range map[float64]string{0: "0.00", 0.123: "0.12", 9.5: "9.50", 63.31: "63.3", 99.96: "100", 423404: "423,404", 1e6: "1,000,000"} {
		if got := figure(v); got != want {
			t.Errorf("%v is %q, not %q", v, got, want)
		}
	}
}

func TestTitlesAreWrapped(t *testing.T) {
	if got := strings.Join(wrapped("ein µs `und` mehr", 6), "|"); got != "ein µs|und|mehr" {
		t.Errorf("%q", got)
	}
}

func TestDrawWritesRowsThatCompare(t *testing.T) {
	dir := t.TempDir()
	alone := line{name: "queue", work: "queueing"}
	if err := (&table{lines: []line{sample(), alone}}).draw(dir); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 || files[0].Name() != "bench-fanout.svg" {
		t.Fatalf("%v, %v", files, err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "bench-fanout.svg"))
	if err != nil || string(b) != sample().svg() {
		t.Errorf("%s, %v", b, err)
	}
}
