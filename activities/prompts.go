package activities

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/opencharacter/opencharacter/constitution"
	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/store"
)

// PromptSet is a table of prompts in the order in which they are tried.
type PromptSet struct {
	Index store.Ref `json:"index"` // a JSON list of part refs
	Count int       `json:"count"`
	// Engines and Teachers are how many chunks the live workers of either queue can make at once; 0 = not known.
	Engines  int `json:"engines,omitempty"`
	Teachers int `json:"teachers,omitempty"`
}

// promptsPerPart is the number of prompts in every part but the last; row i is in part i / promptsPerPart.
const promptsPerPart = 1000

// MakePromptsInput names the plan and what the prompts are for.
type MakePromptsInput struct {
	Plan store.Ref `json:"plan"`
	Kind string    `json:"kind"` // preferences, reflection or interaction
}

// MakePrompts writes the prompts of a stage. Preference prompts: the constitution's questions, the general pool and the
// user's file, shuffled by the seed, then again for every repeat; the held-out prompts are left out. With the recorded
// teacher: its prompts, each once.
func (d *Data) MakePrompts(ctx context.Context, in MakePromptsInput) (PromptSet, error) {
	p, err := getPlan(ctx, d.Store, in.Plan)
	if err != nil {
		return PromptSet{}, err
	}
	c, err := getConstitution(ctx, d.Store, p)
	if err != nil {
		return PromptSet{}, err
	}
	rows, err := Prompts(ctx, d.Store, p, c, in.Kind)
	if err != nil {
		return PromptSet{}, err
	}
	var refs []store.Ref
	for part := range slices.Chunk(rows, promptsPerPart) {
		r, err := dataset.WriteParts(ctx, d.Store, "parts/prompts", part)
		if err != nil {
			return PromptSet{}, err
		}
		refs = append(refs, r...)
	}
	index, err := putJSON(ctx, d.Store, "parts/prompts", refs)
	return PromptSet{Index: index, Count: len(rows), Engines: lanesOf(ctx, d.Lanes, EngineQueue), Teachers: lanesOf(ctx, d.Lanes, TeacherQueue)}, err
}

// Prompts lists the prompts of a stage: see [Data.MakePrompts]. The store is read for files of the user's only.
func Prompts(ctx context.Context, s *store.Store, p Plan, c *constitution.Constitution, kind string) ([]dataset.Prompt, error) {
	in := p.Spec.Introspection
	switch kind {
	case KindPreferences:
		return preferencePrompts(ctx, s, p, c)
	case "reflection":
		all := constitution.ReflectionPrompts()
		return cycle(all[:min(in.ReflectionTop, len(all))], limit(in.Reflections, in.Oversample)), nil
	case "interaction":
		return cycle(constitution.InteractionSeeds(), limit(in.Interactions, in.Oversample)), nil
	}
	return nil, fatal(BadInput, fmt.Errorf("activities: prompts of kind %q are not known", kind))
}

// limit is how many rows may be tried for a target of passing ones. Small targets get some room at least.
func limit(target int, oversample float64) int {
	if target == 0 {
		return 0
	}
	return max(int(float64(target)*oversample+.5), target+16)
}

// cycle repeats the prompts in turn: row i is prompt i mod len, replicate i / len.
func cycle(from []constitution.ReflectionPrompt, n int) []dataset.Prompt {
	rows := make([]dataset.Prompt, 0, n)
	for i := range n {
		q := from[i%len(from)]
		rows = append(rows, dataset.Prompt{ID: fmt.Sprintf("%s-%05d", q.ID, i/len(from)), Text: q.Text, Source: q.ID, Trait: -1})
	}
	return rows
}

func preferencePrompts(ctx context.Context, s *store.Store, p Plan, c *constitution.Constitution) ([]dataset.Prompt, error) {
	rec, err := recorded(ctx, s, p)
	if err != nil {
		return nil, err
	}
	held, rest := splitHeldOut(p, rec)
	skip := map[string]bool{}
	for _, h := range held {
		skip[fold(h.Prompt)] = true
	}
	var rows []dataset.Prompt
	add := func(source string, trait int, text string) {
		if k := fold(text); !skip[k] {
			skip[k] = true
			rows = append(rows, dataset.Prompt{ID: "p-" + shortHash(text), Text: text, Source: source, Trait: trait})
		}
	}
	if p.Spec.Teacher == "recorded" {
		for _, r := range rest {
			add("recorded", -1, r.Prompt)
		}
		rows = dataset.Shuffle(rows, p.Spec.Seed, func(r dataset.Prompt) string { return r.ID })
		return rows[:min(len(rows), p.Spec.Preferences.MaxCandidates)], nil
	}
	if p.Prompts != nil && slices.Contains(p.Spec.Preferences.Sources, "user") {
		texts, err := userPrompts(ctx, s, *p.Prompts)
		if err != nil {
			return nil, err
		}
		for _, t := range texts {
			add("user", -1, t)
		}
	}
	if slices.Contains(p.Spec.Preferences.Sources, "constitution") {
		for i, t := range c.Traits {
			for _, q := range t.Questions {
				add("constitution", i, q)
			}
		}
	}
	if slices.Contains(p.Spec.Preferences.Sources, "pool") {
		for _, t := range constitution.GeneralPrompts() {
			add("pool", -1, t)
		}
	}
	if len(rows) == 0 {
		return nil, fatal(BadInput, fmt.Errorf("spec: preferences.sources %v give no prompt; add pool, or prompts of your own", p.Spec.Preferences.Sources))
	}
	rows = dataset.Shuffle(rows, p.Spec.Seed, func(r dataset.Prompt) string { return r.ID })
	once := len(rows)
	for r := 1; r < p.Spec.Preferences.Repeats && len(rows) < p.Spec.Preferences.MaxCandidates; r++ {
		for _, q := range rows[:once] {
			q.ID = fmt.Sprintf("%s-r%d", q.ID, r)
			rows = append(rows, q)
		}
	}
	return rows[:min(len(rows), p.Spec.Preferences.MaxCandidates)], nil
}

// splitHeldOut takes the held-out answers off the recorded ones: a choice by the seed, the same wherever it is asked.
func splitHeldOut(p Plan, rec []constitution.Example) (held, rest []constitution.Example) {
	rec = dataset.Shuffle(slices.Clone(rec), p.Spec.Seed, func(e constitution.Example) string { return "held-out\x00" + e.Prompt })
	n := min(p.Spec.Evaluation.HeldOut, len(rec))
	return rec[:n], rec[n:]
}

// userPrompts reads the user's prompts: one a line, or JSONL rows {"prompt": ...}.
func userPrompts(ctx context.Context, s *store.Store, r store.Ref) ([]string, error) {
	b, err := s.Get(ctx, r)
	if err != nil {
		return nil, err
	}
	texts, err := ParsePrompts(b, r.Key)
	return texts, fatal(BadInput, err)
}

// Limits of a file of prompts, in bytes.
const (
	maxPromptFile = 64 << 20
	maxPromptLine = 1 << 20
)

// ParsePrompts reads prompts, one a line or as JSONL rows {"prompt": "..."}. Errors name the line.
func ParsePrompts(b []byte, name string) ([]string, error) {
	if len(b) > maxPromptFile {
		return nil, fmt.Errorf("prompts %s: %d bytes; the limit is %d (64 MiB); split the file", name, len(b), maxPromptFile)
	}
	var out []string
	sc := bufio.NewScanner(bytes.NewReader(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))))
	sc.Buffer(nil, maxPromptLine)
	read := 0
	for line := 1; sc.Scan(); line++ {
		read = line
		t := strings.TrimSpace(sc.Text())
		if t == "" {
			continue
		}
		if !utf8.ValidString(t) {
			return nil, fmt.Errorf("prompts %s line %d: not valid UTF-8", name, line)
		}
		if t[0] == '{' {
			var row struct {
				Prompt string `json:"prompt"`
			}
			if err := json.Unmarshal([]byte(t), &row); err != nil || strings.TrimSpace(row.Prompt) == "" {
				return nil, fmt.Errorf(`prompts %s line %d: want {"prompt": "..."} or plain text`, name, line)
			}
			t = strings.TrimSpace(row.Prompt)
		}
		out = append(out, t)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("prompts %s line %d: %w; a prompt can have 1 MiB", name, read+1, err)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("prompts %s: the file has no prompt; put one a line", name)
	}
	return out, nil
}

// prompts reads rows [from, to) of a prompt set.
func prompts(ctx context.Context, s *store.Store, set store.Ref, from, to int) ([]dataset.Prompt, error) {
	refs, err := getJSON[[]store.Ref](ctx, s, set)
	if err != nil {
		return nil, err
	}
	lo, hi := from/promptsPerPart, (to+promptsPerPart-1)/promptsPerPart
	if from < 0 || to < from || hi > len(refs) {
		return nil, fmt.Errorf("activities: prompts %d to %d are outside the set", from, to)
	}
	rows, err := dataset.ReadParts[dataset.Prompt](ctx, s, refs[lo:hi])
	if err != nil {
		return nil, err
	}
	if to-lo*promptsPerPart > len(rows) {
		return nil, fmt.Errorf("activities: prompts %d to %d are outside the set", from, to)
	}
	return rows[from-lo*promptsPerPart : to-lo*promptsPerPart], nil
}

func fold(s string) string { return strings.ToLower(strings.Join(strings.Fields(s), " ")) }

func shortHash(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:8])
}
