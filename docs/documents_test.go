// Package docs_test checks README.md and the pages of this folder against the
// code: links, snippets, the complete program, and tables.
package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = ".."

// read returns a file of the repository.
func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	require.NoError(t, err)
	return string(b)
}

// documents returns the paths of all documents, relative to the root.
func documents(t *testing.T) []string {
	t.Helper()
	all := []string{"README.md", "CHANGELOG.md"}
	pages, err := filepath.Glob("*.md")
	require.NoError(t, err)
	for _, p := range pages {
		all = append(all, "docs/"+p)
	}
	require.Greater(t, len(all), 8)
	return all
}

// goFiles returns the Go files of the root module that are no tests, and of
// which none is an example.
func goFiles(t *testing.T) []string {
	t.Helper()
	return walk(t, func(path string) bool {
		return strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") &&
			!slices.Contains([]string{"bench", "e2e", "interop", "example", ".ci"}, strings.Split(path, "/")[0])
	})
}

// walk returns the files of the repository for which keep returns true.
func walk(t *testing.T, keep func(path string) bool) (files []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".git" || d.Name() == "node_modules" || d.Name() == "testdata" {
				return filepath.SkipDir
			}
			return nil
		}
		if rel, _ := filepath.Rel(root, path); keep(filepath.ToSlash(rel)) {
			files = append(files, filepath.ToSlash(rel))
		}
		return nil
	}))
	require.NotEmpty(t, files)
	return files
}

// block matches a fenced block of code.
var block = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

// blocks returns the fenced blocks of a document in one language.
func blocks(text, language string) (all []string) {
	for _, m := range block.FindAllStringSubmatch(text, -1) {
		if m[1] == language {
			all = append(all, m[2])
		}
	}
	return all
}

var (
	link    = regexp.MustCompile(`\[[^\]]*\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	dropped = regexp.MustCompile(`[^a-z0-9_ -]`) // from the name of a heading
	code    = regexp.MustCompile("`[^`\n]*`")
)

// anchors returns the names that GitHub gives to the headings of a document.
func anchors(text string) map[string]bool {
	all := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(block.ReplaceAllString(text, ""), -1) {
		name := dropped.ReplaceAllString(strings.ToLower(m[1]), "")
		all[strings.ReplaceAll(name, " ", "-")] = true
	}
	return all
}

func TestLinksResolve(t *testing.T) {
	linked := map[string]bool{}
	for _, doc := range documents(t) {
		text := code.ReplaceAllString(block.ReplaceAllString(read(t, doc), ""), "")
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			path, anchor, _ := strings.Cut(m[1], "#")
			target := doc
			if path != "" {
				target = filepath.ToSlash(filepath.Join(filepath.Dir(doc), path))
			}
			if doc == "README.md" {
				linked[target] = true
			}
			_, err := os.Stat(filepath.Join(root, target))
			require.NoError(t, err, "%s links to %s", doc, m[1])
			if anchor != "" {
				require.True(t, anchors(read(t, target))[anchor], "%s links to %s, and %s has no such heading", doc, m[1], target)
			}
		}
	}
	for _, doc := range documents(t) {
		if strings.HasPrefix(doc, "docs/") {
			require.True(t, linked[doc], "the README does not link to %s", doc)
		}
	}
}

// What the code says about pages of this folder is true as well.
func TestPagesThatTheCodeNamesExist(t *testing.T) {
	name := regexp.MustCompile(`docs/[a-z]+\.md`)
	for _, path := range walk(t, func(path string) bool { return strings.HasSuffix(path, ".go") || path == "Makefile" }) {
		if strings.HasPrefix(path, "docs/") {
			continue
		}
		for _, page := range name.FindAllString(read(t, path), -1) {
			require.FileExists(t, filepath.Join(root, page), "%s names %s", path, page)
		}
	}
}

// The README is read in one sitting, and loads quickly.
func TestTheReadmeIsShort(t *testing.T) {
	readme := read(t, "README.md")
	require.LessOrEqual(t, strings.Count(readme, "\n"), 220)
	pictures, err := filepath.Glob("*.png")
	require.NoError(t, err)
	more, err := filepath.Glob("img/*.png")
	require.NoError(t, err)
	pictures = append(pictures, more...)
	require.NotEmpty(t, pictures)
	for _, p := range pictures {
		info, err := os.Stat(p)
		require.NoError(t, err)
		require.Less(t, info.Size(), int64(150<<10), p)
	}
}
