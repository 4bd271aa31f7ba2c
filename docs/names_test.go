package docs_test

import (
	"go/token"
	"go/types"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// fileName matches the name of a file of Go, and with its folder where that is
// given.
var fileName = regexp.MustCompile(`^[a-z_/-]+\.go$`)

// Files that the documents name exist, in the root or in the folder that they give.
func TestFilesThatThePagesNameExist(t *testing.T) {
	for _, doc := range documents(t) {
		for _, name := range names(block.ReplaceAllString(read(t, doc), "")) {
			if fileName.MatchString(name) {
				require.FileExists(t, filepath.Join(root, name), "%s names %s", doc, name)
			}
		}
	}
}

// What the documents call by its Go name exists: `channels.New`, `hub.Publish`,
// `Options.Hosts`, `middleware.JWT`, `JWTOptions.Cookie`.
func TestGoNamesExist(t *testing.T) {
	var paths []string
	for name, path := range packages {
		if !slices.Contains(elsewhere, name) {
			paths = append(paths, path)
		}
	}
	from := compiled(t, root, paths)
	scope := map[string]*types.Scope{}
	for name, path := range packages {
		if strings.HasPrefix(path, "github.com/channels-go/") {
			p, err := from.Import(path)
			require.NoError(t, err)
			scope[name] = p.Scope()
		}
	}
	// of returns the type whose member x.Member is; nil where x is none of ours.
	of := func(x string) types.Type {
		if x == "hub" {
			x = "Hub"
		}
		if !token.IsExported(x) {
			return nil
		}
		for _, p := range []string{"channels", "middleware", "store", "mesh"} {
			if o, ok := scope[p].Lookup(x).(*types.TypeName); ok {
				return o.Type()
			}
		}
		return nil
	}
	checked := 0
	name := regexp.MustCompile(`\b(\w+)\.([A-Z]\w*)`)
	for _, doc := range documents(t) {
		for _, span := range names(block.ReplaceAllString(read(t, doc), "")) {
			for _, m := range name.FindAllStringSubmatch(span, -1) {
				if s := scope[m[1]]; s != nil {
					require.NotNil(t, s.Lookup(m[2]), "%s names %s", doc, m[0])
					checked++
				} else if typ := of(m[1]); typ != nil {
					member, _, _ := types.LookupFieldOrMethod(typ, true, nil, m[2])
					require.NotNil(t, member, "%s names %s", doc, m[0])
					checked++
				}
			}
		}
	}
	require.Greater(t, checked, 30)
	for _, row := range table(t, "docs/protocol.md", "limit", "default", "range") {
		field := names(row[0])[0]
		inHub, _, _ := types.LookupFieldOrMethod(of("Options"), true, nil, field)
		inChannel, _, _ := types.LookupFieldOrMethod(of("ChannelOptions"), true, nil, field)
		require.True(t, inHub != nil || inChannel != nil, "no options have %s", field)
	}
}
