package workflows_test

import (
	"os"
	"path/filepath"
	"testing"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/opencharacter/opencharacter/workflows"
)

// TestReplay replays recorded histories of whole runs. If it fails, the change is not safe to deploy while runs are
// under way: put it behind workflow.GetVersion. Record a history with `character _history WORKFLOW-ID`.
func TestReplay(t *testing.T) {
	files, err := filepath.Glob("testdata/history/*.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 6 {
		t.Fatalf("testdata/history has %d histories; one a workflow type belongs there", len(files))
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			r := worker.NewWorkflowReplayer()
			for _, w := range []any{workflows.CharacterTraining, workflows.GeneratePreferences, workflows.TrainAdapter, workflows.GenerateIntrospection, workflows.EvaluateCharacter} {
				r.RegisterWorkflow(w)
			}
			b, err := os.Open(f)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			h, err := client.HistoryFromJSON(b, client.HistoryJSONOptions{})
			if err != nil {
				t.Fatal(err)
			}
			// Children are named after the run, so the replay needs the run's own id.
			id := h.Events[0].GetWorkflowExecutionStartedEventAttributes().GetWorkflowId()
			err = r.ReplayWorkflowHistoryWithOptions(nil, h, worker.ReplayWorkflowHistoryOptions{OriginalExecution: workflow.Execution{ID: id}})
			if err != nil {
				t.Error(err)
			}
		})
	}
}
