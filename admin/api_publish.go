package admin

import (
	"encoding/json"
	"net/http"

	"github.com/channels-go/channels"
)

// servePublish is POST /api/publish {"channel","header","body"}.
func (a *Admin) servePublish(w http.ResponseWriter, r *http.Request, who operator) (any, error) {
	var m struct {
		Channel string          `json:"channel"`
		Header  string          `json:"header"`
		Body    json.RawMessage `json:"body"`
	}
	if err := readJSON(w, r, &m); err != nil {
		return nil, err
	}
	result, err := a.hub.Publish(r.Context(), m.Channel, channels.Message{Header: m.Header, Body: m.Body})
	a.audit(who, "published a message", err, "channel", m.Channel, "header", m.Header, "bytes", len(m.Body))
	if err != nil {
		return nil, err
	}
	answer := struct {
		Receivers int    `json:"receivers"` // on this replica, without live views
		Offset    string `json:"offset,omitempty"`
		Epoch     string `json:"epoch,omitempty"`
	}{Receivers: a.views.without(m.Channel, result.Receivers)}
	if result.Stored {
		answer.Offset, answer.Epoch = offset(result.Position.Offset), result.Position.Epoch
	}
	return answer, nil
}
