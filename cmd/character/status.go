package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/codec"
	"github.com/opencharacter/opencharacter/workflows"
)

// runStatus is one run of `status --json`; scripts rely on its form.
type runStatus struct {
	ID     string        `json:"id"`
	State  string        `json:"state"`
	Error  string        `json:"error,omitempty"`
	Stages []stageStatus `json:"stages"`
	// Adjusted is what was changed in the spec while the run went.
	Adjusted []activities.Adjustment `json:"adjusted,omitempty"`
}

type stageStatus struct {
	Name    string           `json:"name"`
	State   string           `json:"state"`
	Done    int64            `json:"done"`
	Total   int64            `json:"total"`
	Kept    int64            `json:"kept"`
	Dropped map[string]int64 `json:"dropped"`
	Unit    string           `json:"unit,omitempty"`
	Step    string           `json:"step,omitempty"`
}

func statusCmd() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "status [ID]",
		Short:   "Show runs and how far they are",
		Long:    "Show all runs, or one, with counts and drop reasons by stage. --json is for scripts.",
		Example: "  character status\n  character status captain\n  character status --json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := open(cmd)
			if err != nil {
				return err
			}
			defer e.close()
			var ids []string
			if len(args) == 1 {
				ids = args
			} else if ids, err = runIDs(cmd.Context(), e); err != nil {
				return err
			}
			runs := []runStatus{}
			for _, id := range ids {
				r, err := statusOf(cmd.Context(), e, id)
				if err != nil {
					return err
				}
				runs = append(runs, r)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"runs": runs})
			}
			return printRuns(cmd.OutOrStdout(), runs)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, `print {"runs":[...]} for scripts`)
	return c
}

// runIDs lists the runs that Temporal knows, newest first.
func runIDs(ctx context.Context, e *env) ([]string, error) {
	var ids []string
	seen := map[string]bool{}
	var page []byte
	for {
		r, err := e.client.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: `WorkflowType = 'CharacterTraining'`, NextPageToken: page})
		if err != nil {
			return nil, fmt.Errorf("list runs: %w", err)
		}
		for _, x := range r.Executions {
			if id := x.Execution.WorkflowId; !seen[id] {
				seen[id] = true
				ids = append(ids, id)
			}
		}
		if page = r.NextPageToken; len(page) == 0 {
			return ids, nil
		}
	}
}

// statusOf asks the run itself; where no worker answers, the run's record and Temporal's word must do.
func statusOf(ctx context.Context, e *env, id string) (runStatus, error) {
	d, err := e.client.DescribeWorkflowExecution(ctx, id, "")
	if err != nil {
		return runStatus{}, fmt.Errorf("run %s: %w; `character status` lists the runs", id, err)
	}
	if p, err := query(ctx, e.client, id); err == nil {
		out := runStatus{ID: id, State: p.State, Error: p.Error, Stages: []stageStatus{}, Adjusted: p.Adjusted}
		if st := d.WorkflowExecutionInfo.Status; killed(st) { // it could not say so itself
			out.State, out.Error = stateOf(st), "it was ended from outside ("+st.String()+")"
		}
		for _, s := range p.Stages {
			out.Stages = append(out.Stages, stageOf(ctx, e, s))
		}
		return out, nil
	} else if errors.Is(err, codec.ErrKey) {
		return runStatus{}, fmt.Errorf("run %s: %w", id, err)
	}
	out := runStatus{ID: id, State: stateOf(d.WorkflowExecutionInfo.Status), Stages: []stageStatus{}}
	r, _, err := activities.ReadRecord(ctx, e.store, id)
	if err != nil {
		return out, nil // nothing is recorded before the first stage ends
	}
	for _, s := range r.Stages {
		out.Stages = append(out.Stages, stageStatus{Name: s.Kind, State: workflows.Completed, Done: s.Kept, Total: s.Kept, Kept: s.Kept, Dropped: orEmpty(s.Dropped)})
	}
	return out, nil
}

func stageOf(ctx context.Context, e *env, s workflows.StageProgress) stageStatus {
	var l activities.Live
	if s.State == workflows.Running {
		l, _ = newest(ctx, e.client, e.keys, &s)
	}
	out := stageStatus{Name: s.Name, State: s.State, Done: s.Done, Total: s.Total, Kept: s.Kept, Dropped: orEmpty(s.Dropped), Unit: s.Unit, Step: s.Step}
	if l.Total > 0 {
		out.Step = fmt.Sprintf("%s [%d/%d]", s.Step, l.Done, l.Total)
		if s.Unit == "steps" && l.Total == int(s.Total) {
			out.Done = max(out.Done, int64(l.Done))
		}
	}
	return out
}

func orEmpty(m map[string]int64) map[string]int64 {
	if m == nil {
		return map[string]int64{}
	}
	return m
}

// killed says that a workflow was ended without a chance to say so.
func killed(s enums.WorkflowExecutionStatus) bool {
	return s == enums.WORKFLOW_EXECUTION_STATUS_TERMINATED || s == enums.WORKFLOW_EXECUTION_STATUS_TIMED_OUT
}

func stateOf(s enums.WorkflowExecutionStatus) string {
	switch s {
	case enums.WORKFLOW_EXECUTION_STATUS_RUNNING:
		return workflows.Running
	case enums.WORKFLOW_EXECUTION_STATUS_COMPLETED:
		return workflows.Completed
	case enums.WORKFLOW_EXECUTION_STATUS_CANCELED, enums.WORKFLOW_EXECUTION_STATUS_TERMINATED:
		return workflows.Cancelled
	}
	return workflows.Failed
}

func printRuns(out io.Writer, runs []runStatus) error {
	if len(runs) == 0 {
		_, err := fmt.Fprintln(out, "No runs yet. Start one: character run captain")
		return err
	}
	for _, r := range runs {
		fmt.Fprintf(out, "%s  %s\n", r.ID, r.State)
		if r.Error != "" {
			fmt.Fprintf(out, "  %s\n", r.Error)
		}
		for _, s := range r.Stages {
			fmt.Fprintf(out, "  %-14s %-10s %6d / %-6d %-6s kept %d", s.Name, s.State, s.Done, s.Total, s.Unit, s.Kept)
			if s.Step != "" {
				fmt.Fprintf(out, "  %s", s.Step)
			}
			fmt.Fprintln(out)
			for _, k := range sortedKeys(s.Dropped) {
				fmt.Fprintf(out, "      dropped %-28s %d\n", k, s.Dropped[k])
			}
		}
		for _, a := range r.Adjusted {
			fmt.Fprintf(out, "  adjusted %s from %s to %s at %s\n", a.Key, a.From, a.To, a.At.Format(time.RFC3339))
		}
	}
	return nil
}

// controlCmd makes pause, resume and cancel.
func controlCmd(name, short, long string, do func(ctx context.Context, c client.Client, id string) error) *cobra.Command {
	return &cobra.Command{Use: name + " ID", Short: short, Long: long, Example: "  character " + name + " captain", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		e, err := openRunning(cmd)
		if err != nil {
			return err
		}
		defer e.close()
		ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
		defer cancel()
		if err := do(ctx, e.client, args[0]); err != nil {
			if ctx.Err() != nil && cmd.Context().Err() == nil {
				return fmt.Errorf("%s %s: no answer within a minute (%w); is a worker running? `character doctor` checks", name, args[0], err)
			}
			return fmt.Errorf("%s %s: %w", name, args[0], err)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s asked\n", args[0], name)
		return err
	}}
}

func update(name string) func(context.Context, client.Client, string) error {
	return func(ctx context.Context, c client.Client, id string) error {
		h, err := c.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{WorkflowID: id, UpdateName: name, WaitForStage: client.WorkflowUpdateStageCompleted})
		if err != nil {
			return err
		}
		return h.Get(ctx, nil)
	}
}

func pauseCmd() *cobra.Command {
	return controlCmd("pause", "Pause a run after its present chunk or segment", "Pause a run. The present chunk or segment (a minute or less) is finished and committed; nothing is lost.", update(workflows.UpdatePause))
}

func resumeCmd() *cobra.Command {
	return controlCmd("resume", "Go on after a pause", "Go on with a paused run.", update(workflows.UpdateResume))
}

func cancelCmd() *cobra.Command {
	return controlCmd("cancel", "Stop a run for good", "Stop a run for good. What was made is kept: a run started again with the same id and spec reuses its finished stages.",
		func(ctx context.Context, c client.Client, id string) error { return c.CancelWorkflow(ctx, id, "") })
}
