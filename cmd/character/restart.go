package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/tensor"
	"github.com/opencharacter/opencharacter/workflows"
)

// startAgain starts the runs that need it, and returns those that now go on.
func startAgain(ctx context.Context, cmd *cobra.Command, out io.Writer, e *env, only string, runs []bucketRun, again map[string]bool) (ids []string, err error) {
	var errs []error
	for _, r := range runs {
		asked := r.ID == only && r.Recorded != workflows.Completed
		lostRun := r.Temporal == unknown && r.unfinished()
		switch {
		case only != "" && r.ID != only && !again[r.ID]:
			continue
		case r.Temporal == workflows.Running && !again[r.ID]:
			fmt.Fprintf(out, "Run %s is whole and goes on by itself.\n", r.ID)
			ids = append(ids, r.ID)
			continue
		case !again[r.ID] && !asked && !lostRun:
			if r.Recorded == workflows.Completed {
				fmt.Fprintf(out, "Run %s is finished and whole.\n", r.ID)
			} else {
				fmt.Fprintf(out, "Run %s has ended (%s); `character repair %s` starts it again: finished stages are reused.\n", r.ID, r.Recorded, r.ID)
			}
			continue
		}
		if err := startPlan(ctx, cmd, e, r); err != nil {
			errs = append(errs, fmt.Errorf("run %s: %w", r.ID, err))
			continue
		}
		fmt.Fprintf(out, "Run %s goes on: %d recorded stages (%s) are looked up and reused.\n", r.ID, len(r.Stages), strings.Join(r.Stages, ", "))
		ids = append(ids, r.ID)
	}
	return ids, errors.Join(errs...)
}

// startPlan starts a run with the spec that its plan holds.
func startPlan(ctx context.Context, cmd *cobra.Command, e *env, r bucketRun) error {
	if r.plan.Name == "" {
		return fmt.Errorf("its plan cannot be read; start it again with `character run NAME --id %s`", r.ID)
	}
	raw, err := r.plan.Spec.Full()
	if err != nil {
		return err
	}
	if again, err := spec.Resolve(raw); err != nil || !reflect.DeepEqual(again, r.plan.Spec) {
		return fmt.Errorf("this program reads the run's spec otherwise than the one that started it did (%w): use that release", errors.Join(err, errors.New("the resolved specs differ")))
	}
	if err := samePlan(ctx, cmd, r.plan); err != nil {
		return err
	}
	if r.Temporal == workflows.Running { // it holds on to what was set aside: it ends in order, and begins again
		if err := endRun(ctx, e.client, r.ID); err != nil {
			return err
		}
	}
	_, err = e.client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: r.ID, TaskQueue: activities.DataQueue, StaticSummary: "Character training " + r.ID + ", repaired",
		WorkflowIDReusePolicy: enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE}, workflows.CharacterTraining, workflows.NewInput(raw))
	return err
}

// samePlan checks that the run would be the same one here: the model's file and the kernels. Where the workers are elsewhere,
// they are what counts.
func samePlan(ctx context.Context, cmd *cobra.Command, p activities.Plan) error {
	if onCluster(cmd) {
		return nil
	}
	for _, m := range []activities.ModelInfo{p.Model, p.Teacher} {
		if m.Name == "" {
			continue
		}
		if err := ensureModel(ctx, cmd, m.Name); err != nil {
			return fmt.Errorf("%w; put the file back that the run was started with", err)
		}
		f, err := hub.Resolve(m.Name, hubOptions(cmd))
		if err != nil {
			return err
		}
		if f.SHA256 != m.SHA256 {
			return fmt.Errorf("the model %s has changed since the run was started: sha256 %s, the run needs %s; put that file back", m.Name, f.SHA256, m.SHA256)
		}
	}
	if c, err := tensor.ParseCompute(p.Model.Compute); err == nil && tensor.VariantOf(c) != p.Variant {
		return fmt.Errorf("the run was made with %s kernels and this machine has %s, whose last bits differ: go on with it on a machine like the first one", p.Variant, tensor.VariantOf(c))
	}
	return nil
}

// endRun cancels a run and waits for its end; where no worker answers, it is ended from outside, children first.
func endRun(ctx context.Context, c client.Client, id string) error {
	if err := c.CancelWorkflow(ctx, id, ""); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_ = c.GetWorkflow(wait, id, "").Get(wait, nil) // a cancelled run ends with an error
	for _, w := range append([]string{id}, childrenOf(id)...) {
		state, err := temporalState(ctx, c, w)
		if err != nil {
			return err
		}
		if state != workflows.Running {
			continue
		}
		if err := c.TerminateWorkflow(ctx, w, "", "character repair starts the run again"); err != nil {
			if _, gone := errors.AsType[*serviceerror.NotFound](err); !gone {
				return err
			}
		}
	}
	return nil
}

// childrenOf are the workflow ids of a run's stages.
func childrenOf(id string) []string {
	var out []string
	for _, k := range []string{activities.KindPreferences, activities.KindDPO, activities.KindIntrospection, activities.KindSFT, activities.KindEvaluation} {
		out = append(out, id+"/"+k)
	}
	return out
}
