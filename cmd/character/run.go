package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/cmd/internal/cluster"
	"github.com/opencharacter/opencharacter/constitution"
	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/permit"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/workflows"
)

// runFlags are what `character run` takes.
type runFlags struct {
	preset, id, model, prompts, recorded, pairs, introspection string
	set                                                        []string
	detach                                                     bool
	stall                                                      time.Duration
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
  character run captain --id again --pairs captain_dpo.jsonl --introspection captain_introspection.jsonl
  character run captain --id third --pairs mine      # a data set of "character data import", or RUN/dpo
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
	f.addSpec(c)
	c.Flags().StringVar(&f.id, "id", "", "name of the run (default: the character's name)")
	c.Flags().DurationVar(&f.stall, "stall", 0, cluster.StallUsage+"; for the worker that this command starts")
	c.Flags().BoolVar(&f.detach, "detach", false, "start the run and return (needs a running `character up`)")
	return c
}

// addSpec adds the flags that shape a run.
func (f *runFlags) addSpec(c *cobra.Command) {
	c.Flags().StringVar(&f.preset, "preset", "", "demo (default), paper-scale or published")
	c.Flags().StringVar(&f.model, "model", "", "a known model's name, a .gguf file or a folder with config.json and safetensors")
	c.Flags().StringArrayVar(&f.set, "set", nil, "set one field of the spec, e.g. --set preferences.pairs=200 (repeatable)")
	c.Flags().StringVar(&f.prompts, "prompts", "", "file with your own prompts, one a line or JSONL {\"prompt\": ...}")
	c.Flags().StringVar(&f.recorded, "recorded", "", "file with recorded answers, JSONL {\"prompt\": ..., \"chosen\": ...}: they measure the gain, and teach with --set teacher=recorded")
	c.Flags().StringVar(&f.pairs, "pairs", "", "train DPO on your own rows, JSONL or Parquet with prompt, chosen, rejected (docs/exports.md), or on a data set by name (see character data ls), instead of generating pairs")
	c.Flags().StringVar(&f.introspection, "introspection", "", "train SFT on your own rows, JSONL {\"prompt\", \"reflection\"} or {\"prompt\", \"turns\"}, or on a data set by name, instead of generating them")
}

var idRule = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,99}$`)

func run(cmd *cobra.Command, name string, f runFlags) error {
	ctx := cmd.Context()
	if name == "" && f.id == "" {
		return usage(errors.New("name a character or a constitution file, or an existing run with --id; `character run --help` has examples"))
	}
	if name == "" && (f.preset != "" || f.model != "" || f.prompts != "" || f.recorded != "" || f.pairs != "" || f.introspection != "" || len(f.set) > 0) {
		return usage(fmt.Errorf("run %s goes on with the spec it was started with: leave the other flags out, or name the character to start a run", f.id))
	}
	if err := cluster.CheckStall(f.stall); err != nil {
		return usage(err)
	}
	var c *constitution.Constitution
	var files []file
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
		if raw, err = localModels(ctx, cmd, raw, s); err != nil {
			return err
		}
		if files, err = readFiles(cmd, c, name, f); err != nil {
			return err
		}
	}
	if f.id == "" {
		f.id = c.Name
	}
	if !idRule.MatchString(f.id) {
		return usage(fmt.Errorf("--id %q: use letters, digits, dot, dash and underscore, at most 100", f.id))
	}
	start := func(cmd *cobra.Command) (*env, error) { return openOrUp(cmd, f.stall) }
	if f.detach {
		start = openRunning // a run that nobody serves would only wait
	}
	e, err := start(cmd)
	if err != nil {
		return err
	}
	defer e.close()
	if f.stall != 0 && !e.own {
		fmt.Fprintln(cmd.ErrOrStderr(), "character: --stall is not used: the worker runs already, with a limit of its own (`character up --stall`, `character worker --stall`)")
	}
	if err := cluster.CheckKeys(ctx, e.store, e.keys, !onCluster(cmd)); err != nil {
		return err
	}
	if name != "" {
		if err := allowLocal(cmd, raw); err != nil {
			return err
		}
		if raw, err = upload(ctx, e.store, raw, files); err != nil {
			return err
		}
	}
	started, err := startRun(ctx, e.client, f.id, name != "", raw)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	switch {
	case started:
		fmt.Fprintf(out, "Run %s started. Watch it here, or at %s\n", f.id, e.runURL(f.id))
	case name != "":
		fmt.Fprintf(out, "Run %s is not finished and goes on with the spec it was started with; what this command says about it is not used.\nWatch it here, or at %s\n", f.id, e.runURL(f.id))
	default:
		fmt.Fprintf(out, "Run %s goes on. Watch it here, or at %s\n", f.id, e.runURL(f.id))
	}
	if u := e.reportURL(f.id); u != "" {
		fmt.Fprintf(out, "Its report grows at %s\n", u)
	}
	if f.detach {
		flag := dataFlag(dataDir(cmd))
		fmt.Fprintf(out, "Detached. `character status %s%s` tells how far it is, `character run --id %s%s` follows it.\n", f.id, flag, f.id, flag)
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
		fields["model"] = f.model
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

// localModels checks the models that the spec names, gets known ones that are not here, and makes paths independent of
// the working directory. The models of a cluster are on its engine workers: they are checked there.
func localModels(ctx context.Context, cmd *cobra.Command, raw []byte, s spec.Spec) ([]byte, error) {
	if onCluster(cmd) {
		return raw, nil
	}
	models := [][2]string{{"model", s.Model}}
	if m := s.TeacherOptions.Model; s.Teacher == "local" && m != "" {
		models = append(models, [2]string{"teacher_options.model", m})
	}
	for _, m := range models {
		if err := ensureModel(ctx, cmd, m[1]); err != nil {
			return nil, err
		}
		if hub.IsKnown(m[1]) {
			continue
		}
		abs, err := filepath.Abs(m[1])
		if err != nil {
			return nil, err
		}
		if raw, err = spec.Set(raw, m[0], abs); err != nil {
			return nil, err
		}
	}
	return raw, nil
}

// allowLocal lets the local stack's worker open the models and ask the teacher that this command's spec names: who may
// write to the data directory may say so. Specs that come another way, such as the UI, reach nothing else. A cluster's
// workers have operators of their own.
func allowLocal(cmd *cobra.Command, raw []byte) error {
	if onCluster(cmd) {
		return nil
	}
	s, err := spec.Resolve(raw)
	if err != nil {
		return err
	}
	var o permit.Options
	for _, m := range []string{s.Model, s.TeacherOptions.Model} {
		if filepath.IsAbs(m) {
			paths, err := permit.Targets(m)
			if err != nil {
				return err
			}
			o.Paths = append(o.Paths, paths...)
		}
	}
	if t := s.TeacherOptions; s.Teacher == "openai" {
		o.Endpoints = []string{cluster.Rule(spec.Endpoint{BaseURL: t.BaseURL, KeyEnv: t.KeyEnv})}
	}
	return permit.Append(filepath.Join(dataDir(cmd), permit.FileName), o)
}

// file is something of the user's that a field of the spec refers to.
type file struct {
	field, ext string
	data       []byte
}

// readFiles reads and checks the user's files, and data sets in place of them.
func readFiles(cmd *cobra.Command, c *constitution.Constitution, name string, f runFlags) ([]file, error) {
	var out []file
	if !slices.Contains(constitution.Builtin(), name) {
		out = append(out, file{"constitution", ".json", c.Canonical()})
	}
	if f.prompts != "" {
		b, err := readFile(f.prompts)
		if err != nil {
			return nil, fmt.Errorf("--prompts: %w", err)
		}
		if _, err := activities.ParsePrompts(b, f.prompts); err != nil {
			return nil, err
		}
		out = append(out, file{"preferences.prompts", ".txt", b})
	}
	for _, own := range []struct {
		flag, path, field, kind string
		check                   func([]byte) error
	}{
		{"--pairs", f.pairs, "preferences.file", activities.KindPreferences, func(b []byte) error { _, err := dataset.RunPreferences(b); return err }},
		{"--introspection", f.introspection, "introspection.file", activities.KindIntrospection, func(b []byte) error { _, err := dataset.RunIntrospection(b); return err }},
	} {
		if own.path == "" {
			continue
		}
		b, err := readRowsOf(cmd, own.path, own.kind)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", own.flag, err)
		}
		if err := own.check(b); err != nil {
			return nil, fmt.Errorf("%s %s: %w", own.flag, own.path, err)
		}
		out = append(out, file{own.field, ".jsonl", b})
	}
	if f.recorded != "" {
		b, err := readFile(f.recorded)
		if err != nil {
			return nil, fmt.Errorf("--recorded: %w", err)
		}
		if _, err := constitution.ParseRecorded(b, f.recorded); err != nil {
			return nil, err
		}
		out = append(out, file{"teacher_options.file", ".jsonl", b})
	}
	return out, nil
}

// upload puts files into the store and their refs into the spec.
func upload(ctx context.Context, s *store.Store, raw []byte, files []file) ([]byte, error) {
	for _, f := range files {
		r, err := s.Put(ctx, "uploads", f.ext, f.data)
		if err != nil {
			return nil, err
		}
		if raw, err = spec.Set(raw, f.field, "ref:"+r.Key); err != nil {
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
		return false, fmt.Errorf("there is no run %s; start it with `character run NAME --id %s` (when the Temporal server lost its file: `character repair %s` finds the run in the bucket)", id, id, id)
	case !isNew:
		return false, fmt.Errorf("run %s has ended (%s); start it again with `character run NAME --id %s`: finished stages are reused", id, d.WorkflowExecutionInfo.Status, id)
	}
	_, err = c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: id, TaskQueue: activities.DataQueue, StaticSummary: "Character training " + id,
		WorkflowIDReusePolicy: enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY}, workflows.CharacterTraining, workflows.NewInput(raw))
	return true, err
}
