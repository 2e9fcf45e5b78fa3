package spec_test

import (
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/spec"
)

// TestOwn: names of a program's own are taken in their places and nowhere else; a spec without any is written as before.
func TestOwn(t *testing.T) {
	for _, good := range []string{
		`{"constitution":"captain","teacher":"own:parrot-2"}`,
		`{"constitution":"captain","preset":"paper-scale","teacher":"own:parrot"}`,
		`{"constitution":"captain","preferences":{"filter":{"own":["a","b-c"]}},"introspection":{"filter":{"own":["a"]}},"evaluation":{"own":["rhymes"]}}`,
	} {
		s, err := spec.Resolve([]byte(good))
		if err != nil {
			t.Errorf("%s: %v", good, err)
			continue
		}
		full, err := s.Full()
		if err != nil {
			t.Fatal(err)
		}
		again, err := spec.Resolve(full)
		if err != nil || strings.Join(again.Preferences.Filter.Own, " ") != strings.Join(s.Preferences.Filter.Own, " ") || again.Teacher != s.Teacher {
			t.Errorf("%s: resolved again %+v, %v", good, again, err)
		}
	}
	for bad, want := range map[string]string{
		`{"constitution":"captain","teacher":"own:"}`:                                                     "teacher is",
		`{"constitution":"captain","teacher":"own:Parrot"}`:                                               "small letters",
		`{"constitution":"captain","teacher":"parrot"}`:                                                   "or own:NAME",
		`{"constitution":"captain","teacher":"own:parrot","teacher_options":{"model":"x"}}`:               "teacher_options.model",
		`{"constitution":"captain","preferences":{"filter":{"own":["../x"]}}}`:                            "preferences.filter.own",
		`{"constitution":"captain","introspection":{"filter":{"own":["a","a"]}}}`:                         "twice",
		`{"constitution":"captain","evaluation":{"own":[""]}}`:                                            "evaluation.own",
		`{"constitution":"captain","evaluation":{"own":["` + strings.Repeat(`a","`, 16) + `b"]}}`:         "at most 16",
		`{"constitution":"captain","preferences":{"filter":{"own":"a"}}}`:                                 "own",
		`{"constitution":"captain","preferences":{"filter":{"owns":["a"]}}}`:                              "owns",
		`{"constitution":"captain","preferences":{"filter":{"own":["` + strings.Repeat("a", 64) + `"]}}}`: "preferences.filter.own",
	} {
		if _, err := spec.Resolve([]byte(bad)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	for _, preset := range spec.Presets() {
		s, err := spec.Resolve([]byte(`{"constitution":"captain","preset":"` + preset + `"}`))
		if err != nil {
			t.Fatal(err)
		}
		full, err := s.Full()
		if err != nil || strings.Contains(string(full), `"own"`) {
			t.Errorf("%s: %s, %v", preset, full, err)
		}
	}
	for name, version := range map[string]string{"": "1", "A": "1", "-a": "1", "a": "", "b": "a b", "c": strings.Repeat("1", 65)} {
		if spec.CheckOwn("filter", name, version) == nil {
			t.Errorf("name %q, version %q are taken", name, version)
		}
	}
	if err := spec.CheckOwn("filter", "no-shouting", "v1.2_b"); err != nil {
		t.Error(err)
	}
}
