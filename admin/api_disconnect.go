package admin

import (
	"net/http"
)

// serveDisconnect is POST /api/disconnect {"user"} or {"client"}.
func (a *Admin) serveDisconnect(w http.ResponseWriter, r *http.Request, who operator) (any, error) {
	var m struct {
		User   string `json:"user"`
		Client string `json:"client"`
	}
	if err := readJSON(w, r, &m); err != nil {
		return nil, err
	}
	if (m.User == "") == (m.Client == "") {
		return nil, badRequest("name either a user or a client, which is a connection")
	}
	var n int
	var err error
	if m.User != "" {
		n, err = a.hub.DisconnectUser(r.Context(), m.User)
		a.audit(who, "disconnected a user", err, "user", m.User, "here", n)
	} else {
		n, err = a.hub.DisconnectClient(r.Context(), m.Client)
		a.audit(who, "disconnected a connection", err, "client", m.Client, "here", n)
	}
	if err != nil {
		return nil, err
	}
	return struct {
		Here int `json:"here"` // connections at this replica; the others were told
	}{n}, nil
}

// audit logs what an operator has done, or tried to do.
func (a *Admin) audit(who operator, what string, err error, values ...any) {
	values = append([]any{"operator", who.name}, values...)
	if err != nil {
		a.opts.Logger.Warn("admin: not "+what, append(values, "err", err)...)
		return
	}
	a.opts.Logger.Info("admin: "+what, values...)
}
