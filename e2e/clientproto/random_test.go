package clientproto_test

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"unicode/utf8"
)

// fill sets v, which is zero, to something random. It leaves most fields zero, so that
// messages of all sizes come out.
func fill(r *rand.Rand, v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(randomUint(r) & (math.MaxUint64 >> (64 - v.Type().Bits())))
	case reflect.Int32, reflect.Int64:
		v.SetInt(int64(randomUint(r)) << (64 - v.Type().Bits()) >> (64 - v.Type().Bits()))
	case reflect.String:
		v.SetString(randomText(r))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(r, v.Elem(), depth+1)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes(randomJSON(r))
			return
		}
		for range 1 + r.IntN(3) {
			one := reflect.New(v.Type().Elem()).Elem()
			fill(r, one, depth+1)
			v.Set(reflect.Append(v, one))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 1 + r.IntN(3) {
			value := reflect.New(v.Type().Elem()).Elem()
			fill(r, value, depth+1)
			v.SetMapIndex(reflect.ValueOf(randomText(r)), value)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if f.IsExported() && (r.IntN(3) == 0 || f.Type.Kind() == reflect.Struct) && depth < 8 {
				fill(r, v.Field(i), depth)
			}
		}
	default:
		panic("a new kind of field: " + v.Type().String())
	}
}

// randomUint favours the numbers at which encodings change.
func randomUint(r *rand.Rand) uint64 {
	n := uint64(1) << r.IntN(64)
	return n + uint64(r.IntN(3)) - 1
}

func randomText(r *rand.Rand) string {
	const runes = "abc:\"\\/<&\x00\n\r\t\x1f\x7fü€\u2028\uFEFF\uFFFD😀"
	all := []rune(runes)
	n := r.IntN(12)
	if r.IntN(8) == 0 {
		n = 120 + r.IntN(16) // where the length in Protobuf gets longer
	}
	var b strings.Builder
	for range n {
		b.WriteRune(all[r.IntN(len(all))])
	}
	return b.String()
}

func randomJSON(r *rand.Rand) []byte {
	b, err := json.Marshal(randomValue(r, 0))
	if err != nil || !utf8.Valid(b) {
		panic(err)
	}
	if r.IntN(3) == 0 {
		var c bytes.Buffer
		json.Indent(&c, b, "\r", "\t")
		b = append(c.Bytes(), " \n"...)
	}
	return b
}

func randomValue(r *rand.Rand, depth int) any {
	switch n := r.IntN(8); {
	case n == 0:
		return nil
	case n == 1:
		return r.IntN(2) == 0
	case n == 2:
		return randomUint(r)
	case n == 3:
		return r.NormFloat64()
	case n < 6 || depth > 3:
		return randomText(r)
	case n == 6:
		all := []any{}
		for range r.IntN(4) {
			all = append(all, randomValue(r, depth+1))
		}
		return all
	default:
		all := map[string]any{}
		for range r.IntN(4) {
			all[randomText(r)] = randomValue(r, depth+1)
		}
		return all
	}
}
