package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/channels-go/channels/internal/exact"
)

// An endpoint answers one of the page's questions. A nil answer was already sent.
type endpoint struct {
	method string
	serve  func(a *Admin, w http.ResponseWriter, r *http.Request, who operator) (any, error)
}

// endpoints are below api/.
var endpoints = map[string]endpoint{
	"overview":   {http.MethodGet, (*Admin).serveOverview},
	"points":     {http.MethodGet, (*Admin).servePoints},
	"channels":   {http.MethodGet, (*Admin).serveChannels},
	"channel":    {http.MethodGet, (*Admin).serveChannel},
	"tail":       {http.MethodGet, (*Admin).serveTail},
	"publish":    {http.MethodPost, (*Admin).servePublish},
	"disconnect": {http.MethodPost, (*Admin).serveDisconnect},
	"scale":      {http.MethodPost, (*Admin).serveScale},
}

// maxBody bounds the body of a request. A message for a test need not be longer.
const maxBody = 1 << 20

func (a *Admin) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", a.serveHome)
	mux.HandleFunc("POST /login", a.serveLogin)
	mux.HandleFunc("POST /logout", a.serveLogout)
	mux.HandleFunc("GET /{file}", serveFile)
	for name, e := range endpoints {
		mux.HandleFunc("/api/"+name, func(w http.ResponseWriter, r *http.Request) { a.serveAPI(w, r, e) })
	}
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, r, refused("not_found", http.StatusNotFound, "there is no such endpoint; docs/admin.md has the list"))
	})
	return mux
}

// serveAPI lets an operator in and sends the answer.
func (a *Admin) serveAPI(w http.ResponseWriter, r *http.Request, e endpoint) {
	answer, err := a.ask(w, r, e)
	switch {
	case err != nil:
		refuse(w, r, err)
	case answer != nil:
		writeJSON(w, answer)
	}
}

func (a *Admin) ask(w http.ResponseWriter, r *http.Request, e endpoint) (any, error) {
	who, err := a.who(r)
	if err != nil {
		return nil, err
	}
	if r.Method != e.method {
		w.Header().Set("Allow", e.method)
		return nil, refused("method_not_allowed", http.StatusMethodNotAllowed, "use "+e.method)
	}
	if !who.program {
		if err := fromHere(r); err != nil {
			return nil, err
		}
		if r.Method != http.MethodGet {
			if err := repeats(r); err != nil {
				return nil, err
			}
		}
	}
	task := "a request to " + r.URL.Path
	if !a.tasks.enter(task) { // not before: Close must not wait for visitors
		return nil, errClosed
	}
	defer a.tasks.leave(task)
	return e.serve(a, w, r, who)
}

func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // answers are made of texts and of numbers that JSON has
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.Write(b)
}

// readJSON reads the body of a request into the struct that v points to.
func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return badRequest("the Content-Type must be application/json")
	}
	b, err := io.ReadAll(bounded(w, r, maxBody))
	if tooLong := (*http.MaxBytesError)(nil); errors.As(err, &tooLong) {
		return refused("too_large", http.StatusRequestEntityTooLarge, fmt.Sprintf("the body has at most %d bytes", maxBody))
	}
	if err != nil {
		return badRequest("the body did not arrive completely")
	}
	if err := exact.UnmarshalKnown(bytes.TrimSpace(b), v); err != nil {
		return badRequest("the body is not the JSON that is asked for: %v", err)
	}
	return nil
}

// bodyTime is how long the body of a request may take.
const bodyTime = 10 * time.Second

// bounded is the body of a request, up to a length and for a time, whatever the server's
// own ReadTimeout is. At the end of the body, net/http lifts the deadline.
func bounded(w http.ResponseWriter, r *http.Request, most int64) io.ReadCloser {
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
	return http.MaxBytesReader(w, r.Body, most)
}

func badRequest(format string, values ...any) error {
	return refused("bad_request", http.StatusBadRequest, fmt.Sprintf(format, values...))
}

// query returns the parameters of a request, which must be among the known ones, each
// at most once.
func query(r *http.Request, known ...string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("the query is not valid: %v", err)
	}
	for name, values := range q {
		if !slices.Contains(known, name) {
			return nil, badRequest("there is no parameter %.60q; there are %v", name, known)
		}
		if len(values) > 1 {
			return nil, badRequest("the parameter %.60q comes twice", name)
		}
	}
	return q, nil
}

// number returns a parameter from 0 to most, or otherwise if it is not given.
func number(q url.Values, name string, otherwise, most int64) (int64, error) {
	s := q.Get(name)
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > most {
		return 0, badRequest("%s is %.60q; it must be 0 to %d", name, s, most)
	}
	return n, nil
}

// milliseconds is a duration as it is sent: to a thousandth.
func milliseconds(d time.Duration) float64 {
	return float64(d.Round(time.Microsecond)) / float64(time.Millisecond)
}
