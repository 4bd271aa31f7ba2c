// Package scale has scalers for the operators' page of package admin: one asks
// Kubernetes for another number of replicas, and one runs a command.
package scale
