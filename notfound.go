package channels

import "strings"

// notFound says that nothing is served at a path. Where one of the hub's own
// paths stands behind something else, the hub is mounted below that, without
// the prefix taken off.
func notFound(path string) *Error {
	for _, own := range []string{"/channel/", "/v1/", "/connection/", "/healthz", "/readyz"} {
		if prefix, rest, ok := strings.Cut(path, own); ok && prefix != "" && (strings.HasSuffix(own, "/") || rest == "") {
			return errNotFound.saying("there is nothing at %.200q; if the hub is mounted below %.100q, take that off: http.StripPrefix(%.100[2]q, hub.Handler())", path, prefix)
		}
	}
	return errNotFound.saying("there is nothing at %.200q", path)
}
