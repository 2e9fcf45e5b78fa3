package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/testenv/stack"
	"github.com/opencharacter/opencharacter/workflows"
)

// bucketRun is a run as bucket and Temporal show it.
type bucketRun struct {
	ID       string   `json:"id"`
	Recorded string   `json:"recorded"` // state in the bucket's record: running, completed, failed, cancelled
	Temporal string   `json:"temporal"` // unknown, or the workflow's state
	Stages   []string `json:"stages"`   // that are recorded

	plan activities.Plan
}

const unknown = "unknown"

// unfinished: nobody said that the run has ended.
func (r bucketRun) unfinished() bool {
	return r.Temporal == workflows.Running || r.Temporal == unknown && r.Recorded == workflows.Running
}

func repairCmd() *cobra.Command {
	var o repairOptions
	c := &cobra.Command{
		Use:   "repair [ID]",
		Short: "Mend what is damaged and start runs again that Temporal has lost",
		Long: `Look at every object of the bucket, mend what is damaged, and go on with the runs that Temporal does not know any
more (its file was deleted or damaged, or it is another cluster). Finished stages are reused and trainings go on from
their checkpoints, so a repaired run ends with the same bytes as one that was never disturbed.

  A HEAD.json that is damaged or lost is restored from the newest whole commit beside it.
  A damaged object of a finished stage is set aside, with the stage's index, and the stage is made again.
  A damaged SQLite file of the embedded Temporal server is set aside, and a new one is made.

Nothing is thrown away: what is set aside is under aside/ in the bucket. With ID that run is started again also when it
had failed or was cancelled.`,
		Example: "  character repair --check\n  character repair\n  character repair captain",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.id = args[0]
			}
			if o.check && o.detach || o.json && !o.check {
				return usage(errors.New("--check starts nothing, so it cannot be detached; --json is for --check"))
			}
			return repair(cmd, o)
		},
	}
	c.Flags().BoolVar(&o.check, "check", false, "only look: read every object, name what is damaged, change nothing")
	c.Flags().BoolVar(&o.detach, "detach", false, "start the runs and return (needs a running `character up`)")
	c.Flags().BoolVar(&o.json, "json", false, "with --check: print one JSON object")
	return c
}

type repairOptions struct {
	id                  string
	check, detach, json bool
}

func repair(cmd *cobra.Command, o repairOptions) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	if o.json {
		out = io.Discard
	}
	if err := repairTemporal(cmd, out, o.check); err != nil {
		return err
	}
	start := open // no worker yet: nothing shall run on what is damaged
	if o.detach {
		start = openRunning
	}
	e, err := start(cmd)
	if err != nil {
		return err
	}
	defer e.close()
	runs, damage, err := look(ctx, e)
	if err != nil {
		return err
	}
	if o.id != "" && !slices.ContainsFunc(runs, func(r bucketRun) bool { return r.ID == o.id }) && len(damage) == 0 {
		return fmt.Errorf("the bucket has no record of a run %s: what it had finished is reused when you start it again with `character run NAME --id %s`", o.id, o.id)
	}
	if o.check {
		return printCheck(cmd, o, runs, damage)
	}
	again, merr := mendAll(ctx, out, e, &runs, damage) // what cannot be mended keeps no other run from going on
	ids, err := startAgain(ctx, cmd, out, e, o.id, runs, again)
	err = errors.Join(merr, err)
	if len(ids) == 0 || o.detach || ctx.Err() != nil {
		return err
	}
	if e.local != nil {
		if err := e.local.startWorker(); err != nil {
			return err
		}
	}
	errs := []error{err}
	for _, id := range ids {
		if err := follow(ctx, cmd, e, id); err != nil {
			errs = append(errs, fmt.Errorf("run %s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

// repairTemporal sets a damaged file of the embedded Temporal server aside.
func repairTemporal(cmd *cobra.Command, out io.Writer, check bool) error {
	if onCluster(cmd) {
		return nil
	}
	dir := dataDir(cmd)
	_, alive, err := stack.Read(dir)
	if err != nil || alive {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "s3")); err != nil {
		return fmt.Errorf("there are no runs in %s yet: start one with `character run captain`, or name another --data", dir)
	}
	if err := roomToStart(dir, false, freeBytes); err != nil {
		return err
	}
	state, err := stack.CheckTemporal(cmd.Context(), dir)
	switch {
	case state == stack.TemporalMissing && !check:
		fmt.Fprintln(out, "The Temporal server's file is missing: a new one is made.")
	case state == stack.TemporalDamaged && check:
		return fmt.Errorf("%w; `character repair` without --check sets it aside and starts the unfinished runs again", err)
	case state == stack.TemporalDamaged:
		to, serr := stack.SetTemporalAside(cmd.Context(), dir)
		if serr != nil {
			return serr
		}
		fmt.Fprintf(out, "%v.\nIt is kept as %s, and a new one is made.\n", err, to)
	case err != nil:
		return err
	}
	return nil
}

// look takes stock of the bucket and asks Temporal what it knows of its runs.
func look(ctx context.Context, e *env) ([]bucketRun, []activities.Damage, error) {
	v, err := activities.TakeInventory(ctx, e.store)
	if err != nil {
		return nil, nil, err
	}
	damage, err := v.Check(ctx, true)
	if err != nil {
		return nil, nil, err
	}
	runs, err := runsOf(ctx, e.client, v)
	return runs, damage, err
}

func runsOf(ctx context.Context, c client.Client, v *activities.Inventory) ([]bucketRun, error) {
	var runs []bucketRun
	for _, r := range v.Roots {
		if r.Kind != activities.RootRun {
			continue
		}
		b := bucketRun{ID: r.Name, Recorded: r.Record.State, plan: r.Plan, Stages: []string{}}
		if r.Record.State == "" || r.Plan.Name == "" {
			b.Recorded = "damaged"
		}
		for _, s := range r.Record.Stages {
			b.Stages = append(b.Stages, s.Kind)
		}
		var err error
		if b.Temporal, err = temporalState(ctx, c, r.Name); err != nil {
			return nil, err
		}
		runs = append(runs, b)
	}
	return runs, nil
}

func temporalState(ctx context.Context, c client.Client, id string) (string, error) {
	d, err := c.DescribeWorkflowExecution(ctx, id, "")
	if _, none := errors.AsType[*serviceerror.NotFound](err); none {
		return unknown, nil
	}
	if err != nil {
		return "", fmt.Errorf("ask Temporal for run %s: %w", id, err)
	}
	return stateOf(d.WorkflowExecutionInfo.Status), nil
}

func printCheck(cmd *cobra.Command, o repairOptions, runs []bucketRun, damage []activities.Damage) error {
	bad := 0
	for _, d := range damage {
		if !d.Harmless {
			bad++
		}
	}
	if o.json {
		if damage == nil {
			damage = []activities.Damage{}
		}
		if err := printJSON(cmd.OutOrStdout(), map[string]any{"runs": runs, "damage": damage}); err != nil {
			return err
		}
	} else {
		out := cmd.OutOrStdout()
		for _, r := range runs {
			todo := ""
			if r.unfinished() && r.Temporal == unknown {
				todo = fmt.Sprintf("; `character repair %s` goes on with it", r.ID)
			}
			fmt.Fprintf(out, "run %s: recorded %s with %d stages; in Temporal: %s%s\n", r.ID, r.Recorded, len(r.Stages), r.Temporal, todo)
		}
		for _, d := range damage {
			fmt.Fprintf(out, "DAMAGED %s: %s; %s\n", d.Key, d.What, d.Next)
		}
		if len(damage) == 0 {
			fmt.Fprintln(out, "Every object is whole.")
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d objects are damaged; `character repair` mends what can be mended", bad)
	}
	return nil
}

// mendAll mends until nothing more is found: a restored record shows what it names. It returns the runs that must be started
// again, because what they had made is to be made again.
func mendAll(ctx context.Context, out io.Writer, e *env, runs *[]bucketRun, damage []activities.Damage) (again map[string]bool, err error) {
	again = map[string]bool{}
	var errs []error
	tried := map[string]bool{}
	for round := 0; round < 5; round++ {
		changed := false
		for _, d := range damage {
			if tried[d.Key] {
				continue
			}
			tried[d.Key] = true
			fmt.Fprintf(out, "%s: %s\n", d.Key, d.What)
			did, err := activities.Mend(ctx, e.store, d)
			for _, line := range did {
				fmt.Fprintln(out, "  "+line)
			}
			if err != nil {
				errs = append(errs, err)
				continue
			}
			changed = changed || len(did) > 0 || len(d.Stages) > 0
			for _, id := range d.Runs {
				again[id] = again[id] || !d.Harmless
			}
		}
		if !changed {
			break
		}
		if *runs, damage, err = look(ctx, e); err != nil {
			return again, errors.Join(errors.Join(errs...), err)
		}
	}
	return again, errors.Join(errs...)
}
