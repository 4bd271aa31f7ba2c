// Package exact reads JSON from outside as RFC 8259 section 8.3 has it: names
// of members are compared exactly. Package encoding/json takes "Channel" for
// "channel", and the last of two for both, so that a filter in front reads
// another message than the hub.
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
	"unicode/utf8"
)

// A NameError says that a name stands twice in one object.
type NameError struct{ Name string }

func (e *NameError) Error() string { return fmt.Sprintf("the name %.100q stands there twice", e.Name) }

// An UnknownError says that an object has a member that it may not have.
type UnknownError struct{ Name string }

func (e *UnknownError) Error() string { return fmt.Sprintf("there is no field %.100q", e.Name) }

// Members yields the members of an object, which is valid JSON. The values
// share memory with b.
func Members(b []byte) iter.Seq2[string, json.RawMessage] {
	return func(yield func(string, json.RawMessage) bool) {
		i := skip(b, 0)
		if i == len(b) || b[i] != '{' {
			return
		}
		for i++; ; i++ { // behind the brace, or a comma
			if i = skip(b, i); i == len(b) || b[i] != '"' {
				return
			}
			end := value(b, i)
			name := text(b[i:end])
			if i = skip(b, end); i == len(b) || b[i] != ':' {
				return
			}
			i = skip(b, i+1)
			if end = value(b, i); !yield(name, json.RawMessage(b[i:end:end])) {
				return
			}
			if i = skip(b, end); i == len(b) || b[i] != ',' {
				return
			}
		}
	}
}

// text returns what a JSON string stands for.
func text(b []byte) (s string) {
	if bytes.IndexByte(b, '\\') < 0 && len(b) >= 2 && utf8.Valid(b) {
		return string(b[1 : len(b)-1])
	}
	json.Unmarshal(b, &s) // it is valid
	return s
}

// skip returns where the white space from i on ends.
func skip(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// value returns where the value that begins at i ends.
func value(b []byte, i int) int {
	depth, quoted := 0, false
	for ; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			if quoted = !quoted; !quoted && depth == 0 {
				return i + 1
			}
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth--; depth < 0 {
				return i // of what is around a number or word
			} else if depth == 0 {
				return i + 1
			}
		case depth == 0 && (c == ',' || c == ' ' || c == '\t' || c == '\n' || c == '\r'):
			return i
		}
	}
	return len(b)
}

// Names notes the names of one object. The zero Names has none.
type Names struct {
	few  [8]string
	n    int
	many map[string]struct{}
}

// Add notes a name, and returns a *NameError where it was there.
func (s *Names) Add(name string) error {
	if s.many == nil && s.n < len(s.few) {
		if slices.Contains(s.few[:s.n], name) {
			return &NameError{name}
		}
		s.few[s.n] = name
		s.n++
		return nil
	}
	if s.many == nil {
		s.many = make(map[string]struct{})
		for _, one := range s.few {
			s.many[one] = struct{}{}
		}
	}
	if _, ok := s.many[name]; ok {
		return &NameError{name}
	}
	s.many[name] = struct{}{}
	return nil
}

// Unmarshal is json.Unmarshal with exact names: in structs, at any depth that
// structs, pointers to them and slices of them reach. Members of other names
// are ignored. A name that stands twice is a *NameError. Types with methods of
// their own for JSON read for themselves.
func Unmarshal(b []byte, v any) error {
	return unmarshal(b, v, false)
}

// UnmarshalKnown is Unmarshal that refuses members of other names, with an
// *UnknownError.
func UnmarshalKnown(b []byte, v any) error { return unmarshal(b, v, true) }

func unmarshal(b []byte, v any, known bool) error {
	var raw json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil { // also where it nests too deep for what follows
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

// field returns the field that a name is for: by its tag, or its own name.
func field(v reflect.Value, name string) (reflect.Value, bool) {
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && tag == "" && holdsStruct(f.Type) {
			inner := v.Field(i)
			if f.Type.Kind() == reflect.Pointer {
				if inner.IsNil() {
					inner.Set(reflect.New(f.Type.Elem()))
				}
				inner = inner.Elem()
			}
			if found, ok := field(inner, name); ok {
				return found, true
			}
			continue
		}
		if tag == "" { // which is not the empty name
			tag = f.Name
		}
		if f.IsExported() && f.Tag.Get("json") != "-" && tag == name {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}
