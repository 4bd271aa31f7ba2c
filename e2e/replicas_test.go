package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// withAndWithoutHistory runs a test with n replicas whose room keeps a history,
// in Redis, and with n whose room keeps none.
func withAndWithoutHistory(t *testing.T, n string, test func(t *testing.T, s *server, b *browser, history bool)) {
	t.Parallel()
	t.Run("memory", func(t *testing.T) { test(t, run(t, "replicas", "-n", n), newBrowser(t), false) })
	t.Run("redis", func(t *testing.T) {
		redis := "redis://" + redistest.Start(t).Addr + "/0"
		test(t, run(t, "replicas", "-n", n, "-redis", redis), newBrowser(t), true)
	})
}

// Pages on different replicas talk. One replica is killed: its page moves to
// another one and they go on. With a shared history it has missed nothing.
func TestPagesMoveFromReplicaToReplica(t *testing.T) {
	withAndWithoutHistory(t, "3", func(t *testing.T, s *server, b *browser, history bool) {
		ann := b.enter(s, "Ann")
		ann.lights("green", "green", "green")
		ben := b.enter(s, "Ben")
		for range 20 { // usually they are on different replicas at once
			if ben.here() != ann.here() {
				break
			}
			ben.do(chromedp.Reload())
			ben.state("online")
		}
		was := ben.here()
		require.NotEqual(t, ann.here(), was)
		ann.talksTo(ben, "hello")
		ben.talksTo(ann, "hi")

		all := s.pids()
		n := int(was[len(was)-1] - '0')
		ann.press("kill", n)
		ann.until(`document.querySelector('#replicas button[data-does=start]')`)
		assert.False(t, alive(all[n-1]))
		var meanwhile []string
		for i := range 5 {
			meanwhile = append(meanwhile, fmt.Sprintf("meanwhile %d", i))
			ann.speak(meanwhile[i])
		}
		// On a busy machine it may have moved before, and have shown other
		// news.
		ben.until(`[...document.querySelectorAll("#messages .news")].some((e) => e.textContent.startsWith(` + quoted("You have moved from "+was+" to ") + `))`)
		ben.state("online")
		// Read at once, since it may move again.
		ben.until(`document.getElementById("state").dataset.state === "online" &&
			document.querySelector("#replicas li[aria-current] .node span").textContent === document.getElementById("here").textContent &&
			(window.how = document.querySelector("#replicas li[aria-current] .how").textContent)`)
		assert.NotContains(t, eval[string](ben, `window.how`), ", 0 connections", "the page itself is a connection")
		if history {
			ben.until(fmt.Sprintf(`JSON.stringify((%s).filter((t) => t.startsWith("meanwhile"))) === %s`, said, quoted(quoted(meanwhile))))
		}
		ann.talksTo(ben, "are you there")
		ben.talksTo(ann, "yes")
		for _, p := range []*page{ann, ben} {
			texts := eval[[]string](p, said)
			slices.Sort(texts)
			assert.Len(t, slices.Compact(slices.Clone(texts)), len(texts), "a text is shown twice: %q", texts)
		}

		ben.do(chromedp.Click(chromedp.CSS(`#replicas button[data-does=start]`)))
		ann.lights("green", "green", "green")
		all = append(all, s.pids()...)
		s.terminate()
		for _, pid := range all {
			assert.False(t, alive(pid), "a replica is still running")
		}
	})
}

// While the store is down, the page says so. When the store is back, so is the room with
// its history. Who is in it stays there.
func TestPageWithoutItsStore(t *testing.T) {
	r := redistest.New(t, "--appendonly", "yes", "--appendfsync", "always")
	s, b := start(t, "replicas", "-n", "1", "-redis", "redis://"+r.Addr+"/0")
	ann := b.visit(s.home(), "Ann", 1180, 760)
	ann.says("The store is away: the room opens when it is back")
	assert.Equal(t, "replica-1", ann.here())
	r.Start()
	ann.state("online")
	ann.speak("hello")
	ann.until(said + `.includes("hello")`)

	r.Kill()
	ben := b.visit(s.home(), "Ben", 1180, 760)
	ben.says("The store is away: the room opens when it is back")
	assert.Equal(t, "replica-1", ben.here())
	ann.says("Live")
	r.Start()
	ben.state("online")
	ben.until(said + `.includes("hello")`)
	ann.talksTo(ben, "are you there")
}

// says waits until the page shows this state.
func (p *page) says(text string) {
	p.t.Helper()
	p.until(`document.getElementById("state").textContent === ` + quoted(text))
}

// If the program that started them is killed, the replicas end too.
func TestReplicasDoNotOutliveTheirParent(t *testing.T) {
	t.Parallel()
	s := run(t, "replicas", "-n", "2")
	all := s.pids()
	require.NoError(t, s.Cmd.Process.Kill()) // s.Kill would also wait for those that hold its output
	require.Eventually(t, func() bool { return !slices.ContainsFunc(all, alive) }, deadline, 20*time.Millisecond)
}

// enter opens the page of the replicas under a name.
func (b *browser) enter(s *server, name string) *page {
	b.t.Helper()
	p := b.visit(s.home(), name, 1180, 760)
	p.until(`document.getElementById("name")?.value`)
	eval[bool](p, fmt.Sprintf(`(() => { const e = document.getElementById("name"); e.value = %s; e.dispatchEvent(new Event("change")); return true; })()`, quoted(name)))
	p.state("online")
	return p
}

func (p *page) here() string {
	p.t.Helper()
	return eval[string](p, `document.getElementById("here").textContent`)
}

// lights waits until the replicas show these lights.
func (p *page) lights(colours ...string) {
	p.t.Helper()
	p.until(fmt.Sprintf(`JSON.stringify([...document.querySelectorAll("#replicas li")].map((li) => li.dataset.light)) === %s`, quoted(quoted(colours))))
}

// speak types a text and presses Enter.
func (p *page) speak(text string) {
	p.t.Helper()
	p.do(chromedp.SendKeys(chromedp.CSS("#text"), text+"\r"))
}

const said = `[...document.querySelectorAll("#messages .text")].map((e) => e.textContent)`

// talksTo repeats a text until the other page shows it: without a history, the
// other page misses what is said before its subscription has reached this
// replica.
func (p *page) talksTo(other *page, text string) {
	p.t.Helper()
	for i := range 100 {
		once := fmt.Sprintf("%s %d", text, i)
		p.speak(once)
		p.until(said + `.includes(` + quoted(once) + `)`)
		if eval[bool](other, said+`.some((t) => t.startsWith(`+quoted(text)+`))`) {
			return
		}
	}
	require.FailNow(p.t, "the text was never heard", text)
}

// listed is a replica in the list of the program that runs them.
type listed struct {
	PID   int
	Ready bool
}

func (s *server) list() []listed {
	s.t.Helper()
	_, answer := request(s.t, http.DefaultClient, "GET", s.home()+"replicas", "", "")
	var list struct{ Data []listed }
	require.NoError(s.t, json.Unmarshal(answer, &list))
	return list.Data
}

// pids returns the processes of the replicas, all of which have to run.
func (s *server) pids() (all []int) {
	s.t.Helper()
	for _, r := range s.list() {
		require.NotZero(s.t, r.PID)
		all = append(all, r.PID)
	}
	return all
}

// readyPIDs waits until n replicas are ready, and returns their processes. Those that leave
// are not ready, though they are listed until they have ended.
func (s *server) readyPIDs(n int) (all []int) {
	s.t.Helper()
	basetest.Eventually(s.t, "replicas are ready", func() bool {
		all = nil
		for _, r := range s.list() {
			if r.Ready {
				all = append(all, r.PID)
			}
		}
		return len(all) == n
	})
	return all
}

// alive reports whether a process runs. A process that has ended and waits for
// its parent does not.
func alive(pid int) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.Contains(string(line), "replica")
}
