package middleware

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/golang-jwt/jwt/v5"
)

// A verifyKey is a JWTKey with the names of the algorithm that it is used with.
type verifyKey struct {
	id   string
	algs []string
	key  any
}

// algorithms returns the names of the only algorithm that a key is used with.
// The token does not choose it: otherwise a token could be signed with the
// public key as an HS256 secret.
func algorithms(key any) ([]string, error) {
	switch k := key.(type) {
	case []byte:
		if bytes.Contains(k, []byte("-----BEGIN")) {
			return nil, errors.New("is PEM text and would be taken for a secret of HS256; parse it, e.g. with x509.ParsePKIXPublicKey")
		}
		if len(k) < 32 {
			return nil, fmt.Errorf("is a secret of %d bytes; HS256 needs 32 or more (RFC 7518 section 3.2)", len(k))
		}
		return []string{"HS256"}, nil
	case *rsa.PublicKey:
		if k == nil || k.N == nil || k.N.BitLen() < 2048 {
			return nil, errors.New("is an RSA key of less than 2048 bits; RS256 needs 2048 or more")
		}
		return []string{"RS256"}, nil
	case *ecdsa.PublicKey:
		if k == nil || k.Curve != elliptic.P256() {
			return nil, errors.New("is an ECDSA key whose curve is not P-256; ES256 needs that")
		}
		if k.X == nil || k.Y == nil {
			return nil, errors.New("is an ECDSA key without a point")
		}
		return []string{"ES256"}, nil
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("is an Ed25519 key of %d bytes; it must have %d", len(k), ed25519.PublicKeySize)
		}
		return []string{edDSA, ed25519Name}, nil
	}
	return nil, fmt.Errorf("is a %T; it must be a []byte (HS256), *rsa.PublicKey (RS256), *ecdsa.PublicKey (ES256) or ed25519.PublicKey (Ed25519)", key)
}

// cloneKey copies a key that algorithms has accepted.
func cloneKey(key any) (any, error) {
	if b, ok := key.([]byte); ok {
		return bytes.Clone(b), nil
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	return x509.ParsePKIXPublicKey(der)
}

// keysFor returns the keys that may have signed a token.
func (t *Tokens) keysFor(token *jwt.Token) (any, error) {
	if _, ok := token.Header["crit"]; ok {
		// RFC 7515 section 4.1.11: refuse unknown critical extensions.
		return nil, errors.New("it has critical extensions")
	}
	kid, named := token.Header["kid"]
	name, isText := kid.(string)
	if named && !isText {
		return nil, errors.New("its kid is not a string")
	}
	var set jwt.VerificationKeySet
	for _, k := range t.keys {
		if slices.Contains(k.algs, token.Method.Alg()) && (!named || k.id == "" || k.id == name) {
			set.Keys = append(set.Keys, k.key)
		}
	}
	if len(set.Keys) == 0 {
		return nil, errors.New("there is no key for its alg and kid")
	}
	return set, nil
}
