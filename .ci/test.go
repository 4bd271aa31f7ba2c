// Command test runs the lint and every test of every module, whatever fails. In
// the end it says together what has failed, and what was skipped or has not
// ended; it exits with 1 if anything failed. Run it in the root of the repository:
//
//	go run .ci/test.go
//
// Each package has go test's own closing line ("ok", "FAIL"). What a test writes
// is shown if it fails.
package main

import (
	"bufio"
	"bytes"
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

// args are those of go test beside the common ones. On two processors, the
// tests of the root and of what lies below it mostly wait. Those of e2e starve
// each other if there are more of them at once than processors.
var args = map[string][]string{
	".": {"-p", "3", "-parallel", "8"},
}

func main() {
	files, err := filepath.Glob("*/go.mod")
	if err != nil || len(files) == 0 {
		fmt.Fprintln(os.Stderr, "run this in the root of the repository")
		os.Exit(2)
	}
	var beside []string // what runs beside the root module
	for _, f := range files {
		if m := filepath.Dir(f); m != "e2e" {
			beside = append(beside, m)
		}
	}
	r := &report{began: time.Now(), out: os.Stdout}
	r.step("setup", exec.Command(".ci/setup"))
	r.step("vet", exec.Command("make", "--no-print-directory", "vet"))
	var both sync.WaitGroup
	both.Go(func() { r.test(".") })
	both.Go(func() {
		// Too many timers for the race detector: go.dev/issue/78156.
		r.run("without the race detector", ".", "-count=1", "-run", "^(TestModel|TestADayOfSilence)$", ".")
		for _, m := range beside {
			r.test(m)
		}
	})
	both.Wait()
	r.test("e2e")
	if !r.close() {
		os.Exit(1)
	}
}

// A report is what has come of all that ran. Its methods may be called concurrently.
type report struct {
	began time.Time

	mu      sync.Mutex // guards the fields below
	out     io.Writer
	failed  []string
	skipped []string
}

// step runs a command that is no test.
func (r *report) step(name string, cmd *exec.Cmd) {
	began := time.Now()
	fmt.Fprintf(r.out, "== %s\n", name)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		r.fail("%s: %v", name, err)
		return
	}
	fmt.Fprintf(r.out, "== %s: well, after %.0f s\n", name, time.Since(began).Seconds())
}

func (r *report) fail(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = append(r.failed, fmt.Sprintf(format, args...))
}

// An event is one of go test -json.
type event struct {
	Action      string
	ImportPath  string // of a build
	Package     string
	Test        string
	Output      string
	FailedBuild string
}

// test runs the tests of a module.
func (r *report) test(module string) {
	r.run("module "+module, module, append(append([]string{"-race", "-count=1", "-timeout", "40m"}, args[module]...), "./...")...)
}

// run runs go test in a folder.
func (r *report) run(what, dir string, args ...string) {
	began := time.Now()
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Dir = dir
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
		if json.Unmarshal(line, &e) != nil { // not of go test
			builds.Write(line)
			continue
		}
		if e.Action == "build-output" {
			builds.WriteString(e.Output)
			continue
		}
		p := packages[e.Package]
		if p == nil {
			p = &run{tests: map[string]*single{}}
			packages[e.Package] = p
		}
		p.take(e)
		if e.Test == "" && (e.Action == "pass" || e.Action == "fail" || e.Action == "skip") {
			found = found || e.Action == "fail"
			r.add(e.Package, p, e.Action)
		}
	}
	err = cmd.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.out.Write(append(builds.Bytes(), stderr.Bytes()...))
	if err != nil && !found { // it never came to the tests
		r.failed = append(r.failed, fmt.Sprintf("%s: go test: %v", what, err))
	}
	fmt.Fprintf(r.out, "== %s: %.0f s\n", what, time.Since(began).Seconds())
}

// A run is one of a package's tests.
type run struct {
	lines []line
	order []string // of the tests, as they began
	tests map[string]*single
	build string // the package that does not build
}

// A line was written by a test, or by none.
type line struct{ test, text string }

// A single is one test.
type single struct {
	result string // empty where it has not ended
	text   strings.Builder
}

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
	s := p.tests[e.Test]
	if s == nil {
		s = &single{}
		p.tests[e.Test] = s
		p.order = append(p.order, e.Test)
	}
	switch e.Action {
	case "pass", "fail", "skip":
		s.result = e.Action
	case "output":
		if !strings.HasPrefix(e.Output, "=== ") && !strings.HasPrefix(strings.TrimSpace(e.Output), "--- ") {
			s.text.WriteString(e.Output)
		}
	}
}

// add takes what has come of a package.
func (r *report) add(name string, p *run, result string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range p.lines {
		s := p.tests[l.test]
		switch {
		case s == nil && result == "fail", strings.HasPrefix(l.text, "ok  \t"): // it prints some of its own
			io.WriteString(r.out, l.text)
		case s != nil && s.result != "pass" && s.result != "skip" && !strings.HasPrefix(l.text, "=== "):
			io.WriteString(r.out, l.text)
		}
	}
	before := len(r.failed)
	for _, test := range p.order {
		s := p.tests[test]
		of := func(other string) bool {
			return strings.HasPrefix(other, test+"/") && p.tests[other].result == s.result
		}
		switch {
		case s.result == "skip":
			r.skipped = append(r.skipped, fmt.Sprintf("%s %s: %s", name, test, strings.Join(strings.Fields(s.text.String()), " ")))
		case result != "fail" || s.result == "pass" || slices.ContainsFunc(p.order, of): // which says it more exactly
		case s.result == "fail":
			r.failed = append(r.failed, name+" "+test)
		default:
			r.failed = append(r.failed, name+" "+test+": it has not ended")
		}
	}
	switch {
	case p.build != "":
		r.failed = append(r.failed, name+": it does not build")
	case result == "fail" && before == len(r.failed):
		r.failed = append(r.failed, name)
	}
}

// close says what has come of it, and whether all is well.
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
