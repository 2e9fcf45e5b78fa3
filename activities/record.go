package activities

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/store"
)

// Record is a run at rest: enough to export it, chat with it and report on it without Temporal.
type Record struct {
	ID     string    `json:"id"`
	State  string    `json:"state"` // running, completed, failed, cancelled
	Error  string    `json:"error,omitempty"`
	Plan   store.Ref `json:"plan"`
	Stages []Stage   `json:"stages"`
	// Spec is the key of the resolved spec; Adjusted is what was changed in it since the run began.
	Spec     string       `json:"spec,omitempty"`
	Adjusted []Adjustment `json:"adjusted,omitempty"`
	// Warnings are what looked wrong, computed while the run went.
	Warnings []string `json:"warnings,omitempty"`
}

// Adjustment is one field of the spec that was changed while the run went on.
type Adjustment struct {
	spec.Change
	At time.Time `json:"at"`
	By string    `json:"by"` // the update that asked for it
}

func runStream(id string) string { return "runs/" + id }

// recordNote is kept in HEAD.json beside a run's record.
type recordNote struct {
	Run   string `json:"run"` // Temporal's run id: a run that was started again has another
	State string `json:"state"`
}

// RecordRun commits the run's record after each stage. The stream is fenced like a checkpoint, and within one run of the
// workflow a record only grows: an attempt that was stopped before its claim and wakes up after its successor would
// otherwise take back what the run has recorded since.
func (d *Data) RecordRun(ctx context.Context, r Record) error {
	if err := spec.CheckRunID(r.ID); err != nil {
		return fatal(BadInput, err)
	}
	claim, err := d.Store.Claim(ctx, runStream(r.ID), "run "+r.ID)
	if err != nil {
		return fmt.Errorf("record run %s: %w", r.ID, err)
	}
	note := recordNote{State: r.State}
	if activity.IsActivity(ctx) {
		note.Run = activity.GetInfo(ctx).WorkflowExecution.RunID
	}
	var have recordNote
	if h := claim.Head(); note.Run != "" && json.Unmarshal(h.Note, &have) == nil && have.Run == note.Run {
		if n := int64(len(r.Stages)); n < h.Step || n == h.Step && r.State == "running" && have.State != "running" {
			return nil // this attempt was given up long ago; nobody hears what it returns
		}
	}
	return claim.Commit(ctx, int64(len(r.Stages)), map[string][]byte{"run.json": mustJSON(r)}, note)
}

// ReadRecord reads a run's record.
func ReadRecord(ctx context.Context, s *store.Store, id string) (Record, Plan, error) {
	var r Record
	h, ok, err := s.ReadHead(ctx, runStream(id))
	if err != nil {
		return r, Plan{}, err
	}
	if !ok {
		return r, Plan{}, fmt.Errorf("run %q: nothing is recorded yet; see `character status`", id)
	}
	files, err := s.ReadFiles(ctx, h)
	if err != nil {
		return r, Plan{}, err
	}
	if err := json.Unmarshal(files["run.json"], &r); err != nil {
		return r, Plan{}, fmt.Errorf("run %q: its record is not readable: %w", id, err)
	}
	p, err := getPlan(ctx, s, r.Plan)
	return r, p, err
}

// Stage returns the run's stage of a kind, if it is done.
func (r Record) Stage(kind string) (Stage, bool) {
	for _, s := range r.Stages {
		if s.Kind == kind {
			return s, true
		}
	}
	return Stage{}, false
}

// Stack returns the adapters of one of the run's models: none for base, the DPO adapter, or DPO and SFT.
func (r Record) Stack(which string) ([]AdapterRef, error) {
	var out []AdapterRef
	need := map[string][]string{WhichBase: {}, WhichDPO: {KindDPO}, WhichCharacter: {KindDPO, KindSFT}}
	kinds, ok := need[which]
	if !ok {
		return nil, fmt.Errorf("model %q is not one of base, dpo, character", which)
	}
	for _, k := range kinds {
		s, ok := r.Stage(k)
		if !ok || s.Adapter == nil {
			return nil, fmt.Errorf("run %q has no %s adapter yet (state %s); see `character status %s`", r.ID, k, r.State, r.ID)
		}
		out = append(out, *s.Adapter)
	}
	return out, nil
}
