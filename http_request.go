package channels

import (
	"cmp"
	"mime"
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
	return queryWithLists(r, nil, keys...)
}

// queryWithLists is queryOf for a query in which the keys of lists may appear any number
// of times.
func queryWithLists(r *http.Request, lists []string, keys ...string) (url.Values, error) {
	if r.URL.RawQuery == "" {
		return nil, nil
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, ErrBadQuery.saying("the query is not encoded correctly: %v", err)
	}
	keys = append(slices.Clone(lists), keys...)
	for k, v := range q {
		switch {
		case strings.HasPrefix(k, "_"), slices.Contains(lists, k):
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

// isUpgrade reports whether a request wants to become a WebSocket.
func isUpgrade(r *http.Request) bool {
	return headerHas(r.Header, "Connection", "upgrade") && headerHas(r.Header, "Upgrade", "websocket")
}

// wantsStream reports whether the client asks for server-sent events by name. A
// wildcard means a page.
func wantsStream(r *http.Request) bool { return accepts(r.Header.Values("Accept"), typeStream) }

// accepts reports whether an Accept header names a media type. With q=0 the type
// is not wanted (RFC 9110 sections 12.4.2 and 12.5.1).
func accepts(accept []string, mediaType string) bool {
	return slices.ContainsFunc(listed(accept), func(part string) bool {
		if part == mediaType {
			return true // as browsers send it
		}
		t, params, err := mime.ParseMediaType(part)
		if err != nil || t != mediaType {
			return false
		}
		q, ok := params["q"]
		weight, err := strconv.ParseFloat(q, 64)
		return !ok || err == nil && weight > 0
	})
}

// headerHas reports whether a comma-separated header, whose name is in its canonical
// form, has a token. Every handshake asks, so it leaves no garbage.
func headerHas(h http.Header, key, token string) bool {
	for _, list := range h[key] {
		for more := true; more; {
			var part string
			part, list, more = strings.Cut(list, ",")
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// listed returns the elements of a header that is a list. Several headers of one name
// are one list (RFC 9110 section 5.3).
func listed(values []string) []string {
	list := strings.Split(strings.Join(values, ","), ",")
	for i, part := range list {
		list[i] = strings.TrimSpace(part)
	}
	return list
}
