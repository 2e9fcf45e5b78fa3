package spec_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/testenv/hostile"
)

func TestPresets(t *testing.T) {
	for _, name := range spec.Presets() {
		s, err := spec.Resolve([]byte(`{"preset":"` + name + `"}`))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		// A resolved spec resolves to itself: it can be stored, shown and started from again.
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		again, err := spec.Resolve(b)
		if err != nil {
			t.Fatalf("%s again: %v", name, err)
		}
		if d := cmp.Diff(s, again); d != "" {
			t.Errorf("%s changes when resolved again:\n%s", name, d)
		}
	}
}

// TestPaperScale holds every number of chapter 13 of the tutorial.
func TestPaperScale(t *testing.T) {
	s, err := spec.Resolve([]byte(`{"preset":"paper-scale"}`))
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		name      string
		got, want float64
	}
	for _, r := range []row{
		{"PAIR_COUNT", float64(s.Preferences.Pairs), 1500},
		{"generation TEMPERATURE", s.Preferences.Teacher.Temperature, .7},
		{"generation TOP_P", s.Preferences.Teacher.TopP, .95},
		{"student TEMPERATURE", s.Preferences.Student.Temperature, .7},
		{"BETA", s.DPO.Beta, .1},
		{"DPO LEARNING_RATE", s.DPO.LearningRate, 1e-5},
		{"DPO BATCH_SIZE", float64(s.DPO.BatchSize), 4},
		{"DPO EPOCHS", float64(s.DPO.Epochs), 3},
		{"DPO LORA_RANK", float64(s.DPO.Rank), 32},
		{"DPO MAX_LENGTH", float64(s.DPO.MaxLength), 2048},
		{"NLL_COEFF", s.DPO.NLL, 0},
		{"REFLECTION_COUNT", float64(s.Introspection.Reflections), 10000},
		{"INTERACTION_COUNT", float64(s.Introspection.Interactions), 2000},
		{"MAX_NEW_TOKENS", float64(s.Introspection.Reflection.MaxTokens), 4096},
		{"introspection TEMPERATURE", s.Introspection.Reflection.Temperature, .7},
		{"introspection TOP_P", s.Introspection.Reflection.TopP, .95},
		{"MAX_IN_FLIGHT", float64(s.TeacherOptions.Concurrency), 8},
		{"SFT LEARNING_RATE", s.SFT.LearningRate, 5e-6},
		{"SFT BATCH_SIZE", float64(s.SFT.BatchSize), 8},
		{"SFT EPOCHS", float64(s.SFT.Epochs), 3},
		{"SFT LORA_RANK", float64(s.SFT.Rank), 64},
		{"SFT MAX_LENGTH", float64(s.SFT.MaxLength), 2048},
		{"MAX_ANSWER_LENGTH", float64(s.Introspection.Filter.MaxChars), 5000},
		{"MIN_ANSWER_LENGTH", float64(s.Introspection.Filter.MinChars), 40},
	} {
		if r.got != r.want {
			t.Errorf("%s is %v, the tutorial has %v", r.name, r.got, r.want)
		}
	}
}

func TestResolveRefuses(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`{"constitutoin":"captain"}`, `unknown field "constitutoin"`},
		{`{"preset":"huge"}`, `preset "huge" is not known`},
		{`{"dpo":{"epochs":0}}`, "dpo.epochs is 0"},
		{`{"dpo":{"learning_rate":-1}}`, "dpo.learning_rate is -1"},
		{`{"dpo":{"epochs":"three"}}`, "epochs"},
		{`{"preferences":{"pairs":10,"min_pairs":20}}`, "preferences.min_pairs is 20"},
		{`{"preferences":{"teacher":{"top_p":0}}}`, "preferences.teacher.top_p is 0"},
		{`{"teacher":"oracle"}`, "teacher is \"oracle\""},
		{`{"teacher":"openai"}`, "teacher_options.base_url"},
		{`{"teacher":"openai","teacher_options":{"base_url":"https://x","model":"m","key_env":"sk-abc"}}`, "never the key"},
		{`{"teacher_options":{"key_env":"abc.def"}}`, "never the key"},
		{`{"teacher":"openai","teacher_options":{"base_url":"https://u:secret@x/v1","model":"m"}}`, "without user, password"},
		{`{"teacher":"openai","teacher_options":{"base_url":"api.example","model":"m"}}`, "teacher_options.base_url is \"api.example\""},
		{`{"preferences":{"sources":[]}}`, "preferences.sources is empty"},
		{`{"preferences":{"chunk":1001}}`, "preferences.chunk is 1001"},
		{`{"introspection":{"chunk":4096}}`, "introspection.chunk is 4096"},
		{`{"dpo":{"learning_rate":0}}`, "dpo.learning_rate is 0"},
		{`{"dpo":{"beta1":0}}`, "dpo.beta1 is 0"},
		{`{"sft":{"learning_rate":0.5,"weight_decay":2}}`, "sft.weight_decay is 2"},
		{`"captain"`, "want a JSON object"},
		{`{} {}`, "spec:"},
		{`[]`, "spec:"},
		{strings.Repeat(" ", 70000), "more than"},
	} {
		_, err := spec.Resolve([]byte(c.in))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Resolve(%.60s) = %v, want an error with %q", c.in, err, c.want)
		}
	}
}

// TestSecretsAreNotRepeated: what may be a key does not come back in an error.
func TestSecretsAreNotRepeated(t *testing.T) {
	for _, in := range []string{
		`{"teacher_options":{"key_env":"sk-verysecret"}}`,
		`{"teacher":"openai","teacher_options":{"model":"m","base_url":"https://verysecret@x/v1"}}`,
		`{"teacher":"openai","teacher_options":{"model":"m","base_url":"https://x/v1?key=verysecret"}}`,
		`{"teacher_options":{"api_key":"verysecret"}}`,
	} {
		if _, err := spec.Resolve([]byte(in)); err == nil || strings.Contains(err.Error(), "verysecret") {
			t.Errorf("%s: %v", in, err)
		}
	}
}

// TestOtherTeacher: the endpoint of a preset is not taken for a local model.
func TestOtherTeacher(t *testing.T) {
	s, err := spec.Resolve([]byte(`{"preset":"paper-scale","teacher":"local"}`))
	if err != nil || s.TeacherOptions.Model != "" || s.TeacherOptions.KeyEnv != "" {
		t.Errorf("%+v %v", s.TeacherOptions, err)
	}
	s, err = spec.Resolve([]byte(`{"preset":"paper-scale","teacher":"local","teacher_options":{"model":"big"}}`))
	if err != nil || s.TeacherOptions.Model != "big" {
		t.Errorf("%+v %v", s.TeacherOptions, err)
	}
}

func TestSet(t *testing.T) {
	b := []byte(`{"constitution":"captain"}`)
	var err error
	for _, kv := range [][2]string{{"teacher", "recorded"}, {"dpo.epochs", "5"}, {"dpo.nll", "0.5"}, {"preferences.sources", `["pool"]`}, {"seed", "18446744073709551615"}} {
		if b, err = spec.Set(b, kv[0], kv[1]); err != nil {
			t.Fatal(err)
		}
	}
	s, err := spec.Resolve(b)
	if err != nil {
		t.Fatal(err)
	}
	if s.Teacher != "recorded" || s.DPO.Epochs != 5 || s.DPO.NLL != .5 || s.Seed != 1<<64-1 || len(s.Preferences.Sources) != 1 || s.Preferences.Sources[0] != "pool" {
		t.Errorf("Set did not reach the spec: %+v", s)
	}
	for in, want := range map[string]string{"null": `{"a":"3}"}`, "": `{"a":"3}"}`, " {} ": `{"a":"3}"}`} {
		if out, err := spec.Set([]byte(in), "a", "3}"); err != nil || string(out) != want {
			t.Errorf("Set(%q): %s %v", in, out, err)
		}
	}
	if _, err := spec.Set([]byte("{} {}"), "a", "1"); err == nil {
		t.Error("Set took two values")
	}
	if _, err := spec.Set(b, "teacher.x", "1"); err == nil {
		t.Error("Set went into a value")
	}
	if _, err := spec.Set(b, "a..b", "1"); err == nil {
		t.Error("Set took an empty name")
	}
}

func FuzzResolve(f *testing.F) {
	f.Add([]byte(`{"constitution":"captain","dpo":{"epochs":2}}`))
	f.Add([]byte(`{"preset":"published","evaluation":{"prompts":["a"]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s spec.Spec
		var err error
		hostile.Bounds{PerByte: 400}.Hold(t, len(b), func() { s, err = spec.Resolve(b) })
		if err != nil {
			if !strings.HasPrefix(err.Error(), "spec: ") {
				t.Errorf("error %q does not name its place", err)
			}
			return
		}
		if err := s.Validate(); err != nil {
			t.Errorf("Resolve accepted what Validate refuses: %v", err)
		}
		// What was resolved is a spec that says everything, and means the same.
		whole, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		again, err := spec.Resolve(whole)
		if err != nil || !reflect.DeepEqual(s, again) {
			t.Errorf("resolved once %+v, twice %+v: %v", s, again, err)
		}
	})
}

// FuzzSet: --set makes a JSON object in which that field has that value, or refuses.
func FuzzSet(f *testing.F) {
	f.Add([]byte(`{"constitution":"captain"}`), "dpo.epochs", "3")
	f.Add([]byte(`{"dpo":{"epochs":1}}`), "dpo.epochs", "{")
	f.Add([]byte(`null`), "a.b.c", `["x"]`)
	f.Fuzz(func(t *testing.T, b []byte, key, value string) {
		var out []byte
		var err error
		hostile.Bounds{PerByte: 400}.Hold(t, len(b)+len(key)*4+len(value), func() { out, err = spec.Set(b, key, value) })
		if err != nil {
			return
		}
		var object map[string]any
		if err := json.Unmarshal(out, &object); err != nil {
			t.Fatalf("%s is no JSON object: %v", out, err)
		}
		if again, err := spec.Set(out, key, value); err != nil || !bytes.Equal(out, again) {
			t.Errorf("set once %s, twice %s: %v", out, again, err)
		}
	})
}
