package main

import (
	"slices"
	"strings"
	"unicode"

	"github.com/opencharacter/opencharacter/dataset"
)

// salty is a filter that keeps of the teacher's answers only those with a word of the sea in them.
type salty struct{}

var sea = []string{"anchor", "bow", "captain", "chart", "crew", "harbour", "mate", "sail", "sea", "ship", "storm", "tide", "watch", "weather", "wind"}

func (salty) Name() string { return "salty" }

// Version changes with the words: an answer that was dropped may be kept then.
func (salty) Version() string { return "1" }

// Check looks at the answer alone. What the student says without the constitution need not be salty.
func (salty) Check(a dataset.Answer) (text, reason string) {
	if a.Role != "teacher" {
		return plain(a.Text)
	}
	words := strings.FieldsFunc(strings.ToLower(a.Text), func(r rune) bool { return !unicode.IsLetter(r) })
	for _, w := range words {
		if slices.Contains(sea, w) {
			return plain(a.Text)
		}
	}
	return a.Text, "no_sea"
}

// plain keeps a text as it is, but one that is only space.
func plain(text string) (string, string) {
	if strings.TrimSpace(text) == "" {
		return text, "blank"
	}
	return text, ""
}
