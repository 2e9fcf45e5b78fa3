package spec

import (
	"reflect"
	"testing"
)

// TestFullResolvesToItself: what a plan holds can start the same run again, also where a zero stands over a preset's value.
func TestFullResolvesToItself(t *testing.T) {
	users := []string{`{"constitution":"captain"}`,
		`{"constitution":"captain","memory_limit":0,"compute":"bf16","dpo":{"nll":0,"kl":0,"beta":0.5,"segment_steps":3},"introspection":{"reflections":0,"interactions":0}}`,
		`{"constitution":"ref:uploads/x.json","teacher":"recorded","teacher_options":{"file":"ref:uploads/y.jsonl","examples":0}}`,
		`{"constitution":"captain","teacher":"local","teacher_options":{"model":""},"preferences":{"sources":["pool"]}}`,
		`{"constitution":"captain","seed":18446744073709551615,"preferences":{"filter":{"repetition_threshold":-1}}}`}
	for _, preset := range Presets() {
		for _, user := range users {
			user, err := Set([]byte(user), "preset", preset)
			if err != nil {
				t.Fatal(err)
			}
			first, err := Resolve(user)
			if err != nil {
				continue // refused with this preset: there is no plan of it
			}
			raw, err := first.Full()
			if err != nil {
				t.Fatal(err)
			}
			again, err := Resolve(raw)
			if err != nil || !reflect.DeepEqual(first, again) {
				t.Errorf("%s: %v\nfirst %+v\nagain %+v", user, err, first, again)
			}
		}
	}
	if _, err := Resolve([]byte(users[0])); err != nil {
		t.Error(err)
	}
}
