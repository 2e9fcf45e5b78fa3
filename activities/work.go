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

// did tells of a unit of work, if anybody wants to know.
func (e *Engine) did(ctx context.Context, kind, unit string) {
	if e.Did == nil {
		return
	}
	info := activity.GetInfo(ctx)
	e.Did(Work{At: time.Now(), Workflow: info.WorkflowExecution.ID, Activity: info.ActivityID, Attempt: info.Attempt, Kind: kind, Unit: unit})
}
