// Command material prints what a run of a preset is made of, as JSON: the resolved spec,
// the prompts in the order in which they are tried, what stands before them, and the
// held-out answers. bench/reference/method.py does the same run with transformers + TRL
// from it.
//
//	go run ./bench/peers/material -constitution captain -preset demo -set dpo.epochs=1 > material.json
package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/opencharacter/opencharacter/constitution"
	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/spec"
)

// message is a turn of a chat.
type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// talk begins a conversation: the second speaker heard the greeting and said the opener.
type talk struct {
	Opener   string `json:"opener"`
	Greeting string `json:"greeting"`
}

// example is a prompt with an answer.
type example struct {
	Prompt   string `json:"prompt"`
	Response string `json:"response"`
}

// material is the JSON.
type material struct {
	Spec           spec.Spec `json:"spec"`
	Teacher        []message `json:"teacher"` // before every prompt of the teacher
	Full           string    `json:"full"`    // the whole constitution as a system prompt
	Reflection     string    `json:"reflection"`
	Interaction    string    `json:"interaction"`
	Training       string    `json:"training"` // the system prompt that stays with interactions in the training rows
	Prompts        []string  `json:"prompts"`
	Reflections    []string  `json:"reflections"`
	Talks          []talk    `json:"talks"`
	HeldOut        []example `json:"held_out"`
	PreferenceChar int       `json:"preference_min_chars"`
}

func main() {
	name := flag.String("constitution", "captain", "built-in character or constitution file with recorded answers")
	preset := flag.String("preset", "demo", "preset of the run")
	var set []string
	flag.Func("set", "set one field of the spec, as in character run, e.g. preferences.pairs=8 (repeatable)", func(s string) error {
		set = append(set, s)
		return nil
	})
	flag.Parse()
	m, err := collect(*name, *preset, set)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "material:", err)
		os.Exit(1)
	}
}

func collect(name, preset string, set []string) (material, error) {
	c, err := constitution.Load(name)
	if err != nil {
		return material{}, err
	}
	raw, err := json.Marshal(map[string]string{"constitution": c.Name, "preset": preset})
	if err != nil {
		return material{}, err
	}
	for _, kv := range set {
		key, value, ok := strings.Cut(kv, "=")
		if !ok {
			return material{}, fmt.Errorf("-set %q: want KEY=VALUE", kv)
		}
		if raw, err = spec.Set(raw, key, value); err != nil {
			return material{}, err
		}
	}
	s, err := spec.Resolve(raw)
	if err != nil {
		return material{}, err
	}
	if s.Teacher != "local" {
		return material{}, fmt.Errorf("preset %s has the teacher %s; only a local one can be compared", preset, s.Teacher)
	}
	recorded, ok := constitution.Recorded(c.Name)
	if !ok {
		return material{}, fmt.Errorf("%s has no recorded answers to measure with; choose captain or sarcastic", c.Name)
	}
	recorded = dataset.Shuffle(recorded, s.Seed, func(e constitution.Example) string { return "held-out\x00" + e.Prompt })
	m := material{Spec: s, Full: c.TeacherSystem(), Reflection: c.ReflectionSystem(), Interaction: c.InteractionSystem(), Training: c.InteractionTrainingSystem(),
		PreferenceChar: cmp.Or(s.Preferences.Filter.MinChars, dataset.DefaultPreferenceMinChars)}
	skip := map[string]bool{}
	for _, e := range recorded[:min(s.Evaluation.HeldOut, len(recorded))] {
		m.HeldOut = append(m.HeldOut, example{e.Prompt, e.Response})
		skip[fold(e.Prompt)] = true
	}
	system := c.TeacherSystem()
	if s.TeacherOptions.System == "short" {
		system, m.Reflection, m.Interaction = c.TeacherSystemShort(), c.ReflectionSystemShort(), c.InteractionSystemShort()
	}
	m.Teacher = []message{{"system", system}}
	examples := c.TeacherExamples()
	for _, e := range examples[:min(s.TeacherOptions.Examples, len(examples))] {
		m.Teacher = append(m.Teacher, message{"user", e.Prompt}, message{"assistant", e.Response})
	}
	m.Prompts = prompts(c, s, skip)
	in := s.Introspection
	pool := constitution.ReflectionPrompts()
	for i := range room(in.Reflections, in.Oversample) {
		m.Reflections = append(m.Reflections, pool[i%min(in.ReflectionTop, len(pool))].Text)
	}
	seeds := constitution.InteractionSeeds()
	for i := range room(in.Interactions, in.Oversample) {
		m.Talks = append(m.Talks, talk{seeds[i%len(seeds)].Text, seeds[(i+1)%len(seeds)].Text})
	}
	return m, nil
}

// prompts are those of the preference stage in its order: constitution and pool without
// the held-out ones, shuffled by the seed, then again for every repeat.
func prompts(c *constitution.Constitution, s spec.Spec, skip map[string]bool) []string {
	var rows []string
	add := func(text string) {
		if k := fold(text); !skip[k] {
			skip[k] = true
			rows = append(rows, text)
		}
	}
	if slices.Contains(s.Preferences.Sources, "constitution") {
		for _, t := range c.Traits {
			for _, q := range t.Questions {
				add(q)
			}
		}
	}
	if slices.Contains(s.Preferences.Sources, "pool") {
		for _, t := range constitution.GeneralPrompts() {
			add(t)
		}
	}
	rows = dataset.Shuffle(rows, s.Seed, func(text string) string {
		h := sha256.Sum256([]byte(text))
		return "p-" + hex.EncodeToString(h[:8])
	})
	rows = slices.Repeat(rows, max(s.Preferences.Repeats, 1))
	return rows[:min(len(rows), s.Preferences.MaxCandidates)]
}

// room is how many rows may be tried for a target of passing ones.
func room(target int, oversample float64) int {
	if target == 0 {
		return 0
	}
	return max(int(float64(target)*oversample+.5), target+16)
}

func fold(s string) string { return strings.ToLower(strings.Join(strings.Fields(s), " ")) }
