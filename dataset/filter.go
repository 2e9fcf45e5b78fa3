package dataset

import (
	"cmp"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Reasons for which a row is dropped. A row has the first one that applies, in this order.
const (
	ReasonInvalidUTF8   = "invalid_utf8"     // broken characters
	ReasonUnfinished    = "unfinished"       // did not end by itself, or ended inside its reasoning
	ReasonJSONWrapped   = "json_wrapped"     // JSON instead of text, and no answer could be taken out of it
	ReasonEmpty         = "empty"            // nothing left after the reasoning was cut off
	ReasonTooLong       = "too_long_answer"  // more than MaxChars
	ReasonTooShort      = "too_short_answer" // less than MinChars
	ReasonRepetition    = "repetition"       // says the same again and again
	ReasonContamination = "contamination"    // goes on as a dialogue, or contains control tokens of a chat template
	ReasonIdentityLeak  = "identity_leak"    // speaks as an AI product, or of its instructions
	ReasonTooManyTokens = "too_many_tokens"  // more than MaxTokens; only CheckTokens gives it
)

// Reasons lists all reasons in the order in which they are tried.
func Reasons() []string {
	return []string{
		ReasonInvalidUTF8, ReasonUnfinished, ReasonJSONWrapped, ReasonEmpty, ReasonTooLong, ReasonTooShort,
		ReasonRepetition, ReasonContamination, ReasonIdentityLeak, ReasonTooManyTokens,
	}
}

// Limits of the quality filters. Zero means the default, -1 turns a limit off. Lengths are in characters (Unicode code points).
type Limits struct {
	MinChars            int     `json:"min_chars,omitempty"`            // 0 = 40
	MaxChars            int     `json:"max_chars,omitempty"`            // 0 = 5000
	RepetitionThreshold float64 `json:"repetition_threshold,omitempty"` // share of the text that repeats what it said; 0 = 0.3
	MaxTokens           int     `json:"max_tokens,omitempty"`           // for CheckTokens; 0 = no limit
	AllowContamination  bool    `json:"allow_contamination,omitempty"`  // turns the filter off
	AllowIdentity       bool    `json:"allow_identity,omitempty"`       // turns the filter off
}

// The defaults of Limits.
const (
	DefaultMinChars            = 40
	DefaultMaxChars            = 5000
	DefaultRepetitionThreshold = 0.3
	// DefaultPreferenceMinChars is lower: "Aye." is a good answer to a yes-or-no question, but no reflection.
	DefaultPreferenceMinChars = 2
)

// PreferenceLimits are the default limits for the answers of preference pairs.
func PreferenceLimits() Limits { return Limits{MinChars: DefaultPreferenceMinChars} }

// Validate refuses limits that can not be meant.
func (l Limits) Validate() error {
	d := l.withDefaults()
	switch {
	case l.MinChars < -1:
		return fmt.Errorf("dataset: filter limit min_chars %d is impossible; use a number of characters, 0 for the default, -1 for off", l.MinChars)
	case l.MaxChars < -1:
		return fmt.Errorf("dataset: filter limit max_chars %d is impossible; use a number of characters, 0 for the default, -1 for off", l.MaxChars)
	case d.MaxChars >= 0 && d.MinChars > d.MaxChars:
		return fmt.Errorf("dataset: filter limits min_chars %d and max_chars %d leave nothing; make the first the smaller one", d.MinChars, d.MaxChars)
	case !(l.RepetitionThreshold == -1 || (l.RepetitionThreshold >= 0 && l.RepetitionThreshold <= 1)): // also true for NaN
		return fmt.Errorf("dataset: filter limit repetition_threshold %v is impossible; use a share from 0 to 1, 0 for the default, -1 for off", l.RepetitionThreshold)
	case l.MaxTokens < -1:
		return fmt.Errorf("dataset: filter limit max_tokens %d is impossible; use a number of tokens, or 0 for none", l.MaxTokens)
	}
	return nil
}

func (l Limits) withDefaults() Limits {
	l.MinChars = cmp.Or(l.MinChars, DefaultMinChars)
	l.MaxChars = cmp.Or(l.MaxChars, DefaultMaxChars)
	l.RepetitionThreshold = cmp.Or(l.RepetitionThreshold, DefaultRepetitionThreshold)
	return l
}

// CheckResponse applies the quality filters to one answer. finish is how the sampler or the endpoint says it ended: only "stop" is finished, whatever the last
// character is. clean is the text to keep: without reasoning, without a JSON wrapper, trimmed; of a dropped answer it is for people to look at.
// reason is "" for an answer to keep.
func CheckResponse(l Limits, finish, text string) (clean, reason string) {
	l = l.withDefaults()
	if !utf8.ValidString(text) || strings.ContainsRune(text, utf8.RuneError) {
		return strings.TrimSpace(strings.ToValidUTF8(text, "\uFFFD")), ReasonInvalidUTF8
	}
	clean, open := cutReasoning(text)
	if finish != "stop" || open {
		return clean, ReasonUnfinished
	}
	clean, ok := unwrapJSON(clean)
	if !ok {
		return clean, ReasonJSONWrapped
	}
	chars := utf8.RuneCountInString(clean)
	switch {
	case chars == 0:
		return clean, ReasonEmpty
	case l.MaxChars >= 0 && chars > l.MaxChars:
		return clean, ReasonTooLong
	case l.MinChars >= 0 && chars < l.MinChars:
		return clean, ReasonTooShort
	case l.RepetitionThreshold >= 0 && Repetition(clean) >= l.RepetitionThreshold:
		return clean, ReasonRepetition
	case !l.AllowContamination && contaminated(clean):
		return clean, ReasonContamination
	case !l.AllowIdentity && leaksIdentity(clean):
		return clean, ReasonIdentityLeak
	}
	return clean, ""
}

// CheckTokens drops a row that is too long to train on. Nothing is ever cut off silently.
func (l Limits) CheckTokens(tokens int) (reason string) {
	if l.MaxTokens > 0 && tokens > l.MaxTokens {
		return ReasonTooManyTokens
	}
	return ""
}
