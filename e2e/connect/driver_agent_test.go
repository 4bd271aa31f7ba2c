package connect

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// agentClient drives the SDK for JavaScript through an agent.
type agentClient struct {
	t  *testing.T
	a  *agent
	id int
}

func newAgentClient(t *testing.T, a *agent, o introduction, tell func(event)) driver {
	t.Helper()
	a.mu.Lock()
	a.last++
	id := a.last
	a.tell[id] = tell
	a.mu.Unlock()
	j := &agentClient{t, a, id}
	j.must("open", struct {
		introduction
		MinDelay int64 `json:"minDelay"` // in milliseconds
		MaxDelay int64 `json:"maxDelay"`
	}{o, minDelay.Milliseconds(), maxDelay.Milliseconds()})
	return j
}

// must runs a command that cannot be refused.
func (j *agentClient) must(command string, parameters any) {
	j.t.Helper()
	_, err := j.a.do(j.id, command, parameters)
	require.NoError(j.t, err, command)
}

// get runs a command and reads its result.
func get[T any](j *agentClient, command string, parameters any) (result T, err error) {
	b, err := j.a.do(j.id, command, parameters)
	if err == nil {
		err = json.Unmarshal(b, &result)
	}
	return result, err
}

type fields = map[string]any

func (j *agentClient) connect()    { j.must("connect", fields{}) }
func (j *agentClient) disconnect() { j.must("disconnect", fields{}) }

func (j *agentClient) subscribe(channel string, o interest) {
	j.must("subscribe", fields{"channel": channel, "interest": o})
}

func (j *agentClient) unsubscribe(channel string) { j.must("unsubscribe", fields{"channel": channel}) }

func (j *agentClient) publish(channel, data string) error {
	_, err := j.a.do(j.id, "publish", fields{"channel": channel, "data": data})
	return err
}

func (j *agentClient) rpc(method, data string) (string, error) {
	return get[string](j, "rpc", fields{"method": method, "data": data})
}

func (j *agentClient) send(data string) error {
	_, err := j.a.do(j.id, "send", fields{"data": data})
	return err
}

func (j *agentClient) presence(channel string) (map[string]person, error) {
	return get[map[string]person](j, "presence", fields{"channel": channel})
}

func (j *agentClient) presenceStats(channel string) (crowd, error) {
	return get[crowd](j, "presenceStats", fields{"channel": channel})
}

func (j *agentClient) history(channel string, q page) (past, error) {
	return get[past](j, "history", fields{"channel": channel, "page": q})
}

// close is called at the end of the test, also if the agent has ended.
func (j *agentClient) close() {
	_, err := j.a.do(j.id, "close", fields{})
	assert.NoError(j.t, err, "close")
	j.a.mu.Lock()
	defer j.a.mu.Unlock()
	delete(j.a.tell, j.id)
}
