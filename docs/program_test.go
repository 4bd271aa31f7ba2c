package docs_test

import (
	"bufio"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/basetest"
	"github.com/channels-go/channels/internal/hubtest"
	"github.com/channels-go/channels/internal/proctest"
)

// The README's program runs, serves the README's page, and answers as the
// README's conversation in a shell says.
func TestTheReadmesProgram(t *testing.T) {
	readme := read(t, "README.md")
	dir := t.TempDir()
	l := basetest.Listen(t)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	program := blocks(readme, "go")[0]
	require.Contains(t, program, `"127.0.0.1:8080"`)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(strings.ReplaceAll(program, "127.0.0.1:8080", addr)), 0o600))
	page := blocks(readme, "html")[1]
	require.NoError(t, os.Mkdir(filepath.Join(dir, "public"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "public", "index.html"), []byte(page), 0o600))

	binary := filepath.Join(dir, "program")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", binary, filepath.Join(dir, "main.go"))
	build.Dir = root // whose go.mod knows what it imports
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	cmd := exec.Command(binary)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	proctest.Run(t, cmd)

	client := &http.Client{Timeout: time.Minute}
	defer client.CloseIdleConnections()
	ask := func(method, path, body string, header ...string) *http.Response {
		t.Helper()
		resp := hubtest.Request(t, t.Context(), client, method, "http://"+addr+path, body, header...)
		require.Equal(t, http.StatusOK, resp.StatusCode)
		return resp
	}
	basetest.Eventually(t, "the program listens", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	require.Equal(t, page, hubtest.Body(t, ask("GET", "/", "")))

	stream := ask("GET", "/rt/channel/orders/", "", "Accept", "text/event-stream")
	defer stream.Body.Close()
	lines := bufio.NewScanner(stream.Body)
	data := func() string {
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "data: ") {
				return lines.Text()
			}
		}
		require.NoError(t, lines.Err())
		return ""
	}
	_, talk, ok := strings.Cut(readme, "The same in a shell:\n")
	require.True(t, ok)
	said := func(line string) {
		t.Helper()
		require.Contains(t, talk, "\n    "+line+"\n")
	}
	said("$ curl -X POST http://127.0.0.1:8080/orders")
	ask("POST", "/orders", "").Body.Close()
	said(data())
	said(`$ curl -d '{"header":"note","body":"ready"}' http://127.0.0.1:8080/rt/v1/channel/orders/publish`)
	said(strings.TrimSpace(hubtest.Body(t, ask("POST", "/rt/v1/channel/orders/publish", `{"header":"note","body":"ready"}`))))
	said(data())
}
