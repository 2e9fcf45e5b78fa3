package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	commonpb "go.temporal.io/api/common/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/converter"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/workflows"
)

func runsCmd() *cobra.Command {
	c := &cobra.Command{
		Use:     "runs",
		Short:   "List, compare and remove runs",
		Long:    "Look over all runs: those that Temporal knows, and those that only their record in the bucket tells of.",
		Example: "  character runs list\n  character runs compare captain captain-3-epochs\n  character runs remove old-one",
	}
	c.AddCommand(runsListCmd(), runsCompareCmd(), runsRemoveCmd())
	return c
}

// listedRun is one run of `runs list --json`.
type listedRun struct {
	ID           string     `json:"id"`
	State        string     `json:"state"` // running, paused, completed, failed, cancelled; lost: Temporal does not know it and it has not ended
	Stage        string     `json:"stage"` // the one that is made; "" after the end
	Constitution string     `json:"constitution"`
	Model        string     `json:"model"`
	Preset       string     `json:"preset"`
	Started      *time.Time `json:"started,omitempty"`
	Ended        *time.Time `json:"ended,omitempty"`
	Seconds      float64    `json:"seconds,omitempty"` // so far, or in all
	InTemporal   bool       `json:"in_temporal"`
	Recorded     bool       `json:"recorded"`
	Note         string     `json:"note,omitempty"` // what is wrong with its record
}

const lostState = "lost"

func runsListCmd() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List all runs with state, stage, constitution, model, preset and times",
		Long: `List all runs, the newest first. A run that Temporal has lost (its file was deleted, or it is another cluster) is listed from
its record in the bucket, without its times; one that had not ended is called lost, and ` + "`character repair`" + ` goes on with it.`,
		Example: "  character runs list\n  character runs list --json | jq -r '.runs[] | select(.state == \"failed\") | .id'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, err := open(cmd)
			if err != nil {
				return err
			}
			defer e.close()
			runs, err := listRuns(cmd.Context(), e)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"runs": runs})
			}
			return printRunList(cmd.OutOrStdout(), runs)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, `print {"runs":[...]} for scripts`)
	return c
}

// executions are the newest execution of each workflow that a query finds, newest first.
func executions(ctx context.Context, e *env, query string) ([]*workflowpb.WorkflowExecutionInfo, error) {
	var out []*workflowpb.WorkflowExecutionInfo
	var page []byte
	for {
		r, err := e.client.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Namespace: e.info.Namespace, Query: query, NextPageToken: page})
		if err != nil {
			return nil, fmt.Errorf("list runs: %w", err)
		}
		out = append(out, r.Executions...)
		if page = r.NextPageToken; len(page) == 0 {
			return out, nil
		}
	}
}

// listRuns joins what Temporal knows and what is recorded.
func listRuns(ctx context.Context, e *env) ([]listedRun, error) {
	all, err := executions(ctx, e, `WorkflowType = 'CharacterTraining'`)
	if err != nil {
		return nil, err
	}
	runs := []listedRun{}
	seen := map[string]int{}
	for _, x := range all {
		id := x.Execution.WorkflowId
		if i, again := seen[id]; again { // an earlier history: the run began with the first
			if x.StartTime != nil {
				began := x.StartTime.AsTime()
				runs[i].Started = &began
			}
			continue
		}
		seen[id] = len(runs)
		runs = append(runs, fromTemporal(x))
	}
	ids, err := recordedRuns(ctx, e.store)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		i, known := seen[id]
		if !known {
			i = len(runs)
			runs = append(runs, listedRun{ID: id, State: lostState})
		}
		if err := runs[i].fromRecord(ctx, e.store); err != nil {
			return nil, err
		}
	}
	for i := range runs {
		if r := &runs[i]; r.Started != nil {
			end := time.Now()
			if r.Ended != nil {
				end = *r.Ended
			}
			r.Seconds = end.Sub(*r.Started).Seconds()
		}
	}
	return runs, nil
}

func fromTemporal(x *workflowpb.WorkflowExecutionInfo) listedRun {
	r := listedRun{ID: x.Execution.WorkflowId, State: stateOf(x.Status), InTemporal: true}
	attribute := func(name string) (s string) {
		var p *commonpb.Payload
		if p = x.SearchAttributes.GetIndexedFields()[name]; p != nil {
			_ = converter.GetDefaultDataConverter().FromPayload(p, &s) // another type is somebody else's attribute
		}
		return s
	}
	r.Constitution, r.Model, r.Preset, r.Stage = attribute(workflows.AttrConstitution), attribute(workflows.AttrModel), attribute(workflows.AttrPreset), attribute(workflows.AttrStage)
	if r.State == workflows.Running && attribute(workflows.AttrOutcome) == workflows.Paused {
		r.State = workflows.Paused
	}
	if x.StartTime != nil {
		began := x.StartTime.AsTime()
		r.Started = &began
	}
	if x.CloseTime != nil {
		ended := x.CloseTime.AsTime()
		r.Ended = &ended
	}
	return r
}

// fromRecord fills in what the bucket says of a run.
func (r *listedRun) fromRecord(ctx context.Context, b activities.Bucket) error {
	rec, p, err := activities.RecordIn(ctx, b, r.ID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil // claimed, and nothing recorded yet
	case errors.Is(err, store.ErrCorrupt):
		r.Note = err.Error()
		return nil
	case err != nil:
		return err
	}
	r.Recorded = true
	if !r.InTemporal && rec.State != workflows.Running {
		r.State = rec.State
	}
	r.Constitution, r.Model, r.Preset = p.Name, p.Spec.Model, p.Spec.Preset
	if r.State == lostState || r.Stage == "" && (r.State == workflows.Running || r.State == workflows.Paused) {
		for _, kind := range stageKinds {
			if _, done := rec.Stage(kind); !done {
				r.Stage = kind
				break
			}
		}
	}
	return nil
}

// stageKinds are the stages of a run in their order.
var stageKinds = []string{activities.KindPreferences, activities.KindDPO, activities.KindIntrospection, activities.KindSFT, activities.KindEvaluation}

func printRunList(out io.Writer, runs []listedRun) error {
	if len(runs) == 0 {
		_, err := fmt.Fprintln(out, "No runs yet. Start one: character run captain")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSTATE\tSTAGE\tCONSTITUTION\tMODEL\tPRESET\tSTARTED\tTOOK")
	dash := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	for _, r := range runs {
		started, took := "-", "-"
		if r.Started != nil {
			started, took = r.Started.Local().Format(time.DateTime), time.Duration(r.Seconds*float64(time.Second)).Round(time.Second).String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.State, dash(r.Stage), dash(r.Constitution), dash(shortModel(r.Model)), dash(r.Preset), started, took)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range runs {
		if r.Note != "" {
			fmt.Fprintf(out, "%s: %s\n", r.ID, r.Note)
		}
	}
	if slices.ContainsFunc(runs, func(r listedRun) bool { return r.State == lostState }) {
		fmt.Fprintln(out, "lost: Temporal does not know the run; `character repair` goes on with it.")
	}
	return nil
}

// shortModel keeps the end of a long path.
func shortModel(s string) string {
	if r := []rune(s); len(r) > 40 {
		return "…" + string(r[len(r)-39:])
	}
	return strings.TrimSpace(s)
}
