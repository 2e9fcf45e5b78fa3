package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/workflows"
)

func adjustCmd() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "adjust ID KEY=VALUE...",
		Short: "Change fields of a run's spec while it goes on",
		Long: `Change fields of a run's spec while it goes on: all of them, or none. The names are those of --set.

What may change is what nothing made so far depends on: all fields of stages that have not begun; of a stage that is
under way how much is wanted (preferences.pairs, introspection.reflections, dpo.steps, ...), how much may be tried
(it can grow), and what shapes speed only (chunks, segments, the teacher's concurrency). The run then is the same as one
that was started with that spec, byte for byte. What cannot change any more is refused by name. Values that are so
already change nothing. The report lists what was changed, when, from and to.`,
		Example: "  character adjust captain preferences.pairs=200\n  character adjust captain sft.epochs=2 sft.learning_rate=1e-5 dpo.segment_seconds=120",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usage(errors.New("name the run and what to change: `character adjust captain preferences.pairs=200`"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			raw := []byte("{}")
			for i, kv := range args[1:] {
				k, v, ok := strings.Cut(kv, "=")
				if !ok || k == "" {
					return usage(fmt.Errorf("adjust: %q: want key=value, e.g. dpo.segment_seconds=120", kv))
				}
				if slices.ContainsFunc(args[1:1+i], func(o string) bool { return strings.HasPrefix(o, k+"=") }) {
					return usage(fmt.Errorf("adjust: %s is given twice", k))
				}
				var err error
				if raw, err = spec.Set(raw, k, v); err != nil {
					return usage(err)
				}
			}
			if _, err := spec.ParseAdjust(raw); err != nil {
				return usage(err)
			}
			var out workflows.Adjusted
			if err := asked(cmd, args[0], workflows.UpdateAdjust, &out, workflows.NewInput(raw)); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), out)
			}
			if len(out.Changes) == 0 {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: nothing changed, the values were so already\n", args[0])
				return err
			}
			for _, x := range out.Changes {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s from %s to %s, %s\n", args[0], x.Key, x.From, x.To, x.Counts)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, `print {"changes":[...],"spec":KEY} for scripts`)
	return c
}

func finishEarlyCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "finish-early ID [STAGE]",
		Short: "End a run's present stage with what it has",
		Long: `End the present stage with what it has, and go on with the next. A stage that has less than its floor
(preferences.min_pairs, introspection.min_share of the targets, one committed step of a training) goes on, and the answer
says what is missing. The present chunk or segment is finished first. The spec then says what was made: the run is the
same as one that had asked for no more.

With STAGE the command does the same however often it is given: a stage that is over stays over.`,
		Example: "  character finish-early captain\n  character finish-early captain dpo",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := workflows.Finish{}
			if len(args) == 2 {
				in.Stage = args[1]
				if !slices.Contains(spec.Parts(), in.Stage) {
					return usage(fmt.Errorf("finish-early: stage %q is not one of %s", in.Stage, strings.Join(spec.Parts(), ", ")))
				}
			}
			var out workflows.Finishing
			if err := asked(cmd, args[0], workflows.UpdateFinish, &out, in); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %s: %s\n", args[0], out.Stage, out.Note)
			return err
		},
	}
}

// asked sends an update and reads its answer.
func asked(cmd *cobra.Command, id, name string, out any, arg any) error {
	e, err := openRunning(cmd)
	if err != nil {
		return err
	}
	defer e.close()
	ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
	defer cancel()
	h, err := e.client.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{WorkflowID: id, UpdateName: name, WaitForStage: client.WorkflowUpdateStageCompleted, Args: []any{arg}})
	if err == nil {
		err = h.Get(ctx, out)
	}
	var app *temporal.ApplicationError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &app): // what the run says, without the wrapping
		return fmt.Errorf("%s %s: %s", name, id, strings.TrimPrefix(app.Message(), name+": "))
	case ctx.Err() != nil && cmd.Context().Err() == nil:
		return fmt.Errorf("%s %s: no answer within a minute (%w); is a worker running? `character doctor` checks", name, id, err)
	}
	return fmt.Errorf("%s %s: %w; `character status` lists the runs", name, id, err)
}
