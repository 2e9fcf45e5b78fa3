package activities

import (
	"context"
	"time"

	"go.temporal.io/sdk/activity"
)

// Work is one unit of work that an engine has done, committed or not: a sampled or scored row, a training step. Whoever
// collects them can say what was done twice after a fault.
type Work struct {
	At       time.Time `json:"at"`
	Workflow string    `json:"workflow"`
	Activity string    `json:"activity"`
	Attempt  int32     `json:"attempt"`
	Kind     string    `json:"kind"` // what was done: a role, a training, reference, evaluation
	Unit     string    `json:"unit"` // which row or step
}

// Meter is told what an engine does as it does it, for metrics. Its methods must be quick and safe for concurrent use.
// Package metrics has one.
type Meter interface {
	// Drawn is one answer or turn of a kind: a role, interaction, evaluation.
	Drawn(kind string, tokens int)
	// Scored is sequences of a kind that were scored: reference, evaluation.
	Scored(kind string, tokens int)
	// Trained is one step, the done-th of total, with the values of metrics.jsonl.
	Trained(stage string, done, total, tokens int, took time.Duration, values map[string]float64)
	// Loaded is a model that was loaded, or could not be.
	Loaded(architecture, format string, took time.Duration, err error)
}

// unmetered is nobody.
type unmetered struct{}

func (unmetered) Drawn(string, int)                                                {}
func (unmetered) Scored(string, int)                                               {}
func (unmetered) Trained(string, int, int, int, time.Duration, map[string]float64) {}
func (unmetered) Loaded(string, string, time.Duration, error)                      {}

func (e *Engine) meter() Meter {
	if e.Meter == nil {
		return unmetered{}
	}
	return e.Meter
}

// did tells of a unit of work, if anybody wants to know.
func (e *Engine) did(ctx context.Context, kind, unit string) {
	if e.Did == nil {
		return
	}
	info := activity.GetInfo(ctx)
	e.Did(Work{At: time.Now(), Workflow: info.WorkflowExecution.ID, Activity: info.ActivityID, Attempt: info.Attempt, Kind: kind, Unit: unit})
}
