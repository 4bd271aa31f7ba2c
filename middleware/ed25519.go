package middleware

import "github.com/golang-jwt/jwt/v5"

// The names of the one signature with an Ed25519 key: RFC 9864 section 2.2
// deprecates the first, and the library knows no other.
const (
	edDSA       = "EdDSA"
	ed25519Name = "Ed25519"
)

// fullySpecified is jwt.SigningMethodEdDSA under its newer name.
type fullySpecified struct{ *jwt.SigningMethodEd25519 }

func (fullySpecified) Alg() string { return ed25519Name }

func init() { // the parser finds methods by their names, in the library's table
	if jwt.GetSigningMethod(ed25519Name) == nil { // a later version, or the app, may have it
		jwt.RegisterSigningMethod(ed25519Name, func() jwt.SigningMethod { return fullySpecified{jwt.SigningMethodEdDSA} })
	}
}
