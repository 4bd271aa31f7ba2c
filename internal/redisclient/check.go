// Package redisclient has what the Store and the Mesh in Redis ask of the options
// that both have.
package redisclient

import (
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

const allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_./:"

// CheckPrefix returns nil for a valid prefix of names in Redis. Its error
// continues the name of the option: "Options.Prefix is …".
func CheckPrefix(prefix string) error {
	if prefix == "" || len(prefix) > 100 || strings.Trim(prefix, allowed) != "" {
		return fmt.Errorf("is %.110q; it must be 1 to 100 of A-Z, a-z, 0-9, '-', '_', '.', '/' and ':'", prefix)
	}
	return nil
}

// Check returns the client as one for a Cluster, or nil if it is one for a single
// server at a time. ring says why a Ring will not do. The error continues the name
// of the calling package.
func Check(client redis.UniversalClient, ring string) (*redis.ClusterClient, error) {
	switch c := client.(type) {
	case nil:
		return nil, errors.New("the client is nil; pass what redis.NewClient, NewFailoverClient or NewClusterClient returns")
	case *redis.Ring:
		return nil, errors.New("a redis.Ring cannot " + ring + "; use a Redis Cluster, Sentinel or a single server")
	case *redis.Client:
		if c == nil {
			return nil, errors.New("the client is a nil *redis.Client; pass what redis.NewClient or NewFailoverClient returns")
		}
		return nil, nil
	case *redis.ClusterClient:
		if c == nil {
			return nil, errors.New("the client is a nil *redis.ClusterClient; pass what redis.NewClusterClient returns")
		}
		return c, nil
	}
	return nil, fmt.Errorf("the client is a %T; it must be a *redis.Client or a *redis.ClusterClient", client)
}
