package main

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// The page opens with its own token. The clients' tokens and keys do not open it, and it
// needs none of them.
func TestAdminPage(t *testing.T) {
	const admin = "a-token-for-operators"
	addr, log := start(t, map[string]string{"CHANNELS_ADMIN_TOKEN": admin, "CHANNELS_API_KEYS": testKeys}, "-host", "app.example.com")
	require.Equal(t, "/admin/", log.wait(t, "serves the operators' page")["path"])
	overview := "http://" + addr + "/admin/api/overview"
	code, body := call(t, "GET", overview, "", "Authorization", "Bearer "+admin)
	require.Equal(t, http.StatusOK, code, body)
	require.Contains(t, body, `"status":"green"`)
	for _, header := range [][]string{{}, {"X-API-Key", testKey}, {"Authorization", "Bearer " + testKey}} {
		code, _ := call(t, "GET", overview, "", header...)
		require.Equal(t, http.StatusUnauthorized, code, header)
	}
	code, body = call(t, "GET", "http://"+addr+"/admin", "")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, body, `action="login"`)
	code, body = call(t, "GET", "http://"+addr+"/", "")
	require.Equal(t, http.StatusNotFound, code)
	require.Contains(t, body, "operators at /admin/")
	code, _ = call(t, "GET", overview, "", "Authorization", "Bearer "+admin, "Host", "evil.example")
	require.Equal(t, http.StatusMisdirectedRequest, code)
	require.NotContains(t, log.String(), admin)
}

// Behind a proxy, the log has the client's address.
func TestAdminPageBehindAProxy(t *testing.T) {
	addr, log := start(t, map[string]string{"CHANNELS_ADMIN_TOKEN": "a-token-for-operators"}, "-trusted-proxy", "127.0.0.0/8")
	code, _ := call(t, "GET", "http://"+addr+"/admin/api/overview", "", "Authorization", "Bearer wrong", "X-Forwarded-For", "192.0.2.7")
	require.Equal(t, http.StatusUnauthorized, code)
	require.Equal(t, "192.0.2.7:0", log.wait(t, "admin: a wrong token")["remote"])
}

// Without a token, there is no page.
func TestNoAdminPage(t *testing.T) {
	addr, log := start(t, nil)
	code, _ := call(t, "GET", "http://"+addr+"/admin/", "")
	require.Equal(t, http.StatusNotFound, code)
	require.NotContains(t, log.String(), "operators' page")
}
