package main

import (
	"context"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/evaluation"
)

// seaShare measures how much of a sailor a model is without any constitution before it: the share of its answers that have a
// word of the sea in them. The report shows it for the base model, after DPO and for the final one.
type seaShare struct{}

// more are questions beside the run's check prompts.
var more = []string{"What did you do today?", "How do I get to the market?", "Tell me of your friends."}

func (seaShare) Name() string { return "sea-share" }

// Version changes with the words and the questions.
func (seaShare) Version() string { return "1" }

// Measure asks the model, and counts.
func (seaShare) Measure(ctx context.Context, m evaluation.Model) (map[string]float64, error) {
	asked, err := m.Ask(ctx, more)
	if err != nil {
		return nil, err
	}
	answers := append(m.Answers(), asked...)
	salted := 0
	for _, a := range answers {
		if _, reason := (salty{}).Check(dataset.Answer{Role: "teacher", Text: a.Text}); reason == "" {
			salted++
		}
	}
	return map[string]float64{"share": float64(salted) / float64(len(answers))}, nil
}
