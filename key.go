package channels

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"time"
)

// maxKeyBytes is the longest idempotency key.
const maxKeyBytes = 200

// keyTTL is how long idempotency keys are remembered.
const keyTTL = 5 * time.Minute

// An ownKey is an idempotency key as the Store knows it. Each publisher has keys of
// its own, so that a key of one never suppresses a message of another.
type ownKey struct {
	text   string
	digest string // of the message
}

// keyOn returns the idempotency key as the Store knows it. Its digest is of
// the message as it was sent, which OnPublish may change afterwards.
func (p *Publication) keyOn(ch *channel, o *PublishOptions) (ownKey, error) {
	switch {
	case o.Key == "":
		return ownKey{}, nil
	case ch.opts.HistorySize == 0 || o.Local:
		return ownKey{}, ErrNoHistory.saying("an idempotency key needs a channel with history, and cannot go with Local (channel %q)", p.Channel)
	}
	return p.key(o.Key), nil
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
