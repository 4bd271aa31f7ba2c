package origin

import "net/http"

// sameOrigin refuses requests that another website has a browser make.
var sameOrigin = http.NewCrossOriginProtection()

// IsOwn reports whether a request comes from a page of the host that it names, or from
// none: from a program, or by an address that somebody has typed. It asks that of a GET,
// too: another website cannot read the answer, but it could have much done for it.
func IsOwn(r *http.Request) bool {
	r = r.WithContext(r.Context()) // a copy
	r.Method = http.MethodPost     // Check lets any GET pass
	return sameOrigin.Check(r) == nil
}
