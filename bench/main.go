// Command bench compares the hub with peers and with the limit, and prints
// ratios.
//
// The server of each run is a process of its own, alone on one processor. This
// process is the load generator, on another one. The server's CPU time and
// memory are read from the system, and every delivery is counted. The printed
// numbers are the median of several runs, in which all servers take turns.
//
// It also draws the rows that compare with something as bar charts for docs/benchmarks.md,
// unless only a part of the load ran.
//
//	go run . [-rows REGEXP] [-runs N] [-scale F] [-settle TIME] [-out FILE] [-charts FOLDER]
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		serve(os.Args[2])
		return
	}
	rowsFlag := flag.String("rows", ".", "the rows to run: a regular expression")
	runs := flag.Int("runs", 3, "how often each row runs, three times as often where its turns are short; the median counts")
	scale := flag.Float64("scale", 1, "the part of the full load: 0.01 to 1")
	out := flag.String("out", "", "a file to write the table to, besides standard output")
	charts := flag.String("charts", "../docs/img", "the folder for the charts, which need the full load; empty for none")
	settle := flag.Duration("settle", 10*time.Second, "how long connections are idle before their memory is measured")
	profile := flag.String("profile", "", "a folder for the CPU profiles of the hub's servers")
	flag.Parse()
	want, err := regexp.Compile(*rowsFlag)
	if err != nil || *runs < 1 || *scale < 0.01 || *scale > 1 || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "bench: -rows takes a regular expression, -runs at least 1, -scale 0.01 to 1")
		os.Exit(2)
	}
	if *profile != "" {
		if err := os.MkdirAll(*profile, 0o755); err != nil {
			log.Fatal(err)
		}
	}
	pinSelf()
	b := &bench{runs: *runs, scale: *scale, settle: *settle, profile: *profile, log: os.Stderr}
	table, err := b.run(want)
	if err != nil {
		log.Fatal(err)
	}
	text := table.markdown()
	fmt.Print(text)
	if *charts != "" && *scale == 1 {
		if err := table.draw(*charts); err != nil {
			log.Fatal(err)
		}
	}
	if *out != "" {
		if err := os.WriteFile(*out, []byte(text), 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

// pinSelf moves this process, the load generator, to the second processor. The
// threads that the runtime has already started stay where they are, so it
// executes itself again.
func pinSelf() {
	if pinned() || runtime.NumCPU() < 2 {
		return
	}
	runtime.LockOSThread()
	if err := setAffinity(clientCPU); err != nil {
		log.Fatal("cannot choose a processor: ", err)
	}
	self, err := os.Executable()
	if err == nil {
		err = syscall.Exec(self, os.Args, append(os.Environ(), pinMark+"=1", "GOMAXPROCS=1"))
	}
	log.Fatal("cannot start on another processor: ", err)
}

const pinMark = "CHANNELS_BENCH_PINNED"

// pinned reports whether this process has its own processor and leaves the
// other one to the servers. runtime.NumCPU counts only the processors that this
// process may use.
func pinned() bool { return os.Getenv(pinMark) != "" }

// bench is one run of the program.
type bench struct {
	runs    int
	scale   float64       // of the full load
	settle  time.Duration // see idle
	profile string
	log     io.Writer
}

// n scales a count, to at least low.
func (b *bench) n(full, low int) int { return max(low, int(float64(full)*b.scale)) }

// shortTurns is how many turns of a few seconds a row takes. There are more of them than
// of long ones, so that what the host does meanwhile is the same for all.
func (b *bench) shortTurns() int { return 3 * b.runs }

func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.log, format+"\n", args...) }

// A line is one row of the table.
type line struct {
	name                                      string // of the row
	work, ours, limit, peers, target, verdict string
	chart                                     chart
}

type table struct{ lines []line }

func (t *table) markdown() string {
	var s strings.Builder
	s.WriteString(machine())
	s.WriteString("\n\n| work | channels | limit or baseline | peers | to reach | |\n|---|---|---|---|---|---|\n")
	for _, l := range t.lines {
		fmt.Fprintf(&s, "| %s | %s | %s | %s | %s | %s |\n", l.work, l.ours, l.limit, l.peers, l.target, l.verdict)
	}
	return s.String()
}

func (b *bench) run(want *regexp.Regexp) (*table, error) {
	t := &table{}
	for _, r := range rows {
		if !want.MatchString(r.name) {
			continue
		}
		b.say("== %s", r.name)
		l, err := r.run(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.name, err)
		}
		b.say("   %s | %s | %s | %s | %s %s", l.work, l.ours, l.limit, l.peers, l.target, l.verdict)
		l.name = r.name
		t.lines = append(t.lines, l)
		debug.FreeOSMemory() // so that the next row's load generator starts small
	}
	if len(t.lines) == 0 {
		return nil, fmt.Errorf("no row's name matches; they are %s", rowNames())
	}
	return t, nil
}

// machine describes what the table was measured with.
func machine() string {
	cpu := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if m := regexp.MustCompile(`(?m)^model name\s*: (.+)$`).FindSubmatch(b); m != nil {
			cpu = string(m[1])
		}
	}
	kernel := ""
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel = strings.TrimSpace(string(b))
	}
	var deps []string
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			switch d.Path {
			case "github.com/coder/websocket", "github.com/gorilla/websocket", "github.com/lxzan/gws", "github.com/olahol/melody", "github.com/centrifugal/centrifuge":
				deps = append(deps, strings.TrimPrefix(d.Path, "github.com/")+" "+d.Version)
			}
		}
	}
	return fmt.Sprintf("%s, Linux %s, %s, %s.", cpu, kernel, runtime.Version(), strings.Join(deps, ", "))
}
