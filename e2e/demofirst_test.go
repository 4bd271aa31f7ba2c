package e2e

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The first command of a new user: go run ./example/replicas -n 3, without Redis. The
// replicas have only the mesh in common, and the operators' page still shows all of them,
// who hears whom, the load, one that is killed, and one more.
func TestTheDemoWithoutRedis(t *testing.T) {
	t.Parallel()
	s, b := run(t, "replicas", "-n", "3"), newBrowser(t)
	p := b.visit(s.operators(), "operator", 1280, 1000)
	p.sums("All 3 replicas are green")
	p.until(`document.querySelectorAll('#links [data-link="up"]').length === 6`)
	p.until(`document.getElementById("scale-state").textContent === "3 replicas run, as wanted."`)

	chat := b.enter(s, "Ann")
	chat.talksTo(b.enter(s, "Ben"), "hello")
	chat.clicks("#load")
	p.until(`/[1-9]/.test(document.querySelector("#charts figure:nth-child(5) [role=slider]").getAttribute("aria-valuetext"))`) // deliveries a second
	p.goes("#/channels")
	p.until(`document.getElementById("list-own").checkVisibility() && document.querySelector("#list tbody tr")`)
	p.goes("#/")

	require.NoError(t, syscall.Kill(s.readyPIDs(3)[1], syscall.SIGKILL))
	p.sums("replica-2 is red; 2 of 3 green")
	p.scale("#scale-more", 1, "Scale out from 3 to 4?", "Scale to 4")
	p.until(`document.querySelector("#replicas [data-replica=replica-4]")?.dataset.status === "green"`)
	assert.Equal(t, "online", eval[string](chat, `document.getElementById("state").dataset.state`))
}
