// Package zmqmesh links the replicas of an app directly, with ZeroMQ's
// protocol (ZMTP 3.0) over TCP and no broker.
package zmqmesh
