package admin_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/admin"
	"github.com/channels-go/channels/internal/hubtest"
)

// Ten viewers of a channel ask the Store as often as one does. Each follows it, and asks
// every 2 s, as the page does.
func TestViewersShareOneRead(t *testing.T) {
	calls := func(viewers int) (made map[string]int64) {
		synctest.Test(t, func(t *testing.T) {
			hub := hubtest.NewHub(t, history())
			page, err := admin.New(hub, admin.Options{Token: token})
			require.NoError(t, err)
			defer page.Close()
			_, err = hub.Publish(t.Context(), "h.a", hubtest.Msg("m", "1"))
			require.NoError(t, err)
			ask := func(ctx context.Context, path string) *httptest.ResponseRecorder {
				r := httptest.NewRequestWithContext(ctx, "GET", path, nil)
				r.Header.Set("Authorization", "Bearer "+token)
				w := newRecorder()
				page.ServeHTTP(w, r)
				return w
			}
			before := hub.Metrics().Store
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var all sync.WaitGroup
			for i := range viewers {
				all.Go(func() { ask(ctx, "/api/tail?name=h.a") })
				all.Go(func() {
					time.Sleep(time.Duration(i) * 77 * time.Millisecond) // they come one after the other
					for range 30 {
						w := ask(ctx, "/api/channel?name=h.a")
						assert.Equal(t, http.StatusOK, w.Code, w.Body.String())
						assert.Contains(t, w.Body.String(), `"header":"m"`)
						time.Sleep(2 * time.Second)
					}
					cancel()
				})
			}
			all.Wait()
			made = map[string]int64{}
			for name, c := range hub.Metrics().Store {
				if n := c.Calls - before[name].Calls; name != "report" && name != "replicas" { // these go on without viewers
					made[name] = n
				}
			}
			require.NoError(t, page.Close())
			require.NoError(t, hub.Shutdown(t.Context()))
		})
		return made
	}
	one := calls(1)
	require.EqualValues(t, 30, one["channel"])
	require.EqualValues(t, 30, one["members"])
	require.Equal(t, one, calls(10))
}

// A viewer of another part of the history gets that one, and a name that is none is not
// remembered.
func TestViewersOfDifferentThings(t *testing.T) {
	s := serve(t, history(), admin.Options{})
	b := s.browser().login()
	for _, body := range []string{"1", "2", "3"} {
		s.PublishGo("h.a", body)
	}
	require.Len(t, get[channel](b, "api/channel?name=h.a").History.Messages, 3)
	require.Len(t, get[channel](b, "api/channel?name=h.a&before=3").History.Messages, 2)
	require.Len(t, get[channel](b, "api/channel?name=h.a&messages=1").History.Messages, 1)
	for i := range 100 {
		get[channel](b, "api/channel?name=x."+string(rune('a'+i%26))+string(rune('a'+i/26)))
	}
	b.wantRefused(400, "bad_channel", "GET", "api/channel?name=a/b", "")
	require.Equal(t, 32, s.page.Rooms(), "so many are kept")
}
