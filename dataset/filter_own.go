package dataset

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Filter judges one answer at a time. [Quality] is the one that every run has; a program can add its own, which specs name
// in preferences.filter.own and introspection.filter.own. Package filtertest has the rules as tests.
//
// Check is a function of the answer alone: no clock, no random number, no network, nothing that it remembers. Then a row is
// judged alike whatever stands beside it, whichever worker has it, and however often it is made again (the row law). It is
// called from many goroutines.
type Filter interface {
	// Name is how specs name the filter: small letters, digits and dashes, beginning with a letter.
	Name() string
	// Version says by which rules it judges. Change it whenever an answer could be judged otherwise than before: what was
	// made under another version is not used again.
	Version() string
	// Check returns the text to keep, which may be a cleaned one, and the reason for which the answer is dropped: small
	// letters, digits and underscores, "" for an answer to keep. The text of a dropped answer is for people to look at.
	Check(a Answer) (text, reason string)
}

// Answer is what a [Filter] sees.
type Answer struct {
	Character string // the constitution's name
	// Role says who speaks: teacher (with the constitution), student (without), reflection, interaction.
	Role   string
	Prompt string // what was said just before
	Text   string
	// Finish is "stop" for an answer that ended by itself, and for one that may be cut; own filters see no other.
	Finish string
}

// Quality is the filter that every run has: see [CheckResponse] and [Limits].
type Quality struct{ Limits Limits }

// Name is "quality".
func (Quality) Name() string { return "quality" }

// Version counts changes of the rules.
func (Quality) Version() string { return "1" }

// Check drops what is broken, unfinished, empty, too long, too short, repeating itself, contaminated, or out of character.
func (q Quality) Check(a Answer) (text, reason string) {
	return CheckResponse(q.Limits, a.Finish, a.Text)
}

var ownReason = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

// CheckAnswer lets the quality filter and then a program's own ones judge an answer, until one drops it. Each sees the text
// that the one before it kept. The reason of an own filter is written NAME/REASON. A filter that breaks the rules of
// [Filter] is an error.
func CheckAnswer(l Limits, own []Filter, a Answer) (text, reason string, err error) {
	text, reason = Quality{l}.Check(a)
	for _, f := range own {
		if reason != "" {
			break
		}
		a.Text = text
		text, reason = f.Check(a)
		switch {
		case !utf8.ValidString(text):
			return "", "", fmt.Errorf("dataset: filter %s returned a text that is not valid UTF-8, of the answer to %.80q; mend the filter", f.Name(), a.Prompt)
		case reason != "" && !ownReason.MatchString(reason):
			return "", "", fmt.Errorf("dataset: filter %s drops with the reason %.80q; want small letters, digits and underscores", f.Name(), reason)
		case reason != "":
			reason = f.Name() + "/" + reason
		case strings.TrimSpace(text) == "":
			return "", "", fmt.Errorf("dataset: filter %s keeps an answer to %.80q and leaves no text of it; let it give a reason instead", f.Name(), a.Prompt)
		}
	}
	return text, reason, nil
}
