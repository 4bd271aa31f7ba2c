package admin

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"
)

// Options configure an Admin. Either Token or Authorize is required: there is no open
// page.
type Options struct {
	// Token lets in whoever types it into the form, or sends it as "Authorization:
	// Bearer". It has 16 bytes or more, and 8 different ones; all replicas should have
	// the same one, so that a session at one counts at the others. Make it at random
	// (openssl rand -hex 32): sessions are signed with it, and nothing else keeps
	// guessers out. A new token ends all sessions.
	Token string

	// Authorize says who makes a request, if the app knows its operators itself. The
	// name goes into the log. An error refuses the request with 403, and its text is
	// shown. It is called for each request of the page, so a few times a second while
	// somebody looks.
	Authorize func(r *http.Request) (name string, err error)

	// SessionTime is how long a login lasts. Default 12 h; 1 min to 30 days.
	SessionTime time.Duration

	// Scaler changes the number of replicas, from ScaleMin to ScaleMax. Default: none,
	// and the page has no buttons for it.
	Scaler Scaler
	// ScaleMin and ScaleMax bound what the page asks of the Scaler. Default 1 and 10;
	// at most 1000.
	ScaleMin, ScaleMax int

	// Logger gets what operators do, with who did it. Default: slog.Default().
	Logger *slog.Logger
}

// minToken is the length of the shortest token, in bytes, and minVariety how many of
// these differ at least: what was made at random has more.
const (
	minToken   = 16
	minVariety = 8
)

// variety is how many different bytes s has.
func variety(s string) int {
	seen := map[byte]bool{}
	for i := range len(s) {
		seen[s[i]] = true
	}
	return len(seen)
}

func (o *Options) setDefaults() {
	if o.SessionTime == 0 {
		o.SessionTime = 12 * time.Hour
	}
	if o.ScaleMin == 0 {
		o.ScaleMin = 1
	}
	if o.ScaleMax == 0 {
		o.ScaleMax = max(10, o.ScaleMin)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

func (o *Options) check() error {
	switch {
	case o.Token == "" && o.Authorize == nil:
		return errors.New("admin: Options has neither a Token nor an Authorize; set one of them, since the page must not be open to everybody")
	case o.Token != "" && o.Authorize != nil:
		return errors.New("admin: Options has a Token and an Authorize; set one of them")
	case o.Token != "" && len(o.Token) < minToken:
		return fmt.Errorf("admin: Options.Token has %d bytes; it must have %d or more, e.g. from: openssl rand -hex 32", len(o.Token), minToken)
	case o.Token != "" && variety(o.Token) < minVariety:
		return fmt.Errorf("admin: Options.Token has only %d different characters; it must be made at random, e.g. by: openssl rand -hex 32", variety(o.Token))
	case o.SessionTime < time.Minute || o.SessionTime > 30*24*time.Hour:
		return fmt.Errorf("admin: Options.SessionTime is %v; it must be 1m to 720h", o.SessionTime)
	case o.ScaleMin < 1 || o.ScaleMax > 1000 || o.ScaleMin > o.ScaleMax:
		return fmt.Errorf("admin: Options.ScaleMin and ScaleMax are %d and %d; they must be 1 to 1000, the first one not above the other", o.ScaleMin, o.ScaleMax)
	}
	return nil
}
