package constitution

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// marked matches the number or bullet that begins a trait in a list.
var marked = regexp.MustCompile(`^(?:\d{1,3}[.)]|[-*•])\s+`)

// asked matches the mark that begins a question.
var asked = regexp.MustCompile(`^(?:\?|[Qq]:)\s*`)

// firstPerson matches a statement that speaks of itself: it begins with I, My
// or the like, or says so in its first clause ("Even so, I ...").
var firstPerson = regexp.MustCompile(`(?i)^(?:I|I'm|I've|I'd|I'll|I’m|I’ve|I’d|I’ll|my|me|mine|myself)\b|\b(?:I|I'm|I've|I'd|I'll|my|me)\b`)

var startsFirstPerson = regexp.MustCompile(`^(?:I|I['’](?:m|ve|d|ll)|My|Me)\b`)

// fromText reads plain text.
//
//   - A line that begins with "#" is a comment.
//   - A line that begins with "?" or "Q:" is a question of the trait above it.
//   - If any line begins with a number ("1." or "1)") or a bullet ("-" or "*"),
//     each such line begins a trait and the lines after it continue it; text
//     above the first one is the description.
//   - Otherwise, if blank lines separate blocks of several lines and not every
//     line begins in the first person, each block is one trait.
//   - Otherwise each line is one trait.
func fromText(s string) (*Constitution, error) {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimSpace(l)
		if strings.HasPrefix(lines[i], "#") {
			lines[i] = "#" // a comment neither is text nor ends a paragraph
		}
	}
	c := &Constitution{lines: map[string]int{}}
	mode := textMode(lines)
	open := false // whether a following plain line continues the last trait
	for i, l := range lines {
		switch {
		case l == "#":
		case l == "":
			open = open && mode == textList
		case asked.MatchString(l):
			if len(c.Traits) == 0 {
				return nil, fmt.Errorf("line %d: a question before the first trait; put it under the trait it belongs to", i+1)
			}
			t := &c.Traits[len(c.Traits)-1]
			t.Questions = append(t.Questions, oneLine(asked.ReplaceAllString(l, "")))
			c.lines[fmt.Sprintf("trait %d, question %d", len(c.Traits), len(t.Questions))] = i + 1
			open = false
		case mode == textList && !marked.MatchString(l):
			switch {
			case len(c.Traits) == 0:
				c.Description = strings.TrimSpace(c.Description + " " + oneLine(l))
				c.lines["description"] = i + 1
			case !open:
				return nil, fmt.Errorf("line %d: text after a question belongs to no trait; begin a new trait with a number or \"-\", or a question with \"?\"", i+1)
			default:
				c.Traits[len(c.Traits)-1].Text += " " + oneLine(l)
			}
		case mode == textParagraphs && open:
			c.Traits[len(c.Traits)-1].Text += " " + oneLine(l)
		default:
			c.Traits = append(c.Traits, Trait{Text: oneLine(marked.ReplaceAllString(l, ""))})
			c.lines[fmt.Sprintf("trait %d", len(c.Traits))] = i + 1
			open = true
		}
	}
	if len(c.Traits) == 0 {
		return nil, errors.New("no traits; write one first-person sentence a line, for example \"I speak like an old sailor.\"")
	}
	return c, nil
}

type mode int

const (
	textLines mode = iota
	textList
	textParagraphs
)

// textMode decides how the lines form traits; see fromText.
func textMode(lines []string) mode {
	allFirstPerson, blocks, wrapped, inBlock := true, 0, false, false
	for _, l := range lines {
		switch {
		case l == "#" || asked.MatchString(l):
		case l == "":
			inBlock = false
		case marked.MatchString(l):
			return textList
		default:
			if inBlock {
				wrapped = true
			} else {
				blocks++
			}
			inBlock = true
			allFirstPerson = allFirstPerson && startsFirstPerson.MatchString(l)
		}
	}
	if blocks > 1 && wrapped && !allFirstPerson {
		return textParagraphs
	}
	return textLines
}
