package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/constitution"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/workflows"
)

// runFlags are what `character run` takes.
type runFlags struct {
	preset, id, model, prompts, recorded string
	set                                  []string
	detach                               bool
}

func runCmd() *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run [NAME|FILE]",
		Short: "Train a character and follow it",
		Long: `Train a character: NAME is built in (see "character constitution list"), FILE is your own constitution in
YAML, JSON, JSONL or text. Without either, the run named by --id goes on.

The run is a Temporal workflow: it survives Ctrl-C, kill -9 and a reboot. If nothing is running on the data
directory yet, this command starts everything in its own process; an unfinished run goes on by itself.`,
		Example: `  character run captain --preset demo
  character run captain --id my-captain --set dpo.epochs=3 --set seed=7
  character run captain --set teacher=recorded
  character run my-character.yaml --model ~/models/qwen3-0.6b
  character run --id my-captain                      # come back to a run`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			return run(cmd, name, f)
		},
	}
	c.Flags().StringVar(&f.preset, "preset", "", "demo (default), paper-scale or published")
	c.Flags().StringVar(&f.id, "id", "", "name of the run (default: the character's name)")
	c.Flags().StringVar(&f.model, "model", "", "a known model's name, a .gguf file or a folder with config.json and safetensors")
	c.Flags().StringArrayVar(&f.set, "set", nil, "set one field of the spec, e.g. --set preferences.pairs=200 (repeatable)")
	c.Flags().StringVar(&f.prompts, "prompts", "", "file with your own prompts, one a line or JSONL {\"prompt\": ...}")
	c.Flags().StringVar(&f.recorded, "recorded", "", "file with recorded answers, JSONL {\"prompt\": ..., \"chosen\": ...} (teacher recorded)")
	c.Flags().BoolVar(&f.detach, "detach", false, "start the run and return (needs a running `character up`)")
	return c
}

var idRule = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,99}$`)

func run(cmd *cobra.Command, name string, f runFlags) error {
	ctx := cmd.Context()
	if name == "" && f.id == "" {
		return usage(errors.New("name a character or a constitution file, or an existing run with --id; `character run --help` has examples"))
	}
	var c *constitution.Constitution
	raw := []byte("{}")
	var err error
	if name != "" {
		if c, err = constitution.Load(name); err != nil {
			return err
		}
		if raw, err = specOf(c, name, f); err != nil {
			return err
		}
		// Everything that can be known is checked before anything is started.
		s, err := spec.Resolve(raw)
		if err != nil {
			return err
		}
		if err := ensureModel(ctx, cmd, s.Model); err != nil {
			return err
		}
	}
	if f.id == "" {
		f.id = c.Name
	}
	if !idRule.MatchString(f.id) {
		return usage(fmt.Errorf("--id %q: use letters, digits, dot, dash and underscore, at most 100", f.id))
	}
	start := openOrUp
	if f.detach {
		start = openRunning // a run that nobody serves would only wait
	}
	e, err := start(cmd)
	if err != nil {
		return err
	}
	defer e.close()
	if name != "" {
		if raw, err = upload(ctx, e.store, c, name, raw, f); err != nil {
			return err
		}
	}
	started, err := startRun(ctx, e.client, f.id, name != "", raw)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if started {
		fmt.Fprintf(out, "Run %s started. Watch it here, or at %s\n", f.id, e.runURL(f.id))
	} else {
		fmt.Fprintf(out, "Run %s goes on. Watch it here, or at %s\n", f.id, e.runURL(f.id))
	}
	if f.detach {
		fmt.Fprintf(out, "Detached. `character status %s` tells how far it is, `character run --id %s` follows it.\n", f.id, f.id)
		return nil
	}
	return follow(ctx, cmd, e, f.id)
}

// specOf makes the spec's JSON from the name, the preset and the --set values.
func specOf(c *constitution.Constitution, name string, f runFlags) ([]byte, error) {
	fields := map[string]any{"constitution": "ref:uploads/pending"}
	if slices.Contains(constitution.Builtin(), name) {
		fields["constitution"] = c.Name
	}
	if f.preset != "" {
		fields["preset"] = f.preset
	}
	if f.model != "" {
		m := f.model
		if !hub.IsKnown(m) {
			abs, err := filepath.Abs(m)
			if err != nil {
				return nil, err
			}
			m = abs
		}
		fields["model"] = m
	}
	raw, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	for _, kv := range f.set {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			return nil, usage(fmt.Errorf("--set %q: want key=value, e.g. --set dpo.epochs=3", kv))
		}
		if raw, err = spec.Set(raw, k, v); err != nil {
			return nil, err
		}
	}
	return raw, nil
}

// upload puts the files that the spec names into the store and their refs into the spec.
func upload(ctx context.Context, s *store.Store, c *constitution.Constitution, name string, raw []byte, f runFlags) ([]byte, error) {
	put := func(raw []byte, key, ext string, b []byte) ([]byte, error) {
		r, err := s.Put(ctx, "uploads", ext, b)
		if err != nil {
			return nil, err
		}
		return spec.Set(raw, key, "ref:"+r.Key)
	}
	var err error
	if !slices.Contains(constitution.Builtin(), name) {
		if raw, err = put(raw, "constitution", ".json", c.Canonical()); err != nil {
			return nil, err
		}
	}
	if f.prompts != "" {
		b, err := os.ReadFile(f.prompts)
		if err != nil {
			return nil, fmt.Errorf("--prompts: %w", err)
		}
		if _, err := activities.ParsePrompts(b, f.prompts); err != nil {
			return nil, err
		}
		if raw, err = put(raw, "preferences.prompts", ".txt", b); err != nil {
			return nil, err
		}
	}
	if f.recorded != "" {
		b, err := os.ReadFile(f.recorded)
		if err != nil {
			return nil, fmt.Errorf("--recorded: %w", err)
		}
		if _, err := constitution.ParseRecorded(b, f.recorded); err != nil {
			return nil, err
		}
		if raw, err = put(raw, "teacher_options.file", ".jsonl", b); err != nil {
			return nil, err
		}
	}
	return raw, nil
}

// startRun starts the workflow, or finds the unfinished one of that id. A finished run is not started again.
func startRun(ctx context.Context, c client.Client, id string, isNew bool, raw []byte) (started bool, err error) {
	d, err := c.DescribeWorkflowExecution(ctx, id, "")
	var none *serviceerror.NotFound
	switch {
	case err == nil && d.WorkflowExecutionInfo.Status == enums.WORKFLOW_EXECUTION_STATUS_RUNNING:
		return false, nil
	case err == nil && d.WorkflowExecutionInfo.Status == enums.WORKFLOW_EXECUTION_STATUS_COMPLETED:
		return false, fmt.Errorf("run %s is finished: `character chat --id %s` talks to it, `character export %s --out DIR` writes its files; for a new run choose another --id", id, id, id)
	case err != nil && !errors.As(err, &none):
		return false, fmt.Errorf("look for run %s: %w", id, err)
	case !isNew && err != nil:
		return false, fmt.Errorf("there is no run %s; start it with `character run NAME --id %s`", id, id)
	case !isNew:
		return false, fmt.Errorf("run %s has ended (%s); start it again with `character run NAME --id %s`: finished stages are reused", id, d.WorkflowExecutionInfo.Status, id)
	}
	_, err = c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: id, TaskQueue: activities.DataQueue, StaticSummary: "Character training " + id,
		WorkflowIDReusePolicy: enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY}, workflows.CharacterTraining, workflows.NewInput(raw))
	return true, err
}
