package interop_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gin-contrib/cors"
	"github.com/gin-contrib/gzip"
	"github.com/gin-contrib/requestid"
	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/require"

	ours "github.com/channels-go/channels/middleware"
)

// gin's own streams work behind this module's middleware.
func TestGinStreamBehindOurs(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.GET("/", func(c *gin.Context) {
		n := 0
		c.Stream(func(w io.Writer) bool {
			n++
			io.WriteString(w, "x")
			return n < 3
		})
	})
	log := slog.New(slog.DiscardHandler)
	s := httptest.NewServer(ours.Log(ours.LogOptions{Logger: log}).Handler(ours.Recover(log)(r)))
	defer s.Close()
	resp, err := s.Client().Get(s.URL)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "xxx", string(b))
}

func TestGin(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	withCORS := func() gin.HandlerFunc {
		return cors.New(cors.Config{AllowOrigins: []string{"https://app.example.com"}, AllowCredentials: true})
	}
	for name, use := range map[string][]gin.HandlerFunc{
		"bare":       nil,
		"logger":     {gin.LoggerWithWriter(io.Discard)},
		"recovery":   {gin.RecoveryWithWriter(io.Discard)},
		"gzip":       {gzip.Gzip(gzip.DefaultCompression)},
		"cors":       {withCORS()},
		"request id": {requestid.New()},
		"all":        {requestid.New(), gin.LoggerWithWriter(io.Discard), gin.RecoveryWithWriter(io.Discard), withCORS(), gzip.Gzip(gzip.DefaultCompression)},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, options(), func(rt http.Handler) http.Handler {
				r := gin.New()
				r.Use(use...)
				r.GET("/", func(*gin.Context) {})
				r.Any("/rt/*path", gin.WrapH(rt))
				return r
			}, nil)
		})
	}
}
