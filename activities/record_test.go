//go:build !noserver

package activities

import (
	"testing"

	"go.temporal.io/sdk/testsuite"
)

// TestRecordOnlyGrows: a late attempt does not take back what its run has recorded since.
func TestRecordOnlyGrows(t *testing.T) {
	k := newKit(t)
	record := func(state string, stages int) {
		t.Helper()
		var ts testsuite.WorkflowTestSuite
		env := ts.NewTestActivityEnvironment()
		env.RegisterActivity(k.data)
		if _, err := env.ExecuteActivity(k.data.RecordRun, Record{ID: "r", State: state, Plan: k.plan, Stages: make([]Stage, stages)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		state      string
		stages     int
		wantState  string
		wantStages int
	}{
		{"running", 1, "running", 1},
		{"running", 2, "running", 2},
		{"running", 1, "running", 2}, // late
		{"running", 3, "running", 3},
		{"completed", 3, "completed", 3},
		{"running", 3, "completed", 3}, // late
		{"completed", 3, "completed", 3},
	} {
		record(c.state, c.stages)
		r, _, err := ReadRecord(t.Context(), k.store, "r")
		if err != nil || r.State != c.wantState || len(r.Stages) != c.wantStages {
			t.Errorf("after %s with %d stages: %s with %d, %v; want %s with %d", c.state, c.stages, r.State, len(r.Stages), err, c.wantState, c.wantStages)
		}
	}
}
