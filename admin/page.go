package admin

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

//go:embed page
var folder embed.FS

// templates are the pages that hold something of the request.
var templates = template.Must(template.ParseFS(folder, "page/*.html"))

// files are the other ones. They hold nothing of this hub, so everybody may have them.
var files = func() map[string]file {
	all := map[string]file{}
	entries, err := fs.ReadDir(folder, "page")
	if err != nil {
		panic(err) // the folder is embedded
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".html") {
			continue
		}
		b, err := folder.ReadFile("page/" + e.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(b)
		all[e.Name()] = file{b, kind(e.Name()), `"` + hex.EncodeToString(sum[:8]) + `"`}
	}
	return all
}()

type file struct {
	content []byte
	kind    string
	etag    string
}

// kind is the type of a file. The system's table may have another one for .js.
func kind(name string) string {
	if strings.HasSuffix(name, ".js") {
		return "text/javascript; charset=utf-8"
	}
	return mime.TypeByExtension(path.Ext(name))
}

// serveFile is GET /{file}. A browser asks each time whether the file is still the same:
// after an upgrade, an old script would not fit the page.
func serveFile(w http.ResponseWriter, r *http.Request) {
	f, ok := files[r.PathValue("file")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("Content-Type", f.kind)
	w.Header().Set("ETag", f.etag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.content))
}

// sendPage sends one of the templates.
func sendPage(w http.ResponseWriter, status int, name string, values any) {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name, values); err != nil {
		panic(err) // they take any values that are given here
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	w.Write(b.Bytes())
}
