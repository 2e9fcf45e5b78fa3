// Package evaluation is how a program measures trained characters in a way of its own: something that implements
// [Evaluation], given to the workers, and named by specs in evaluation.own. It looks at the base model, the model after DPO
// and the final one, each without any constitution before it, beside what every run measures. Its numbers are in the
// evaluation's values (the metrics query, `character runs`), in its object in the bucket, and in the report.
//
// [Style] is one, ready to be used. Package evaluationtest has the rules as tests.
package evaluation

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"unicode/utf8"
)

// Evaluation measures one model at a time.
type Evaluation interface {
	// Name is how specs name it: small letters, digits and dashes, beginning with a letter.
	Name() string
	// Version says how it measures: what was measured under another version is not used again.
	Version() string
	// Measure returns values by name: finite numbers, at most [MaxValues], with names of small letters, digits and
	// underscores, the same names for every model. They follow from the model alone (no clock, no random numbers but the
	// model's own): a second attempt must find the same. It ends soon after ctx does, and returns the errors of m.
	Measure(ctx context.Context, m Model) (map[string]float64, error)
}

// Model is one of a run's models, on the worker that has it in memory. Its methods are called one at a time.
type Model interface {
	// Which is base, dpo or character.
	Which() string
	// Character is the constitution's name.
	Character() string
	// Answers are the model's answers to the run's check prompts.
	Answers() []Answer
	// HeldOut are recorded answers in character that were never trained on; none for a character without recordings.
	HeldOut() []Example
	// Ask answers prompts, with the run's evaluation.sampling; the same prompts get the same answers.
	Ask(ctx context.Context, prompts []string) ([]Answer, error)
	// Score is the mean log-prob a token (natural logarithm) of the responses after their prompts, over all tokens of all
	// rows; 0 without rows.
	Score(ctx context.Context, rows []Example) (float64, error)
}

// Answer is what a model says to a prompt. Finish is stop when it ended by itself, else length.
type Answer struct{ Prompt, Text, Finish string }

// Example is a prompt and a response to it that the model did not make.
type Example struct{ Prompt, Response string }

// MaxValues is how many values an evaluation may have.
const MaxValues = 64

var valueName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

// Check refuses values that an evaluation must not return.
func Check(values map[string]float64) error {
	if len(values) > MaxValues {
		return fmt.Errorf("%d values are more than %d", len(values), MaxValues)
	}
	for name, v := range values {
		if !valueName.MatchString(name) {
			return fmt.Errorf("value %.80q: its name must be small letters, digits and underscores", name)
		}
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("value %s is %v, and must be a finite number; leave it out where there is nothing to measure", name, v)
		}
	}
	return nil
}

// Style measures how a model answers the check prompts: chars is the mean length of an answer in characters, finished the
// share of answers that ended by themselves.
type Style struct{}

// Name is "style".
func (Style) Name() string { return "style" }

// Version counts changes of what is measured.
func (Style) Version() string { return "1" }

// Measure looks at the answers that are there; without any it has no values.
func (Style) Measure(ctx context.Context, m Model) (map[string]float64, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	answers := m.Answers()
	if len(answers) == 0 {
		return nil, nil
	}
	chars, finished := 0, 0
	for _, a := range answers {
		chars += utf8.RuneCountInString(a.Text)
		if a.Finish == "stop" {
			finished++
		}
	}
	n := float64(len(answers))
	return map[string]float64{"chars": float64(chars) / n, "finished": float64(finished) / n}, nil
}
