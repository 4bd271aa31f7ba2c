package interop_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/go-chi/cors"
)

func TestChi(t *testing.T) {
	for name, use := range map[string][]func(http.Handler) http.Handler{
		"bare":                 nil,
		"logger":               {middleware.Logger},
		"recoverer":            {middleware.Recoverer},
		"compress":             {middleware.Compress(5)},
		"compress, events too": {middleware.Compress(5, "text/event-stream", "application/json")},
		"timeout":              {middleware.Timeout(time.Hour)}, // sets only a context's deadline
		"cors":                 {cors.Handler(cors.Options{AllowedOrigins: []string{"https://app.example.com"}, AllowCredentials: true})},
		"request id":           {middleware.RequestID},
		"all": {middleware.RequestID, middleware.Logger, middleware.Recoverer, middleware.Compress(5), middleware.Timeout(time.Hour),
			middleware.CleanPath, middleware.Heartbeat("/ping"), middleware.Throttle(100), middleware.NoCache,
			cors.Handler(cors.Options{AllowedOrigins: []string{"https://app.example.com"}, AllowCredentials: true})},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, options(), func(rt http.Handler) http.Handler {
				r := chi.NewRouter()
				r.Use(use...)
				r.Get("/", func(http.ResponseWriter, *http.Request) {})
				r.Mount("/rt", rt)
				return r
			}, nil)
		})
	}
	t.Run("a route", func(t *testing.T) {
		check(t, options(), func(rt http.Handler) http.Handler {
			r := chi.NewRouter()
			r.Route("/rt", func(r chi.Router) {
				r.Use(middleware.Logger)
				r.Handle("/*", rt)
			})
			return r
		}, nil)
	})
}
