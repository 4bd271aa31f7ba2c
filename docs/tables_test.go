package docs_test

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels"
)

// table returns the rows of the table whose first line begins with the given
// cells, without that line.
func table(t *testing.T, doc string, head ...string) (rows [][]string) {
	t.Helper()
	_, rest, ok := strings.Cut(read(t, doc), "\n| "+strings.Join(head, " | ")+" |")
	require.True(t, ok, "%s has no table with %q", doc, head)
	for i, line := range strings.Split(rest, "\n") {
		if i < 2 {
			continue // what is left of the head, and the line below it
		}
		if !strings.HasPrefix(line, "|") {
			break
		}
		line = strings.ReplaceAll(strings.Trim(line, "|"), `\|`, "\x00")
		var row []string
		for cell := range strings.SplitSeq(line, "|") {
			row = append(row, strings.TrimSpace(strings.ReplaceAll(cell, "\x00", "|")))
		}
		rows = append(rows, row)
	}
	require.NotEmpty(t, rows, "%s, %q", doc, head)
	return rows
}

// names returns what stands in a cell as code.
func names(cell string) (all []string) {
	for _, s := range code.FindAllString(cell, -1) {
		all = append(all, strings.Trim(s, "`"))
	}
	return all
}

// listed returns the names in the first column of a table.
func listed(t *testing.T, doc string, head ...string) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, row := range table(t, doc, head...) {
		for _, name := range names(row[0]) {
			require.NotContains(t, all, name, doc)
			all[name] = true
		}
	}
	return all
}

// matches returns what a pattern finds in files, for each match the whole of it
// and its groups.
func matches(t *testing.T, files []string, pattern string) (all [][]string) {
	t.Helper()
	for _, path := range files {
		all = append(all, regexp.MustCompile(pattern).FindAllStringSubmatch(read(t, path), -1)...)
	}
	require.NotEmpty(t, all, pattern)
	return all
}

// firsts returns the first groups of matches.
func firsts(matches [][]string) map[string]bool {
	all := map[string]bool{}
	for _, m := range matches {
		all[m[1]] = true
	}
	return all
}

// rootFiles returns the Go files of the package channels.
func rootFiles(t *testing.T) []string {
	t.Helper()
	return slices.DeleteFunc(goFiles(t), func(path string) bool { return strings.Contains(path, "/") })
}

// onlyOnTheWire are codes that come over a WebSocket or a stream, never as the
// status of an answer.
var onlyOnTheWire = []string{"binary", "slow_subscriber"}

// Each error code stands in the table with its HTTP status, and no other.
func TestErrorCodes(t *testing.T) {
	statuses := map[string]string{} // by the name that net/http gives them
	for n := range 600 {
		statuses[strings.ReplaceAll(http.StatusText(n), " ", "")] = strconv.Itoa(n)
	}
	inCode := map[string]string{}
	for _, m := range matches(t, goFiles(t), `\bCode:\s*"(\w+)"(?:,\s*Status:\s*http\.Status(\w+))?`) {
		name, status := m[1], statuses[m[2]]
		require.NotEmpty(t, m[2], "the status of %s does not follow its code", name)
		require.NotEmpty(t, status, m[0])
		if slices.Contains(onlyOnTheWire, name) {
			status = "–"
		}
		if before, ok := inCode[name]; ok {
			require.Equal(t, before, status, "%s has two statuses", name)
		}
		inCode[name] = status
	}
	require.Greater(t, len(inCode), 35)
	require.Len(t, matches(t, goFiles(t), `\bError\{[^{}]*(Code):\s*"`), len(matches(t, goFiles(t), `\bError\{\s*(Code):\s*"`)), "an error whose code does not come first")
	inTable := map[string]string{}
	for _, row := range table(t, "docs/protocol.md", "code", "HTTP", "meaning") {
		for _, name := range names(row[0]) {
			require.NotContains(t, inTable, name)
			inTable[name] = row[1]
		}
	}
	require.Equal(t, inCode, inTable)
}

// The gateway's own codes.
func TestErrorCodesOfTheGateway(t *testing.T) {
	zmq := slices.DeleteFunc(goFiles(t), func(path string) bool { return !strings.Contains(path, "zmq") })
	require.Equal(t, firsts(matches(t, zmq, `failed\("(\w+)"`)), listed(t, "docs/zeromq.md", "code", "meaning"))
}

// The codes of the operators' page, with their statuses.
func TestErrorCodesOfTheAdminPage(t *testing.T) {
	statuses := map[string]string{} // by the name that net/http gives them
	for n := range 600 {
		statuses[strings.ReplaceAll(http.StatusText(n), " ", "")] = strconv.Itoa(n)
	}
	inCode := map[string]string{}
	page := slices.DeleteFunc(goFiles(t), func(path string) bool { return !strings.HasPrefix(path, "admin/") })
	for _, m := range matches(t, page, `refused\("(\w+)", http\.Status(\w+)`) {
		inCode[m[1]] = statuses[m[2]]
	}
	inTable := map[string]string{}
	for _, row := range table(t, "docs/admin.md", "code", "HTTP", "meaning") {
		inTable[names(row[0])[0]] = row[1]
	}
	require.Equal(t, inCode, inTable)
}

// The page explains each reason as its documentation does.
func TestReasonsOfTheAdminPage(t *testing.T) {
	inCode := map[string][2]string{}
	for _, m := range matches(t, []string{"admin/reasons.go"}, `(?m)^\t(?:"([^"]+)"|reason(\w+)): +\{"([^"]+)", "([^"]+)"\},$`) {
		inCode[m[1]+strings.ToLower(m[2])] = [2]string{m[3], m[4]}
	}
	inTable := map[string][2]string{}
	for _, row := range table(t, "docs/admin.md", "light", "reason", "what it means", "what to do") {
		inTable[names(row[1])[0]] = [2]string{row[2], row[3]}
	}
	require.Equal(t, inCode, inTable)
}

func TestCloseCodes(t *testing.T) {
	inTable := map[string]bool{}
	for _, row := range table(t, "docs/protocol.md", "close code", "meaning") {
		inTable[row[0]] = true
	}
	require.Equal(t, firsts(matches(t, goFiles(t), `\.StatusCode\s*=\s*(\d+)`)), inTable)
}

// Each choice of a channel's options has its word in the service's flag, the document
// that lists the flags has the words, and protocol.md has the policies.
func TestChoices(t *testing.T) {
	options, rules := []string{"options.go"}, []string{"example/server/rules.go"}
	rows := map[string]string{}
	for _, m := range matches(t, []string{"docs/operations.md"}, "(?m)^\\| `-([\\w-]+) PATTERN.*") {
		rows[m[1]] = m[0]
	}
	for flag, prefix := range map[string]string{"slow": "Slow", "presence": "Presence", "presence-by": "PresenceBy", "publishers": "Publishers"} {
		foreign := func(m []string) bool { // PresenceBy is not a Presence
			return prefix == "Presence" && strings.HasPrefix(m[len(m)-1], "PresenceBy")
		}
		constants := firsts(slices.DeleteFunc(matches(t, options, `(?m)^\t(`+prefix+`[A-Z]\w+)(?:(?: +\w+)? *=| *//|$)`), foreign))
		words := slices.DeleteFunc(matches(t, rules, `"([a-z-]+)":\s*channels\.(`+prefix+`[A-Z]\w+)`), foreign)
		chosen := map[string]bool{}
		for _, m := range words {
			chosen[m[2]] = true
			require.Contains(t, rows[flag], "`"+m[1]+"`")
		}
		require.Equal(t, constants, chosen)
		require.Len(t, words, len(constants))
		must := slices.DeleteFunc(matches(t, options, ` is %d; it must be (`+prefix+`[^"\n]*)"`), foreign)
		require.Len(t, must, 1, "the error for an unknown value lists them")
		for c := range constants {
			require.Contains(t, must[0][1], c)
		}
		if flag == "slow" {
			require.Equal(t, constants, listed(t, "docs/protocol.md", "policy", "effect"))
		}
	}
}

func TestReasonsOfAStatus(t *testing.T) {
	const way = "store"
	inCode := map[string]bool{}
	for _, m := range matches(t, []string{"replica_verdict.go"}, `(?:\breason\w+ +=|\bwarn\(.*,) "([\w ]+(?:: )?)`) {
		reason, ways := strings.CutSuffix(m[1], ": ")
		if ways {
			reason += ": " + way
		}
		inCode[reason] = true
	}
	inTable := map[string]bool{}
	for _, row := range table(t, "docs/replicas.md", "status", "reason", "when") {
		for _, reason := range names(row[1]) {
			inTable[strings.Replace(reason, ": mesh", ": "+way, 1)] = true
		}
	}
	require.Equal(t, inCode, inTable)
}

func TestResetReasons(t *testing.T) {
	inCode := firsts(matches(t, rootFiles(t), `\b[rR]eset[A-Z]\w*(?: +\w+)? *= *"(\w+)"`))
	require.Equal(t, inCode, listed(t, "docs/protocol.md", "reset reason", "meaning"))
	_, list, ok := strings.Cut(read(t, "doc.go"), "The reasons are\n//\n")
	require.True(t, ok)
	require.Equal(t, inCode, firsts(regexp.MustCompile(`(?m)^//\t(\w+)  `).FindAllStringSubmatch(list, -1)))
}

// The table of the hub's own headers has those that the code has.
func TestReservedHeaders(t *testing.T) {
	inCode := firsts(matches(t, rootFiles(t), `\bheader[A-Z]\w*(?: +\w+)? *= *"(\w+)"`))
	require.Equal(t, inCode, listed(t, "docs/protocol.md", "header", "meaning"))
}

// The table of endpoints, that of the package's documentation, and the code have
// the same; and the handler answers to them.
func TestEndpoints(t *testing.T) {
	inCode := map[string]bool{}
	for _, m := range matches(t, rootFiles(t), `"([^"\n]+)":\s*\{http\.Method(\w+)(?: \+ ", " \+ http\.Method(\w+))?`) {
		for _, method := range m[2:] {
			if method != "" {
				inCode[strings.ToUpper(method)+" /"+m[1]] = true
			}
		}
	}
	hub, err := channels.New(channels.Options{})
	require.NoError(t, err)
	defer hub.Shutdown(t.Context())
	inTable := map[string]bool{}
	for name := range listed(t, "docs/protocol.md", "request", "answer") {
		method, path, _ := strings.Cut(strings.TrimSuffix(name, "/"), " ")
		inTable[method+" "+path] = true
		w := httptest.NewRecorder()
		hub.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodOptions, strings.ReplaceAll(path, "{name}", "a"), nil))
		require.Equal(t, http.StatusNoContent, w.Code, name)
		require.Contains(t, strings.Split(w.Header().Get("Allow"), ", "), method, name)
	}
	require.Equal(t, inCode, inTable)
	inDoc := map[string]bool{}
	for _, m := range matches(t, []string{"doc.go"}, `(?m)^//\t(GET|POST) +(/[^ ]*?)/?(?:, (/[^ ]*))?  `) {
		for _, path := range m[2:] {
			if path != "" {
				inDoc[m[1]+" "+path] = true
			}
		}
	}
	require.Equal(t, inCode, inDoc)
}

// The README names what go.mod requires, and nothing else.
func TestDependencies(t *testing.T) {
	inTable := map[string]bool{}
	for _, row := range table(t, "README.md", "module", "why") {
		for name := range strings.SplitSeq(row[0], ", ") {
			inTable[name] = true
		}
	}
	require.Equal(t, firsts(matches(t, []string{"go.mod"}, `(?m)^(?:require |\t)(\S+\.\S+/\S+) v\S+$`)), inTable)
}

// Each row of the table of promises has a test that is named after it, and each
// of these tests has a row.
func TestEachPromiseHasATest(t *testing.T) {
	files := walk(t, func(path string) bool { return strings.HasSuffix(path, "_test.go") })
	tests := firsts(matches(t, files, `(?m)^func TestPromise(\w+)\(`))
	proved := map[string]bool{}
	for _, row := range table(t, "README.md", "promise", "channel without history", "channel with history") {
		var name strings.Builder
		for word := range strings.FieldsSeq(row[0]) {
			name.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
		found := false
		for test := range tests {
			if strings.Contains(test, name.String()) {
				found, proved[test] = true, true
			}
		}
		require.True(t, found, "no test is named TestPromise…%s", name.String())
		require.NotEmpty(t, row[1])
		require.NotEmpty(t, row[2])
	}
	for test := range tests {
		require.True(t, proved[test], "no row of the table of promises is about TestPromise%s", test)
	}
}

// Each alert for Prometheus has a part of docs/operations.md that says what to do, and
// leads there.
func TestAlertsAreDocumented(t *testing.T) {
	const page = "docs/operations.md"
	alerts := matches(t, []string{"deploy/alerts.yaml"}, `(?m)^      - alert: (\w+)$`)
	require.Equal(t, firsts(alerts), firsts(matches(t, []string{page}, `(?m)^### (Channels\w+)$`)))
	links := matches(t, []string{"deploy/alerts.yaml"}, `(?m)^          runbook_url: https://github\.com/channels-go/channels/blob/main/(\S+)#(\S+)$`)
	require.Len(t, links, len(alerts))
	for i, link := range links {
		require.Equal(t, page, link[1])
		require.Equal(t, strings.ToLower(alerts[i][1]), link[2], "the headings' anchors are in small letters")
		require.True(t, anchors(read(t, page))[link[2]])
	}
}
