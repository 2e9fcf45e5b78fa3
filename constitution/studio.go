package constitution

import (
	"fmt"
	"strings"
	"unicode"
)

// Top-level fields of the structured form that Open Character Studio writes.
var studioFields = []string{"meta", "persona", "directives", "safety", "examples", "signoffs", "quality_score"}

// studio collects the sections of the structured form before they become
// traits: the order in the file does not matter.
type studio struct {
	identity, tone, formality                                      string
	vocabulary, avoid                                              []string
	personality, behavior, constraints, refusals, boundaries, ends []string
	lines                                                          map[string]int // text -> line
}

// readStudio maps the structured form to traits: identity (unless the
// personality directives repeat it), voice, personality, behavior, constraints,
// refusals, boundaries, signoffs, in this order. A text that stands in two
// sections becomes one trait.
func (c *Constitution) readStudio(n *node) error {
	s := studio{lines: map[string]int{}}
	err := n.fields("", studioFields, func(key string, v *node) error {
		switch key {
		case "meta":
			return c.readMeta(v)
		case "persona":
			return s.readPersona(v)
		case "directives":
			return v.fields(key, []string{"personality", "behavior", "constraints"}, func(key string, v *node) (err error) {
				switch key {
				case "personality":
					s.personality, err = s.list(v, "directives: "+key)
				case "behavior":
					s.behavior, err = s.list(v, "directives: "+key)
				default:
					s.constraints, err = s.list(v, "directives: "+key)
				}
				return err
			})
		case "safety":
			return v.fields(key, []string{"refusals", "boundaries"}, func(key string, v *node) (err error) {
				if key == "refusals" {
					s.refusals, err = s.list(v, "safety: "+key)
				} else {
					s.boundaries, err = s.list(v, "safety: "+key)
				}
				return err
			})
		case "signoffs":
			var err error
			s.ends, err = s.list(v, key)
			return err
		case "examples":
			return c.readExamples(v, key)
		}
		_, err := v.text(key) // quality_score: a rating of the file, not of the character
		return err
	})
	if err != nil {
		return err
	}
	s.addTraits(c)
	return nil
}

func (c *Constitution) readMeta(n *node) error {
	return n.fields("meta", []string{"name", "version", "description", "tags", "author"}, func(key string, v *node) (err error) {
		switch key {
		case "name":
			c.Name, err = v.text("meta: name")
			c.lines["name"] = v.line
		case "version":
			c.Version, err = v.text("meta: version")
		case "description":
			c.Description, err = v.text("meta: description")
			c.Description = oneLine(c.Description)
			c.lines["description"] = v.line
		case "tags":
			c.Tags, err = v.texts("meta: tags")
		case "author":
			c.Author, err = v.text("meta: author")
		}
		return err
	})
}

func (s *studio) readPersona(n *node) error {
	return n.fields("persona", []string{"identity", "voice"}, func(key string, v *node) (err error) {
		if key == "identity" {
			s.identity, err = v.text("persona: identity")
			s.identity = oneLine(s.identity)
			s.lines[s.identity] = v.line
			return err
		}
		if v.kind == kindNull {
			return nil
		}
		return v.fields("persona: voice", []string{"tone", "formality", "vocabulary", "avoid"}, func(key string, v *node) (err error) {
			switch key {
			case "tone":
				s.tone, err = v.text("voice: tone")
			case "formality":
				s.formality, err = v.text("voice: formality")
			case "vocabulary":
				s.vocabulary, err = s.list(v, "voice: vocabulary")
			default:
				s.avoid, err = s.list(v, "voice: avoid")
			}
			return err
		})
	})
}

func (s *studio) list(v *node, what string) ([]string, error) {
	out, err := v.texts(what)
	for i := range out {
		out[i] = oneLine(out[i])
		s.lines[out[i]] = v.items[i].line
	}
	return out, err
}

func (s *studio) addTraits(c *Constitution) {
	seen := map[string]bool{}
	add := func(text string) {
		if k := fold(text); text == "" || !seen[k] {
			seen[k] = true
			c.Traits = append(c.Traits, Trait{Text: text})
			c.lines[fmt.Sprintf("trait %d", len(c.Traits))] = s.lines[text]
		}
	}
	if s.identity != "" && !s.repeated() {
		add(s.identity)
	}
	if s.tone != "" {
		add("My tone is " + strings.TrimRight(s.tone, ".") + ".")
	}
	if s.formality != "" {
		add("My level of formality is " + strings.TrimRight(s.formality, ".") + ".")
	}
	if len(s.vocabulary) > 0 {
		add("I like to use words such as " + strings.Join(s.vocabulary, ", ") + ".")
	}
	if len(s.avoid) > 0 {
		add("In my speech I avoid: " + strings.Join(s.avoid, ", ") + ".")
	}
	for _, section := range [][]string{s.personality, s.behavior, s.constraints, s.refusals, s.boundaries} {
		for _, text := range section {
			add(text)
		}
	}
	if len(s.ends) > 0 {
		add("I often end with words such as: " + strings.Join(s.ends, " / "))
	}
}

// repeated reports that the identity says nothing the directives do not say:
// files of this form often open with their first directives joined.
func (s *studio) repeated() bool {
	rest := s.identity
	for _, section := range [][]string{s.personality, s.behavior, s.constraints} {
		for _, text := range section {
			if text != "" {
				rest = strings.ReplaceAll(rest, text, "")
			}
		}
	}
	return strings.IndexFunc(rest, unicode.IsLetter) < 0
}
