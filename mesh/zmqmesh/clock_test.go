package zmqmesh_test

import (
	"testing"

	"github.com/channels-go/channels/internal/zmtp/zmtptest"
)

func TestNoTimeWithoutMonotonicReading(t *testing.T) { zmtptest.RequireMonotonic(t) }
