// Package deploy holds what it takes to run an app with channels: an image, a compose
// file, manifests for Kubernetes, a unit of systemd, and the proxies in front. It has no
// code but the tests of these files, and is a module of its own, since these need the
// parsers of Docker and Kubernetes. What the proxies do is tested in e2e/proxies.
package deploy
