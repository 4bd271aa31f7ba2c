// Command test runs the setup, and then vet and every test of every module
// beside each other, even if something fails. At the end it lists what failed,
// and what was skipped or did not end. It exits with 1 if anything failed. Run
// it in the root of the repository:
//
//	go run .ci/test.go
//
// Each package has go test's own closing line ("ok", "FAIL"). The root's tests
// run in two processes, each with its own line. A test's output is shown if
// it fails.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// rootPackages is how many packages below the root run at once. Two processors
// have room for more than two packages in all, since tests mostly wait.
const rootPackages = "2"

// firstHalf is about half of the root's tests.
const firstHalf = "^Test[A-M]"

// long are the packages below the root that take long, longest first. They
// start early.
var long = []string{"/mesh/redismesh", "/mesh/zmqmesh", "/zmqgateway", "/example/server", "/store/redisstore"}

// late returns the place in long of a package, the others' being the highest.
func late(pkg string) uint {
	return uint(slices.IndexFunc(long, func(s string) bool { return strings.HasSuffix(pkg, s) })) // -1 is the highest
}

// gorace makes the race detector clear its notes about large pieces of memory
// instead of giving them back to the system, page by page, for each piece that
// is allocated. That would be half of the processor time of a test with bodies
// of some megabytes. And a program with the race detector sleeps for a second
// before it exits: the tests start some 150 of them, most of which wait for one
// another. GORACE in the environment has the last word.
const gorace = "clear_shadow_mmap_threshold=1073741824 atexit_sleep_ms=10"

// pollerOff turns the hub's poller off, and portable is the build tag that leaves out
// what is not for every system. They end the names of runs that do without.
const (
	pollerOff = "CHANNELS_POLLER=off"
	portable  = "portable"
)

// foreign keeps the race detector out of the SDK for Go that e2e/connect uses. Its
// Client.send reads the transport without the lock under which a disconnect takes it
// away, and that was reported once in thousands of scenarios, as if it were the hub's.
// v0.12.1 lacks the fix, github.com/centrifugal/centrifuge-go/pull/144. Locks and
// channels of the SDK still count, so its callbacks are watched.
const foreign = "-gcflags=github.com/centrifugal/centrifuge-go=-race=false"

// timeout is the limit for one package: more than any needs on a busy machine.
const timeout = "40m"

func main() {
	files, err := filepath.Glob("*/go.mod")
	if err != nil || len(files) == 0 {
		fmt.Fprintln(os.Stderr, "test: run this in the root of the repository")
		os.Exit(2)
	}
	r := &report{began: time.Now(), out: os.Stdout}
	r.step("setup", exec.Command(".ci/setup"))
	os.Setenv("GORACE", strings.TrimSpace(gorace+" "+os.Getenv("GORACE")))
	// What several of the commands below need is compiled once.
	var wait sync.WaitGroup
	for _, flags := range [][]string{{"-race=false"}, {"-race=true", "-test"}} { // the root's tests run in two processes
		wait.Go(func() {
			r.step("compile "+flags[0], exec.Command("go", slices.Concat([]string{"list", "-export", "-f", `{{""}}`}, flags, []string{"./..."})...))
		})
	}
	wait.Wait()

	// vet needs nothing but the processors, and takes what the tests leave, which
	// mostly wait.
	wait.Go(func() { r.step("vet", exec.Command("nice", "-n", "5", "make", "--no-print-directory", "vet")) })
	wait.Go(func() { r.test("module e2e", "e2e", r.packages("e2e"), "-p", "1", "-parallel", "4", foreign) })
	wait.Go(func() { // each connection has a goroutine, as on systems without a poller
		r.test("module e2e, "+pollerOff, "e2e", []string{"./faults", "./hostile", "./protocol", "./soak"}, "-p", "1", "-parallel", "4")
		// As on Windows, the library reads, and goroutines write.
		r.test("module e2e, "+portable, "e2e", []string{"./protocol"}, "-tags", portable)
		r.test("sockets, "+portable, ".", []string{"./internal/fanout", "./internal/steady", "./internal/zmtp"}, "-tags", portable)
	})
	wait.Go(r.root)
	wait.Go(func() {
		below := r.packages(".")
		below = below[min(1, len(below)):] // without the first one, which is the root
		slices.SortStableFunc(below, func(a, b string) int {
			return cmp.Compare(late(a), late(b))
		})
		r.test("below the root", ".", below, "-p", rootPackages, "-parallel", "4")
	})
	wait.Go(func() {
		// The race detector does not support so many timers:
		// go.dev/issue/78156.
		r.run("without the race detector", ".", "-run", "^(TestModel|TestADayOfSilence)$", ".")
		// With it, sockets are read and written by other system calls.
		r.run("sockets, without the race detector", ".", "-p", "1", "-parallel", "4", "./internal/rawio", "./internal/steady", "./internal/fanout", "./internal/zmtp", "./mesh/zmqmesh")
		for _, f := range files {
			if module := filepath.Dir(f); module != "e2e" {
				r.test("module "+module, module, r.packages(module))
			}
		}
	})
	wait.Wait()
	if !r.close() {
		os.Exit(1)
	}
}

// A report collects the results of everything that ran. All methods may be
// called concurrently.
type report struct {
	began time.Time

	mu      sync.Mutex // guards the fields below
	out     io.Writer
	failed  []string
	skipped []string
}

// step runs a command that is not a test.
func (r *report) step(name string, cmd *exec.Cmd) {
	began := time.Now()
	fmt.Fprintf(r, "== %s\n", name)
	cmd.Stdout, cmd.Stderr = r, r
	if err := cmd.Run(); err != nil {
		r.fail("%s: %v", name, err)
		return
	}
	fmt.Fprintf(r, "== %s: ok, after %s\n", name, cost(began, cmd))
}

// Write writes a step's output.
func (r *report) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Write(b)
}

// cost returns how long a command took, by the clock and in processor time.
func cost(began time.Time, cmd *exec.Cmd) string {
	s := fmt.Sprintf("%.0f s", time.Since(began).Seconds())
	if p := cmd.ProcessState; p != nil {
		s += fmt.Sprintf(", %.0f s of processor time", (p.UserTime() + p.SystemTime()).Seconds())
	}
	return s
}

func (r *report) fail(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = append(r.failed, fmt.Sprintf(format, args...))
}

// An event is a line of go test -json.
type event struct {
	Action      string
	Package     string
	Test        string
	Output      string
	FailedBuild string
}

// test runs the tests of packages of a module with the race detector.
func (r *report) test(what, module string, packages []string, args ...string) {
	if len(packages) == 0 {
		return // packages has reported it
	}
	r.run(what, module, append(append(args, "-race"), packages...)...)
}

// packages lists those of a module. If that fails, it says so and returns none.
func (r *report) packages(module string) []string {
	cmd := exec.Command("go", "list", "./...")
	cmd.Dir = module
	out, err := cmd.Output()
	if err != nil {
		r.fail("go list in %s: %v", module, err)
	}
	return strings.Fields(string(out))
}

// root runs the root's tests in two processes at once. A single process would run
// most of them one after the other and take twice the processor time.
func (r *report) root() {
	var wait sync.WaitGroup
	for _, choice := range []string{"-run", "-skip"} {
		wait.Go(func() { r.run("the root, "+choice+" "+firstHalf, ".", "-race", choice, firstHalf, ".") })
	}
	wait.Wait()
}

// run runs go test in a directory, without the checks that vet includes.
func (r *report) run(what, dir string, args ...string) {
	cmd := exec.Command("go", append([]string{"test", "-json", "-vet=off", "-count=1", "-timeout", timeout}, args...)...)
	cmd.Dir = dir
	if strings.HasSuffix(what, pollerOff) {
		cmd.Env = append(os.Environ(), pollerOff)
	}
	r.read(what, cmd)
}

// read runs a command that writes the events of go test -json.
func (r *report) read(what string, cmd *exec.Cmd) {
	began := time.Now()
	var stderr, builds bytes.Buffer
	cmd.Stderr = &stderr
	pipe, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		r.fail("%s: %v", what, err)
		return
	}
	packages, found := map[string]*run{}, false
	lines := bufio.NewReader(pipe)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var e event
		if json.Unmarshal(line, &e) != nil { // not from go test
			builds.Write(line)
			continue
		}
		if e.Action == "build-output" {
			builds.WriteString(e.Output)
			continue
		}
		p := packages[e.Package]
		if p == nil {
			p = &run{results: map[string]string{}}
			packages[e.Package] = p
		}
		p.take(e)
		if e.Test == "" && (e.Action == "pass" || e.Action == "fail" || e.Action == "skip") {
			found = found || e.Action == "fail"
			name := e.Package
			for _, without := range []string{pollerOff, portable} {
				if strings.HasSuffix(what, without) {
					name += " (" + without + ")"
				}
			}
			r.add(name, p, e.Action)
		}
	}
	err = cmd.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.out.Write(append(builds.Bytes(), stderr.Bytes()...))
	if err != nil && !found { // it failed before the tests
		r.failed = append(r.failed, fmt.Sprintf("%s: %v", what, err))
	}
	fmt.Fprintf(r.out, "== %s: %s\n", what, cost(began, cmd))
}

// A run is one run of a package's tests.
type run struct {
	lines   []line
	order   []string          // the tests, in the order in which they began
	results map[string]string // of the tests; empty until they have ended
	build   string            // the package that failed to build
}

// A line is output of a test, or of the package if test is empty.
type line struct{ test, text string }

func (p *run) take(e event) {
	if e.FailedBuild != "" {
		p.build = e.FailedBuild
	}
	if e.Output != "" {
		p.lines = append(p.lines, line{e.Test, e.Output})
	}
	if e.Test == "" {
		return
	}
	if _, known := p.results[e.Test]; !known {
		p.results[e.Test] = ""
		p.order = append(p.order, e.Test)
	}
	if e.Action == "pass" || e.Action == "fail" || e.Action == "skip" {
		p.results[e.Test] = e.Action
	}
}

// said returns what a test has written, as one line.
func (p *run) said(test string) string {
	var words []string
	for _, l := range p.lines {
		if l.test == test && !strings.HasPrefix(l.text, "=== ") && !strings.HasPrefix(strings.TrimSpace(l.text), "--- ") {
			words = append(words, strings.Fields(l.text)...)
		}
	}
	return strings.Join(words, " ")
}

// raceEdge is the line before and after a report of the race detector.
const raceEdge = "==================\n"

// add adds a package's result.
func (r *report) add(name string, p *run, result string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	race := false // in a report of the race detector, which may stand in the output of a test that passed
	for _, l := range p.lines {
		one := p.results[l.test]
		edge := l.text == raceEdge
		reported := race || edge
		race = race != edge
		switch {
		case result == "fail" && reported, l.test == "" && result == "fail", strings.HasPrefix(l.text, "ok  \t"): // go test prints some lines itself
			io.WriteString(r.out, l.text)
		case l.test != "" && one != "pass" && one != "skip" && !strings.HasPrefix(l.text, "=== "):
			io.WriteString(r.out, l.text)
		}
	}
	before := len(r.failed)
	for _, test := range p.order {
		one := p.results[test]
		of := func(other string) bool { return strings.HasPrefix(other, test+"/") && p.results[other] == one }
		switch {
		case one == "skip":
			r.skipped = append(r.skipped, fmt.Sprintf("%s %s: %s", name, test, p.said(test)))
		case result != "fail" || one == "pass" || slices.ContainsFunc(p.order, of): // a subtest reports it more exactly
		case one == "fail":
			r.failed = append(r.failed, name+" "+test)
		default:
			r.failed = append(r.failed, name+" "+test+": it did not end")
		}
	}
	switch {
	case p.build != "":
		r.failed = append(r.failed, name+": it does not build")
	case result == "pass" && len(p.order) == 0: // as if the soak had been renamed
		r.failed = append(r.failed, name+": it ran no test")
	case result == "fail" && before == len(r.failed):
		r.failed = append(r.failed, name)
	}
}

// close prints the results and reports whether everything passed.
func (r *report) close() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	say := func(title string, list []string) {
		if len(list) > 0 {
			fmt.Fprintf(r.out, "\n%s:\n", title)
		}
		for _, one := range list {
			fmt.Fprintln(r.out, "  "+one)
		}
	}
	say("SKIPPED", r.skipped)
	say("FAILED", r.failed)
	well := len(r.failed) == 0
	fmt.Fprintf(r.out, "\n%s after %.0f s: %d failed, %d skipped\n", map[bool]string{true: "PASS", false: "FAIL"}[well], time.Since(r.began).Seconds(), len(r.failed), len(r.skipped))
	return well
}
