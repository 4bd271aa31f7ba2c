package channels

import "strings"

// served is what a hub serves, for who asked for something else.
const served = "the hub serves /channel/NAME/, /v1/channel, /v1/channel/NAME with /publish, /history and /presence below it, /v1/publish, /v1/nodes, /healthz and /readyz"

// notFound says that nothing is served at a path, and what is. Where one of the
// hub's own paths stands behind something else, the hub is mounted below that,
// without the prefix taken off.
func notFound(path string) *Error {
	mount := ""
	for _, own := range []string{"/channel/", "/v1/", "/healthz", "/readyz"} {
		prefix, rest, ok := strings.Cut(path, own)
		switch {
		case !ok:
		case prefix == "": // the path begins as one of the hub's own, and goes on wrongly
			return errNotFound.saying("there is nothing at %.200q; %s", path, served)
		case mount == "" && (strings.HasSuffix(own, "/") || rest == ""):
			mount = prefix
		}
	}
	if mount != "" {
		return errNotFound.saying("there is nothing at %.200q; if the hub is mounted below %.100q, take that off: http.StripPrefix(%.100[2]q, hub.Handler())", path, mount)
	}
	return errNotFound.saying("there is nothing at %.200q; %s", path, served)
}
