package middleware

import "github.com/golang-jwt/jwt/v5"

// Two names for the one signature algorithm with an Ed25519 key: RFC 9864
// section 2.2 deprecates the first, and the library knows only that.
const (
	edDSA       = "EdDSA"
	ed25519Name = "Ed25519"
)

// fullySpecified is jwt.SigningMethodEdDSA under its newer name.
type fullySpecified struct{ *jwt.SigningMethodEd25519 }

func (fullySpecified) Alg() string { return ed25519Name }

func init() { // the parser finds methods by name in the library's table
	if jwt.GetSigningMethod(ed25519Name) == nil { // a later version of the library, or the app, may have registered it
		jwt.RegisterSigningMethod(ed25519Name, func() jwt.SigningMethod { return fullySpecified{jwt.SigningMethodEdDSA} })
	}
}
