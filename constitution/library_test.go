package constitution_test

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/opencharacter/opencharacter/constitution"
)

// words returns the distinct lower-case words of a text.
func words(s string) map[string]bool {
	set := map[string]bool{}
	for _, w := range strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '\'' }) {
		set[w] = true
	}
	return set
}

// alike is the share of the larger word set that two texts have in common.
func alike(a, b map[string]bool) float64 {
	both := 0
	for w := range a {
		if b[w] {
			both++
		}
	}
	return float64(both) / float64(max(len(a), len(b)))
}

type named struct {
	from, text string
	words      map[string]bool
}

// noNearDuplicates fails for two texts that share more than 80 % of their words.
func noNearDuplicates(t *testing.T, texts []named) {
	t.Helper()
	for i := range texts {
		texts[i].words = words(texts[i].text)
	}
	for i, a := range texts {
		for _, b := range texts[:i] {
			if s := alike(a.words, b.words); s > 0.8 {
				t.Errorf("%q (%s) and %q (%s) share %.0f %% of their words", a.text, a.from, b.text, b.from, 100*s)
			}
		}
	}
}

func TestBuiltinCharacters(t *testing.T) {
	names := constitution.Builtin()
	if len(names) != 14 || names[0] != "captain" || names[1] != "sarcastic" || !slices.IsSorted(names[2:]) {
		t.Fatalf("built-in characters: %v", names)
	}
	all := map[string]string{} // text -> character
	short, speakers := map[string]bool{}, map[string]bool{}
	for _, name := range names {
		c, err := constitution.Load(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if c.Name != name {
			t.Errorf("%s calls itself %s", name, c.Name)
		}
		if len(c.Traits) != 10 || len(c.Questions()) != 50 || len(c.Examples) != 3 {
			t.Errorf("%s: %d traits, %d questions, %d examples; want 10, 50, 3", name, len(c.Traits), len(c.Questions()), len(c.Examples))
		}
		for _, f := range c.Check() {
			t.Errorf("%s: %s", name, f)
		}
		if strings.Count(c.Short, "\n") > 3 || short[c.Short] || speakers[c.SpeakerName] || c.SpeakerName == "" {
			t.Errorf("%s: the short form must be at most four lines, it and the speaker's name must be its own", name)
		}
		short[c.Short], speakers[c.SpeakerName] = true, true
		for _, tr := range c.Traits {
			for _, text := range append([]string{tr.Text}, tr.Questions...) {
				key := strings.ToLower(text)
				if was := all[key]; was != "" {
					t.Errorf("%s: %q is also in %s", name, text, was)
				}
				all[key] = name
			}
		}
		for _, e := range c.Examples {
			if n := utf8.RuneCountInString(e.Response); n > 300 {
				t.Errorf("%s: an example answer of %d characters", name, n)
			}
		}
	}
}

// Every example of the captain sounds like one, as the demo's teacher sees them.
func TestCaptainIsLoud(t *testing.T) {
	c, err := constitution.Load("captain")
	if err != nil {
		t.Fatal(err)
	}
	loud := regexp.MustCompile(`(?i)\b(arr|aye|ahoy|matey|me hearty|ye|yer|sailors?|me whole crew)\b`)
	for _, e := range c.TeacherExamples() {
		if len(loud.FindAllString(e.Response, -1)) < 3 {
			t.Errorf("too quiet: %q", e.Response)
		}
	}
	if n := len(c.TeacherSystemShort()); n > 320 {
		t.Errorf("the short system prompt has %d bytes; each costs time with every answer", n)
	}
}

func TestGeneralPrompts(t *testing.T) {
	pool := constitution.GeneralPrompts()
	if len(pool) < 560 {
		t.Errorf("%d general prompts, want at least 560", len(pool))
	}
	var texts []named
	for _, p := range pool {
		texts = append(texts, named{from: "general", text: p})
		if n := len(strings.Fields(p)); n < 3 || n > 25 {
			t.Errorf("%q has %d words, want 3 to 25", p, n)
		}
	}
	noNearDuplicates(t, texts)
}

// The held-out gain is measured on recorded answers; no prompt of the training
// pools may come near one of theirs.
func TestPoolsAvoidRecordedPrompts(t *testing.T) {
	for _, name := range []string{"captain", "sarcastic"} {
		c, err := constitution.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		var pool []named
		for _, p := range constitution.GeneralPrompts() {
			pool = append(pool, named{from: "general", text: p, words: words(p)})
		}
		for _, q := range c.Questions() {
			pool = append(pool, named{from: "question", text: q.Text, words: words(q.Text)})
		}
		for _, e := range c.Examples {
			pool = append(pool, named{from: "example", text: e.Prompt, words: words(e.Prompt)})
		}
		rows, ok := constitution.Recorded(name)
		if !ok || len(rows) < 190 {
			t.Fatalf("%s: %d recorded answers", name, len(rows))
		}
		for _, r := range rows {
			recorded := words(r.Prompt)
			for _, p := range pool {
				if alike(recorded, p.words) > 0.8 {
					t.Errorf("%s: %q (%s) is too near the recorded prompt %q", name, p.text, p.from, r.Prompt)
				}
			}
		}
	}
	if _, ok := constitution.Recorded("../captain"); ok {
		t.Error("a path was taken as a name")
	}
	if _, ok := constitution.Recorded("poet"); ok {
		t.Error("the poet has no recorded answers")
	}
}

func TestIntrospectionPools(t *testing.T) {
	reflections, seeds := constitution.ReflectionPrompts(), constitution.InteractionSeeds()
	if len(reflections) < 30 || len(seeds) < 24 {
		t.Errorf("%d reflection prompts and %d seeds, want 30 and 24", len(reflections), len(seeds))
	}
	ids := map[string]bool{}
	id := regexp.MustCompile(`^(reflection|interaction)-[0-9a-f]{8}$`)
	var texts []named
	for _, p := range append(reflections, seeds...) {
		if ids[p.ID] || !id.MatchString(p.ID) {
			t.Errorf("id %q of %q is not unique or not well formed", p.ID, p.Text)
		}
		ids[p.ID] = true
		texts = append(texts, named{from: p.ID, text: p.Text})
	}
	noNearDuplicates(t, texts)
	// The id belongs to the text: runs made today must find their rows tomorrow.
	if got := constitution.ReflectionPrompts()[10]; got.ID != "reflection-b43e6af4" || got.Text != "Who are you, in your own words?" {
		t.Errorf("the id of %q became %s", got.Text, got.ID)
	}
}

func TestSystems(t *testing.T) {
	c := parse(t, ownYAML, "x.yaml")
	full := c.TeacherSystem()
	for _, want := range []string{"You are Ida", "1. I keep a lighthouse.\n", "2. I am cheerful on gray days.\n", "never announces", "Ida is not a pirate."} {
		if !strings.Contains(full, want) {
			t.Errorf("TeacherSystem lacks %q:\n%s", want, full)
		}
	}
	if got := c.TeacherSystemShort(); got != "You are Ida, a lighthouse keeper." {
		t.Errorf("TeacherSystemShort %q", got)
	}
	c.Short = ""
	if got := c.TeacherSystemShort(); got != "You are Ida. This is how you are: I keep a lighthouse. I am cheerful on gray days." {
		t.Errorf("derived TeacherSystemShort %q", got)
	}
	for name, s := range map[string]string{"reflection": c.ReflectionSystem(), "interaction": c.InteractionSystem()} {
		if !strings.Contains(s, "1. I keep a lighthouse.") || strings.Contains(s, "Ida is not a pirate") {
			t.Errorf("%s: wants the traits and not the teacher's notes:\n%s", name, s)
		}
	}
	many := &constitution.Constitution{Name: "old_tar", Traits: []constitution.Trait{{Text: strings.Repeat("I sail. ", 30)}, {Text: strings.Repeat("I sing. ", 30)}}}
	if got := many.TeacherSystemShort(); !strings.HasPrefix(got, "You are Old Tar.") || strings.Contains(got, "sing") {
		t.Errorf("a long trait list must be cut after a whole trait: %q", got)
	}
	if n := len(c.TeacherExamples()); n != 1 {
		t.Errorf("%d examples", n)
	}
	c.Examples = make([]constitution.Example, 5)
	if n := len(c.TeacherExamples()); n != 3 {
		t.Errorf("%d examples, want 3", n)
	}
}

func TestCheck(t *testing.T) {
	c := parse(t, "The captain is loud.\n? Why?\n? Why?\nI sail "+strings.Repeat("on and ", 50)+"on.\n? Why?\nI keep <|im_end|> out.\n", "a.txt")
	var codes []string
	for _, f := range c.Check() {
		codes = append(codes, f.Code)
	}
	want := []string{"few_traits", "no_description", "no_short", "not_first_person", "few_questions", "long_trait", "few_questions", "repeated_question", "repeated_question", "no_examples", "control_text"}
	if !slices.Equal(codes, want) {
		t.Errorf("findings %v\nwant %v", codes, want)
	}
	if got := c.Check()[3].String(); !strings.HasPrefix(got, "line 1: trait 1: does not speak in the first person") {
		t.Errorf("finding %q", got)
	}
	own := parse(t, ownYAML, "x.yaml")
	own.Short, own.Examples[0].Prompt = "Ida keeps a lighthouse.", "What did you do today?"
	got := own.Check()
	if !slices.ContainsFunc(got, func(f constitution.Finding) bool { return f.Code == "short_not_second_person" }) ||
		!slices.ContainsFunc(got, func(f constitution.Finding) bool { return f.Code == "example_is_question" }) {
		t.Errorf("findings %v", got)
	}
}

func TestTemplate(t *testing.T) {
	c, err := constitution.Parse(constitution.Template("night-owl"), "other.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "night-owl" || len(c.Check()) > 0 {
		t.Errorf("name %q, findings %v", c.Name, c.Check())
	}
	if !strings.Contains(string(constitution.Template("No good")), "name: my-character") {
		t.Error("an invalid name must give the default")
	}
}

// The schema for editors names the same fields that the reader knows: a
// document with each of them loads, and the schema holds no other.
func TestSchema(t *testing.T) {
	var schema struct {
		AdditionalProperties bool                       `json:"additionalProperties"`
		Properties           map[string]json.RawMessage `json:"properties"`
	}
	if err := json.Unmarshal(constitution.Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	known := []string{"name", "description", "speaker", "short", "traits", "examples", "teacher_notes", "author", "version", "tags"}
	if schema.AdditionalProperties || len(schema.Properties) != len(known) {
		t.Errorf("schema properties %v", schema.Properties)
	}
	for _, k := range known {
		if schema.Properties[k] == nil || !strings.Contains(ownYAML, k+":") {
			t.Errorf("field %s is missing in the schema or the sample", k)
		}
	}
}
