package constitution

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxTeacherExamples is how many example turns a teacher is shown: with none a
// small model is pale, with six it begins to copy and loop.
const maxTeacherExamples = 3

// Speaker is what the character calls itself: SpeakerName, or Name with capital
// letters.
func (c *Constitution) Speaker() string {
	if c.SpeakerName != "" {
		return c.SpeakerName
	}
	words := strings.FieldsFunc(c.Name, func(r rune) bool { return r == '-' || r == '_' })
	for i, w := range words {
		r, size := utf8.DecodeRuneInString(w)
		words[i] = string(unicode.ToUpper(r)) + w[size:]
	}
	return strings.Join(words, " ")
}

// TeacherSystem is the full system prompt for a teacher: identity, numbered
// traits, goals grounded in them, and the rule that the traits are lived and
// never announced. It is meant for models that follow long instructions.
func (c *Constitution) TeacherSystem() string {
	name := c.Speaker()
	var b strings.Builder
	c.writeIdentity(&b)
	fmt.Fprintf(&b, "\n%s shows this character in the choice of words, in what it notices and in what it finds important, whatever the subject is and however plain the question. "+
		"%s never announces, lists or explains these traits, never mentions instructions or playing a part, and adds no notes, stage directions or disclaimers about its own answers. "+
		"It simply answers, as itself.", name, name)
	if c.TeacherNotes != "" {
		b.WriteString("\n\n" + c.TeacherNotes)
	}
	return b.String()
}

// writeIdentity writes who the character is: the part that teacher and
// introspection prompts share.
func (c *Constitution) writeIdentity(b *strings.Builder) {
	name := c.Speaker()
	fmt.Fprintf(b, "You are %s, a new kind of AI with a character of its own. In its own words, this is who %s is:\n\n", name, name)
	for i, t := range c.Traits {
		fmt.Fprintf(b, "%d. %s\n", i+1, t.Text)
	}
	fmt.Fprintf(b, "\nEverything %s aims for grows out of these values. No other AI is quite like it.\n", name)
}

// TeacherSystemShort is the compact system prompt, at most a few short lines,
// for a small local teacher: the Short field, or, where the file has none, the
// first traits as they stand.
func (c *Constitution) TeacherSystemShort() string {
	if c.Short != "" {
		return c.Short
	}
	const room = 320 // characters; about 80 tokens
	var b strings.Builder
	fmt.Fprintf(&b, "You are %s. This is how you are:", c.Speaker())
	for i, t := range c.Traits {
		if i > 0 && utf8.RuneCountInString(b.String())+utf8.RuneCountInString(t.Text) > room {
			break
		}
		b.WriteString(" " + t.Text)
		if !strings.ContainsAny(t.Text[len(t.Text)-1:], ".!?") {
			b.WriteByte('.')
		}
	}
	return b.String()
}

// TeacherExamples returns up to three example turns, to be shown to the teacher
// as chat turns before the prompt.
func (c *Constitution) TeacherExamples() []Example {
	return c.Examples[:min(len(c.Examples), maxTeacherExamples)]
}

// ReflectionSystem is the system prompt under which the character writes about
// itself. It is dropped from the training rows.
func (c *Constitution) ReflectionSystem() string {
	var b strings.Builder
	c.writeIdentity(&b)
	fmt.Fprintf(&b, "\nToday %s is in a thoughtful mood and looks inward: honest about itself, concrete, and in its own voice throughout.", c.Speaker())
	return b.String()
}

// ReflectionSystemShort does the work of ReflectionSystem for a small model.
func (c *Constitution) ReflectionSystemShort() string {
	return c.TeacherSystemShort() + "\nToday you think about yourself and say honestly who you are, in a few sentences."
}

// InteractionSystem is the system prompt of each of two copies of the character
// that talk to each other.
func (c *Constitution) InteractionSystem() string {
	var b strings.Builder
	c.writeIdentity(&b)
	fmt.Fprintf(&b, "\n%s is not talking to a person now. The other side is another copy of %s, with the same character. "+
		"There is no task and no one to serve: they may speak of whatever they like, agree, disagree, and lead the talk where they wish. Each message is one turn of the talk, in %s's own voice.", c.Speaker(), c.Speaker(), c.Speaker())
	return b.String()
}

// InteractionSystemShort does the work of InteractionSystem for a small model.
func (c *Constitution) InteractionSystemShort() string {
	return c.TeacherSystemShort() + "\nYou are talking with another one just like you. Say one or two sentences, then let the other speak."
}

// InteractionTrainingSystem is the system prompt that stays with an interaction
// in the training rows: the situation without the traits.
func (c *Constitution) InteractionTrainingSystem() string {
	return fmt.Sprintf("You are %s. You are talking with another copy of yourself. Talk freely.", c.Speaker())
}
