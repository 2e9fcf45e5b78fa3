package constitution

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Finding is a warning: the constitution can be trained, but its author should
// know.
type Finding struct {
	Code    string // stable, for programs: few_traits, not_first_person, ...
	Place   string // "trait 3", "examples", ...
	Line    int    // in the file it was read from; 0 if unknown
	Message string // what was seen and what to do
}

// String gives "line 12: trait 3: message".
func (f Finding) String() string {
	if f.Line > 0 {
		return fmt.Sprintf("line %d: %s: %s", f.Line, f.Place, f.Message)
	}
	return f.Place + ": " + f.Message
}

// Check returns warnings in file order of their kind; an empty result means
// nothing to complain about. It expects a constitution that passes Validate.
func (c *Constitution) Check() []Finding {
	var out []Finding
	add := func(code, place, format string, args ...any) {
		out = append(out, Finding{Code: code, Place: place, Line: c.lines[place], Message: fmt.Sprintf(format, args...)})
	}
	if n := len(c.Traits); n < 5 {
		add("few_traits", "traits", "only %d; five to fifteen give the teacher enough to hold on to", n)
	} else if n > 20 {
		add("many_traits", "traits", "%d; a teacher loses sight of so many, fifteen are plenty", n)
	}
	if c.Description == "" {
		add("no_description", "description", "missing; one sentence tells others what to expect")
	}
	if c.Short == "" {
		add("no_short", "short", "missing; a small local teacher needs the character in two or three short sentences (\"You are ...\")")
	} else if !strings.HasPrefix(c.Short, "You ") {
		add("short_not_second_person", "short", "speaks to the teacher, so it should begin with \"You are\"")
	} else if strings.Count(c.Short, "\n") > 3 || utf8.RuneCountInString(c.Short) > 400 {
		add("long_short", "short", "longer than four lines or 400 characters; a small teacher follows less the more it must read")
	}
	for i, t := range c.Traits {
		place := fmt.Sprintf("trait %d", i+1)
		if !firstPerson.MatchString(t.Text) {
			add("not_first_person", place, "does not speak in the first person; write \"I ...\" or \"My ...\"")
		}
		if n := utf8.RuneCountInString(t.Text); n > 300 {
			add("long_trait", place, "%d characters; one clear sentence works better", n)
		}
		if n := len(t.Questions); n > 0 && n < 3 {
			add("few_questions", place, "only %d questions; five bring a trait out from several sides", n)
		}
	}
	if n := len(c.Questions()); n == 0 {
		add("no_questions", "traits", "no example questions; only the general prompts will be asked, which may never touch some traits")
	}
	c.checkRepeats(add)
	switch n := len(c.Examples); {
	case n == 0:
		add("no_examples", "examples", "none; three short answers in character help every teacher and a small one most")
	case n < 3:
		add("few_examples", "examples", "only %d; the teacher is shown three", n)
	}
	for i, e := range c.Examples {
		if utf8.RuneCountInString(e.Response) > 600 && i < maxTeacherExamples {
			add("long_example", fmt.Sprintf("example %d", i+1), "more than 600 characters; it stands in every teacher prompt and costs time with each answer")
		}
	}
	for _, t := range c.Traits {
		if strings.Contains(t.Text, "<|") || strings.Contains(t.Text, "[INST]") {
			add("control_text", "traits", "holds what looks like a chat control token (%s); it is treated as plain text", quote(t.Text))
			break
		}
	}
	return out
}

// checkRepeats finds questions that stand under several traits and prompts of
// examples that are also questions.
func (c *Constitution) checkRepeats(add func(code, place, format string, args ...any)) {
	first := map[string]string{}
	for i, t := range c.Traits {
		for j, q := range t.Questions {
			place := fmt.Sprintf("trait %d, question %d", i+1, j+1)
			if was, ok := first[fold(q)]; ok {
				add("repeated_question", place, "is the same as %s; it is asked once", was)
				continue
			}
			first[fold(q)] = place
		}
	}
	for i, e := range c.Examples {
		if was, ok := first[fold(e.Prompt)]; ok {
			add("example_is_question", fmt.Sprintf("example %d", i+1), "asks the same as %s; the teacher would copy its own example", was)
		}
	}
}
