package constitution

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Limits of a constitution, in characters where they bound a text.
const (
	MaxTraits       = 100
	MaxTraitChars   = 1000
	MaxQuestions    = 1000 // a trait
	MaxQuestion     = 2000
	MaxExamples     = 100
	MaxExampleChars = 8000
	MaxShortChars   = 600
	MaxNotesChars   = 4000
	maxDescription  = 1000
	maxSpeaker      = 64
	maxProblems     = 10
)

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,63}$`)

// Validate reports everything that makes the constitution unusable, one line a
// problem with file, place and what to do; nil means it can be trained.
func (c *Constitution) Validate() error {
	var problems []error
	bad := func(place, format string, args ...any) {
		problems = append(problems, fmt.Errorf("%s%s", c.at(place), fmt.Sprintf(format, args...)))
	}
	text := func(place, s string, limit int) {
		n := utf8.RuneCountInString(s)
		switch {
		case !utf8.ValidString(s):
			bad(place, "not valid UTF-8; save the file as UTF-8")
		case n > limit:
			bad(place, "%d characters long, the limit is %d; shorten it", n, limit)
		default:
			if i := strings.IndexFunc(s, badRune); i >= 0 {
				r, _ := utf8.DecodeRuneInString(s[i:])
				bad(place, "control character U+%04X is not allowed; remove it", r)
			}
		}
	}

	if !validName.MatchString(c.Name) {
		bad("name", "%s is not a valid name; use 1 to 64 of a-z, 0-9, - and _, beginning with a letter or digit, for example \"old-captain\"", quote(c.Name))
	}
	text("description", c.Description, maxDescription)
	text("speaker", c.SpeakerName, maxSpeaker)
	if strings.ContainsRune(c.SpeakerName, '\n') {
		bad("speaker", "must be one line")
	}
	text("short", c.Short, MaxShortChars)
	text("teacher_notes", c.TeacherNotes, MaxNotesChars)

	switch {
	case len(c.Traits) == 0:
		bad("traits", "no traits; write at least one first-person sentence, for example \"I speak like an old sailor.\"")
	case len(c.Traits) > MaxTraits:
		bad("traits", "%d traits, the limit is %d; ten good ones are enough", len(c.Traits), MaxTraits)
	}
	seen := map[string]int{}
	for i, t := range c.Traits {
		place := fmt.Sprintf("trait %d", i+1)
		key := fold(t.Text)
		switch first, dup := seen[key]; {
		case key == "":
			bad(place, "empty; write a first-person sentence or remove the entry")
		case dup:
			bad(place, "says the same as trait %d; remove one", first)
		default:
			seen[key] = i + 1
		}
		text(place, t.Text, MaxTraitChars)
		if len(t.Questions) > MaxQuestions {
			bad(place, "%d questions, the limit is %d; put long prompt lists in their own file", len(t.Questions), MaxQuestions)
		}
		for j, q := range t.Questions {
			place := fmt.Sprintf("trait %d, question %d", i+1, j+1)
			if fold(q) == "" {
				bad(place, "empty; write a question or remove the entry")
			}
			text(place, q, MaxQuestion)
		}
	}
	if len(c.Examples) > MaxExamples {
		bad("examples", "%d examples, the limit is %d; the teacher sees three", len(c.Examples), MaxExamples)
	}
	for i, e := range c.Examples {
		place := fmt.Sprintf("example %d", i+1)
		if fold(e.Prompt) == "" || fold(e.Response) == "" {
			bad(place, "needs a prompt and a response; fill in both")
		}
		text(place, e.Prompt, MaxExampleChars)
		text(place, e.Response, MaxExampleChars)
	}
	if n := len(problems); n > maxProblems {
		problems = append(problems[:maxProblems], fmt.Errorf("constitution: %d more problems; mend these first", n-maxProblems))
	}
	return errors.Join(problems...)
}

// at begins a message: "constitution: captain.yaml: line 12: trait 3: ".
func (c *Constitution) at(place string) string {
	s := "constitution: "
	switch {
	case c.file != "":
		s += c.file + ": "
	case c.Name != "":
		s += c.Name + ": "
	}
	if line := c.lines[place]; line > 0 {
		s += fmt.Sprintf("line %d: ", line)
	}
	return s + place + ": "
}
