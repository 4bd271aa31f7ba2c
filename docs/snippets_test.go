package docs_test

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// packages are those that snippets use without importing them.
var packages = map[string]string{
	"context": "context", "errors": "errors", "http": "net/http", "log": "log", "strings": "strings", "testing": "testing", "time": "time",
	"channels":    "github.com/channels-go/channels",
	"admin":       "github.com/channels-go/channels/admin",
	"scale":       "github.com/channels-go/channels/admin/scale",
	"middleware":  "github.com/channels-go/channels/middleware",
	"store":       "github.com/channels-go/channels/store",
	"redisstore":  "github.com/channels-go/channels/store/redisstore",
	"storetest":   "github.com/channels-go/channels/store/storetest",
	"mesh":        "github.com/channels-go/channels/mesh",
	"zmqmesh":     "github.com/channels-go/channels/mesh/zmqmesh",
	"zmqgateway":  "github.com/channels-go/channels/zmqgateway",
	"redismesh":   "github.com/channels-go/channels/mesh/redismesh",
	"redis":       "github.com/redis/go-redis/v9",
	"tracing":     "github.com/channels-go/channels/tracing",
	"otel":        "go.opentelemetry.io/otel",
	"propagation": "go.opentelemetry.io/otel/propagation",
	"sdktrace":    "go.opentelemetry.io/otel/sdk/trace",
	"chi":         "github.com/go-chi/chi/v5",
	"gin":         "github.com/gin-gonic/gin",
	"metrics":     "github.com/channels-go/channels/metrics",
	"prometheus":  "github.com/prometheus/client_golang/prometheus",
	"promhttp":    "github.com/prometheus/client_golang/prometheus/promhttp",
}

// elsewhere are packages that only the module interop knows.
var elsewhere = []string{"chi", "gin"}

// given are variables that a snippet may use without declaring them.
var given = map[string]string{
	"ctx":      "context.Context",
	"mux":      "*http.ServeMux",
	"server":   "*http.Server",
	"hub":      "*channels.Hub",
	"st":       "store.Store",
	"m":        "mesh.Mesh",
	"programs": "*zmqgateway.Gateway",
	"page":     "*admin.Admin",
	"client":   "redis.UniversalClient",
	"id":       "string",
	"token":    "string",
	"key":      "[]byte",
	"secret":   "[]byte",
	"tokens":   "*middleware.Tokens",
	"identify": "func(http.Handler) http.Handler",
	"exporter": "sdktrace.SpanExporter",
	"session":  "func(*http.Request) (user string, ok bool)", // the app's own
	"mystore":  "struct{ New func() store.Store }",           // stands for a package
}

// A snippet is a block of Go in a document.
type snippet struct {
	name    string // "README.md, block 3"
	source  string // a whole file
	imports []string
	module  string // the folder of the module that knows its imports
}

// complete makes a file of a block: of a whole one, of declarations, or of
// statements.
func complete(t *testing.T, name, text string) snippet {
	t.Helper()
	s := snippet{name: name, source: text, module: root}
	if !strings.HasPrefix(text, "package ") {
		s.source = withHead(t, name, text)
	}
	file, err := parser.ParseFile(token.NewFileSet(), name, s.source, parser.ImportsOnly)
	require.NoError(t, err, name)
	for _, spec := range file.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		require.NoError(t, err)
		s.imports = append(s.imports, path)
		if slices.ContainsFunc(elsewhere, func(p string) bool { return packages[p] == path }) {
			s.module = root + "/interop"
		}
	}
	return s
}

// withHead puts what declarations or statements use in front of them.
func withHead(t *testing.T, name, text string) string {
	t.Helper()
	body := text
	if _, err := parser.ParseFile(token.NewFileSet(), name, "package p\n"+text, 0); err != nil {
		body = "func _() error {\n" + text + "\nreturn nil\n}\n"
	}
	file, err := parser.ParseFile(token.NewFileSet(), name, "package p\n"+body, 0)
	require.NoError(t, err, name)
	used, declared := map[string]bool{}, map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok {
			used[id.Name] = true
		}
		return true
	})
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok {
			declared[f.Name.Name] = true
		}
	}
	var vars, head strings.Builder
	for _, v := range slices.Sorted(maps.Keys(given)) {
		if used[v] && !declared[v] {
			fmt.Fprintf(&vars, "var %s %s\n", v, given[v])
		}
	}
	for _, p := range slices.Sorted(maps.Keys(packages)) {
		if used[p] || strings.Contains(vars.String(), p+".") {
			fmt.Fprintf(&head, "import %s %q\n", p, packages[p])
		}
	}
	return "package p\n" + head.String() + vars.String() + body
}

// compiled returns an importer of packages, as the compiler of a module knows
// them.
func compiled(t *testing.T, module string, imports []string) types.Importer {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-export", "-deps", "-f", "{{if .Export}}{{.ImportPath}}\t{{.Export}}{{end}}"}, imports...)...)
	cmd.Dir = module
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	files := map[string]string{}
	for line := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), "\t")
		files[path] = file
	}
	return importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) {
		if files[path] == "" {
			return nil, fmt.Errorf("%s is not among what is imported", path)
		}
		return os.Open(files[path])
	})
}

// Every block of Go compiles. What it declares and does not use is no error, and
// neither is an import.
func TestGoSnippetsCompile(t *testing.T) {
	byModule := map[string][]snippet{}
	for _, doc := range documents(t) {
		for i, text := range blocks(read(t, doc), "go") {
			s := complete(t, fmt.Sprintf("%s, block %d of Go", doc, i+1), text)
			byModule[s.module] = append(byModule[s.module], s)
		}
	}
	require.Len(t, byModule, 2)
	for module, all := range byModule {
		var imports []string
		for _, s := range all {
			imports = append(imports, s.imports...)
		}
		slices.Sort(imports)
		from := compiled(t, module, slices.Compact(imports))
		for _, s := range all {
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, s.name, s.source, 0)
			require.NoError(t, err)
			conf := types.Config{Importer: from, Error: func(err error) {
				if e := (types.Error{}); !errors.As(err, &e) || !e.Soft {
					t.Errorf("%v\n%s", err, s.source)
				}
			}}
			conf.Check("p", fset, []*ast.File{file}, nil) // its errors have been told
		}
	}
}
