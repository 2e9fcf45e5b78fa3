package constitution_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/opencharacter/opencharacter/constitution"
	"github.com/opencharacter/opencharacter/testenv/hostile"
)

const ownYAML = `name: keeper
description: A lighthouse keeper.
speaker: Ida
short: You are Ida, a lighthouse keeper.
traits:
  - trait: I keep a lighthouse.
    questions:
      - What did you do today?
      - "Two things: why and how?"
  - I am cheerful on gray days.
examples:
  - prompt: How are you?
    response: |
      Fair winds!
      The lamp is clean.
teacher_notes: Ida is not a pirate.
author: me
version: 2
tags: [sea, calm]
`

func parse(t *testing.T, text, file string) *constitution.Constitution {
	t.Helper()
	c, err := constitution.Parse([]byte(text), file)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestParseOwnForm(t *testing.T) {
	c := parse(t, ownYAML, "x.yaml")
	wantTraits := []constitution.Trait{
		{Text: "I keep a lighthouse.", Questions: []string{"What did you do today?", "Two things: why and how?"}},
		{Text: "I am cheerful on gray days."},
	}
	if d := cmp.Diff(wantTraits, c.Traits); d != "" {
		t.Error(d)
	}
	wantExamples := []constitution.Example{{Prompt: "How are you?", Response: "Fair winds!\nThe lamp is clean."}}
	if d := cmp.Diff(wantExamples, c.Examples); d != "" {
		t.Error(d)
	}
	got := []string{c.Name, c.Description, c.SpeakerName, c.Short, c.TeacherNotes, c.Author, c.Version, strings.Join(c.Tags, " ")}
	want := []string{"keeper", "A lighthouse keeper.", "Ida", "You are Ida, a lighthouse keeper.", "Ida is not a pirate.", "me", "2", "sea calm"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestParseForms(t *testing.T) {
	two := []constitution.Trait{{Text: "I sail.", Questions: []string{"Why?"}}, {Text: "I sing.", Questions: []string{"How?"}}}
	bare := []constitution.Trait{{Text: "I sail."}, {Text: "I sing."}}
	for _, tc := range []struct {
		name, file, text string
		want             []constitution.Trait
	}{
		{"JSON list in .txt", "a.txt", `[{"trait":"I sail.","questions":["Why?"]},` + "\n" + `{"trait":"I sing.","additional_questions":["How?"]}]`, two},
		{"JSON list of texts", "a.json", `["I sail.", "I sing."]`, bare},
		{"JSON object", "a.json", `{"traits":[{"trait":"I sail."},{"trait":"I sing."}]}`, bare},
		{"JSONL", "a.jsonl", `{"trait":"I sail.","questions":["Why?"]}` + "\r\n\r\n" + `{"trait":"I sing.","questions":["How?"]}`, two},
		{"JSONL of one line", "a.jsonl", `{"trait":"I sail."}`, bare[:1]},
		{"YAML list of the published form", "a.yml", "- trait: I sail.\n  questions: [Why?]\n- trait: I sing.\n  questions:\n  - How?\n", two},
		{"YAML by content", "character", "traits:\n- I sail.\n- I sing.\n", bare},
		{"byte order mark", "a.txt", "\ufeffI sail.\nI sing.\n", bare},
		{"text lines with questions", "a.txt", "I sail.\n? Why?\nI sing.\nQ: How?\n", two},
		{"text with comments and blank lines", "a.txt", "# head\n\nI sail.\n\n# mid\nI sing.\n", bare},
		{"numbered text with wrapped lines", "a.txt", "1. I\n   sail.\n? Why?\n2) I sing.\n? How?", two},
		{"bullets", "a.md", "* I sail.\n* I sing.", bare},
		{"paragraphs", "a.txt", "I\nsail.\n\nI sing.", bare},
		{"groups of first-person lines", "a.txt", "I sail.\nI sing.\n\nI eat.", append(bare[:2:2], constitution.Trait{Text: "I eat."})},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if d := cmp.Diff(tc.want, parse(t, tc.text, tc.file).Traits); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestParseTextDescription(t *testing.T) {
	c := parse(t, "A sailor of the\nold school.\n\n1. I sail.\n2. I sing.\n", "old Sailor!.txt")
	if c.Description != "A sailor of the old school." || c.Name != "old-sailor" || c.Speaker() != "Old Sailor" {
		t.Errorf("description %q, name %q, speaker %q", c.Description, c.Name, c.Speaker())
	}
}

func TestParseStudio(t *testing.T) {
	text := `meta: {name: pirate, version: 1, description: A pirate., tags: [sea], author: x}
persona:
  identity: I am a pirate. I love gold.
  voice: {tone: rowdy, formality: low, vocabulary: [arr, ahoy], avoid: [slang]}
directives:
  personality:
  - I am loud.
  - I love gold.
  behavior: [I stay in character.]
  constraints: []
safety:
  refusals: [I refuse harm.]
  boundaries: [I am loud.]
examples: [{prompt: Hello, response: Arr!}]
signoffs: [Fair winds!, Ahoy!]
quality_score: 0.8
`
	c := parse(t, text, "p.yaml")
	var got []string
	for _, tr := range c.Traits {
		got = append(got, tr.Text)
	}
	want := []string{
		"I am a pirate. I love gold.", "My tone is rowdy.", "My level of formality is low.", "I like to use words such as arr, ahoy.",
		"In my speech I avoid: slang.", "I am loud.", "I love gold.", "I stay in character.", "I refuse harm.",
		"I often end with words such as: Fair winds! / Ahoy!",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if c.Name != "pirate" || c.Description != "A pirate." || len(c.Examples) != 1 {
		t.Errorf("%+v", c)
	}
	// An identity that only joins directives adds no trait.
	joined := strings.Replace(text, "I am a pirate. I love gold.", "I am loud. I love gold.", 1)
	if first := parse(t, joined, "p.yaml").Traits[0].Text; first != "My tone is rowdy." {
		t.Errorf("first trait %q", first)
	}
}

// Each bad input gives one error that names the file, the place and a next step.
func TestParseErrors(t *testing.T) {
	for _, tc := range []struct {
		name, file, text string
		want             []string
	}{
		{"empty", "a.yaml", " \n", []string{"a.yaml", "empty", "write at least one trait"}},
		{"unknown field", "a.yaml", "name: a\ntraits: [I sail.]\nmood: bad\n", []string{"a.yaml", "line 3", `unknown field "mood"`, "teacher_notes"}},
		{"unknown trait field", "a.json", "[\n{\"trait\":\"I sail.\",\n\"question\":[]}]", []string{"line 3", "trait 1", `unknown field "question"`}},
		{"unquoted colon", "a.yaml", "traits:\n  - I say this: arr\n", []string{"line 2", "trait 1", "put it in quotes"}},
		{"unquoted colon in a question", "a.yaml", "traits:\n- trait: I sail.\n  questions:\n  - Tell me: why?\n", []string{"line 4", "questions, entry 1", "quotes"}},
		{"repeated key", "a.json", "{\"name\":\"a\",\n\"name\":\"b\",\"traits\":[\"I sail.\"]}", []string{"line 2", `"name" is given twice`}},
		{"repeated YAML key", "a.yaml", "name: a\nname: b\ntraits: [I sail.]\n", []string{"line 2", "name"}},
		{"no traits", "a.yaml", "name: a\n", []string{"a.yaml", "no traits", "write at least one"}},
		{"empty list", "a.json", "[]", []string{"no traits"}},
		{"only comments", "a.txt", "# nothing\n", []string{"no traits"}},
		{"empty trait", "a.yaml", "traits:\n- I sail.\n- \"\"\n", []string{"line 3", "trait 2", "empty"}},
		{"null trait", "a.yaml", "traits:\n- trait:\n  questions: [Why?]\n", []string{"line 2", "trait 1", "empty"}},
		{"duplicate trait", "a.txt", "I sail.\nI sing.\ni  SAIL\n", []string{"line 3", "trait 3", "same as trait 1"}},
		{"too long", "a.txt", "I sail. " + strings.Repeat("x", 1001), []string{"line 1", "trait 1", "limit is 1000"}},
		{"too many", "a.txt", strings.Repeat("I sail.\n", 101), []string{"101 traits", "more problems"}},
		{"too large", "a.txt", strings.Repeat("I sail.\n", 1<<18), []string{"a.txt", "limit is 1048576"}},
		{"not UTF-8", "a.txt", "I sail.\nI \xff.\n", []string{"line 2", "0xff", "UTF-8"}},
		{"control character", "a.txt", "I sail.\nI \x1b[31m.\n", []string{"line 2", "U+001B"}},
		{"escaped control character", "a.json", "[\n\"I \\u0007 sail.\"]", []string{"line 2", "trait 1", "U+0007"}},
		{"bad name", "a.yaml", "name: Old Captain\ntraits: [I sail.]\n", []string{"line 1", "Old Captain", "old-captain"}},
		{"no name", "???.txt", "I sail.", []string{"file name", "name:"}},
		{"broken YAML", "a.yaml", "traits:\n- trait: \"I sail.\n", []string{"a.yaml", "line 2", "not valid YAML"}},
		{"broken JSON", "a.json", "[\n{\"trait\": \"I sail.\"},\n{\"trait\" \"x\"}]", []string{"line 3", "not valid JSON"}},
		{"cut JSON", "a.json", "[{\"trait\": \"I sail.\"},", []string{"line 1", "too early"}},
		{"JSON and more", "a.json", "[\"I sail.\"]\nx", []string{"line 2"}},
		{"bad JSONL line", "a.jsonl", "{\"trait\": \"I sail.\"}\n{\"trait\": 1 2}\n", []string{"line 2", "not valid JSON"}},
		{"wrong type", "a.yaml", "traits: yes\n", []string{"line 1", "must be a list"}},
		{"scalar document", "a.yaml", "hello", []string{"line 1", "found a text", "template"}},
		{"questions as text", "a.yaml", "traits:\n- trait: I sail.\n  questions: Why?\n", []string{"line 3", "must be a list"}},
		{"empty question", "a.yaml", "traits:\n- trait: I sail.\n  questions: [Why?, '']\n", []string{"line 3", "question 2", "empty"}},
		{"half an example", "a.yaml", "traits: [I sail.]\nexamples:\n- prompt: Hello\n", []string{"line 3", "example 1", "needs a prompt and a response"}},
		{"alias", "a.yaml", "traits:\n- &a I sail.\n- *a\n", []string{"line 2", "anchors"}},
		{"tag", "a.yaml", "traits:\n- !!str I sail.\n", []string{"line 2", "tags"}},
		{"two documents", "a.yaml", "traits: [I sail.]\n---\ntraits: [I sing.]\n", []string{"line 3", "second YAML document"}},
		{"deep brackets", "a.yaml", strings.Repeat("[", 1000), []string{"nested too deep"}},
		{"deep marks", "a.yaml", strings.Repeat("- ", 1000) + "x", []string{"nested too deep"}},
		{"endless line", "a.yaml", strings.Repeat("\"", 40000), []string{"line 1", "longer than 32768 bytes"}},
		{"many anchors", "a.yaml", strings.Repeat("- &a\n", 2000), []string{"line 1001", "anchors"}},
		{"deep JSON", "a.json", strings.Repeat("[", 100000), []string{"nested too deep"}},
		{"question first", "a.txt", "? Why?\nI sail.\n", []string{"line 1", "before the first trait"}},
		{"text after a question", "a.txt", "1. I sail.\n? Why?\nmore\n", []string{"line 3", "belongs to no trait"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := constitution.Parse([]byte(tc.text), tc.file)
			if err == nil {
				t.Fatalf("no error; got %d traits", len(c.Traits))
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q lacks %q", err, w)
				}
			}
		})
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "keeper.yaml")
	if err := os.WriteFile(file, []byte(ownYAML), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := constitution.Load(file); err != nil || c.Name != "keeper" {
		t.Errorf("%v %v", c, err)
	}
	big := filepath.Join(dir, "big.yaml")
	if err := os.WriteFile(big, make([]byte, constitution.MaxFileBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for arg, want := range map[string]string{
		"":                           "built-in characters: captain, sarcastic",
		"nobody":                     "no built-in character and no file called",
		filepath.Join(dir, "x.yaml"): "no file",
		dir:                          "not a regular file",
		big:                          "limit is 1048576",
	} {
		if _, err := constitution.Load(arg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Load(%q): error %v, want %q", arg, err, want)
		}
	}
}

func TestCanonical(t *testing.T) {
	c := parse(t, ownYAML, "x.yaml")
	again := parse(t, string(c.Canonical()), "y.json")
	if again.SHA256 != c.SHA256 || len(c.SHA256) != 64 {
		t.Errorf("round trip: %s, then %s", c.SHA256, again.SHA256)
	}
	if info := parse(t, strings.Replace(ownYAML, "author: me", "author: you", 1), "x.yaml"); info.SHA256 != c.SHA256 {
		t.Error("the author changed the hash")
	}
	if other := parse(t, strings.Replace(ownYAML, "gray days", "dark days", 1), "x.yaml"); other.SHA256 == c.SHA256 {
		t.Error("another trait kept the hash")
	}
	const want = `{"name":"a","traits":[{"trait":"I <3 the sea & gold."}]}` + "\n"
	if got := parse(t, "I <3 the sea & gold.", "a.txt").Canonical(); string(got) != want {
		t.Errorf("canonical %s, want %s", got, want)
	}
}

// Parse neither panics nor hangs, and what it accepts is valid and survives a
// round trip through the canonical form.
func FuzzParse(f *testing.F) {
	f.Add([]byte(ownYAML), "a.yaml")
	f.Add(constitution.Template("x"), "x.yaml")
	f.Add([]byte(`[{"trait":"I sail.","questions":["Why?"],"additional_questions":["How?"]}]`), "a.txt")
	f.Add([]byte("{\"trait\":\"I sail.\"}\n{\"trait\":\"I sing.\"}"), "a.jsonl")
	f.Add([]byte("meta: {name: a}\npersona: {identity: I am, voice: {tone: x}}\ndirectives: {personality: [I sail.]}"), "a.yaml")
	f.Add([]byte("Who.\n1. I sail.\n? Why?\n2) I sing."), "a.txt")
	f.Add([]byte("traits:\n- &a I sail.\n- *a\n- ? b\n  : - c\n- |2-\n  x\n- >+\n y"), "a.yaml")
	f.Fuzz(func(t *testing.T, data []byte, file string) {
		var c *constitution.Constitution
		var err error
		// The YAML parser keeps every token with its origin.
		hostile.Bounds{Base: 8 << 20, PerByte: 4000}.Hold(t, len(data), func() { c, err = constitution.Parse(data, file) })
		if err != nil {
			if !strings.HasPrefix(err.Error(), "constitution: ") {
				t.Errorf("error without its place: %v", err)
			}
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("accepted but not valid: %v", err)
		}
		again, err := constitution.Parse(c.Canonical(), "again.json")
		if err != nil {
			t.Fatalf("canonical form: %v", err)
		}
		if !bytes.Equal(again.Canonical(), c.Canonical()) {
			t.Fatalf("round trip:\n%s\n%s", c.Canonical(), again.Canonical())
		}
		c.Check()
		if c.TeacherSystem() == "" || c.TeacherSystemShort() == "" {
			t.Fatal("empty system prompt")
		}
	})
}
