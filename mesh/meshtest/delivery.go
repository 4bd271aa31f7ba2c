package meshtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/mesh"
)

var deliveryCases = []Case{
	{Name: "SubscribersOnly", Check: subscribersOnly,
		Explain: "A packet goes only to the peers that have subscribed to its channel, and never to its publisher."},
	{Name: "Everyone", Check: everyone,
		Explain: "A packet without a channel goes to all peers, whatever they have subscribed to."},
	{Name: "ToOne", Check: toOne,
		Explain: "A packet with To goes to that replica alone, even if it has not subscribed to the channel. An absent replica is not an error."},
	{Name: "ToOneKeepsOrder", Check: toOneKeepsOrder,
		Explain: "Packets of one channel keep their order, whether they go to one replica or to all."},
	{Name: "FieldsSurvive", Check: fieldsSurvive,
		Explain: "A packet arrives as it was published, with Origin and Seq set by the mesh."},
	{Name: "LongTrace", Check: longTrace,
		Explain: "A Trace of MaxTraceBytes arrives. One that is longer is left out, and the rest of its packet arrives."},
	{Name: "BigBodies", Check: bigBodies,
		Explain: "Bodies of 1 MiB arrive whole among small ones."},
	{Name: "Names", Check: names,
		Explain: "A channel may have any valid name, even one that begins like another or has a meaning for a broker."},
	{Name: "BodyOwnership", Check: bodyOwnership,
		Explain: "Publish does not keep the body, the info and the trace, so its caller may overwrite them. deliver may overwrite its own too, without changing what other replicas or the next packet get."},
	{Name: "BodyWhileDelivered", Check: bodyWhileDelivered,
		Explain: "The mesh does not touch a body while its deliver runs, whatever else is published and delivered meanwhile."},
	{Name: "NobodyThere", Check: nobodyThere,
		Explain: "Publishing without any peer is not an error."},
}

func subscribersOnly(t *testing.T, f Fabric) {
	m := joinAll(t, f, 3)
	m[0].subscribe(t, "x", "y")
	m[1].subscribe(t, "x")
	m[2].subscribe(t, "y")
	m[1].awaitFrom(t, m[0], "x")
	m[2].awaitFrom(t, m[0], "y")
	for i := 1; i <= 100; i++ {
		m[0].say(t, "x", i)
		m[0].say(t, "y", i)
		m[0].say(t, "z", i)
	}
	m[1].requireNumbers(t, "x", 100)
	m[2].requireNumbers(t, "y", 100)
	for i := 1; i <= 10; i++ { // packets behind the others, so that those have arrived
		m[0].say(t, "", i)
		m[1].say(t, "", i)
	}
	m[2].awaitNumber(t, "", 20)
	m[1].awaitNumber(t, "", 10)
	m[0].awaitNumber(t, "", 10)
	require.Equal(t, 100+10, m[1].total())
	require.Equal(t, 100+20, m[2].total())
	require.Equal(t, 10, m[0].total(), "its own packet came back")
}

func everyone(t *testing.T, f Fabric) {
	m := joinAll(t, f, 4)
	m[1].subscribe(t, "x")
	for i := 1; i <= 100; i++ {
		m[0].say(t, "", i)
	}
	for _, to := range m[1:] {
		to.requireNumbers(t, "", 100)
	}
	m[1].say(t, "", 1)
	m[0].requireNumbers(t, "", 1)
	require.Equal(t, 1, m[0].total(), "its own packet came back")
}

func toOne(t *testing.T, f Fabric) {
	m := joinAll(t, f, 3)
	m[2].subscribeTo(t, m[0], "x")
	m[1].awaitTo(t, m[0], "x")
	for i := 1; i <= 20; i++ {
		for _, to := range []string{"n1", "n0", "nobody"} {
			m[0].send(t, mesh.Packet{To: to, Header: fmt.Sprint(i)})
			m[0].send(t, mesh.Packet{To: to, Channel: "x", Header: fmt.Sprint(i)})
		}
	}
	m[1].requireNumbers(t, "", 20)
	m[1].requireNumbers(t, "x", 20)
	for _, p := range append(m[1].all("x"), m[1].all("")...) {
		require.Equal(t, "n1", p.To)
	}
	m[0].say(t, "x", 1) // behind the others
	m[0].say(t, "", 1)
	m[2].requireNumbers(t, "x", 1)
	m[2].requireNumbers(t, "", 1)
	require.Zero(t, m[0].total(), "its own packet came back")
}

func toOneKeepsOrder(t *testing.T, f Fabric) {
	const n = 500
	m := joinAll(t, f, 2)
	for _, ch := range []string{"", "x"} {
		if ch != "" {
			m[1].subscribeTo(t, m[0], ch)
		}
		for i := 1; i <= n; i++ {
			p := mesh.Packet{Channel: ch, Header: fmt.Sprint(i)}
			if i%3 == 0 {
				p.To = "n1"
			}
			m[0].send(t, p)
		}
		m[1].requireNumbers(t, ch, n)
	}
}

func fieldsSurvive(t *testing.T, f Fabric) {
	m := joinAll(t, f, 2)
	m[1].subscribeTo(t, m[0], "x")
	packets := []mesh.Packet{
		{Channel: "x"},
		{Channel: "x", Header: "grüße 你好 \U0001F44B \u0000 \"\\", Body: json.RawMessage(`{"a":[1,2,{"b":null}],"ü":"\u2028"}`)},
		{Channel: "x", Body: json.RawMessage(`"` + "\n\r\x00\xff" + `"`)}, // the mesh does not parse it
		{Channel: "x", Offset: 1, Epoch: "e", Body: json.RawMessage(`1`)},
		{Channel: "x", Offset: math.MaxUint64, Epoch: strings.Repeat("é", 30), Body: json.RawMessage(`2`)},
		{Channel: "x", Sender: "connection-1", Body: json.RawMessage(`3`)},
		{Channel: "x", Info: []byte("any\x00bytes\xff"), Body: json.RawMessage(`3`)},
		{Channel: "x", Info: bytes.Repeat([]byte("i"), 2<<10)},
		{Channel: "x", Trace: []byte("any\x00bytes\xff")},
		{Channel: "x", Info: []byte("i"), Trace: []byte("t"), Body: json.RawMessage(`3`)},
		{Channel: "x", To: "n1", Trace: []byte("t"), Body: json.RawMessage(`3`)},
		{Channel: "x", Kind: mesh.KindPresence, Header: "join", Body: json.RawMessage(`{}`)},
		{Channel: "x", Kind: mesh.KindControl, Header: strings.Repeat("h", 1024)},
		{Channel: "x", To: "n1", Kind: mesh.KindControl, Header: "h", Body: json.RawMessage(`4`), Epoch: "e", Offset: 9, Sender: "s", Info: []byte("{}")},
		{Channel: "x", Origin: "forged", Seq: 1 << 60, Header: "origin"},
	}
	for _, p := range packets {
		m[0].send(t, p)
	}
	m[1].awaitNumber(t, "x", len(packets))
	var last uint64
	for i, got := range m[1].all("x") {
		require.Equal(t, "n0", got.Origin)
		require.Greater(t, got.Seq, last, "Seq rises")
		require.Less(t, got.Seq, uint64(1<<60), "Seq is set by the mesh")
		last = got.Seq
		want := packets[i]
		require.Equal(t, string(want.Body), string(got.Body))
		want.Body, got.Body, want.Origin, want.Seq, got.Origin, got.Seq = nil, nil, "", 0, "", 0
		require.Equal(t, want, got)
	}
}

func longTrace(t *testing.T, f Fabric) {
	m := joinAll(t, f, 2)
	m[1].subscribeTo(t, m[0], "x")
	trace := bytes.Repeat([]byte("t"), mesh.MaxTraceBytes+1)
	m[0].send(t, mesh.Packet{Channel: "x", Header: "1", Info: []byte("i"), Trace: trace[1:]})
	m[0].send(t, mesh.Packet{Channel: "x", Header: "2", Info: []byte("i"), Trace: trace})
	m[1].requireNumbers(t, "x", 2)
	got := m[1].all("x")
	require.Equal(t, trace[1:], got[0].Trace)
	require.Equal(t, "i", string(got[1].Info))
	require.Nil(t, got[1].Trace)
}

func bigBodies(t *testing.T, f Fabric) {
	m := joinAll(t, f, 2)
	for i, to := range m {
		to.subscribeTo(t, m[1-i], "x")
	}
	for i := range 8 {
		big := bytes.Repeat([]byte(fmt.Sprint(i+1)), 1<<20) // once: the race detector takes long for each copy
		for _, from := range m {
			from.send(t, mesh.Packet{Channel: "x", Body: big})
			from.send(t, mesh.Packet{Channel: "x", Body: json.RawMessage(fmt.Sprint(i))})
		}
		for _, to := range m { // one at a time: this case is about size, not queues
			to.awaitNumber(t, "x", 2*(i+1))
			got := to.all("x")
			require.True(t, bytes.Equal(big, got[2*i].Body), "a big body has changed")
			require.Equal(t, fmt.Sprint(i), string(got[2*i+1].Body))
		}
	}
}

func names(t *testing.T, f Fabric) {
	ascii := ""
	for r := '!'; r <= '~'; r++ {
		if r != '/' && r != '*' && r != '?' {
			ascii += string(r)
		}
	}
	all := []string{"a", "ab", "abc", "a:b", "{a}", "{}a", "}{", "[a-c]", "%", "%s", "a%00", "...", ascii, "ü", "你好", "\U0001F44B\u200d",
		strings.Repeat("x", 127), strings.Repeat("x", 128), strings.Repeat("x", 129), strings.Repeat("x", 200), strings.Repeat("é", 100)}
	m := joinAll(t, f, 2)
	for i, ch := range all {
		if i%2 == 0 { // the others have similar names and are not subscribed to
			m[1].subscribeTo(t, m[0], ch)
		}
	}
	for _, ch := range all {
		m[0].say(t, ch, 1)
	}
	for i, ch := range all {
		if i%2 == 0 {
			m[1].requireNumbers(t, ch, 1)
		}
	}
	require.Equal(t, (len(all)+1)/2, m[1].total())
}

func bodyOwnership(t *testing.T, f Fabric) {
	const n = 200
	a, b := join(t, f, "n0"), join(t, f, "n1")
	var seen [][]byte
	c := joinWith(t, f, "n2", func(p mesh.Packet) {
		if p.Channel == "x" {
			seen = append(seen, slices.Concat(p.Body, p.Info, p.Trace))
		}
		for _, own := range [][]byte{p.Body, p.Info, p.Trace} {
			for i := range own {
				own[i] = 'x'
			}
			_ = append(own, "beyond the end, where another field or packet may be"...)
		}
	})
	link(t, a, b, c)
	for _, to := range []*member{b, c} {
		to.subscribeTo(t, a, "x")
	}
	body, info, trace := make([]byte, 0, 100), make([]byte, 0, 100), make([]byte, 0, 100)
	for i := 1; i <= n; i++ {
		body, info = fmt.Appendf(body[:0], `{"n":%d}`, i), fmt.Appendf(info[:0], `{"who":%d}`, i)
		trace = fmt.Appendf(trace[:0], "00-%d", i)
		a.send(t, mesh.Packet{Channel: "x", Header: fmt.Sprint(i), Body: body, Info: info, Trace: trace})
		for _, own := range [][]byte{body, info, trace} {
			for k := range own {
				own[k] = 'y'
			}
		}
	}
	b.requireNumbers(t, "x", n)
	c.requireNumbers(t, "x", n)
	c.pause() // so that nothing writes to seen
	seen = seen[len(seen)-n:]
	for i, p := range b.all("x") {
		want := fmt.Sprintf(`{"n":%d}{"who":%d}00-%d`, i+1, i+1, i+1)
		require.Equal(t, want, string(p.Body)+string(p.Info)+string(p.Trace))
		require.Equal(t, want, string(seen[i]))
	}
}

func bodyWhileDelivered(t *testing.T, f Fabric) {
	const n = 300
	body := func(channel, i, who string) []byte { // of many lengths
		return []byte(strings.Repeat(channel+" "+i+" "+who+"; ", 1+len(i)*len(i)))
	}
	mine := func(p mesh.Packet, want []byte, when string) {
		for range 3 {
			runtime.Gosched() // let another goroutine run that may change the body
		}
		if !bytes.Equal(want, p.Body) && !t.Failed() { // the first is enough
			t.Errorf("%s, the body changed to %.80q; it was %.80q", when, p.Body, want)
		}
	}
	hook := func(p mesh.Packet) {
		if p.Kind != mesh.KindMessage || p.Header == ready {
			return
		}
		mine(p, body(p.Channel, p.Header, p.Origin), "while deliver runs")
		own := bytes.Repeat([]byte("x"), len(p.Body))
		copy(p.Body, own)
		mine(p, own, "after deliver has overwritten it")
	}
	m := []*member{joinWith(t, f, "n0", hook), joinWith(t, f, "n1", hook), joinWith(t, f, "n2", hook)}
	link(t, m...)
	names := []string{"c0", "c1", "c2", "c3"}
	subscribeAll(t, m, names)
	var publishing sync.WaitGroup
	for _, from := range m {
		for _, ch := range names {
			publishing.Go(func() {
				var b []byte
				for i := range n {
					b = append(b[:0], body(ch, fmt.Sprint(i), from.id)...)
					assert.NoError(t, from.Publish(t.Context(), mesh.Packet{Channel: ch, Header: fmt.Sprint(i), Body: b}))
					clear(b)
				}
			})
		}
	}
	publishing.Wait()
	for _, to := range m {
		for _, ch := range names {
			to.awaitNumber(t, ch, (len(m)-1)*n)
		}
	}
}

func nobodyThere(t *testing.T, f Fabric) {
	a := join(t, f, "n0")
	eventually(t, "the replica is ready", func() bool { return a.Status().Err == nil })
	for i := range 100 {
		a.say(t, "x", i)
		a.say(t, "", i)
		a.send(t, mesh.Packet{To: "n1"})
	}
	require.Zero(t, a.total())
}
