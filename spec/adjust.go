package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
)

// Phase is how far a part of the spec (preferences, dpo, introspection, sft, evaluation) is in a run.
type Phase int

// Phases. A part that is under way has made rows or steps that its fields shaped.
const (
	Ahead Phase = iota
	UnderWay
	Over
)

// Setting is one field and its new value.
type Setting struct {
	Key   string          `json:"key"` // dotted: dpo.epochs
	Value json.RawMessage `json:"value"`
}

// Change is one field that an adjustment changed.
type Change struct {
	Key  string          `json:"key"`
	From json.RawMessage `json:"from"`
	To   json.RawMessage `json:"to"`
	// Counts says from which point on.
	Counts string `json:"counts"`
}

// Parts are the groups of a spec that a run does one after the other.
func Parts() []string { return []string{"preferences", "dpo", "introspection", "sft", "evaluation"} }

// rule says when a field may change. A field of a part that has no rule may change until its part begins.
type rule int

const (
	speed  rule = iota + 1 // shapes no bit: until its part is over
	target                 // how much is made: the first rows or steps are the same whatever it is
	grow                   // how much may be tried: under way it can only grow
)

var rules = map[string]rule{
	"preferences.chunk": speed, "preferences.parallel_rows": speed, "introspection.chunk": speed, "introspection.parallel_rows": speed,
	"dpo.micro_tokens": speed, "dpo.segment_seconds": speed, "dpo.segment_steps": speed,
	"sft.micro_tokens": speed, "sft.segment_seconds": speed, "sft.segment_steps": speed,
	"preferences.pairs": target, "preferences.min_pairs": target,
	"introspection.reflections": target, "introspection.interactions": target, "introspection.min_share": target,
	"dpo.steps": target, "sft.steps": target,
	"preferences.max_candidates": grow, "preferences.repeats": grow, "introspection.oversample": grow,
}

// anytime are fields that shape no stage.
var anytime = map[string]string{
	"memory_limit":      "from the next segment",
	"export.sft_weight": "at the export",
}

// elsewhere are fields that shape more than the part whose name they have, or another one: the part that must not have begun.
var elsewhere = map[string]string{
	"evaluation.held_out":    "preferences",
	"teacher_options.system": "preferences", "teacher_options.examples": "preferences",
}

// instead says what can be done where a field cannot change any more.
var instead = map[string]string{
	"evaluation.held_out": "the preference prompts were chosen so that these answers stay unseen; evaluation.scored scores fewer of them",
	"dpo.epochs":          "its checkpoints belong to the schedule they were made with; dpo.steps ends it sooner",
	"sft.epochs":          "its checkpoints belong to the schedule they were made with; sft.steps ends it sooner",
}

// fields are the dotted names of all fields of a spec.
var fields = func() map[string]bool {
	all := map[string]bool{}
	var walk func(prefix string, t reflect.Type)
	walk = func(prefix string, t reflect.Type) {
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			if ft := t.Field(i).Type; ft.Kind() == reflect.Struct {
				walk(prefix+name+".", ft)
			} else {
				all[prefix+name] = true
			}
		}
	}
	walk("", reflect.TypeFor[Spec]())
	return all
}()

// maxDepth bounds how deep the groups of an adjustment nest; a spec's own nest three deep.
const maxDepth = 8

// ParseAdjust reads an adjustment: {"dpo.epochs": 3} or {"dpo": {"epochs": 3}}. Whether its fields exist and may change
// is for [CheckAdjust]. The result is in the order of the keys.
func ParseAdjust(raw []byte) ([]Setting, error) {
	if len(raw) > maxBytes {
		return nil, fmt.Errorf("adjust: %d bytes is more than %d", len(raw), maxBytes)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var out []Setting
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New(`adjust: want a JSON object of fields and their new values, such as {"dpo.epochs":3}`)
	}
	if err := flatten(d, "", 1, &out); err != nil {
		return nil, fmt.Errorf("adjust: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("adjust: more than one JSON value; give one object")
	}
	if len(out) == 0 {
		return nil, errors.New(`adjust: no field is named; give some, such as {"dpo.epochs":3}`)
	}
	slices.SortStableFunc(out, func(a, b Setting) int { return strings.Compare(a.Key, b.Key) })
	for i := 1; i < len(out); i++ {
		if out[i].Key == out[i-1].Key {
			return nil, fmt.Errorf("adjust: %s is given twice", quoted(out[i].Key))
		}
	}
	return out, nil
}

// flatten reads the members of an object after its brace.
func flatten(d *json.Decoder, prefix string, depth int, out *[]Setting) error {
	if depth > maxDepth {
		return errors.New("the groups nest too deep")
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		key := prefix + t.(string) // a member's first token is its name
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return fmt.Errorf("%s: %w", quoted(key), err)
		}
		if v[0] != '{' {
			*out = append(*out, Setting{key, v})
			continue
		}
		in := json.NewDecoder(bytes.NewReader(v))
		in.UseNumber()
		if _, err := in.Token(); err != nil {
			return err
		}
		if err := flatten(in, key+".", depth+1, out); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

// CheckAdjust refuses, by name and with the reason, fields that do not exist or cannot change any more. phase tells how
// far a part of the run is.
func CheckAdjust(list []Setting, phase func(part string) Phase) error {
	var errs []error
	for _, s := range list {
		if _, err := counts(s.Key, phase); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// counts says from when on a changed field counts.
func counts(key string, phase func(part string) Phase) (string, error) {
	refuse := func(why string) (string, error) { return "", fmt.Errorf("adjust: %s cannot be changed: %s", key, why) }
	group, _, _ := strings.Cut(key, ".")
	switch {
	case key == "stall":
		return refuse("it is a setting of the worker; start the worker with another --stall")
	case key == "teacher_options.concurrency":
		if phase("preferences") == Over {
			return refuse("preferences are over, and nobody else asks the teacher")
		}
		return "from the next chunk", nil
	case !fields[key]:
		return "", fmt.Errorf("adjust: there is no field %s; the names are those of the spec (`character plan` and the report show it)", quoted(key))
	case anytime[key] != "":
		return anytime[key], nil
	}
	part := group
	if p := elsewhere[key]; p != "" {
		part = p
	}
	if !slices.Contains(Parts(), part) || strings.HasSuffix(key, ".file") || key == "preferences.prompts" {
		return refuse("everything the run makes follows from it; start another run")
	}
	unit := "chunk"
	if part == "dpo" || part == "sft" {
		unit = "segment"
	}
	switch ph := phase(part); {
	case ph == Ahead:
		return "when " + part + " begins", nil
	case ph == UnderWay && rules[key] != 0:
		return "from the next " + unit, nil
	case ph == Over && part == group:
		return refuse(part + " is over")
	case instead[key] != "":
		return refuse(part + " has begun, and " + instead[key])
	case ph == Over:
		return refuse(part + " is over, and was made with it")
	}
	return refuse(part + " has begun, and rows or steps are made with the old value; fields of stages that have not begun can change")
}

// Adjust lays settings over a resolved spec. Fields that have that value already change nothing. Errors name the field,
// and s stays as it was.
func (s Spec) Adjust(list []Setting, phase func(part string) Phase) (Spec, []Change, error) {
	if err := CheckAdjust(list, phase); err != nil {
		return s, nil, err
	}
	was, err := s.Full()
	if err != nil {
		return s, nil, err
	}
	raw := was
	for _, x := range list {
		if bytes.Equal(bytes.TrimSpace(x.Value), []byte("null")) {
			return s, nil, fmt.Errorf("adjust: %s is null; give a value", x.Key)
		}
		if raw, err = Set(raw, x.Key, string(x.Value)); err != nil {
			return s, nil, err
		}
	}
	n, err := Resolve(raw)
	if err != nil {
		return s, nil, fmt.Errorf("adjust: %w", err)
	}
	is, err := n.Full()
	if err != nil {
		return s, nil, err
	}
	var out []Change
	for _, x := range list {
		from, to := at(was, x.Key), at(is, x.Key)
		if bytes.Equal(from, to) {
			continue
		}
		c, err := counts(x.Key, phase)
		if err != nil {
			return s, nil, err
		}
		if part, _, _ := strings.Cut(x.Key, "."); rules[x.Key] == grow && phase(part) == UnderWay && less(to, from) {
			return s, nil, fmt.Errorf("adjust: %s is %s and %s are under way: it can grow, not shrink to %s: prompts beyond that may be tried already", x.Key, from, part, to)
		}
		out = append(out, Change{x.Key, from, to, c})
	}
	return n, out, nil
}

// at is a field's value in a spec's full JSON.
func at(full []byte, key string) json.RawMessage {
	v := json.RawMessage(full)
	for name := range strings.SplitSeq(key, ".") {
		var m map[string]json.RawMessage
		if json.Unmarshal(v, &m) != nil {
			return nil
		}
		v = m[name]
	}
	return v
}

func less(a, b json.RawMessage) bool {
	var x, y float64
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && x < y
}
