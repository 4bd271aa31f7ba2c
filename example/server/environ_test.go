package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMisspeltVariables(t *testing.T) {
	require.NoError(t, misspelt([]string{"CHANNELS_ADDR=:1", "CHANNELS_HISTORY=", "CHANNELS_JWT_SECRET=x", "CHANNELS_API_KEYS=[]", "CHANNELS_MESH_KEY=x", "CHANNELS_ZMQ_TOKEN=x", "CHANNELS_DRAIN_DELAY=1s", "CHANNELS_POLLER=off",
		"PATH=/bin", "channels_addr=:1", "OTHER_CHANNELS_ADDR=",
		// Kubernetes sets these for Services named channels and channels-mesh.
		"CHANNELS_SERVICE_HOST=10.0.0.1", "CHANNELS_SERVICE_PORT=80", "CHANNELS_SERVICE_PORT_HTTP=80", "CHANNELS_PORT=tcp://10.0.0.1:80", "CHANNELS_PORT_80_TCP=tcp://10.0.0.1:80",
		"CHANNELS_PORT_80_TCP_PROTO=tcp", "CHANNELS_PORT_80_TCP_PORT=80", "CHANNELS_PORT_80_TCP_ADDR=10.0.0.1", "CHANNELS_MESH_SERVICE_HOST=10.0.0.1", "CHANNELS_MESH_PORT=tcp://10.0.0.1:1"}))
	for line, says := range map[string]string{
		"CHANNELS_HISTROY=a=1,1h":  "did you mean CHANNELS_HISTORY?",
		"CHANNELS_ORIGINS=x":       "did you mean CHANNELS_ORIGIN?",
		"CHANNELS_JWT_SECRETS=x":   "did you mean CHANNELS_JWT_SECRET?",
		"CHANNELS_DRAIN-DELAY=1s":  "did you mean CHANNELS_DRAIN_DELAY?",
		"CHANNELS_addr=:1":         "there is no variable CHANNELS_addr",
		"CHANNELS_PORT=8080":       "there is no variable CHANNELS_PORT",
		"CHANNELS_SOMETHING=hush1": "there is no variable CHANNELS_SOMETHING: a variable is CHANNELS_ and the name of a flag",
		"CHANNELS_=x":              "there is no variable CHANNELS_:",
	} {
		err := misspelt([]string{"PATH=/bin", line})
		require.ErrorContains(t, err, says, line)
		require.NotContains(t, err.Error(), "hush")
	}
}
