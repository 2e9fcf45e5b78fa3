package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/store"
)

// youngest is the least age of garbage: no commit takes so long between its files and its HEAD.json.
const youngest = time.Hour

type gcOptions struct {
	olderThan            time.Duration
	dryRun, delete, json bool
}

// gcResult is what `gc --json` prints.
type gcResult struct {
	Objects    int                  `json:"objects"` // in the bucket
	Bytes      int64                `json:"bytes"`
	Garbage    []activities.Garbage `json:"garbage"`
	GarbageSum int64                `json:"garbage_bytes"`
	Unfinished []string             `json:"unfinished"` // runs that keep what is named by its content
	Removed    int                  `json:"removed"`
}

func gcCmd() *cobra.Command {
	var o gcOptions
	c := &cobra.Command{
		Use:   "gc",
		Short: "Find what no run can need any more, and remove it",
		Long: `List the objects that nothing can need any more: checkpoints that were replaced, what killed attempts left, parts of
stages that are finished. Only with --delete they are removed.

Live data is never removed. Replaced checkpoints are told by their stream's epoch, which never goes back. All that is
named by its content (parts, plans, adapters, ...) is only removed when no run is unfinished, and runs that are started
meanwhile wait until it is over. Ages are counted by the S3 server's clock. Unknown names, uploads and what repair set
aside are left alone. If anything that names objects cannot be read, nothing is removed.

After a collection a run that has ended cannot be reset to the middle of a stage any more; started again it reuses its
finished stages as before.`,
		Example: "  character gc\n  character gc --older-than 168h --delete",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("dry-run") && o.dryRun == o.delete {
				if o.delete {
					return usage(errors.New("--dry-run and --delete are opposites: leave one out"))
				}
				o.delete = true
			}
			if o.olderThan < youngest {
				return usage(fmt.Errorf("--older-than %s: at least %s, because a commit that is being written has files that nothing names yet", o.olderThan, youngest))
			}
			return gc(cmd, o)
		},
	}
	c.Flags().BoolVar(&o.dryRun, "dry-run", true, "only list; the default")
	c.Flags().BoolVar(&o.delete, "delete", false, "remove what is listed")
	c.Flags().DurationVar(&o.olderThan, "older-than", 24*time.Hour, "leave what is younger, by the S3 server's clock (at least 1h)")
	c.Flags().BoolVar(&o.json, "json", false, "print one JSON object")
	return c
}

func gc(cmd *cobra.Command, o gcOptions) (err error) {
	ctx := cmd.Context()
	e, err := open(cmd)
	if err != nil {
		return err
	}
	defer e.close()
	var hold *activities.Hold
	if o.delete {
		// Runs that begin from here on wait. Those that began before are seen by Temporal, which needs a moment to list them.
		if hold, err = activities.HoldRuns(ctx, e.store); err != nil {
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
	}
	r, err := collect(ctx, e, o.olderThan)
	if err != nil {
		return err
	}
	var left []error
	for _, g := range r.Garbage {
		if !o.delete {
			break
		}
		if err := hold.Keep(ctx); err != nil {
			return errors.Join(fmt.Errorf("stopped after %d of %d objects: %w", r.Removed, len(r.Garbage), err), errors.Join(left...))
		}
		switch err := e.store.Remove(ctx, g.Object); {
		case errors.Is(err, store.ErrChanged): // somebody made it anew: it is not garbage
		case err != nil:
			left = append(left, err)
		default:
			r.Removed++
		}
	}
	if o.json {
		err = printJSON(cmd.OutOrStdout(), r)
	} else {
		err = r.print(cmd.OutOrStdout(), o)
	}
	return errors.Join(err, errors.Join(left...))
}

// collect finds the garbage of a bucket.
func collect(ctx context.Context, e *env, olderThan time.Duration) (r gcResult, err error) {
	r.Garbage, r.Unfinished = []activities.Garbage{}, []string{}
	open, err := openWorkflows(ctx, e.client, e.info.Namespace)
	if err != nil {
		return r, err
	}
	now, _, err := e.store.Now(ctx)
	if err != nil {
		return r, err
	}
	v, err := activities.TakeInventory(ctx, e.store)
	if err != nil {
		return r, err
	}
	runs, err := runsOf(ctx, e.client, v)
	if err != nil {
		return r, err
	}
	r.Unfinished = append(r.Unfinished, open...)
	for _, x := range runs {
		if x.Temporal == unknown && x.unfinished() {
			r.Unfinished = append(r.Unfinished, x.ID)
		}
	}
	list, err := v.Garbage(now, olderThan, len(r.Unfinished) == 0)
	if err != nil {
		return r, err
	}
	r.Objects, r.Bytes = len(v.Objects), v.Bytes()
	for _, g := range list {
		r.Garbage = append(r.Garbage, g)
		r.GarbageSum += g.Size
	}
	return r, nil
}

// openWorkflows lists the runs, and the stages that somebody started alone, that are not over.
func openWorkflows(ctx context.Context, c client.Client, namespace string) ([]string, error) {
	const query = `ExecutionStatus = 'Running' AND WorkflowType IN ('CharacterTraining', 'GeneratePreferences', 'TrainAdapter', 'GenerateIntrospection', 'EvaluateCharacter')`
	var ids []string
	var page []byte
	for {
		r, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Namespace: namespace, Query: query, NextPageToken: page})
		if err != nil {
			return nil, fmt.Errorf("list the runs that are not over: %w", err)
		}
		for _, x := range r.Executions {
			ids = append(ids, x.Execution.WorkflowId)
		}
		if page = r.NextPageToken; len(page) == 0 {
			return ids, nil
		}
	}
}

func (r gcResult) print(out io.Writer, o gcOptions) error {
	for _, g := range r.Garbage {
		fmt.Fprintf(out, "%s  %9d  %s: %s\n", g.Modified.UTC().Format(time.DateTime), g.Size, g.Key, g.Why)
	}
	if len(r.Unfinished) > 0 {
		fmt.Fprintf(out, "Unfinished: %s. Until they are over only replaced checkpoints are garbage (`character repair` goes on with a run that Temporal has lost).\n", strings.Join(r.Unfinished, ", "))
	}
	what := fmt.Sprintf("%d of %d objects, %.1f of %.1f MB, are garbage older than %s.", len(r.Garbage), r.Objects, float64(r.GarbageSum)/1e6, float64(r.Bytes)/1e6, o.olderThan)
	switch {
	case o.delete:
		what += fmt.Sprintf(" %d were removed.", r.Removed)
	case len(r.Garbage) > 0:
		what += " `character gc --delete` removes them."
	}
	_, err := fmt.Fprintln(out, what)
	return err
}
