package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/workflows"
)

func runsRemoveCmd() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "remove ID",
		Short: "Remove a finished run with all that no other run needs",
		Long: `Remove a run that has ended: its record, its checkpoints and workflow histories, and the stages, data sets and adapters that no
other run names. What other runs share with it stays, and so do the files you gave it. It cannot be undone: export first what
you want to keep.

It asks before it removes anything; --yes does not ask. While another run is unfinished nothing is removed, because that run might
reuse a stage of this one. Stopped half-way, the same command goes on.`,
		Example: "  character export old-one --out old-one-files\n  character runs remove old-one\n  character runs remove old-one --yes",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return removeRun(cmd, args[0], yes) },
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func removeRun(cmd *cobra.Command, id string, yes bool) (err error) {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	if err := spec.CheckRunID(id); err != nil {
		return usage(err)
	}
	e, err := open(cmd)
	if err != nil {
		return err
	}
	defer e.close()
	r, err := removable(ctx, e, id)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("Run %s: %d objects, %s, and its histories in Temporal.", id, len(r.Objects), size(r.Bytes))
	if len(r.Stages) > 0 {
		what += " Its own stages: " + strings.Join(r.Stages, ", ") + "."
	}
	if len(r.Shared) > 0 {
		what += " Other runs need, so these stay: " + strings.Join(r.Shared, ", ") + "."
	}
	fmt.Fprintln(out, what)
	if !yes {
		if ok, err := confirm(cmd.InOrStdin(), out, "Remove it for good? [y/N] "); err != nil || !ok {
			return err
		}
	}
	// From here on runs that begin wait; those that began meanwhile are seen by Temporal, which needs a moment to list them.
	hold, err := activities.HoldRuns(ctx, e.store)
	if err != nil {
		return err
	}
	defer func() {
		release, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, hold.Release(release))
	}()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(3 * time.Second):
	}
	if r, err = removable(ctx, e, id); err != nil {
		return err
	}
	for i, o := range r.Objects {
		if err := hold.Keep(ctx); err != nil {
			return fmt.Errorf("stopped after %d of %d objects: %w; `character runs remove %s` goes on", i, len(r.Objects), err, id)
		}
		if err := e.store.Remove(ctx, o); err != nil {
			return fmt.Errorf("stopped after %d of %d objects: %w; `character runs remove %s` goes on", i, len(r.Objects), err, id)
		}
	}
	gone, err := forget(ctx, e, id)
	if err != nil {
		return fmt.Errorf("the bucket's part of run %s is removed: %w; `character runs remove %s` goes on", id, err, id)
	}
	fmt.Fprintf(out, "Run %s is removed; %s are free. `character gc` finds what nothing names any more.\n", id, size(r.Bytes))
	if !gone {
		_, err = fmt.Fprintln(out, "Temporal deletes its histories in its own time while it runs; until then it still lists the run.")
	}
	return err
}

// removable checks that the run has ended and that no other is unfinished, and tells what would go. A run that only
// Temporal still knows has nothing in the bucket.
func removable(ctx context.Context, e *env, id string) (activities.Removal, error) {
	open, err := openWorkflows(ctx, e.client, e.info.Namespace)
	if err != nil {
		return activities.Removal{}, err
	}
	v, err := activities.TakeInventory(ctx, e.store)
	if err != nil {
		return activities.Removal{}, err
	}
	runs, err := runsOf(ctx, e.client, v)
	if err != nil {
		return activities.Removal{}, err
	}
	state, err := temporalState(ctx, e.client, id)
	if err != nil {
		return activities.Removal{}, err
	}
	for _, r := range runs {
		switch {
		case r.ID != id && r.Temporal == unknown && r.unfinished():
			open = append(open, r.ID)
		case r.ID == id && r.unfinished() && r.Temporal == unknown:
			return activities.Removal{}, fmt.Errorf("run %s has not ended: Temporal has lost it; `character repair %s` goes on with it, and then `character cancel %s` ends it", id, id, id)
		}
	}
	if state == workflows.Running {
		return activities.Removal{}, fmt.Errorf("run %s has not ended: `character cancel %s` ends it, then remove it", id, id)
	}
	if len(open) > 0 {
		return activities.Removal{}, fmt.Errorf("unfinished: %s; it might reuse what would be removed: wait for its end, or `character cancel` it", strings.Join(open, ", "))
	}
	r, err := v.Removal(id)
	if errors.Is(err, store.ErrNotFound) {
		if state != unknown {
			return activities.Removal{}, nil
		}
		return r, noRun(ctx, e.store, id)
	}
	return r, err
}

// forgetting is how long a command waits for Temporal, which deletes in the background.
const forgetting = 30 * time.Second

// forget deletes a run's histories, and waits for a while until they are gone.
func forget(ctx context.Context, e *env, id string) (gone bool, err error) {
	for _, w := range append([]string{id}, childrenOf(id)...) {
		all, err := executions(ctx, e, ofWorkflow(w))
		if err != nil {
			return false, err
		}
		for _, x := range all {
			_, err := e.client.WorkflowService().DeleteWorkflowExecution(ctx, &workflowservice.DeleteWorkflowExecutionRequest{Namespace: e.info.Namespace, WorkflowExecution: x.Execution})
			if _, none := errors.AsType[*serviceerror.NotFound](err); err != nil && !none {
				return false, fmt.Errorf("delete the history of %s: %w", w, err)
			}
		}
	}
	for deadline := time.Now().Add(forgetting); time.Now().Before(deadline); {
		left, err := executions(ctx, e, ofWorkflow(id))
		if err != nil || len(left) == 0 {
			return err == nil, err
		}
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-time.After(500 * time.Millisecond):
		}
	}
	return false, nil
}

func ofWorkflow(id string) string {
	return fmt.Sprintf("WorkflowId = '%s'", strings.ReplaceAll(id, "'", "''"))
}

// confirm asks a person. Without a terminal nobody is there to answer.
func confirm(in io.Reader, out io.Writer, question string) (bool, error) {
	if f, ok := in.(*os.File); ok && !isTerminal(f) {
		return false, usage(errors.New("nobody is there to ask: add --yes to remove it without a question"))
	}
	fmt.Fprint(out, question)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true, nil
	}
	_, err = fmt.Fprintln(out, "Nothing was removed.")
	return false, err
}
