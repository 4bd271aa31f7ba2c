package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/store/redisstore/redistest"
)

// Somebody who has never seen the project runs the demo, kills a replica, and
// scales to five and back to two with the buttons. The page says what happens: the
// light of the killed replica turns from green to yellow to red, and is gone a
// minute after its last heartbeat. Those that are scaled away drain, and are gone
// at once. Meanwhile no subscriber misses anything.
func TestTheDemoForOperators(t *testing.T) {
	t.Parallel()
	s, b := run(t, "replicas", "-n", "3", "-redis", "redis://"+redistest.Start(t).Addr+"/0"), newBrowser(t)
	p := b.visit(s.operators(), "operator", 1280, 1000)
	p.sums("All 3 replicas are green")
	require.NotContains(t, eval[string](p, `location.href`), "token")
	p.until(`document.getElementById("scale-state").textContent === "3 replicas run, as wanted."`)
	address, _, _ := strings.Cut(s.operators(), "/admin/")
	b.visit(address+"/operators", "who presses the link on the page", 1280, 1000).sums("All 3 replicas are green")

	first := watch(t, s, "orders", 6) // two on each replica
	p.record()
	require.NoError(t, syscall.Kill(s.readyPIDs(3)[1], syscall.SIGKILL))
	p.until(`document.getElementById("scale-state").textContent === "2 of 3 wanted replicas are ready."`)
	p.sums("replica-2 is red; 2 of 3 green") // before more come, since it is gone after a minute

	p.scale("#scale-more", 2, "Scale out from 3 to 5?", "Scale to 5")
	p.until(`document.getElementById("scale-state").textContent === "5 replicas run, as wanted."`)
	p.until(`["replica-4", "replica-5", "replica-6"].every((id) => lights[id].at(-1) === "green")`)
	second := watch(t, s, "invoices", 9) // three on each new one
	p.scale("#scale-fewer", 3, "Scale in from 5 to 2?", "Scale to 2")
	p.until(`document.getElementById("scale-state").textContent === "2 replicas run, as wanted."`)
	p.until(`Object.values(lights).filter((all) => all.includes("draining") && all.at(-1) === "gone").length === 3`)

	// Another one dies, and nothing starts it again. The page asks for as many as
	// are wanted already.
	require.NoError(t, syscall.Kill(s.readyPIDs(2)[1], syscall.SIGKILL))
	p.until(`document.getElementById("scale-go").checkVisibility() && document.getElementById("scale-go").textContent === "Ask for 2 again"`)
	p.until(`document.getElementById("scale-question").textContent.startsWith("Only 1 of 2 is ready.")`)
	p.do(chromedp.Click(chromedp.CSS("#scale-go")))
	p.until(`lights["replica-7"]?.at(-1) === "green"`)
	p.until(`document.getElementById("scale-confirm").hidden && document.getElementById("scale-state").textContent === "2 replicas run, as wanted."`)

	p.until(`lights["replica-2"].at(-1) === "gone"`)
	p.until(`/^replica-2 died: nothing was heard of it since \d\d:\d\d:\d\d, .* has taken its place: nothing to do\.$/m.test(document.getElementById("departed").innerText)`)
	// A yellow light may have other reasons besides. It is grey, unless the others came too late.
	require.Regexp(t, "green;(.*;)?yellow[^;]*(silent|report late).*;red: heartbeats missed;(.*;)?gone$", eval[string](p, `lights["replica-2"].join(";")`))
	require.True(t, eval[bool](p, `summaries.some((words) => /replica-2( and replica-\d)? (is|are) silent/.test(words))`))
	first.done()
	second.done()
}

// operators returns the link to the operators' page that the demo prints.
func (s *server) operators() string {
	s.t.Helper()
	line := ""
	basetest.Eventually(s.t, "the demo prints the link", func() bool {
		line = s.stdout.Line("/admin/#token=")
		return line != ""
	})
	return line[strings.Index(line, "http") : len(line)-1]
}

// sums waits until the operators' page sums up its lights so.
func (p *page) sums(up string) {
	p.t.Helper()
	p.until(`document.getElementById("summary").textContent === ` + quoted(up))
}

// record has the page note each change of a light in lights, by replica: its
// status with the reasons, or "gone". It also notes what the page has said of all
// together, in summaries: some of it holds for a few seconds only.
func (p *page) record() {
	p.t.Helper()
	eval[bool](p, `(() => {
		window.lights = {};
		window.summaries = [];
		const note = () => {
			const words = document.getElementById("summary").textContent;
			if (summaries.at(-1) !== words) summaries.push(words);
			const now = {};
			for (const row of document.querySelectorAll("#replicas [data-replica]")) {
				const why = row.nextElementSibling?.classList.contains("why") ? row.nextElementSibling : null;
				const reasons = [...(why?.querySelectorAll("strong") ?? [])].map((e) => e.textContent);
				now[row.dataset.replica] = row.dataset.status + (reasons.length ? ": " + reasons.join(", ") : "");
			}
			for (const id of Object.keys({ ...lights, ...now })) {
				const all = lights[id] ??= [], is = now[id] ?? "gone";
				if (all.at(-1) !== is) all.push(is);
			}
		};
		new MutationObserver(note).observe(document.getElementById("overview"), { childList: true, subtree: true, attributes: true, characterData: true });
		note();
		return true;
	})()`)
}

// scale presses a button so often, and confirms what the page asks then.
func (p *page) scale(button string, times int, question, confirm string) {
	p.t.Helper()
	for range times {
		p.do(chromedp.Click(chromedp.CSS(button)))
	}
	p.until(fmt.Sprintf(`!document.getElementById("scale-confirm").hidden && document.getElementById("scale-question").textContent.startsWith(%s)`, quoted(question)))
	p.until(`document.getElementById("scale-go").textContent === ` + quoted(confirm))
	p.do(chromedp.Click(chromedp.CSS("#scale-go")))
}
