package channels

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/channels-go/channels/client/js"
)

// A script is a file for pages, as it is and compressed.
type script struct {
	kind, version string
	plain, zipped []byte
}

var (
	module = sync.OnceValue(func() *script { return newScript("text/javascript; charset=utf-8", js.Module()) })
	types  = sync.OnceValue(func() *script { return newScript("text/plain; charset=utf-8", js.Types) })
)

func newScript(kind, content string) *script {
	sum := sha256.Sum256([]byte(content))
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // an error would be about the level
	w.Write([]byte(content))
	w.Close()
	return &script{kind, hex.EncodeToString(sum[:6]), []byte(content), b.Bytes()}
}

// ScriptPath returns the path, below where the hub is mounted, of the JavaScript client
// of this version: "/channels.js?v=…". Browsers keep what they get there for a year, and
// after an upgrade the path is another. "/channels.js" is the same file, but browsers
// ask each time whether it has changed.
//
//	<script type="module">
//		import { connect } from "{{.Script}}"
func ScriptPath() string { return "/channels.js?v=" + module().version }

// serveModule is GET /channels.js. Anybody may have it: it holds nothing of the app's.
// A page that may not connect learns from it why.
func (h *Hub) serveModule(w http.ResponseWriter, r *http.Request, _ string, q url.Values) error {
	h.serveScript(w, r, module(), q.Get("v"))
	return nil
}

// serveTypes is GET /channels.d.ts.
func (h *Hub) serveTypes(w http.ResponseWriter, r *http.Request, _ string, _ url.Values) error {
	h.serveScript(w, r, types(), "")
	return nil
}

func (h *Hub) serveScript(w http.ResponseWriter, r *http.Request, s *script, version string) {
	head := w.Header()
	head.Set("Content-Type", s.kind)
	head["X-Content-Type-Options"] = noSniff
	if head.Get("Access-Control-Allow-Origin") == "" {
		head.Set("Access-Control-Allow-Origin", "*")
	}
	// A replica of another version may be asked for this one's. What it has does not
	// belong under that name for a year.
	if head.Set("Cache-Control", "no-cache"); version == s.version {
		head.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	if !headerHas(head, "Vary", "Origin") { // a cache that has no Origin's answer must not give it to a page that has one
		head.Add("Vary", "Origin")
	}
	head.Add("Vary", "Accept-Encoding")
	content, tag := s.plain, s.version
	if takesGzip(r.Header) {
		content, tag = s.zipped, s.version+"-gzip"
		head.Set("Content-Encoding", "gzip")
		// ServeContent leaves it out here. Then a proxy that speaks HTTP/1.0 would take a
		// file that was cut off for a whole one, and caches keep it for a year.
		head.Set("Content-Length", strconv.Itoa(len(content)))
	}
	head.Set("ETag", `"`+tag+`"`)
	boundAnswer(w, h.opts.WriteTimeout+time.Duration(len(content)/steadyBytes)*time.Second)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

// takesGzip reports whether a client accepts gzip. One that names it with any quality
// but 0 does.
func takesGzip(h http.Header) bool {
	for _, one := range listed(h.Values("Accept-Encoding")) {
		coding, params, _ := strings.Cut(one, ";")
		if strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			quality := strings.TrimRight(strings.ReplaceAll(params, " ", ""), "0")
			return quality != "q=" && quality != "q=0."
		}
	}
	return false
}
