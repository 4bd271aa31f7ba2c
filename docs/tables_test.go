package docs_test

import (
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
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

// inspect calls see with each node of the code.
func inspect(t *testing.T, see func(path string, n ast.Node)) {
	t.Helper()
	for _, path := range goFiles(t) {
		file, err := parser.ParseFile(token.NewFileSet(), path, read(t, path), 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			see(path, n)
			return true
		})
	}
}

func text(e ast.Expr) (string, bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(l.Value)
	return s, err == nil
}

// onlyOnTheWire are codes that come over a WebSocket or a stream, never as the
// status of an answer.
var onlyOnTheWire = []string{"binary", "slow_subscriber"}

// Each error code stands in the table with its HTTP status, and no other.
func TestErrorCodes(t *testing.T) {
	httpPackage, err := importer.Default().Import("net/http")
	require.NoError(t, err)
	status := func(e ast.Expr) string {
		s, ok := e.(*ast.SelectorExpr)
		require.True(t, ok)
		c, ok := httpPackage.Scope().Lookup(s.Sel.Name).(*types.Const)
		require.True(t, ok, s.Sel.Name)
		n, _ := constant.Int64Val(c.Val())
		return strconv.FormatInt(n, 10)
	}
	inCode := map[string]string{}
	inspect(t, func(path string, n ast.Node) {
		lit, ok := n.(*ast.CompositeLit)
		if !ok {
			return
		}
		switch typ := lit.Type.(type) {
		case *ast.Ident:
			if typ.Name != "Error" {
				return
			}
		case *ast.SelectorExpr:
			if typ.Sel.Name != "Error" {
				return
			}
		default:
			return
		}
		fields := map[string]ast.Expr{}
		for _, e := range lit.Elts {
			if kv, ok := e.(*ast.KeyValueExpr); ok {
				if name, ok := kv.Key.(*ast.Ident); ok {
					fields[name.Name] = kv.Value
				}
			}
		}
		name, ok := text(fields["Code"])
		if !ok {
			return // a copy of another one
		}
		s := status(fields["Status"])
		if slices.Contains(onlyOnTheWire, name) {
			s = "–"
		}
		if before, ok := inCode[name]; ok {
			require.Equal(t, before, s, "%s has two statuses", name)
		}
		inCode[name] = s
	})
	require.Greater(t, len(inCode), 35)
	listed := map[string]string{}
	for _, row := range table(t, "docs/protocol.md", "code", "HTTP", "meaning") {
		for _, name := range names(row[0]) {
			require.NotContains(t, listed, name)
			listed[name] = row[1]
		}
	}
	require.Equal(t, inCode, listed)
}

// The gateway's own codes.
func TestErrorCodesOfTheGateway(t *testing.T) {
	call := regexp.MustCompile(`failed\("(\w+)"`)
	inCode := map[string]bool{}
	for _, path := range goFiles(t) {
		if strings.Contains(path, "zmq") {
			for _, m := range call.FindAllStringSubmatch(read(t, path), -1) {
				inCode[m[1]] = true
			}
		}
	}
	require.NotEmpty(t, inCode)
	listed := map[string]bool{}
	for _, row := range table(t, "docs/zeromq.md", "code", "meaning") {
		listed[names(row[0])[0]] = true
	}
	require.Equal(t, inCode, listed)
}

func TestCloseCodes(t *testing.T) {
	inCode := map[string]bool{}
	inspect(t, func(_ string, n ast.Node) {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return
		}
		typ, ok := spec.Type.(*ast.SelectorExpr)
		if !ok || typ.Sel.Name != "StatusCode" {
			return
		}
		for _, v := range spec.Values {
			if l, ok := v.(*ast.BasicLit); ok && l.Kind == token.INT {
				inCode[l.Value] = true
			}
		}
	})
	listed := map[string]bool{}
	for _, row := range table(t, "docs/protocol.md", "close code", "meaning") {
		listed[row[0]] = true
	}
	require.Equal(t, inCode, listed)
}

func TestResetReasons(t *testing.T) {
	inCode := map[string]bool{}
	inspect(t, func(path string, n ast.Node) {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || strings.Contains(path, "/") {
			return
		}
		for i, name := range spec.Names {
			if i < len(spec.Values) && regexp.MustCompile(`^[rR]eset[A-Z]`).MatchString(name.Name) {
				if reason, ok := text(spec.Values[i]); ok {
					inCode[reason] = true
				}
			}
		}
	})
	listed := map[string]bool{}
	for _, row := range table(t, "docs/protocol.md", "reset reason", "meaning") {
		listed[names(row[0])[0]] = true
	}
	require.Equal(t, inCode, listed)
	_, list, ok := strings.Cut(read(t, "doc.go"), "The reasons are\n//\n")
	require.True(t, ok)
	inDoc := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^//\t(\w+)  `).FindAllStringSubmatch(list, -1) {
		inDoc[m[1]] = true
	}
	require.Equal(t, inCode, inDoc)
}

// The table of the hub's own headers has those that the code has.
func TestReservedHeaders(t *testing.T) {
	inCode := map[string]bool{}
	inspect(t, func(path string, n ast.Node) {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || strings.Contains(path, "/") {
			return
		}
		for i, name := range spec.Names {
			if i < len(spec.Values) && regexp.MustCompile(`^header[A-Z]`).MatchString(name.Name) {
				if header, ok := text(spec.Values[i]); ok {
					inCode[header] = true
				}
			}
		}
	})
	listed := map[string]bool{}
	for _, row := range table(t, "docs/protocol.md", "header", "meaning") {
		listed[names(row[0])[0]] = true
	}
	require.Equal(t, inCode, listed)
}

// The table of endpoints, that of the package's documentation, and the code have
// the same; and the handler answers to them.
func TestEndpoints(t *testing.T) {
	inCode := map[string]bool{}
	inspect(t, func(path string, n ast.Node) {
		kv, ok := n.(*ast.KeyValueExpr)
		if !ok || strings.Contains(path, "/") {
			return
		}
		route, ok := text(kv.Key)
		lit, ok2 := kv.Value.(*ast.CompositeLit)
		if !ok || !ok2 {
			return
		}
		for _, e := range lit.Elts {
			if field, ok := e.(*ast.KeyValueExpr); ok {
				e = field.Value
			}
			if s, ok := e.(*ast.SelectorExpr); ok && strings.HasPrefix(s.Sel.Name, "Method") {
				inCode[strings.ToUpper(strings.TrimPrefix(s.Sel.Name, "Method"))+" /"+route] = true
			}
		}
	})
	hub, err := channels.New(channels.Options{})
	require.NoError(t, err)
	defer hub.Shutdown(t.Context())
	listed := map[string]bool{}
	for _, row := range table(t, "docs/protocol.md", "request", "answer") {
		for _, name := range names(row[0]) {
			method, path, _ := strings.Cut(strings.TrimSuffix(name, "/"), " ")
			listed[method+" "+path] = true
			w := httptest.NewRecorder()
			hub.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodOptions, strings.ReplaceAll(path, "{name}", "a"), nil))
			require.Equal(t, http.StatusNoContent, w.Code, name)
			require.Contains(t, strings.Split(w.Header().Get("Allow"), ", "), method, name)
		}
	}
	require.Equal(t, inCode, listed)
	inDoc := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^//\t(GET|POST) +(/[^ ]*?)/?(?:, (/[^ ]*))?  `).FindAllStringSubmatch(read(t, "doc.go"), -1) {
		inDoc[m[1]+" "+m[2]] = true
		if m[3] != "" {
			inDoc[m[1]+" "+m[3]] = true
		}
	}
	require.Equal(t, inCode, inDoc)
}

// The README names what go.mod requires, and nothing else.
func TestDependencies(t *testing.T) {
	required := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^(?:require |\t)(\S+\.\S+/\S+) v\S+$`).FindAllStringSubmatch(read(t, "go.mod"), -1) {
		required[m[1]] = true
	}
	require.NotEmpty(t, required)
	listed := map[string]bool{}
	for _, row := range table(t, "README.md", "module", "why") {
		for name := range strings.SplitSeq(row[0], ", ") {
			listed[name] = true
		}
	}
	require.Equal(t, required, listed)
}

// Each row of the table of promises has a test that is named after it, and each
// of these tests has a row.
func TestEachPromiseHasATest(t *testing.T) {
	var tests []string
	declared := regexp.MustCompile(`(?m)^func TestPromise(\w+)\(`)
	for _, path := range walk(t, func(path string) bool { return strings.HasSuffix(path, "_test.go") }) {
		for _, m := range declared.FindAllStringSubmatch(read(t, path), -1) {
			tests = append(tests, m[1])
		}
	}
	proved := map[string]bool{}
	for _, row := range table(t, "README.md", "promise", "channel without history", "channel with history") {
		var name strings.Builder
		for word := range strings.FieldsSeq(row[0]) {
			name.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
		found := false
		for _, test := range tests {
			if strings.Contains(test, name.String()) {
				found, proved[test] = true, true
			}
		}
		require.True(t, found, "no test is named TestPromise…%s", name.String())
		require.NotEmpty(t, row[1])
		require.NotEmpty(t, row[2])
	}
	for _, test := range tests {
		require.True(t, proved[test], "no row of the table of promises is about TestPromise%s", test)
	}
}
