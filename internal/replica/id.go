// Package replica has the rule for the id of a replica, which the hub and both
// meshes share.
package replica

import (
	"crypto/rand"
	"fmt"
	"strings"
)

// MaxID is how many bytes an id may have.
const MaxID = 64

const allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."

// CheckID returns nil for a valid id. Its error continues the name of the option:
// "Options.ReplicaID is …".
func CheckID(id string) error {
	if id == "" || len(id) > MaxID || strings.Trim(id, allowed) != "" {
		return fmt.Errorf("is %.70q; it must be 1 to %d of A-Z, a-z, 0-9, '-', '_' and '.'", id, MaxID)
	}
	return nil
}

// NewID returns a random id of 13 lower-case letters and digits.
func NewID() string {
	return strings.ToLower(rand.Text()[:13])
}
