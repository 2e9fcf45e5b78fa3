package spec

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// before and after make phases: parts before stage are over, it is under way or not, the others are ahead.
func phases(now string) func(string) Phase {
	i := slices.Index(Parts(), now)
	return func(part string) Phase {
		switch j := slices.Index(Parts(), part); {
		case now == "" || j > i:
			return Ahead
		case j == i:
			return UnderWay
		}
		return Over
	}
}

func TestAdjust(t *testing.T) {
	s, err := Resolve([]byte(`{"constitution":"captain"}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		now, changes, want string // want: the error, or "" and the changes
	}{
		{"preferences", `{"preferences.pairs":60}`, ""},
		{"preferences", `{"preferences":{"pairs":60,"min_pairs":20}}`, ""},
		{"preferences", `{"preferences.pairs":10}`, "min_pairs is 48"},
		{"preferences", `{"preferences.max_candidates":900}`, ""},
		{"preferences", `{"preferences.max_candidates":300}`, "it can grow"},
		{"", `{"preferences.max_candidates":300}`, ""},
		{"preferences", `{"preferences.teacher.temperature":1}`, "preferences.teacher.temperature cannot be changed: preferences has begun"},
		{"preferences", `{"teacher_options.concurrency":2}`, ""},
		{"dpo", `{"teacher_options.concurrency":2}`, "preferences are over"},
		{"preferences", `{"teacher_options.system":"full"}`, "preferences has begun"},
		{"preferences", `{"dpo.learning_rate":1e-5,"dpo.epochs":3,"sft.rank":8}`, ""},
		{"dpo", `{"dpo.epochs":3}`, "dpo.steps ends it sooner"},
		{"dpo", `{"dpo.learning_rate":1e-5}`, "dpo has begun"},
		{"dpo", `{"dpo.steps":3,"dpo.segment_seconds":5,"sft.learning_rate":1e-6}`, ""},
		{"dpo", `{"preferences.pairs":60}`, "preferences is over"},
		{"dpo", `{"evaluation.held_out":2}`, "evaluation.scored"},
		{"dpo", `{"evaluation.scored":2,"evaluation.prompts":["Hello!"]}`, ""},
		{"evaluation", `{"evaluation.scored":2}`, "evaluation has begun"},
		{"evaluation", `{"export.sft_weight":0.5,"memory_limit":100}`, ""},
		{"", `{"seed":2}`, "start another run"},
		{"", `{"model":"x"}`, "start another run"},
		{"", `{"preferences.file":"ref:uploads/x"}`, "start another run"},
		{"", `{"dpo.epoch":2}`, "there is no field"},
		{"", `{"stall":"1m"}`, "--stall"},
		{"", `{"dpo.epochs":"three"}`, "epochs"},
		{"", `{"dpo.epochs":null}`, "is null"},
		{"", `{"dpo.epochs":-1}`, "dpo.epochs is -1"},
		{"introspection", `{"introspection.oversample":8,"introspection.reflections":10}`, ""},
		{"introspection", `{"introspection.oversample":2}`, "it can grow"},
	} {
		list, err := ParseAdjust([]byte(c.changes))
		if err != nil {
			t.Fatal(c.changes, err)
		}
		n, changes, err := s.Adjust(list, phases(c.now))
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s in %q: %v, want %q", c.changes, c.now, err, c.want)
			}
			continue
		}
		if err != nil || len(changes) != len(list) {
			t.Errorf("%s in %q: %d changes, %v", c.changes, c.now, len(changes), err)
			continue
		}
		for i, x := range changes {
			if x.Key != list[i].Key || x.Counts == "" || string(x.From) == string(x.To) {
				t.Errorf("change %+v", x)
			}
		}
		if _, more, err := n.Adjust(list, phases(c.now)); err != nil || len(more) != 0 {
			t.Errorf("%s again: %d changes, %v", c.changes, len(more), err)
		}
	}
}

// TestAdjustedIsResolved: an adjusted spec is the one that a run would have that was started with it.
func TestAdjustedIsResolved(t *testing.T) {
	s, err := Resolve([]byte(`{"preset":"published"}`))
	if err != nil {
		t.Fatal(err)
	}
	list, err := ParseAdjust([]byte(`{"dpo":{"steps":7,"beta":0.2},"evaluation.scored":3}`))
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := s.Adjust(list, phases("preferences"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := Resolve([]byte(`{"preset":"published","dpo":{"steps":7,"beta":0.2},"evaluation":{"scored":3}}`))
	if err != nil {
		t.Fatal(err)
	}
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Errorf("adjusted %s\nstarted  %s", g, w)
	}
}

func TestParseAdjustRefuses(t *testing.T) {
	for in, want := range map[string]string{
		``: "want a JSON object", `[]`: "want a JSON object", `{}`: "no field", `{"a":{}}`: "no field", `{"a":1,"a":2}`: "given twice", `{"a.b":1,"a":{"b":2}}`: "given twice",
		`{"a":1} {}`: "more than one", `{"a":`: "adjust:", strings.Repeat(`{"a":`, 20) + "1" + strings.Repeat("}", 20): "too deep",
	} {
		if _, err := ParseAdjust([]byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
}

func FuzzParseAdjust(f *testing.F) {
	f.Add([]byte(`{"dpo.epochs":3,"sft":{"rank":8}}`))
	f.Add([]byte(`{"a":{"b":{"c":[1,{"d":2}]}}}`))
	s, err := Resolve(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := ParseAdjust(b)
		if err != nil {
			return
		}
		for _, x := range list {
			if !json.Valid(x.Value) {
				t.Errorf("%q: value %q", x.Key, x.Value)
			}
		}
		if n, _, err := s.Adjust(list, phases("preferences")); err == nil && n.Validate() != nil {
			t.Errorf("%s made a spec that is not valid: %v", b, n.Validate())
		}
	})
}
