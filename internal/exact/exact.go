// Package exact parses JSON from clients with exact member names, as RFC 8259
// section 8.3 describes. Package encoding/json takes "Channel" for "channel",
// and the last of two equal names, so a filter in front could read another
// message than the hub does.
package exact

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// A NameError is returned if a name appears twice in one object.
type NameError struct{ Name string }

func (e *NameError) Error() string { return fmt.Sprintf("the name %.100q appears twice", e.Name) }

// An UnknownError is returned if an object has an unknown member.
type UnknownError struct{ Name string }

func (e *UnknownError) Error() string { return fmt.Sprintf("there is no field %.100q", e.Name) }

// Members yields the members of the object b, which must be valid JSON. The
// values share memory with b.
func Members(b []byte) iter.Seq2[string, json.RawMessage] {
	return func(yield func(string, json.RawMessage) bool) {
		for name, value := range Pairs(b) {
			if !yield(Text(name), value) {
				return
			}
		}
	}
}

// Pairs is Members with each name as it is written, which allocates nothing.
func Pairs(b []byte) iter.Seq2[json.RawMessage, json.RawMessage] {
	return func(yield func(name, value json.RawMessage) bool) {
		i := skip(b, 0)
		if i == len(b) || b[i] != '{' {
			return
		}
		for i++; ; i++ { // after the brace or a comma
			if i = skip(b, i); i == len(b) || b[i] != '"' {
				return
			}
			end := End(b, i)
			name := json.RawMessage(b[i:end:end])
			if i = skip(b, end); i == len(b) || b[i] != ':' {
				return
			}
			i = skip(b, i+1)
			if end = End(b, i); !yield(name, json.RawMessage(b[i:end:end])) {
				return
			}
			if i = skip(b, end); i == len(b) || b[i] != ',' {
				return
			}
		}
	}
}

// Text decodes b, which must be a valid JSON string.
func Text(b []byte) (s string) {
	if bytes.IndexByte(b, '\\') < 0 && len(b) >= 2 && utf8.Valid(b) {
		return string(b[1 : len(b)-1])
	}
	json.Unmarshal(b, &s) // cannot fail: b is valid
	return s
}

// skip returns the end of the white space that begins at i.
func skip(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// End returns the end of the value that begins at i, if it is valid JSON. Otherwise
// the result is some place from i to the end of b.
func End(b []byte, i int) int {
	for depth := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			if i = textEnd(b, i+1); depth == 0 {
				return i
			}
			i-- // for the loop
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth--; depth < 0 {
				return i // the end of an enclosing object or array, after a number or word
			} else if depth == 0 {
				return i + 1
			}
		case depth == 0 && (c == ',' || c == ' ' || c == '\t' || c == '\n' || c == '\r'):
			return i
		}
	}
	return len(b)
}

// textEnd returns the end of a string, of which i is after the first quote.
func textEnd(b []byte, i int) int {
	for {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return len(b)
		}
		quote := i + n
		escapes := 0 // the backslashes before the quote
		for escapes < n && b[quote-escapes-1] == '\\' {
			escapes++
		}
		if i = quote + 1; escapes%2 == 0 {
			return i
		}
	}
}

// Names collects the names of one object. The zero value is ready to use.
type Names struct {
	few  [8]string
	n    int                 // how many of few are set
	many map[string]struct{} // the names after these
}

// Add adds a name. It returns a *NameError if the name was already there.
func (s *Names) Add(name string) error {
	if _, twice := s.many[name]; twice || slices.Contains(s.few[:s.n], name) {
		return &NameError{name}
	}
	if s.n < len(s.few) {
		s.few[s.n] = name
		s.n++
		return nil
	}
	if s.many == nil {
		s.many = make(map[string]struct{})
	}
	s.many[name] = struct{}{}
	return nil
}

// Unmarshal is json.Unmarshal with exact names. They apply to structs at any
// depth that is reached through structs, pointers to them and slices of them.
// Unknown members are ignored. A name that appears twice is a *NameError. Types
// with their own JSON or text unmarshalling parse themselves.
func Unmarshal(b []byte, v any) error {
	return unmarshal(b, v, false)
}

// UnmarshalKnown is Unmarshal, but an unknown member is an *UnknownError.
func UnmarshalKnown(b []byte, v any) error { return unmarshal(b, v, true) }

func unmarshal(b []byte, v any, known bool) error {
	var raw json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil { // also rejects nesting that is too deep for decode
		return err
	}
	return decode(raw, reflect.ValueOf(v).Elem(), known)
}

var (
	jsonReader = reflect.TypeFor[json.Unmarshaler]()
	textReader = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func decode(b json.RawMessage, v reflect.Value, known bool) error {
	b = bytes.TrimSpace(b)
	t := v.Type()
	if p := reflect.PointerTo(t); len(b) == 0 || string(b) == "null" || p.Implements(jsonReader) || p.Implements(textReader) {
		return json.Unmarshal(b, v.Addr().Interface())
	}
	switch {
	case t.Kind() == reflect.Struct && b[0] == '{':
		return object(b, v, known)
	case t.Kind() == reflect.Pointer && holdsStruct(t.Elem()):
		if v.IsNil() {
			v.Set(reflect.New(t.Elem()))
		}
		return decode(b, v.Elem(), known)
	case t.Kind() == reflect.Slice && holdsStruct(t.Elem()) && b[0] == '[':
		var all []json.RawMessage
		if err := json.Unmarshal(b, &all); err != nil {
			return err
		}
		v.Set(reflect.MakeSlice(t, len(all), len(all)))
		for i, one := range all {
			if err := decode(one, v.Index(i), known); err != nil {
				return err
			}
		}
		return nil
	}
	return json.Unmarshal(b, v.Addr().Interface())
}

func holdsStruct(t reflect.Type) bool {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t.Kind() == reflect.Struct
}

func object(b json.RawMessage, v reflect.Value, known bool) error {
	var names Names
	for name, value := range Members(b) {
		if err := names.Add(name); err != nil {
			return err
		}
		f, ok := field(v, name)
		if !ok {
			if known {
				return &UnknownError{name}
			}
			continue
		}
		if err := decode(value, f, known); err != nil {
			if typ, ok := err.(*json.UnmarshalTypeError); ok && typ.Field == "" {
				typ.Field = name
			}
			return err
		}
	}
	return nil
}

// field returns the field for a name: by its tag, or by its own name.
func field(v reflect.Value, name string) (reflect.Value, bool) {
	for i, m := range membersOf(v.Type()) {
		switch {
		case m.embedded:
			inner := v.Field(i)
			if inner.Kind() == reflect.Pointer {
				if inner.IsNil() {
					inner.Set(reflect.New(inner.Type().Elem()))
				}
				inner = inner.Elem()
			}
			if found, ok := field(inner, name); ok {
				return found, true
			}
		case m.name == name && name != "":
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// A member is what JSON calls a field of a struct.
type member struct {
	name     string // empty if JSON does not have the field
	embedded bool   // the field's own fields are members instead
}

// types holds the members of each type. To read the tags anew for each name takes
// more than twice as long as the rest of parsing.
var types sync.Map // []member by reflect.Type

func membersOf(t reflect.Type) []member {
	if all, ok := types.Load(t); ok {
		return all.([]member)
	}
	all := make([]member, t.NumField())
	for i := range all {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		name, _, _ := strings.Cut(tag, ",")
		switch {
		case f.Anonymous && name == "" && holdsStruct(f.Type):
			all[i].embedded = true
		case !f.IsExported() || tag == "-":
		case name == "": // no tag, which differs from an empty name
			all[i].name = f.Name
		default:
			all[i].name = name
		}
	}
	types.Store(t, all)
	return all
}
