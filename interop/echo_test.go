package interop_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
)

func TestEcho(t *testing.T) {
	logger := middleware.RequestLoggerWithConfig(middleware.RequestLoggerConfig{LogURI: true, LogStatus: true,
		LogValuesFunc: func(echo.Context, middleware.RequestLoggerValues) error { return nil }})
	withCORS := middleware.CORSWithConfig(middleware.CORSConfig{AllowOrigins: []string{"https://app.example.com"}, AllowCredentials: true})
	for name, use := range map[string][]echo.MiddlewareFunc{
		"bare":            nil,
		"logger":          {logger},
		"recover":         {middleware.Recover()},
		"gzip":            {middleware.Gzip()},
		"cors":            {withCORS},
		"request id":      {middleware.RequestID()},
		"context timeout": {middleware.ContextTimeout(time.Hour)},
		"all":             {middleware.RequestID(), logger, middleware.Recover(), withCORS, middleware.Gzip(), middleware.ContextTimeout(time.Hour), middleware.Secure(), middleware.BodyLimit("1M")},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, options(), func(rt http.Handler) http.Handler {
				e := echo.New()
				e.Use(use...)
				e.GET("/", func(echo.Context) error { return nil })
				e.Any("/rt/*", echo.WrapHandler(rt))
				return e
			}, nil)
		})
	}
}
