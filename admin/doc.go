// Package admin is the operators' page: which replicas run, how well each is,
// and what they do.
package admin
