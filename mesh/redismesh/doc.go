// Package redismesh is a mesh over Redis pub/sub.
package redismesh
