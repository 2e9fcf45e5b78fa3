package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxBytes bounds a spec; the largest honest one is a few kilobytes.
const maxBytes = 64 << 10

// maxChunk is how many rows a Parquet part holds; a chunk is one part.
const maxChunk = 1000

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// Resolve lays the user's JSON over its preset and checks the result. Empty input means the demo preset.
// Errors name the field, the value and what to write instead.
func Resolve(user []byte) (Spec, error) {
	if len(user) > maxBytes {
		return Spec{}, fmt.Errorf("spec: %d bytes is more than %d; put data into files and name them", len(user), maxBytes)
	}
	if len(bytes.TrimSpace(user)) == 0 {
		user = []byte("{}")
	}
	if user[0] == '"' {
		return Spec{}, errors.New(`spec: want a JSON object such as {"constitution":"captain"}, got a string`)
	}
	var head struct {
		Preset string `json:"preset"`
	}
	if err := json.Unmarshal(user, &head); err != nil {
		return Spec{}, fmt.Errorf(`spec: %w; want a JSON object such as {"constitution":"captain","preset":"demo"}`, err)
	}
	s, ok := preset(head.Preset)
	if !ok {
		return Spec{}, fmt.Errorf("spec: preset %q is not known; choose one of %s", head.Preset, strings.Join(Presets(), ", "))
	}
	base := s.TeacherOptions
	openai := s.Teacher == "openai"
	name := s.Preset
	d := json.NewDecoder(bytes.NewReader(user))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return Spec{}, fmt.Errorf("spec: %s; `character run --help` lists the fields", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); err != io.EOF {
		return Spec{}, errors.New("spec: more than one JSON value; give one object")
	}
	s.Preset = name
	if o := &s.TeacherOptions; openai && s.Teacher != "openai" && o.Model == base.Model {
		o.Model, o.BaseURL, o.KeyEnv = "", "", "" // the preset's endpoint is no local model
	}
	return s, s.Validate()
}

// Set puts value at a dotted key into a JSON object: Set(`{}`, "dpo.epochs", "3"). The value is read as JSON where it
// is JSON, else as a string. Whether the key exists is checked by [Resolve].
func Set(user []byte, key, value string) ([]byte, error) {
	if !utf8.ValidString(key) || !utf8.ValidString(value) { // JSON would hold other characters in their place
		return nil, fmt.Errorf("spec: --set %q=%q is not UTF-8; write it in UTF-8", key, value)
	}
	root := map[string]any{}
	if len(bytes.TrimSpace(user)) > 0 {
		d := json.NewDecoder(bytes.NewReader(user))
		d.UseNumber()
		if err := d.Decode(&root); err != nil {
			return nil, fmt.Errorf("spec: %w", err)
		}
		if _, err := d.Token(); err != io.EOF {
			return nil, errors.New("spec: more than one JSON value; give one object")
		}
		if root == nil { // null
			root = map[string]any{}
		}
	}
	at, parts := root, strings.Split(key, ".")
	for i, p := range parts {
		if p == "" {
			return nil, fmt.Errorf("spec: --set %s=%s: empty name in the key", key, value)
		}
		if i == len(parts)-1 {
			var v any
			d := json.NewDecoder(strings.NewReader(value))
			d.UseNumber()
			if err := d.Decode(&v); err != nil || !json.Valid([]byte(value)) { // text that only begins as JSON
				v = value
			}
			at[p] = v
			break
		}
		next, ok := at[p].(map[string]any)
		if !ok {
			if _, exists := at[p]; exists {
				return nil, fmt.Errorf("spec: --set %s: %q is a value, not a group", key, strings.Join(parts[:i+1], "."))
			}
			next = map[string]any{}
			at[p] = next
		}
		at = next
	}
	return json.Marshal(root)
}

// Validate refuses impossible values before any work is spent on them.
func (s Spec) Validate() error {
	var errs []error
	bad := func(field string, value any, want string) {
		errs = append(errs, fmt.Errorf("spec: %s is %v; want %s", field, value, want))
	}
	oneOf := func(field, v string, want ...string) {
		if !slices.Contains(want, v) {
			bad(field, fmt.Sprintf("%q", v), strings.Join(want, ", "))
		}
	}
	between := func(field string, v, lo, hi float64) {
		if math.IsNaN(v) || v < lo || v > hi {
			bad(field, v, fmt.Sprintf("%g to %g", lo, hi))
		}
	}
	if s.Constitution == "" {
		bad("constitution", `""`, "a built-in name or a file")
	}
	if s.Model == "" {
		bad("model", `""`, "a model's name or path")
	}
	oneOf("compute", s.Compute, "", "exact", "bf16")
	oneOf("weights", s.Weights, "", "bf16", "quantized")
	between("memory_limit", float64(s.MemoryLimit), 0, 1e9)
	if name, own := OwnTeacher(s.Teacher); own && !ownName.MatchString(name) {
		bad("teacher", quoted(s.Teacher), "own:NAME with the name of a teacher that your workers have: small letters, digits and dashes")
	} else if !own && !slices.Contains([]string{"local", "openai", "recorded"}, s.Teacher) {
		bad("teacher", quoted(s.Teacher), "local, openai, recorded, or own:NAME")
	}
	oneOf("teacher_options.system", s.TeacherOptions.System, "short", "full")
	between("teacher_options.examples", float64(s.TeacherOptions.Examples), 0, 16)
	between("teacher_options.concurrency", float64(s.TeacherOptions.Concurrency), 1, 1024)
	if _, own := OwnTeacher(s.Teacher); own && s.TeacherOptions.Model+s.TeacherOptions.BaseURL+s.TeacherOptions.KeyEnv != "" {
		bad("teacher_options.model, base_url or key_env", "set", "nothing: your workers' own teacher brings its settings along")
	}
	if s.Teacher == "openai" {
		if s.TeacherOptions.BaseURL == "" {
			bad("teacher_options.base_url", `""`, "the endpoint's address for teacher openai")
		}
		if s.TeacherOptions.Model == "" {
			bad("teacher_options.model", `""`, "the endpoint's model id for teacher openai")
		}
	}
	// What may be a secret is refused whoever the teacher is, because the spec is stored, and it is never repeated.
	if k := s.TeacherOptions.KeyEnv; k != "" && (!variable.MatchString(k) || strings.HasPrefix(k, "sk")) {
		bad("teacher_options.key_env", "not the name of an environment variable", "the variable's name, never the key")
	}
	if b := s.TeacherOptions.BaseURL; b != "" {
		if _, err := CheckEndpoint(b); err != nil {
			errs = append(errs, fmt.Errorf("spec: teacher_options.base_url is %w", err))
		}
	}
	p := s.Preferences
	if len(p.Sources) == 0 && s.Teacher != "recorded" {
		bad("preferences.sources", "empty", "constitution, pool or user")
	}
	between("preferences.pairs", float64(p.Pairs), 1, 1e6)
	between("preferences.min_pairs", float64(p.MinPairs), 1, float64(p.Pairs))
	between("preferences.max_candidates", float64(p.MaxCandidates), float64(p.Pairs), 1e7)
	between("preferences.repeats", float64(p.Repeats), 1, 1000)
	between("preferences.chunk", float64(p.Chunk), 1, maxChunk)
	between("preferences.parallel_rows", float64(p.Parallel), 1, 1024)
	for _, src := range p.Sources {
		oneOf("preferences.sources", src, "constitution", "pool", "user")
	}
	sampling := func(field string, v Sampling) {
		between(field+".temperature", v.Temperature, 0, 10)
		between(field+".top_p", v.TopP, 1e-6, 1)
		between(field+".top_k", float64(v.TopK), 0, 1e6)
		between(field+".repetition_penalty", v.RepetitionPenalty, .1, 10)
		between(field+".max_tokens", float64(v.MaxTokens), 1, 1<<20)
	}
	sampling("preferences.teacher", p.Teacher)
	sampling("preferences.student", p.Student)
	filter := func(field string, v Filter) {
		between(field+".min_chars", float64(v.MinChars), -1, 1e6)
		between(field+".max_chars", float64(v.MaxChars), -1, 1e7)
		between(field+".repetition_threshold", v.RepetitionThreshold, -1, 1)
		if v.MaxChars > 0 && v.MinChars > v.MaxChars {
			bad(field+".min_chars", v.MinChars, "at most max_chars")
		}
		checkOwnNames(field+".own", v.Own, bad)
	}
	filter("preferences.filter", p.Filter)
	train := func(field string, t Training) {
		between(field+".rank", float64(t.Rank), 1, 1024)
		between(field+".alpha", t.Alpha, 1e-3, 1e5)
		between(field+".learning_rate", t.LearningRate, 1e-12, .999)
		between(field+".warmup", t.Warmup, 0, 1)
		between(field+".min_lr_ratio", t.MinLRRatio, 0, 1)
		between(field+".clip_norm", t.ClipNorm, 0, 1e6)
		between(field+".beta1", t.Beta1, 1e-9, .999999)
		between(field+".beta2", t.Beta2, 1e-9, .99999999)
		between(field+".eps", t.Eps, 1e-30, .999)
		between(field+".weight_decay", t.WeightDecay, 0, 10)
		if t.WeightDecay*t.LearningRate >= 1 {
			bad(field+".weight_decay", t.WeightDecay, "less than 1 / learning_rate")
		}
		between(field+".batch_size", float64(t.BatchSize), 1, 65536)
		between(field+".epochs", float64(t.Epochs), 1, 1000)
		between(field+".steps", float64(t.Steps), 0, 1e9)
		between(field+".max_length", float64(t.MaxLength), 16, 1<<20)
		between(field+".micro_tokens", float64(t.MicroTokens), 16, 1<<22)
		between(field+".segment_seconds", float64(t.SegmentSeconds), 1, 86400)
		between(field+".segment_steps", float64(t.SegmentSteps), 0, 1e9)
		oneOf(field+".schedule", t.Schedule, "constant", "cosine")
	}
	train("dpo", s.DPO)
	train("sft", s.SFT)
	between("dpo.beta", s.DPO.Beta, 1e-6, 1e3)
	between("dpo.nll", s.DPO.NLL, 0, 1e3)
	between("dpo.kl", s.DPO.KL, 0, 1e3)
	if s.SFT.Beta != 0 || s.SFT.NLL != 0 || s.SFT.KL != 0 {
		bad("sft.beta, sft.nll and sft.kl", "set", "nothing: they belong to dpo")
	}
	i := s.Introspection
	between("introspection.reflections", float64(i.Reflections), 0, 1e7)
	between("introspection.interactions", float64(i.Interactions), 0, 1e7)
	if i.Reflections+i.Interactions == 0 {
		bad("introspection.reflections and interactions", 0, "at least one row")
	}
	between("introspection.turns", float64(i.Turns), 2, 100)
	between("introspection.oversample", i.Oversample, 1, 100)
	between("introspection.reflection_prompts", float64(i.ReflectionTop), 1, 1000)
	between("introspection.chunk", float64(i.Chunk), 1, maxChunk)
	between("introspection.parallel_rows", float64(i.Parallel), 1, 1024)
	between("introspection.min_share", i.MinShare, 0, 1)
	sampling("introspection.reflection", i.Reflection)
	sampling("introspection.interaction", i.Interaction)
	filter("introspection.filter", i.Filter)
	between("evaluation.held_out", float64(s.Evaluation.HeldOut), 0, 1e5)
	between("evaluation.scored", float64(s.Evaluation.Scored), 0, 1e5)
	sampling("evaluation.sampling", s.Evaluation.Sampling)
	if len(s.Evaluation.Prompts) > 200 {
		bad("evaluation.prompts", len(s.Evaluation.Prompts), "at most 200")
	}
	checkOwnNames("evaluation.own", s.Evaluation.Own, bad)
	between("export.sft_weight", s.Export.SFTWeight, 0, 100)
	return errors.Join(errs...)
}
