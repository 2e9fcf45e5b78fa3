package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/workers"
	"github.com/opencharacter/opencharacter/workflows"
)

// Queue is the task queue of this program's own workflow.
const Queue = "pipeline"

// Order is what to train, and what is good enough.
type Order struct {
	Spec  json.RawMessage `json:"spec"`
	Least float64         `json:"least"`
}

// Verdict is what became of it.
type Verdict struct {
	Run  string `json:"run"`
	Good bool   `json:"good"`
	// Gain is the held-out gain in nats a token; Measured is false where no answers were held out.
	Gain     float64 `json:"gain"`
	Measured bool    `json:"measured"`
	Pairs    int64   `json:"pairs"`
}

func (v Verdict) String() string {
	return fmt.Sprintf("run %s: good %v, gain %.3f (measured %v), %d pairs", v.Run, v.Good, v.Gain, v.Measured, v.Pairs)
}

// TrainAndJudge trains a character and judges it. The training is a child on our task queue: it has a page of its own in
// the Temporal UI, can be paused and adjusted there, and goes on should this workflow's worker be away.
func TrainAndJudge(ctx workflow.Context, o Order) (Verdict, error) {
	v := Verdict{Run: workflow.GetInfo(ctx).WorkflowExecution.ID + "-training"}
	child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{WorkflowID: v.Run, TaskQueue: workers.DataQueue})
	var trained workflows.Result
	if err := workflow.ExecuteChildWorkflow(child, workflows.CharacterTraining, workflows.NewInput(o.Spec)).Get(ctx, &trained); err != nil {
		return v, err
	}
	v.Gain, v.Measured = trained.Evaluation["gain_character"]
	v.Good = v.Measured && v.Gain >= o.Least
	// Whatever else is to be known lies in the bucket, under the run's id.
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute})
	var judge *Judge
	err := workflow.ExecuteActivity(ctx, judge.CountPairs, v.Run).Get(ctx, &v.Pairs)
	return v, err
}

// Judge has this program's own activities.
type Judge struct{ Store *store.Store }

// CountPairs reads from a run's record how many preference pairs it was trained on.
func (j *Judge) CountPairs(ctx context.Context, run string) (int64, error) {
	r, _, err := activities.ReadRecord(ctx, j.Store, run)
	if err != nil {
		return 0, err
	}
	st, ok := r.Stage(activities.KindPreferences)
	if !ok {
		return 0, fmt.Errorf("run %s has no preference pairs", run)
	}
	return st.Kept, nil
}
