package spec

import (
	"encoding/json"
	"reflect"
	"strings"
)

// Full is the spec as JSON with every field, also those that are zero: resolved again, whatever the presets of that
// release say, it gives the same spec. Lists that no preset has are left out while they are empty.
func (s Spec) Full() ([]byte, error) { return json.Marshal(full(reflect.ValueOf(s))) }

func full(v reflect.Value) any {
	if v.Kind() != reflect.Struct {
		return v.Interface()
	}
	m := map[string]any{}
	for i := range v.NumField() {
		name, option, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if f := v.Field(i); option == "omitempty" && f.Kind() == reflect.Slice && f.Len() == 0 {
			continue
		}
		m[name] = full(v.Field(i))
	}
	return m
}
