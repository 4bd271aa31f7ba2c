package channels

import (
	"net/http"
	"net/url"
)

// serveReplicas is GET /v1/nodes: the path is older than the word replica, and stays
// for clients.
func (h *Hub) serveReplicas(w http.ResponseWriter, r *http.Request, _ string, _ url.Values) error {
	replicas, err := h.Replicas(r.Context())
	if err != nil {
		return err
	}
	type row struct {
		replicaJSON
		Seen int64 `json:"seen_ms"`
	}
	rows := make([]row, len(replicas))
	for i, r := range replicas {
		rows[i] = row{r.json(), r.Seen.Milliseconds()}
		rows[i].replicaUsageJSON = replicaUsageJSON{}
	}
	return h.writeJSON(w, map[string][]row{"data": rows})
}
