package docs_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/channels-go/channels/internal/proctest"
)

// The README's program runs, serves the README's page, and answers as the
// README's conversation in a shell says.
func TestTheReadmesProgram(t *testing.T) {
	readme := read(t, "README.md")
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	program := blocks(readme, "go")[0]
	require.Contains(t, program, `"127.0.0.1:8080"`)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(strings.ReplaceAll(program, "127.0.0.1:8080", addr)), 0o600))
	page := blocks(readme, "html")[0]
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
	text := func(resp *http.Response, err error) string {
		t.Helper()
		require.NoError(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode, string(b))
		return string(b)
	}
	require.Eventually(t, func() bool { // until it listens
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	require.Equal(t, page, text(client.Get("http://"+addr+"/")))

	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+addr+"/rt/channel/orders/", nil)
	require.NoError(t, err)
	r.Header.Set("Accept", "text/event-stream")
	stream, err := client.Do(r)
	require.NoError(t, err)
	defer stream.Body.Close()
	require.Equal(t, http.StatusOK, stream.StatusCode)
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
	text(client.Post("http://"+addr+"/orders", "", nil))
	said(data())
	said(`$ curl -d '{"header":"note","body":"ready"}' http://127.0.0.1:8080/rt/v1/channel/orders/publish`)
	said(strings.TrimSpace(text(client.Post("http://"+addr+"/rt/v1/channel/orders/publish", "", strings.NewReader(`{"header":"note","body":"ready"}`)))))
	said(data())
}
