package zmqgateway_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/channels-go/channels/internal/zmtp/zmtptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNoTimeWithoutMonotonicReading(t *testing.T) { zmtptest.RequireMonotonic(t) }
