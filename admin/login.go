package admin

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/channels-go/channels"
)

// maxForm bounds the body of the login form.
const maxForm = 4 << 10

// serveHome is GET /: the page, or the form for those who are not logged in.
func (a *Admin) serveHome(w http.ResponseWriter, r *http.Request) {
	if _, err := a.who(r); err != nil {
		if a.opts.Authorize != nil {
			sendPage(w, http.StatusForbidden, "closed.html", err.(*channels.Error).Message)
			return
		}
		sendPage(w, http.StatusOK, "login.html", "")
		return
	}
	sendPage(w, http.StatusOK, "index.html", struct {
		CSRF   string
		Logout bool // the page has sessions
	}{csrf(w, r), a.opts.Authorize == nil})
}

// serveLogin is POST /login, the form.
func (a *Admin) serveLogin(w http.ResponseWriter, r *http.Request) {
	err := a.login(w, r)
	if err == nil {
		home(w)
		return
	}
	var e *channels.Error
	errors.As(err, &e) // all that login returns are
	if e.Status == http.StatusTooManyRequests {
		from := a.guesses.wait(network(r), time.Now())
		w.Header().Set("Retry-After", strconv.Itoa(tooMany{from}.seconds()))
	}
	sendPage(w, e.Status, "login.html", e.Message)
}

func (a *Admin) login(w http.ResponseWriter, r *http.Request) error {
	if a.opts.Authorize != nil {
		return refused("not_found", http.StatusNotFound, "this page has no login of its own")
	}
	if err := fromHere(r); err != nil {
		return err
	}
	r.Body = bounded(w, r, maxForm)
	if err := r.ParseForm(); err != nil {
		return badRequest("the form did not arrive as it should; try again")
	}
	now := time.Now()
	if err := a.guess(r, r.PostForm.Get("token"), now); err != nil {
		return err
	}
	s, value := a.newSession(now)
	c := cookie(r, sessionCookie, value)
	c.MaxAge = int(a.opts.SessionTime / time.Second)
	http.SetCookie(w, c)
	a.audit(operator{name: s.name(r)}, "logged in", nil)
	return nil
}

// serveLogout is POST /logout.
func (a *Admin) serveLogout(w http.ResponseWriter, r *http.Request) {
	if err := fromHere(r); err != nil {
		refuse(w, r, err)
		return
	}
	for _, name := range []string{sessionCookie, csrfCookie} {
		c := cookie(r, name, "")
		c.MaxAge = -1
		http.SetCookie(w, c)
	}
	home(w)
}

// home sends a browser from a form to the page beside it. The address is relative, since
// a proxy may serve the page elsewhere.
func home(w http.ResponseWriter) {
	w.Header().Set("Location", "./")
	w.WriteHeader(http.StatusSeeOther)
}
