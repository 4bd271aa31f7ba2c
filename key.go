package channels

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"
)

// An ownKey is an idempotency key as the Store knows it. Each publisher has keys of
// its own, so that a key of one never suppresses a message of another.
type ownKey struct {
	text   string
	digest string // of the message
}

// key returns the key of p as its publisher's own.
func (p *Publication) key(key string) (k ownKey) {
	switch {
	case !p.Network:
		k.text = "app:" + key
	case p.Identity.ID == "":
		k.text = "anyone:" + key
	default: // an ID may be any text, and may be long
		sum := sha256.Sum256([]byte(p.Identity.ID))
		k.text = "user:" + base64.RawURLEncoding.EncodeToString(sum[:16]) + ":" + key
	}
	d := sha256.New()
	d.Write(strconv.AppendInt(nil, int64(len(p.Message.Header)), 10))
	d.Write([]byte{':'})
	d.Write([]byte(p.Message.Header))
	d.Write(p.Message.Body)
	k.digest = base64.RawURLEncoding.EncodeToString(d.Sum(nil)[:16])
	return k
}
