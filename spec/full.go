package spec

import (
	"encoding/json"
	"reflect"
	"strings"
)

// Full is the spec as JSON with every field, also those that are zero: resolved again, whatever the presets of that
// release say, it gives the same spec.
func (s Spec) Full() ([]byte, error) { return json.Marshal(full(reflect.ValueOf(s))) }

func full(v reflect.Value) any {
	if v.Kind() != reflect.Struct {
		return v.Interface()
	}
	m := map[string]any{}
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		m[name] = full(v.Field(i))
	}
	return m
}
