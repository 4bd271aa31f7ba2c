package channels

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// queryOf parses a query in which each key may appear once. An unknown key is an
// error, since it may be a misspelt one, or belong into the body. Keys that
// begin with "_" are ignored: some clients and caches add one. The probes,
// /healthz and /readyz, do not call queryOf: whatever a load balancer adds, it
// must not take this replica for broken.
func queryOf(r *http.Request, keys ...string) (url.Values, error) {
	if r.URL.RawQuery == "" {
		return nil, nil
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, ErrBadQuery.saying("the query is not encoded correctly: %v", err)
	}
	for k, v := range q {
		switch {
		case strings.HasPrefix(k, "_"):
		case !slices.Contains(keys, k):
			return nil, ErrBadQuery.saying(`there is no parameter %.80q here; allowed are: %s (and names that begin with "_", which are ignored)`, k, cmp.Or(strings.Join(keys, ", "), "none"))
		case len(v) > 1:
			return nil, ErrBadQuery.saying("the parameter %s is given %d times; give it once", k, len(v))
		}
	}
	return q, nil
}

func limitOf(q url.Values) (int, error) {
	s := q.Get("limit")
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 0, ErrBadQuery.saying("limit is %.40q; it must be a whole number, 1 or more", s)
	}
	return n, nil
}
