package constitution

import (
	"fmt"
	"slices"
	"strings"
)

// Fields of our own form, in the order the template shows them.
var ownFields = []string{"name", "description", "speaker", "short", "traits", "examples", "teacher_notes", "author", "version", "tags"}

var (
	traitFields   = []string{"trait", "questions", "additional_questions"}
	exampleFields = []string{"prompt", "response"}
)

// fromTree reads our own form (a map with traits), the structured studio form
// (a map with meta, persona or directives) or the published form (a list of
// traits).
func fromTree(n *node) (*Constitution, error) {
	c := &Constitution{lines: map[string]int{}}
	switch n.kind {
	case kindList:
		return c, c.readTraits(n, "traits")
	case kindMap:
		for _, k := range n.keys {
			if slices.Contains(studioFields, k) && !slices.Contains(ownFields, k) {
				return c, c.readStudio(n)
			}
		}
		return c, c.readOwn(n)
	}
	return nil, fmt.Errorf("line %d: expected fields (name, traits, ...) or a list of traits, found %s; `character constitution new` writes a template", n.line, n.kind)
}

func (c *Constitution) readOwn(n *node) error {
	return n.fields("", ownFields, func(key string, v *node) (err error) {
		switch key {
		case "name":
			c.Name, err = v.text(key)
		case "description":
			c.Description, err = v.text(key)
			c.Description = oneLine(c.Description)
		case "speaker":
			c.SpeakerName, err = v.text(key)
		case "short":
			c.Short, err = v.text(key)
		case "teacher_notes":
			c.TeacherNotes, err = v.text(key)
		case "author":
			c.Author, err = v.text(key)
		case "version":
			c.Version, err = v.text(key)
		case "tags":
			c.Tags, err = v.texts(key)
		case "traits":
			err = c.readTraits(v, key)
		case "examples":
			err = c.readExamples(v, key)
		}
		c.lines[key] = v.line
		return err
	})
}

// readTraits reads a list whose items are maps {trait, questions,
// additional_questions} or plain texts.
func (c *Constitution) readTraits(n *node, what string) error {
	if n.kind == kindNull {
		return nil
	}
	if n.kind != kindList {
		return fmt.Errorf("line %d: %s must be a list of traits, found %s; begin each trait with \"- trait: I ...\"", n.line, what, n.kind)
	}
	for i, item := range n.items {
		place := fmt.Sprintf("trait %d", i+1)
		c.lines[place] = item.line
		if item.kind == kindScalar {
			c.Traits = append(c.Traits, Trait{Text: oneLine(item.scalar)})
			continue
		}
		var t Trait
		var more []string
		err := item.fields(place, traitFields, func(key string, v *node) (err error) {
			switch key {
			case "trait":
				t.Text, err = v.text(place + ": trait")
				t.Text = oneLine(t.Text)
			case "questions":
				t.Questions, err = c.readQuestions(v, place, 0)
			case "additional_questions":
				more, err = c.readQuestions(v, place, len(t.Questions))
			}
			return err
		})
		if err != nil {
			return err
		}
		t.Questions = append(t.Questions, more...)
		c.Traits = append(c.Traits, t)
	}
	return nil
}

func (c *Constitution) readQuestions(v *node, place string, before int) ([]string, error) {
	out, err := v.texts(place + ": questions")
	for i := range out {
		out[i] = oneLine(out[i])
		c.lines[fmt.Sprintf("%s, question %d", place, before+i+1)] = v.items[i].line
	}
	return out, err
}

func (c *Constitution) readExamples(n *node, what string) error {
	if n.kind == kindNull {
		return nil
	}
	if n.kind != kindList {
		return fmt.Errorf("line %d: %s must be a list of {prompt, response}, found %s", n.line, what, n.kind)
	}
	for i, item := range n.items {
		place := fmt.Sprintf("example %d", i+1)
		c.lines[place] = item.line
		var e Example
		err := item.fields(place, exampleFields, func(key string, v *node) (err error) {
			if key == "prompt" {
				e.Prompt, err = v.text(place + ": prompt")
			} else {
				e.Response, err = v.text(place + ": response")
			}
			return err
		})
		if err != nil {
			return err
		}
		c.Examples = append(c.Examples, e)
	}
	return nil
}

// fields calls read for every field and refuses those not in allowed.
func (n *node) fields(place string, allowed []string, read func(key string, v *node) error) error {
	if place != "" {
		place += ": "
	}
	if n.kind != kindMap {
		return fmt.Errorf("line %d: %sexpected fields (%s), found %s", n.line, place, strings.Join(allowed, ", "), n.kind)
	}
	for i, key := range n.keys {
		v := n.items[i]
		if !slices.Contains(allowed, key) {
			return fmt.Errorf("line %d: %sunknown field %s; known fields are %s%s", v.line, place, quote(key), strings.Join(allowed, ", "), colonHint(key))
		}
		if err := read(key, v); err != nil {
			return err
		}
	}
	return nil
}

// colonHint explains the usual cause of a strange field: an unquoted sentence
// with a colon, which YAML takes for a field.
func colonHint(key string) string {
	if strings.Contains(key, " ") {
		return " (if this is a sentence, put it in quotes: YAML reads \"word: \" as a field)"
	}
	return ""
}

// text returns a scalar as trimmed text; nothing gives "".
func (n *node) text(what string) (string, error) {
	switch n.kind {
	case kindNull:
		return "", nil
	case kindScalar:
		return strings.TrimSpace(n.scalar), nil
	case kindMap:
		return "", fmt.Errorf("line %d: %s must be a text, found %s; put the sentence in quotes if it holds \": \"", n.line, what, n.kind)
	}
	return "", fmt.Errorf("line %d: %s must be a text, found %s", n.line, what, n.kind)
}

// texts returns a list of scalars; a single scalar counts as a list of one.
func (n *node) texts(what string) ([]string, error) {
	switch n.kind {
	case kindNull:
		return nil, nil
	case kindScalar:
		return nil, fmt.Errorf("line %d: %s must be a list; begin each entry on its own line with \"- \"", n.line, what)
	case kindMap:
		return nil, fmt.Errorf("line %d: %s must be a list, found %s", n.line, what, n.kind)
	}
	var out []string
	for i, item := range n.items {
		s, err := item.text(fmt.Sprintf("%s, entry %d", what, i+1))
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}
