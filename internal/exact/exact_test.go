package exact_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/exact"
)

type inner struct {
	A int `json:"a"`
}

type Embedded struct {
	E string `json:"e"`
}

type outer struct {
	Name string `json:"name"`
	Embedded
	In     inner   `json:"in"`
	To     *inner  `json:"to"`
	Many   []inner `json:"many"`
	Plain  string
	Hidden string `json:"-"`
	Raw    json.RawMessage
}

func TestUnmarshalComparesNamesExactly(t *testing.T) {
	var got outer
	require.NoError(t, exact.Unmarshal([]byte(` {"name":"n","NAME":"N","e":"e","E":"no","in":{"a":1,"A":9},"to":{"a":2,"A":9},"many":[{"a":3},{"A":9}],"Plain":"p","plain":"no","Hidden":"no","-":"no","Raw":{"A":1,"A":2}} `), &got))
	want := outer{Name: "n", Embedded: Embedded{"e"}, In: inner{1}, To: &inner{2}, Many: []inner{{3}, {}}, Plain: "p", Raw: json.RawMessage(`{"A":1,"A":2}`)}
	require.Equal(t, want, got)
	got = outer{}
	require.NoError(t, exact.Unmarshal([]byte(`{"":"no"}`), &got))
	require.Zero(t, got, "no field has the empty name")

	for _, text := range []string{
		`{"name":"a","name":"b"}`, `{"name":"a","n\u0061me":"b"}`, `{"in":{"a":1,"a":2}}`, `{"to":{"a":1,"a":2}}`, `{"many":[{"a":1,"a":2}]}`, `{"x":1,"x":2}`, `{"e":"1","e":"2"}`,
	} {
		var name *exact.NameError
		require.ErrorAs(t, exact.Unmarshal([]byte(text), new(outer)), &name, text)
	}
	for _, text := range []string{`{"Name":"a"}`, `{"in":{"A":1}}`, `{"many":[{"b":1}]}`} {
		var name *exact.UnknownError
		require.ErrorAs(t, exact.UnmarshalKnown([]byte(text), new(outer)), &name, text)
	}
	for _, text := range []string{``, `{`, `{} {}`, `[]`, `5`, `{"name":5}`, `{"in":[]}`, `{"many":{}}`} {
		require.Error(t, exact.Unmarshal([]byte(text), new(outer)), text)
	}
	require.NoError(t, exact.UnmarshalKnown([]byte(`{"name":null,"in":null,"to":null,"many":null}`), new(outer)))
}

// FuzzMembers: Members finds the members that encoding/json finds.
func FuzzMembers(f *testing.F) {
	for _, text := range []string{`{}`, `{"a":1}`, ` { "a" : [1,{"b":"}"}] , "c\u0064" : "x\\\"" } `, `[]`, `{"":-1e5,"x":true,"y":null}`, `{"a":1,"a":{}}`, "{\"\xc1\":1}"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var names []string
		var values []json.RawMessage
		for name, value := range exact.Members(b) { // must not panic on anything
			names, values = append(names, name), append(values, value)
		}
		if !json.Valid(b) {
			return
		}
		d := json.NewDecoder(bytes.NewReader(b))
		if start, err := d.Token(); err != nil || start != json.Delim('{') {
			require.Empty(t, names)
			return
		}
		i := 0
		for ; d.More(); i++ {
			name, err := d.Token()
			require.NoError(t, err)
			var value json.RawMessage
			require.NoError(t, d.Decode(&value))
			require.Less(t, i, len(names))
			require.Equal(t, name, names[i])
			require.Equal(t, string(value), string(values[i]))
		}
		require.Len(t, names, i)
	})
}

// readers are the files that read JSON with encoding/json itself, and why that
// does no harm.
var readers = map[string]string{
	"internal/exact/exact.go":           "reads values that have no names, or finds out what is wrong",
	"rawmessage.go":                     "reads texts, and finds out what is wrong",
	"internal/clientproto/json_read.go": "finds out what is wrong",
	"http_publish.go":                   "reads texts, and arrays of texts and of raw JSON",
	"connect_publish.go":                "reads a text and a boolean",
	"middleware/ticket.go":              "reads a text",
	"message.go":                        "finds out what is wrong",
	"typed.go":                          "reads into the app's own type, as its documentation says",
	"example/chat/main.go":              "an app: it has one reader",
	"example/private-messaging/main.go": "an app: it has one reader",
	"example/replicas/replica.go":       "an app: it has one reader, and its own processes",
	"example/replicas/supervisor.go":    "its own processes",
	"example/replicas/scaler.go":        "its own processes, which show a token",
	"example/replicas/load.go":          "the hub's own answers",
	"bench/":                            "its own programs",
	"internal/basetest/":                "tests, which read our own logs",
	"example/internal/webtest/":         "tests, which read the hub's own answers",
	"internal/hubtest/":                 "tests, which read the hub's own answers",
	".ci/":                              "what the go command prints",
}

// TestJSONFromOutsideIsReadExactly finds code that bypasses this package.
func TestJSONFromOutsideIsReadExactly(t *testing.T) {
	const root = "../.."
	seen := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		for prefix := range readers {
			if strings.HasPrefix(name, prefix) {
				return nil
			}
		}
		seen++
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return errors.Join(errors.New(name), err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if ok {
				if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "json" && (sel.Sel.Name == "Unmarshal" || sel.Sel.Name == "NewDecoder") {
					t.Errorf("%s calls json.%s, which takes \"Name\" for \"name\": use exact.Unmarshal, or list the file in this test with the reason why it does no harm", name, sel.Sel.Name)
				}
			}
			return true
		})
		return nil
	})
	require.NoError(t, err)
	require.Greater(t, seen, 50, "the source tree was not found")
}

// FuzzUnmarshal: accepted JSON has each name once, and gives what encoding/json
// reads if all names are written exactly.
func FuzzUnmarshal(f *testing.F) {
	for _, text := range []string{`{"name":"a","e":"b"}`, `{"Name":"a","name":"b"}`, `{"name":1,"n\u0061me":2}`, `{"name":"","":"b"}`, `{"in":{"a":1},"to":{"a":2},"many":[{"a":3},null]}`, `{"e":"\ud800","E":null}`, "{\"na\xffme\":1}", `null`, strings.Repeat("[", 20000)} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var got outer
		if exact.Unmarshal(b, &got) != nil {
			return
		}
		require.True(t, json.Valid(b))
		seen := map[string]bool{}
		for name := range exact.Members(b) {
			require.False(t, seen[name], "%q twice", name)
			seen[name] = true
		}
		var known outer
		if exact.UnmarshalKnown(b, &known) == nil {
			var want outer
			require.NoError(t, json.Unmarshal(b, &want))
			require.Equal(t, want, known)
			require.Equal(t, want, got)
		}
	})
}
