package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/admin"
	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/store"
)

// go to another part of the operators' page.
func (p *page) goes(address string) {
	p.t.Helper()
	eval[string](p, `location.hash = `+quoted(address))
}

// clicks a button, once it can be clicked.
func (p *page) clicks(selector string) {
	p.t.Helper()
	p.until(`document.querySelector(` + quoted(selector) + `).checkVisibility() && !document.querySelector(` + quoted(selector) + `).closest('[aria-disabled="true"]')`)
	p.do(chromedp.Click(chromedp.CSS(selector)))
}

// has waits until an element's text contains another one.
func (p *page) has(selector, text string) {
	p.t.Helper()
	p.until(`document.querySelector(` + quoted(selector) + `).textContent.includes(` + quoted(text) + `)`)
}

const lightsOfReplicas = `[...document.querySelectorAll("#replicas [data-replica]")].map((e) => e.dataset.replica + " " + e.dataset.status)`

// lit waits until the page shows exactly these replicas with their lights.
func (p *page) lit(lights ...string) {
	p.t.Helper()
	p.until(fmt.Sprintf(`JSON.stringify(%s) === %s`, lightsOfReplicas, quoted(quoted(lights))))
}

// The page opens with the token only, and then shows each replica, why it is not green,
// the charts and the links.
func TestOperatorsSeeTheReplicas(t *testing.T) {
	t.Parallel()
	b, c := newBrowser(t), newCluster(t, 3, admin.Options{})
	p := b.visit(c.servers[0].URL+"/admin/", "an operator", 1280, 800)
	p.do(chromedp.SendKeys(chromedp.CSS("#token"), "another-token-than-that"), chromedp.Click(chromedp.CSS("form button")))
	p.becomes(`document.querySelector("#wrong").textContent.includes("not the token")`)
	p.login()
	p.lit("replica-1 green", "replica-2 green", "replica-3 green")
	p.has("#summary", "All 3 replicas are green")
	p.until(`document.querySelectorAll('#links [data-link="up"]').length === 6 && document.getElementById("links-unknown").hidden`)
	p.has("#link-text", "Live from replica-1")
	p.has("#store-words", "green")
	p.until(`[...document.querySelectorAll("#charts [role=slider]")].every((e) => e.getAttribute("aria-valuetext").startsWith("now: "))`)
	assert.Equal(t, 6, eval[int](p, `document.querySelectorAll("#charts figure").length`))
	assert.True(t, eval[bool](p, `document.getElementById("scaling").hidden`), "without a Scaler, there are no buttons")

	// A replica that drains says so. That is no warning, and nothing has to be done; the
	// change is read out.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go c.hubs[1].Drain(ctx) // ends at once: it has no clients
	p.lit("replica-1 green", "replica-3 green", "replica-2 draining")
	p.has("#summary", "2 of 3 stay, 1 drains")
	p.has("#news", "2 of 3 stay, 1 drains")
	assert.Equal(t, "channels, green, 0", eval[string](p, `document.title + ", " + document.getElementById("summary-light").dataset.light + ", " + document.querySelectorAll("#replicas .why").length`))

	// One that dies turns red, and the page says what to look at.
	info := `{"node":"replica-4","status":"green","reasons":[],"started":"2026-01-01T00:00:00Z","connections":7}`
	basetest.Eventually(t, "it is green while it reports", func() bool {
		_, err := c.store.Report(t.Context(), store.Report{Replica: store.Replica{ID: "replica-4", Info: json.RawMessage(info)}})
		require.NoError(t, err)
		return slices.Contains(eval[[]string](p, lightsOfReplicas), "replica-4 green")
	})
	p.lit("replica-4 red", "replica-1 green", "replica-3 green", "replica-2 draining")
	p.has("#summary", "replica-4 is red, 1 drains; 2 of 4 green")
	p.until(`document.title === "red! channels"`)
	p.has("#replicas .why[data-status=red]", "heartbeats missed")
	p.has("#replicas .why[data-status=red]", "read the end of its log")
	p.has("#replicas .why[data-status=red]", "and not in the sums")
	p.until(`/red, silent for \d/.test(document.querySelector("#replicas [data-replica=replica-4] .word").textContent)`)
	p.until(`document.getElementById("links-unknown").checkVisibility()`)
	assert.Contains(t, eval[string](p, `document.getElementById("totals").textContent`), "0\u00a0connections", "its 7 are at the others, if they are")

	// Logging out closes it, also in another tab.
	eval[bool](p, `(fetch("logout", { method: "POST" }), true)`) // its next look is refused, and leads to the form
	p.becomes(`document.querySelector("#token")`)
}

// Charts are read by keyboard, and keep 15 minutes.
func TestOperatorsReadCharts(t *testing.T) {
	t.Parallel()
	b, c := newBrowser(t), newCluster(t, 1, admin.Options{})
	p := c.operate(b, 1280, 800)
	eval[bool](p, `(document.querySelector(".skip").focus(), true)`)
	p.until(`document.querySelector(".skip").getBoundingClientRect().top >= 0`)
	p.do(enter)
	p.until(`document.activeElement.id === "main" && !document.getElementById("overview").hidden`)

	const chart = `document.querySelector("#charts figure:nth-child(2) [role=slider]")`
	p.until(chart + `.getAttribute("aria-valuemin") < ` + chart + `.getAttribute("aria-valuemax")`)
	eval[bool](p, `(`+chart+`.focus({ focusVisible: true }), true)`)
	press := func(key string) {
		eval[bool](p, chart+`.dispatchEvent(new KeyboardEvent("keydown", { key: `+quoted(key)+`, bubbles: true }))`)
	}
	press("Home")
	p.until(`/^\d\d:\d\d:\d\d: connections 0$/.test(` + chart + `.getAttribute("aria-valuetext"))`)
	first := eval[string](p, chart+`.getAttribute("aria-valuenow")`)
	press("ArrowRight")
	p.until(chart + `.getAttribute("aria-valuenow") > ` + quoted(first))
	press("Escape")
	p.until(chart + `.getAttribute("aria-valuetext") === "now: connections 0"`)

	// While there are few points, they are not squeezed into a corner.
	p.until(chart + `.getAttribute("aria-label") === "Connections, the last minute"`)
	assert.Contains(t, eval[string](p, chart+`.textContent`), "−1 min−40 s−20 snow")

	// A reload shows the same points again.
	p.do(chromedp.Reload())
	p.becomes(chart + `.getAttribute("aria-valuemin") === ` + quoted(first))

	// Half an hour of points leaves 15 minutes, and no more elements.
	grew := eval[[]int](p, `(async () => {
		const { Points } = await import("./points.js"), { drawCharts } = await import("./overview.js");
		const points = new Points(), names = ["replicas", "green", "connections", "requests_s", "publishes_s", "deliveries_s", "latency_p50_ms", "latency_p99_ms"];
		const counts = [];
		for (let second = 1; second <= 1800; second++) {
			points.add({ seconds: [second], ...Object.fromEntries(names.map((n, i) => [n, [i % 2 ? null : second % 7]])) }, second);
			if (second % 900 === 0) {
				drawCharts(points);
				counts.push(points.seconds.length, points.shown, document.querySelectorAll("*").length);
			}
		}
		return counts;
	})()`, chromedp.EvalAwaitPromise)
	assert.Equal(t, []int{900, 900}, grew[:2])
	assert.Equal(t, grew[:3], grew[3:])
}

// What the page says of replicas that are silent, new, or have no version.
func TestOperatorsSeeWhatIsOldAndWhatIsNew(t *testing.T) {
	t.Parallel()
	b, c := newBrowser(t), newCluster(t, 1, admin.Options{})
	p := c.operate(b, 1280, 800)
	shows := func(change, want string) {
		t.Helper()
		assert.Equal(t, want, eval[string](p, `(async () => {
			const { drawOverview } = await import("./overview.js");
			const o = await (await fetch("api/overview")).json(), one = { ...o.replicas[0], connections: 20, uptime_s: 100 };
			o.replicas = [1, 2, 3].map((n) => ({ ...one, id: "replica-" + n }));
			const [, two, three] = o.replicas;
			return (() => { `+change+` })();
		})()`, chromedp.EvalAwaitPromise))
	}
	const has = `drawOverview(o); const has = (selector) => document.querySelector(selector).innerText.trim();`
	shows(has+`return has("#summary") + has("#emptier")`, "All 3 replicas are green")
	shows(`three.connections = 0; three.uptime_s = 5; `+has+`return has("#emptier")`,
		"replica-3 has few clients yet: those that are connected stay where they are, until their replica drains or dies.")
	shows(`two.connections = three.connections = 1; two.uptime_s = three.uptime_s = 5; `+has+`return has("#emptier").slice(0, 44)`,
		"replica-2 and replica-3 have few clients yet")
	const dies = `Object.assign(two, { status: "yellow", silent: true, old: true, seen_ms: 4200, reasons: [{ reason: "silent", words: "It is.", do: "Look." }] });`
	shows(dies+has+`return has("#summary")`, "replica-2 is silent; 2 of 3 green")
	shows(dies+has+`return has("[data-replica=replica-2].gone .word") + ", " + has("[data-replica=replica-2] [data-label='Up for']")`,
		"yellow, silent for 4 s, was 1 min 40 s")
	shows(dies+has+`return has("[data-replica=replica-2] + .why")`,
		"silent It is.\n\nWhat to do: Look.\n\nIts numbers are from 4 s ago, and not in the sums.")
	shows(`two.status = "red"; two.silent = two.old = true; two.reasons = [{ reason: "dead", words: "", do: "Look." }]; o.scaling = { known: true, ready: 2, wanted: 3, min: 1, max: 9 }; `+has+`return has("[data-replica=replica-2] + .why li p")`,
		"What to do: Look. Or ask for 3 again under Scaling.")
	// Who is at fault comes first, and what all suffer from is in the headline.
	shows(dies+`Object.assign(o.replicas[0], { status: "yellow", reasons: [{ reason: "lagging", words: "", do: "" }] }); `+has+`return has("#summary") + ": " + [...document.querySelectorAll("#replicas [data-replica]")].map((e) => e.dataset.replica)`,
		"replica-2 is silent, replica-1 is yellow; 1 of 3 green: replica-2,replica-1,replica-3")
	const store = `o.store = { status: "red", words: "It has taken nothing from all for 12 s.", brief: "takes nothing", ms: 1.24, seen_ms: 12300 }; `
	shows(store+`for (const r of o.replicas) Object.assign(r, { status: "red", reasons: [{ reason: "reports lost: store", words: "", do: "" }] }); `+has+`return has("#summary") + ". " + has("#store-took")`,
		"All 3 replicas are red: the Store takes nothing. It took a test message of replica-1 in 1.2\u00a0ms, but it has taken nothing from there for 12 s.")
	shows(store+`two.status = "red"; two.reasons = [{ reason: "canary lost: store", words: "", do: "" }]; `+has+`return has("#summary")`, "replica-2 is red; 2 of 3 green")
	shows(`o.store.ms = 1.24; o.store.seen_ms = 2100; `+has+`return has("#store-took")`, "The Store took the last test message of replica-1 in 1.2\u00a0ms, and something of it 2 s ago.")

	// A killed one is grey at once, as its numbers are.
	shows(`two.old = true; two.seen_ms = 900; o.scaling = { known: true, ready: 3, wanted: 3, min: 1, max: 9 }; `+has+`return has("[data-replica=replica-2].gone .word") + "; " + has("#scale-state")`,
		"green, its link is down; 3 replicas run, as wanted, as far as the Scaler knows; nothing is heard of replica-2.")

	// One in whose place another one runs leaves nothing to do, and what has left the list
	// is not forgotten at once.
	shows(`Object.assign(two, { status: "red", silent: true, old: true, seen_ms: 30000, replaced: true, replaced_by: "replica-3", reasons: [{ reason: "heartbeats missed", words: "It has died.", do: "Start it." }] }); `+has+`return has("#summary") + "; " + document.getElementById("summary-light").dataset.light + "; " + has("[data-replica=replica-2] .word") + "; " + has("[data-replica=replica-2] + .why li p")`,
		"Both replicas are green; green; dead for 30 s, replaced; What to do: replica-3 has taken its place: nothing to do.")
	shows(`o.time_ms = new Date(2026, 0, 1, 14, 1, 30).getTime(); o.replicas.pop(); o.departed = [{ id: "replica-9", seen_ms: 90000, replaced: false, replaced_by: "" }, { id: "replica-8", seen_ms: 150000, replaced: true, replaced_by: "" }]; `+has+`return has("#summary") + ". " + has("#departed")`,
		"Both replicas are green; replica-9 died at 14:00:00. replica-9 died: nothing was heard of it since 14:00:00, and it had not said goodbye. Nothing has taken its place yet; see why it ended.\nreplica-8 died: nothing was heard of it since 13:59:00, and it had not said goodbye. As many run as are wanted: nothing to do.")
	const version = `return [...document.querySelectorAll("#replicas .version")].map((e) => e.checkVisibility() ? e.innerText : "hidden").join(", ")`
	shows(has+version, "hidden, hidden, hidden, hidden")
	shows(`three.version = "v1.2.3"; `+has+version, "Version, –, –, v1.2.3")
	shows(`o.replicas.pop(); o.totals.connections = 7; `+has+`return has("#summary") + ", " + has("#totals").split(/\s/)[0]`, "Both replicas are green, 7")
}

// What clients have sent is shown as text, whatever it is.
func TestOperatorsSeeHostileNamesAsText(t *testing.T) {
	t.Parallel()
	b, c := newBrowser(t), newCluster(t, 2, admin.Options{})
	const (
		name   = `room.<img\src=x\onerror=pwned()>"'&amp;`
		header = `<script>pwned()</script>`
		user   = `<b onmouseover="pwned()">ann</b>`
		text   = `"</pre><svg onload=pwned()>\u202e"`
	)
	c.join(name, user)
	p := c.operate(b, 1280, 800)
	eval[bool](p, `(window.hacked = 0, window.pwned = () => { window.hacked++; }, true)`)
	p.goes("#/channels")
	p.has("#list tbody th a", name)
	p.do(chromedp.Click(chromedp.CSS("#list tbody th a")))
	p.has("#channel-name", name)
	p.has("#presence", user)
	p.has("#tail-state", "following")
	c.publish(name, header, text)
	for _, list := range []string{"#tail", "#history"} {
		p.has(list, header)
		p.has(list, text)
	}
	p.clicks("#presence [data-user]")
	p.has("#ask-title", user)
	p.clicks(`#ask [value="no"]`)
	p.goes("#/channel/" + url.PathEscape("%zz<u>"))
	p.has("#channel-name", "%zz<u>")
	p.goes("#/channel/%zz")
	p.has("#channel-name", "%zz")
	assert.Zero(t, eval[int](p, `document.querySelectorAll("main img, main script, main b, main u, main svg[onload]").length`))
	assert.Zero(t, eval[int](p, `window.hacked`))
}

// An operator follows a channel, publishes, and disconnects.
func TestOperatorsLookIntoAChannel(t *testing.T) {
	t.Parallel()
	b, c := newBrowser(t), newCluster(t, 2, admin.Options{})
	ann := c.join("room.1", "ann")
	ben := c.join("room.1", "ben")
	for i := range 60 {
		c.publish("room.1", "say", fmt.Sprint(i))
	}
	p := c.operate(b, 1280, 800)
	p.goes("#/channel/room.1")
	p.has("#channel-numbers", "#60")
	p.has("#history-state", "#11 to #60")
	p.clicks("#history-older")
	p.has("#history-state", "#1 to #10")
	p.keeps("#history-older[aria-disabled=true]") // there is nothing older
	p.clicks("#history-newest")
	p.has("#history-state", "#11 to #60")
	p.keeps("#history-newest[aria-disabled=true]")
	p.has("#presence-state", "2 connections")

	p.has("#tail-state", "following")
	eval[bool](p, `(document.getElementById("publish-body").value = '{"n":12345678901234567890}', true)`)
	p.clicks("#publish .primary")
	p.has("#publish-answer", "Published as #61")
	p.has("#tail", `{"n":12345678901234567890}`)
	eval[bool](p, `(document.getElementById("publish-body").value = "hello", true)`)
	p.clicks("#publish .primary")
	p.has("#publish-answer", "not JSON")

	p.clicks("#tail-pause")
	for i := range 3 {
		c.publish("room.1", "say", fmt.Sprintf(`"late %d"`, i))
	}
	p.has("#tail-state", "paused, 3 new messages")
	assert.NotContains(t, eval[string](p, `document.getElementById("tail").textContent`), "late")
	p.clicks("#tail-pause")
	p.has("#tail li:first-child", "late 2")

	p.clicks(`#presence [data-user="ann"]`)
	p.clicks(`#ask [value="no"]`)
	p.clicks(`#presence [data-user="ann"]`)
	p.has("#ask-title", "Disconnect all connections of the user ann?")
	p.clicks("#ask-yes")
	p.has("#presence-answer", "Closed 1 connection at this replica, and told the other replicas to close all connections of the user ann there.")
	assert.Equal(t, websocket.StatusCode(3003), closed(t, ann))
	p.has("#presence-state", "1 connection")
	p.keeps(".people") // where the button was
	assert.Contains(t, c.log.Line("admin: disconnected a user"), "user=ann")
	assert.Equal(t, 1, c.log.Count("admin: disconnected"))
	require.NoError(t, ben.Write(t.Context(), websocket.MessageText, []byte(`{"header":"still","body":"here"}`)))
	p.has("#tail", "still")
}

// Whoever pages through a history sees what they asked for last, whatever is answered
// last.
func TestOperatorsPageThroughAHistory(t *testing.T) {
	t.Parallel()
	b, c := newBrowser(t), newCluster(t, 1, admin.Options{})
	for i := range 60 {
		c.publish("room.1", "say", fmt.Sprint(i))
	}
	p := c.operate(b, 1280, 800)
	p.goes("#/channel/room.1")
	p.has("#history-state", "#11 to #60")
	eval[bool](p, `(() => {
		const real = fetch, until = new Promise((done) => (window.answer = done));
		window.held = window.shown = 0;
		window.fetch = async (path, options) => {
			if (!/channel\?/.test(path) || path.includes("before=")) return real(path, options);
			const now = await (await real(path, options)).json();
			held++;
			await until;
			return { ok: true, json: async () => now };
		};
		new MutationObserver(() => shown++).observe(document.getElementById("history"), { childList: true });
		return true;
	})()`)
	p.until(`held === 1`)
	p.clicks("#history-older")
	p.has("#history-state", "#1 to #10")
	drawn := eval[int](p, `shown`)
	assert.Equal(t, "#1 to #10", eval[string](p, `(answer(), new Promise((done) => setTimeout(() => done(document.getElementById("history-state").textContent))))`, chromedp.EvalAwaitPromise))
	p.until(`performance.getEntriesByType("resource").filter((e) => e.name.includes("before=11")).length >= 2`) // the page has asked again
	assert.Equal(t, drawn, eval[int](p, `shown`), "nothing else was shown meanwhile")
}

// closed reads until a WebSocket is closed.
func closed(t *testing.T, c *websocket.Conn) websocket.StatusCode {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for {
		if _, _, err := c.Read(ctx); err != nil {
			return websocket.CloseStatus(err)
		}
	}
}

// The list is searched, sorted and paged through, and its address has all of that.
func TestOperatorsFindAChannel(t *testing.T) {
	t.Parallel()
	b, c := newBrowser(t), newCluster(t, 1, admin.Options{})
	for i := range 120 {
		c.publish(fmt.Sprintf("news.%03d", i), "m", "1")
	}
	c.join("room.7", "ann")
	p := c.operate(b, 1280, 800)
	const names = `[...document.querySelectorAll("#list tbody a")].map((e) => e.textContent)`
	p.goes("#/channels")
	p.has("#list-where", "1–50 of 121")
	assert.Equal(t, "room.7", eval[[]string](p, names)[0], "it alone has a subscriber")
	p.focuses(`#list a[href$="news.007"]`)
	c.join("news.007", "ben")
	c.join("news.007", "cid")
	p.until(names + `[0] === "news.007"`)
	p.keeps(`#list a[href$="news.007"]`) // it has moved
	p.clicks("#list-next")
	p.has("#list-where", "51–100 of 121")
	p.clicks("#list-last")
	p.has("#list-where", "101–121 of 121")
	p.keeps("#list-last[aria-disabled=true]")
	p.focuses("#list-next")
	p.presses()
	assert.Equal(t, "#/channels?offset=100", eval[string](p, `location.hash`), "there is no next page")
	p.focuses("#list-before")
	p.presses()
	p.has("#list-where", "51–100 of 121")
	p.clicks(`#list [data-sort="name"]`)
	p.has("#list-where", "1–50 of 121")
	p.until(names + `[0] === "news.000"`)
	assert.Equal(t, "ascending", eval[string](p, `document.querySelector("#list [aria-sort]").getAttribute("aria-sort")`))
	p.do(chromedp.SendKeys(chromedp.CSS("#find-text"), "7"))
	p.until(`JSON.stringify(` + names + `.slice(0, 2)) === '["news.007","news.017"]'`)
	assert.Equal(t, "#/channels?contains=7&sort=name", eval[string](p, `location.hash`))
	p.do(chromedp.Reload())
	p.becomes(names + `[0] === "news.007"`)
	p.do(chromedp.SendKeys(chromedp.CSS("#find-text"), "x"))
	p.has("#list-empty", "No channel’s name contains this")
}

// A page that reaches no replica says since when, and what it shows is grey until it
// reaches one again.
func TestOperatorsPageWithoutAReplica(t *testing.T) {
	t.Parallel()
	b, c := newBrowser(t), newCluster(t, 1, admin.Options{})
	network := basetest.NewRelay(t, strings.TrimPrefix(c.servers[0].URL, "http://"))
	p := b.visit("http://"+network.Addr+"/admin/", "an operator", 1280, 800)
	p.login()
	network.Part()
	p.until(`!document.getElementById("unreached").hidden`)
	p.until(`/^replica-1 has not answered since \d\d:\d\d:\d\d \([1-9]\d* s\)/.test(document.getElementById("unreached").textContent)`)
	assert.Less(t, eval[float64](p, `Number(getComputedStyle(document.querySelector("main")).opacity)`), 1.0)
	p.has("#summary", "The only replica is green") // from then
	p.until(`document.title === "no answer! channels"`)
	assert.Equal(t, 3, eval[int](p, `document.querySelectorAll('.acts[aria-disabled="true"]').length`))
	p.goes("#/channels")
	p.has("#cluster", "not known now")
	network.Lead(strings.TrimPrefix(c.servers[0].URL, "http://"))
	p.until(`document.getElementById("unreached").hidden && document.body.dataset.reach === "yes"`)
	p.has("#cluster", "The only replica is green")
	p.until(`document.title === "Channels – channels" && !document.querySelector('.acts[aria-disabled="true"]')`)
}

// Without a replica, nothing acts on numbers of then. Whoever goes by keyboard stays where
// they are, and goes on from there.
func TestOperatorsActOnNothingStale(t *testing.T) {
	t.Parallel()
	s := newScaler()
	b, c := newBrowser(t), newCluster(t, 1, admin.Options{Scaler: s, ScaleMin: 1, ScaleMax: 4})
	replica := strings.TrimPrefix(c.servers[0].URL, "http://")
	network := basetest.NewRelay(t, replica)
	p := b.visit("http://"+network.Addr+"/admin/", "an operator", 1280, 800)
	p.login()
	reached := func(yes bool) {
		t.Helper()
		p.until(`document.body.dataset.reach === ` + quoted(map[bool]string{true: "yes", false: "no"}[yes]))
	}
	p.clicks("#scale-more")
	p.focuses("#scale-go")
	network.Part()
	reached(false)
	p.keeps("#scale-go")
	p.presses()
	p.do(chromedp.Click(chromedp.CSS("#scale-go")))
	require.Empty(t, eval[string](p, `document.getElementById("scale-answer").textContent`), "nothing is ordered")
	p.focuses("#scale-fewer")
	p.presses()
	p.do(chromedp.SendKeys(chromedp.CSS("#scale-to"), "1"))
	require.Equal(t, "3", eval[string](p, `document.getElementById("scale-to").value`))
	p.keeps("#scale-to")

	p.goes("#/channel/room.1")
	p.until(`document.activeElement.id === "main"`)
	p.focuses("#publish-header")
	p.presses()
	require.Empty(t, eval[string](p, `document.getElementById("publish-answer").textContent`), "nothing is published")
	network.Lead(replica)
	reached(true)
	p.keeps("#publish-header")
	p.presses()
	p.has("#publish-answer", "Published as #1")

	p.goes("#/")
	p.until(`document.activeElement.id === "main"`)
	p.focuses("#scale-go")
	p.presses()
	require.Equal(t, 3, <-s.orders)
}

// A page follows a channel only while it is seen, and again after it was refused.
func TestOperatorsFollowOnlyWhatTheySee(t *testing.T) {
	t.Parallel()
	b, c := newBrowser(t), newCluster(t, 1, admin.Options{})
	p := c.operate(b, 1280, 800)
	eval[bool](p, `(() => {
		const Real = EventSource;
		window.opened = 0;
		window.EventSource = class extends Real {
			constructor(address) { super(window.opened++ ? address : "api/nothing"); }
		};
		return true;
	})()`)
	p.goes("#/channel/room.1")
	p.until(`window.opened === 2`)
	p.has("#tail-state", "following")
	following := func() int { return c.hubs[0].Stats().Connections }
	assert.Equal(t, 1, following())

	// see has the browser tell the page whether its tab is seen.
	see := func(seen string) {
		eval[bool](p, `(() => {
			Object.defineProperty(document, "hidden", { configurable: true, get: () => !`+seen+` });
			return document.dispatchEvent(new Event("visibilitychange"));
		})()`)
	}
	c.publish("room.1", "say", `"before"`)
	p.has("#tail", "before")
	see("false")
	basetest.Eventually(t, "nobody follows", func() bool { return following() == 0 })
	see("true")
	p.has("#tail-state", "following")
	c.publish("room.1", "say", `"after"`)
	p.until(`/after.*not followed for a while.*before/s.test(document.getElementById("tail").textContent)`)
	assert.Equal(t, 3, eval[int](p, `window.opened`))
}

// After a failover to a replica whose clock is behind, the charts go on.
func TestOperatorsChartsGoByTheClockOfTheReplica(t *testing.T) {
	t.Parallel()
	b, c := newBrowser(t), newCluster(t, 1, admin.Options{})
	p := c.operate(b, 1280, 800)
	const last = `Number(document.querySelector("#charts [role=slider]").getAttribute("aria-valuemax"))`
	p.until(last + ` > 0`)
	was := eval[int](p, last)
	eval[bool](p, `(() => {
		const real = fetch;
		window.ahead = 10000;
		window.fetch = async (...request) => {
			const answer = await (await real(...request)).json();
			if (answer.time_ms) answer.time_ms += 1000 * window.ahead;
			if (answer.seconds) answer.seconds = answer.seconds.map((second) => second + window.ahead);
			return Response.json(answer);
		};
		return true;
	})()`)
	p.until(fmt.Sprintf(`%s > %d`, last, was+5000))
	eval[bool](p, `(window.ahead = 0, true)`)
	p.until(fmt.Sprintf(`%[1]s > %[2]d && %[1]s < %[3]d`, last, was, was+5000))
}

// A scalerOfTests takes an order when a test reads it. From then on it does not know how
// many run, until the test says so.
type scalerOfTests struct {
	orders chan int
	busy   atomic.Bool
}

func newScaler() *scalerOfTests { return &scalerOfTests{orders: make(chan int)} }

func (s *scalerOfTests) Replicas(context.Context) (ready, wanted int, err error) {
	if s.busy.Load() {
		return 0, 0, errors.New("busy")
	}
	return 2, 2, nil
}

func (s *scalerOfTests) Scale(ctx context.Context, n int) error {
	s.busy.Store(true)
	select {
	case s.orders <- n:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// It takes two clicks to scale, the second one after the page has said what it will do.
func TestOperatorsScale(t *testing.T) {
	t.Parallel()
	s := newScaler()
	b, c := newBrowser(t), newCluster(t, 1, admin.Options{Scaler: s, ScaleMin: 1, ScaleMax: 3})
	p := c.operate(b, 1280, 800)
	p.has("#scale-state", "2 replicas run, as wanted")
	p.clicks("#scale-more")
	p.has("#scale-question", "Scale out from 2 to 3?")
	p.keeps("#scale-more[aria-disabled=true]") // 3 is the most
	p.clicks("#scale-keep")
	p.until(`document.getElementById("scale-confirm").hidden && document.getElementById("scale-to").value === "2"`)
	p.keeps("#scale-more")

	// A number that is not allowed is called so, and a step goes on from what runs.
	eval[bool](p, `(() => {
		const field = document.getElementById("scale-to");
		field.value = 99;
		return field.dispatchEvent(new Event("input"));
	})()`)
	p.has("#scale-wrong", "1 to 3 replicas are allowed")
	p.until(`document.getElementById("scale-to").getAttribute("aria-invalid") === "true" && document.getElementById("scale-confirm").hidden`)
	p.clicks("#scale-fewer")
	p.has("#scale-question", "Scale in from 2 to 1? The one that ends drains first")
	p.until(`document.getElementById("scale-wrong").textContent === "" && !document.getElementById("scale-to").hasAttribute("aria-invalid")`)
	p.keeps("#scale-fewer[aria-disabled=true]")
	p.clicks("#scale-go")
	assert.Equal(t, 1, <-s.orders)
	p.has("#scale-answer", "1 replica will run")
	basetest.Eventually(t, "the audit line", func() bool { return c.log.Has("admin: scaled") })
	assert.Contains(t, c.log.Line("admin: scaled"), "to=1")
	assert.Contains(t, c.log.Line("admin: scaled"), `operator="session `)

	// Whoever goes by keyboard is at the buttons, also while they cannot be used, and after.
	p.has("#scale-state", "busy")
	p.keeps("#scale-more[aria-disabled=true]")
	s.busy.Store(false)
	p.has("#scale-state", "2 replicas run, as wanted")
	p.keeps("#scale-more:not([aria-disabled])")
	p.presses()
	p.has("#scale-question", "Scale out from 2 to 3?")
}

// The focus comes back to the buttons, even if they cannot be used when the answer comes.
func TestOperatorsScaleWhileTheNumberIsUnknown(t *testing.T) {
	t.Parallel()
	s := newScaler()
	p := newCluster(t, 1, admin.Options{Scaler: s, ScaleMin: 1, ScaleMax: 3}).operate(newBrowser(t), 1280, 800)
	p.has("#scale-state", "2 replicas run, as wanted")
	p.clicks("#scale-more")
	p.clicks("#scale-go")
	p.has("#scale-state", "busy")
	p.keeps("#scale-answer")
	<-s.orders
	p.has("#scale-answer", "3 replicas will run")
	p.keeps("#scale-more[aria-disabled=true]")
	s.busy.Store(false)
	p.has("#scale-state", "2 replicas run, as wanted")
	p.keeps("#scale-more:not([aria-disabled])")
}

// changingScaler says what a test sets.
type changingScaler struct{ ready, wanted atomic.Int32 }

func (s *changingScaler) Replicas(context.Context) (ready, wanted int, err error) {
	return int(s.ready.Load()), int(s.wanted.Load()), nil
}

func (s *changingScaler) Scale(_ context.Context, n int) error {
	s.wanted.Store(int32(n))
	return nil
}

// What one operator scales, the page of another one follows, without a question that
// nobody has asked there.
func TestOperatorsSeeWhatAnotherScales(t *testing.T) {
	t.Parallel()
	s := new(changingScaler)
	s.ready.Store(3)
	s.wanted.Store(3)
	b, c := newBrowser(t), newCluster(t, 1, admin.Options{Scaler: s, ScaleMax: 9})
	p := c.operate(b, 1280, 800)
	const field = `document.getElementById("scale-to").value + " " + document.getElementById("scale-confirm").hidden`
	p.until(field + ` === "3 true"`)
	// Between the old number and the new one, it may not be known.
	assert.Equal(t, "5 true", eval[string](p, `import("./scaling.js").then(({ drawScaling }) => {
		const frame = { known: false, ready: 5, wanted: 5, min: 1, max: 9, error: "", hint: "" };
		drawScaling(frame);
		drawScaling({ ...frame, known: true });
		return `+field+`;
	})`, chromedp.EvalAwaitPromise))
	s.wanted.Store(5)
	s.ready.Store(5)
	p.has("#scale-state", "5 replicas run, as wanted")
	p.until(field + ` === "5 true"`)

	// What somebody has put in stays.
	p.clicks("#scale-more")
	s.wanted.Store(4)
	p.has("#scale-question", "Scale out from 4 to 6?")

	// What was ordered is said until it is so.
	p.clicks("#scale-go")
	p.has("#scale-answer", "6 replicas will run")
	s.ready.Store(6)
	p.until(`document.getElementById("scale-answer").textContent === "" && ` + field + ` === "6 true"`)
}

// Replicas that are missing for long turn the whole page yellow, also if all others are
// green, and also if the page is opened later.
func TestOperatorsSeeThatReplicasAreMissing(t *testing.T) {
	t.Parallel()
	s := new(changingScaler)
	s.ready.Store(1)
	s.wanted.Store(2)
	b, c := newBrowser(t), newCluster(t, 1, admin.Options{Scaler: s, ScaleMax: 9})
	p := c.operate(b, 1280, 800)
	p.has("#scale-state", "1 of 2 wanted replicas is ready")
	p.has("#summary", "1 of 2 wanted replicas is ready")
	p.until(`document.querySelector("#summary-light").dataset.light === "yellow" && document.title === "yellow! channels"`)
	p.has("#next", "ask for 2 again under Scaling")
	p.has("#scale-go", "Ask for 2 again")
	later := c.operate(b, 1280, 800)
	assert.Equal(t, "1 of 2 wanted replicas is ready", eval[string](later, `document.getElementById("summary").textContent`))

	// Whoever asks again gives them time.
	p.clicks("#scale-go")
	p.has("#summary", "The only replica is green")
	s.ready.Store(2)
	later.has("#summary", "The only replica is green")
	p.has("#scale-state", "2 replicas run, as wanted")
	p.until(`document.title === "channels" && document.getElementById("summary").textContent === "The only replica is green"`)
}

// What one replica knows to be missing stays so where another one answers that was
// not asked before.
func TestOperatorsSeeThatReplicasAreMissingBehindABalancer(t *testing.T) {
	t.Parallel()
	b, c := newBrowser(t), newCluster(t, 1, admin.Options{})
	p := c.operate(b, 1280, 800)
	assert.Equal(t, []bool{true, true, true, false, true, false, false}, eval[[]bool](p, `import("./scaling.js").then(({ lacks }) => {
		const s = { known: true, ready: 1, wanted: 2, late: false };
		return [{ late: true }, {}, { known: false, ready: 0 }, { ready: 2 }, { late: true }, { wanted: 3 }, {}].map((change) => lacks({ ...s, ...change }));
	})`, chromedp.EvalAwaitPromise))
}

// On a phone nothing is wider than the screen, and text can be read, in light and dark.
func TestOperatorsOnAPhone(t *testing.T) {
	t.Parallel()
	b, c := newBrowser(t), newCluster(t, 3, admin.Options{Scaler: &scalerOfTests{}, ScaleMax: 5})
	name := "room." + strings.Repeat("W", 190)
	c.join(name, strings.Repeat("ü", 200))
	c.publish(name, strings.Repeat("h", 300), `"`+strings.Repeat("x", 3000)+`"`)
	c.pretend("replica-4", `{"node":"replica-4","status":"yellow","reasons":["loaded"],"started":"2026-01-01T00:00:00Z"}`) // for words in yellow
	p := c.operate(b, 390, 844)
	p.has("#replicas .why", "loaded")
	p.has("#replicas [data-status=yellow] .brief", "loaded") // before the numbers
	assert.True(t, eval[bool](p, `document.querySelector("#replicas [data-status=yellow] .brief").checkVisibility()`))
	for _, scheme := range []string{"light", "dark"} {
		p.prefers("color-scheme", scheme)
		p.goes("#/")
		p.fits(390, `document.querySelector("main")`)
		for _, e := range []string{".note", "#totals", "[data-status=yellow] .word", ".why span", ".here", "#scale-hint", ".top nav a:not([aria-current])"} {
			if eval[bool](p, `Boolean(document.querySelector(`+quoted(e)+`))`) {
				assert.Greater(t, p.contrast(e, ""), 4.5, "%s in %s", e, scheme)
			}
		}
		p.goes("#/channels")
		p.has("#list", name)
		p.fits(390, `document.querySelector("main")`)
		p.goes("#/channel/" + name)
		p.has("#history", "xxx")
		p.has("#presence", "üü")
		p.fits(390, `document.querySelector("main")`)
		for _, e := range []string{".about", ".primary", "#channel-numbers dt", "label"} {
			assert.Greater(t, p.contrast(e, ""), 4.5, "%s in %s", e, scheme)
		}
	}
}
