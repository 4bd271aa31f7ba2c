package admin_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/channels-go/channels"
	"github.com/channels-go/channels/admin"
)

// The page is beside the app's channels, and is closed without the token.
func ExampleNew() {
	hub, err := channels.New(channels.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Shutdown(context.Background())
	page, err := admin.New(hub, admin.Options{Token: "0123456789abcdef0123456789abcdef"}) // from a file
	if err != nil {
		log.Fatal(err)
	}
	defer page.Close()
	mux := http.NewServeMux()
	mux.Handle("/", hub.Handler())
	mux.Handle("/admin/", http.StripPrefix("/admin", page))

	for _, header := range []string{"", "Bearer 0123456789abcdef0123456789abcdef"} {
		r := httptest.NewRequest("GET", "/admin/api/overview", nil)
		r.Header.Set("Authorization", header)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Println(w.Code)
	}
	// Output:
	// 401
	// 200
}
