package dataset

import (
	"reflect"
	"strings"
	"unicode/utf8"
)

// validText returns row with every string in it made valid UTF-8. The row that is passed in is never changed: what needs a change is copied.
func validText[T any](row T) T {
	v := reflect.ValueOf(&row).Elem()
	if !validStrings(v) {
		v.Set(copyValid(v))
	}
	return row
}

func validStrings(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.String:
		return utf8.ValidString(v.String())
	case reflect.Struct:
		for i := range v.NumField() {
			if !validStrings(v.Field(i)) {
				return false
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			if !validStrings(v.Index(i)) {
				return false
			}
		}
	}
	return true
}

func copyValid(v reflect.Value) reflect.Value {
	out := reflect.New(v.Type()).Elem()
	out.Set(v)
	switch v.Kind() {
	case reflect.String:
		out.SetString(strings.ToValidUTF8(v.String(), "\uFFFD"))
	case reflect.Struct:
		for i := range v.NumField() {
			out.Field(i).Set(copyValid(v.Field(i)))
		}
	case reflect.Slice:
		if v.IsNil() {
			return out
		}
		out.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
		for i := range v.Len() {
			out.Index(i).Set(copyValid(v.Index(i)))
		}
	}
	return out
}
