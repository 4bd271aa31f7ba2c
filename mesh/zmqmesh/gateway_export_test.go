package zmqmesh

import (
	"context"
	"crypto/sha256"
	"testing"
)

var (
	AppendASCII = appendASCII
	ToLatin1    = toLatin1
	FromLatin1  = fromLatin1
)

// Answer is what a request gets, and the envelope that it is sent back in.
func Answer(t *testing.T, hub GatewayHub, token []byte, frames [][]byte) (envelope [][]byte, answer []byte) {
	g := &Gateway{opts: GatewayOptions{Hub: hub, Token: token}, token: sha256.Sum256(token), ctx: context.Background()}
	envelope, request := openEnvelope(frames)
	answer, _ = g.answer(request)
	return envelope, appendASCII(nil, answer)
}
