package main

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/example/internal/web"
)

// The operators' page is served by the replicas, but only the supervisor can
// start one. So each replica has a scaler, which asks the supervisor over HTTP:
//
//	GET /scale    {"ready":3,"wanted":3}
//	POST /scale   {"wanted":2,"connections":{"replica-1":7,…}}

// scaled is the answer to GET.
type scaled struct {
	Ready  int `json:"ready"`
	Wanted int `json:"wanted"`
}

// order is the body of POST. The replicas know how many connections each of them
// has; the supervisor ends those with the fewest.
type order struct {
	Wanted      int            `json:"wanted"`
	Connections map[string]int `json:"connections"`
}

// maxOrder bounds a body: there are a few replicas.
const maxOrder = 64 << 10

// orders is the supervisor's side. Other programs of this machine can reach it
// too, so it wants a token.
func orders(s *supervisor, token string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /scale", func(w http.ResponseWriter, _ *http.Request) {
		ready, wanted := s.counts()
		web.Answer(w, scaled{ready, wanted})
	})
	mux.HandleFunc("POST /scale", func(w http.ResponseWriter, r *http.Request) {
		var o order
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxOrder)).Decode(&o); err != nil {
			http.Error(w, "the order is not understood: "+err.Error(), http.StatusBadRequest)
			return
		}
		if err := s.scale(o.Wanted, o.Connections); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+token)) != 1 {
			http.Error(w, "only the replicas may scale", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// scaler is the replica's side, an admin.Scaler.
type scaler struct {
	hub        *channels.Hub
	url, token string
}

func (s *scaler) Replicas(ctx context.Context) (ready, wanted int, err error) {
	b, err := s.call(ctx, http.MethodGet, nil)
	if err != nil {
		return 0, 0, err
	}
	var a scaled
	if err := json.Unmarshal(b, &a); err != nil {
		return 0, 0, fmt.Errorf("the supervisor's answer is not understood: %w", err)
	}
	return a.Ready, a.Wanted, nil
}

func (s *scaler) Scale(ctx context.Context, n int) error {
	all, err := s.hub.Replicas(ctx)
	if err != nil {
		return err
	}
	o := order{n, map[string]int{}}
	for _, r := range all {
		o.Connections[r.ID] = r.Connections
	}
	body, err := json.Marshal(o)
	if err == nil {
		_, err = s.call(ctx, http.MethodPost, body)
	}
	return err
}

func (s *scaler) call(ctx context.Context, method string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.url+"/scale", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("the supervisor does not answer: %w", err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxOrder))
	switch {
	case err != nil:
		return nil, fmt.Errorf("the supervisor's answer ended early: %w", err)
	case res.StatusCode >= 300:
		return nil, fmt.Errorf("the supervisor refuses: %s", bytes.TrimSpace(b))
	}
	return b, nil
}
