package middleware

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/channels-go/channels"
)

// ServerKey is an API key: a secret by which another server of the app
// authenticates.
type ServerKey struct {
	// Name identifies the key in logs and in Identity.ID, as "apikey:NAME". 1
	// to 64 of A-Z, a-z, 0-9, "-", "_" and "."; unique among the keys.
	Name string
	// Key is 16 to 256 of A-Z, a-z, 0-9, "-" and "_". Take it from a random
	// source: openssl rand -hex 32.
	Key string
	// Grants are what the key allows.
	Grants Grants
}

// APIKeyOptions configures [APIKey].
type APIKeyOptions struct {
	// Keys are 1 to 1000. Give a server two keys to replace one without a
	// break.
	Keys []ServerKey
	// Limiter, if set, limits wrong keys by its rate Address, in buckets of
	// their own. Each wrong key takes one from the bucket of the client's
	// address. While that bucket is empty, keys from the address are refused
	// unchecked, even right ones. So behind a proxy, put [TrustProxies] around
	// APIKey, or one client with wrong keys blocks all servers. Default: no
	// limit on wrong keys.
	Limiter *Limiter
	// Logger logs each refused key at level debug, without the key. Default:
	// slog.Default().
	Logger *slog.Logger
}

const (
	minAPIKey = 16
	maxAPIKey = 256
)

// serverID begins the Identity.ID of a key, and of no user.
const serverID = "apikey:"

// gatewayID begins the Identity.ID of a gateway for ZeroMQ programs, and of no
// user.
const gatewayID = "zmq:"

const nameCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// APIKey authenticates the app's other servers, for instance to publish, by a
// key in the header "X-API-Key: KEY" or "Authorization: Bearer KEY", never in
// the URL. They get the Identity "apikey:NAME" and the key's [Grants], for
// [Authorize]. The time that the search takes reveals nothing about the keys.
//
// Put APIKey around [JWT], which lets a request with a valid key through, and
// around the [Limiter]'s middlewares, which do not limit such a request.
// APIKeyOptions.Limiter limits wrong keys. A request without a key passes
// unchanged. So does a bearer token with a ".", which every JWT has and no key
// may have. A key that is not in Keys is refused with 401, WWW-Authenticate and
// the code "bad_api_key".
//
// Channels with the option channels.PublishersServer accept no messages over
// HTTP, not even with a key. For such channels leave that option out, and give
// no user the right to publish.
//
// An error names the wrong option and what is allowed, never a key.
func APIKey(o APIKeyOptions) (func(http.Handler) http.Handler, error) {
	if len(o.Keys) == 0 || len(o.Keys) > 1000 {
		return nil, fmt.Errorf("middleware: APIKeyOptions.Keys has %d keys; it may have 1 to 1000", len(o.Keys))
	}
	if o.Limiter != nil && o.Limiter.wrongKeys == nil {
		return nil, errors.New("middleware: APIKeyOptions.Limiter has no rate for addresses; set RateLimitOptions.Address")
	}
	k := keyring{limiter: o.Limiter, log: cmp.Or(o.Logger, slog.Default())}
	names, hashes := map[string]bool{}, map[[sha256.Size]byte]string{}
	for i, key := range o.Keys {
		wrong := func(format string, args ...any) error {
			return fmt.Errorf("middleware: APIKeyOptions.Keys[%d]%w", i, fmt.Errorf(format, args...))
		}
		hash := sha256.Sum256([]byte(key.Key))
		err := key.Grants.check()
		switch {
		case len(key.Name) < 1 || len(key.Name) > 64 || strings.Trim(key.Name, nameCharacters+".") != "":
			err = wrong(".Name is %q; it must be 1 to 64 of A-Z, a-z, 0-9, '-', '_' and '.'", key.Name)
		case len(key.Key) < minAPIKey || len(key.Key) > maxAPIKey || strings.Trim(key.Key, nameCharacters) != "":
			err = wrong(".Key, of %q, has %d bytes; it must be %d to %d of A-Z, a-z, 0-9, '-' and '_'", key.Name, len(key.Key), minAPIKey, maxAPIKey)
		case names[key.Name]:
			err = wrong(".Name is %q, which another key has too; give each key its own name", key.Name)
		case hashes[hash] != "":
			err = wrong(".Key, of %q, is the same as that of %q; give each its own key", key.Name, hashes[hash])
		case err != nil:
			err = wrong(".Grants, of %q: %w", key.Name, err)
		}
		if err != nil {
			return nil, err
		}
		names[key.Name], hashes[hash] = true, key.Name
		g := key.Grants.clone()
		g.server = true
		k.keys = append(k.keys, hashedKey{hash, channels.Identity{ID: serverID + key.Name, Value: g}})
	}
	return k.handler, nil
}

// A keyring knows keys only by their hashes. It is immutable.
type keyring struct {
	keys    []hashedKey
	limiter *Limiter // or nil
	log     *slog.Logger
}

type hashedKey struct {
	hash [sha256.Size]byte
	id   channels.Identity
}

func (k *keyring) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, found, err := apiKey(r.Header)
		if err == nil && !found {
			next.ServeHTTP(w, r)
			return
		}
		if wait := k.limiter.mayTryKey(r); wait > 0 {
			k.log.DebugContext(r.Context(), "refused", "by", "APIKey", "remote", r.RemoteAddr, "err", ErrRateLimited)
			tooMany(w, r, "wrong API keys from this address", wait)
			return
		}
		if err == nil {
			id, ok := k.find(key)
			if ok {
				noteUser(r.Context(), id.ID)
				next.ServeHTTP(w, r.WithContext(channels.WithIdentity(r.Context(), id)))
				return
			}
			err = ErrBadAPIKey
		}
		k.limiter.wrongKey(r)
		k.log.DebugContext(r.Context(), "refused", "by", "APIKey", "remote", r.RemoteAddr, "err", err)
		unauthorized(w, r, err)
	})
}

// apiKey returns the key of a request, if it has one.
func apiKey(h http.Header) (key string, found bool, err error) {
	switch vs := h.Values("X-Api-Key"); len(vs) {
	case 0:
	case 1:
		return vs[0], true, nil
	default:
		return "", false, &channels.Error{Code: ErrBadAPIKey.Code, Status: ErrBadAPIKey.Status, Message: fmt.Sprintf("the request has %d headers X-API-Key", len(vs))}
	}
	token, found, err := bearer(h)
	if err != nil || !found || strings.Contains(token, ".") {
		return "", false, err // another scheme, or a JWT
	}
	return token, true, nil
}

// find compares key with all keys, even after a match, so that it takes the
// same time.
func (k *keyring) find(key string) (id channels.Identity, ok bool) {
	if len(key) < minAPIKey || len(key) > maxAPIKey {
		return id, false
	}
	hash := sha256.Sum256([]byte(key))
	at := -1
	for i := range k.keys {
		at = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(k.keys[i].hash[:], hash[:]), i, at)
	}
	if at < 0 {
		return id, false
	}
	return k.keys[at].id, true
}
