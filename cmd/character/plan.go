package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/cmd/internal/estimate"
	"github.com/opencharacter/opencharacter/constitution"
	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/tensor"
)

type planFlags struct {
	runFlags
	rows, answer      int
	budget            time.Duration
	priceIn, priceOut float64
	noMeasure, json   bool
}

func planCmd() *cobra.Command {
	var f planFlags
	c := &cobra.Command{
		Use:   "plan NAME|FILE",
		Short: "Say what a run will take: rows, tokens, time, memory, storage, money",
		Long: `Say what a run will take before anything is spent; the flags are those of ` + "`character run`" + `. Nothing is started, fetched or stored.

Where the model is on this machine a small part of every stage is done for real (about a minute for the demo): how fast this
machine is now, how long answers are and how many pass the filters. The rest follows from the spec. It is an estimate, and says
what it rests on; other work on the machine changes it. Without the model, or with --no-measure, rows and tokens are told alone.

A teacher behind an API is not asked: give --answer-tokens, and --price-in and --price-out for a million tokens.`,
		Example: `  character plan captain
  character plan captain --set dpo.epochs=3 --set preferences.pairs=200
  character plan my-character.yaml --preset paper-scale --price-in 0.14 --price-out 0.28 --no-measure
  character plan captain --json | jq .seconds`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return plan(cmd, args[0], f) },
	}
	f.addSpec(c)
	c.Flags().IntVar(&f.rows, "rows", 32, "rows of each kind to measure with")
	c.Flags().DurationVar(&f.budget, "budget", 3*time.Minute, "longest time to measure for")
	c.Flags().BoolVar(&f.noMeasure, "no-measure", false, "count only: no time and no memory")
	c.Flags().IntVar(&f.answer, "answer-tokens", 250, "length of a remote teacher's answers, in tokens")
	c.Flags().Float64Var(&f.priceIn, "price-in", 0, "price of a million tokens that a remote teacher reads")
	c.Flags().Float64Var(&f.priceOut, "price-out", 0, "price of a million tokens that a remote teacher writes")
	c.Flags().BoolVar(&f.json, "json", false, "print one JSON object")
	return c
}

func (f planFlags) check() error {
	switch {
	case f.rows < 1 || f.rows > 1000:
		return usage(fmt.Errorf("--rows %d: give 1 to 1000", f.rows))
	case f.budget < time.Second:
		return usage(fmt.Errorf("--budget %s: give at least 1s, or --no-measure", f.budget))
	case f.answer < 1:
		return usage(fmt.Errorf("--answer-tokens %d: give 1 or more", f.answer))
	case !(f.priceIn >= 0 && f.priceIn < 1e9) || !(f.priceOut >= 0 && f.priceOut < 1e9):
		return usage(errors.New("--price-in and --price-out are prices of a million tokens: 0 or more"))
	}
	return nil
}

// planned is what `plan --json` prints.
type planned struct {
	Constitution string `json:"constitution"`
	Preset       string `json:"preset"`
	Model        string `json:"model"`
	Kernels      string `json:"kernels"`
	estimate.Estimate
}

func plan(cmd *cobra.Command, name string, f planFlags) error {
	ctx := cmd.Context()
	if err := f.check(); err != nil {
		return err
	}
	c, err := constitution.Load(name)
	if err != nil {
		return err
	}
	raw, err := specOf(c, name, f.runFlags)
	if err != nil {
		return err
	}
	s, err := spec.Resolve(raw)
	if err != nil {
		return err
	}
	files, err := readFiles(cmd, c, name, f.runFlags)
	if err != nil {
		return err
	}
	o := estimate.Options{Spec: s, OwnPairs: -1, OwnTalks: -1, Answer: f.answer, PriceIn: f.priceIn, PriceOut: f.priceOut}
	rec, _ := constitution.Recorded(c.Name)
	own := 0                  // the user's prompts
	for _, x := range files { // they were read and checked
		switch x.field {
		case "preferences.prompts":
			texts, err := activities.ParsePrompts(x.data, f.prompts)
			if err != nil {
				return err
			}
			own = len(texts)
		case "preferences.file":
			rows, err := dataset.RunPreferences(x.data)
			if err != nil {
				return err
			}
			o.OwnPairs = len(rows)
		case "introspection.file":
			rows, err := dataset.RunIntrospection(x.data)
			if err != nil {
				return err
			}
			o.OwnTalks = len(rows)
		case "teacher_options.file":
			if rec, err = constitution.ParseRecorded(x.data, f.recorded); err != nil {
				return err
			}
		}
	}
	o.HeldOut = min(s.Evaluation.HeldOut, len(rec))
	p := activities.Plan{Spec: s, Name: c.Name}
	filters := append(slices.Clone(s.Preferences.Filter.Own), s.Introspection.Filter.Own...)
	p.Spec.Preferences.Filter.Own, p.Spec.Introspection.Filter.Own = nil, nil // a program's own are in its workers
	if s.Teacher == "recorded" {
		if o.Prompts = len(rec) - o.HeldOut; o.Prompts < s.Preferences.MinPairs && o.OwnPairs < 0 {
			return fmt.Errorf("teacher recorded has %d answers for %s, and evaluation.held_out %d and preferences.min_pairs %d need %d; give a larger file with --recorded, or another teacher", len(rec), c.Name, s.Evaluation.HeldOut, s.Preferences.MinPairs, s.Evaluation.HeldOut+s.Preferences.MinPairs)
		}
	} else {
		prompts, err := activities.Prompts(ctx, nil, p, c, activities.KindPreferences)
		if err != nil && own == 0 {
			return err
		}
		o.Prompts = len(prompts) + own*s.Preferences.Repeats
	}
	rates, model, err := f.measure(cmd, &p, &o, c, rec)
	if err != nil {
		return err
	}
	if len(filters) > 0 {
		rates.Basis = append(rates.Basis, fmt.Sprintf("what the filters of your own (%s) drop is not counted: they are in your workers, not here", strings.Join(filters, ", ")))
	}
	out := planned{Constitution: c.Name, Preset: s.Preset, Model: model, Kernels: tensor.Variant(), Estimate: estimate.Of(o, rates)}
	if f.json {
		return printJSON(cmd.OutOrStdout(), out)
	}
	return out.print(cmd.OutOrStdout())
}

// measure opens the models, where they are here, and does a small part of the run.
func (f planFlags) measure(cmd *cobra.Command, p *activities.Plan, o *estimate.Options, c *constitution.Constitution, rec []constitution.Example) (estimate.Rates, string, error) {
	s := p.Spec
	r := estimate.Assumed(*p)
	file, err := hub.Resolve(s.Model, hubOptions(cmd))
	if err != nil && (errors.Is(err, hub.ErrNotPulled) || s.Model == modelOf(s.Preset)) {
		r.Basis = append(r.Basis, fmt.Sprintf("time and memory are not measured, because the model is not on this machine: %v", err))
		return r, s.Model, nil
	}
	if err != nil {
		return r, "", err
	}
	if f.noMeasure {
		info, err := hub.Inspect(file.Path)
		o.WeightBytes = 2 * info.Parameters
		return r, s.Model, err
	}
	load := func(name, weights string) (*activities.Loaded, error) {
		m, err := activities.LoadModel(name, weights, hubOptions(cmd))
		if err != nil || weights == "quantized" { // whose products are always exact
			return m, err
		}
		compute, err := tensor.ParseCompute(s.Compute)
		if err == nil && m.Compute() != compute {
			err = m.SetCompute(compute)
		}
		return m, err
	}
	m, err := load(s.Model, "")
	if err != nil {
		return r, "", err
	}
	for field, n := range map[string]int{"dpo.max_length": s.DPO.MaxLength, "sft.max_length": s.SFT.MaxLength} {
		if n > m.Context {
			return r, "", fmt.Errorf("spec: %s %d is more than the model's context of %d tokens; set a smaller one", field, n, m.Context)
		}
	}
	var teacher *activities.Loaded
	if t := s.TeacherOptions.Model; s.Teacher == "local" && t != "" && t != s.Model {
		if teacher, err = load(t, ""); err != nil {
			return r, "", fmt.Errorf("teacher_options.model: %w", err)
		}
		p.Teacher = teacher.Info
	}
	p.Model, p.Variant, p.Shape = m.Info, tensor.VariantOf(m.Compute()), m.Config
	for _, x := range transformer.NewAdapter(m.Config, 1, 1, 1).Matrices() {
		o.AdapterParams += int64(len(x.T.Data()))
	}
	say := func(what string) { progressLine("measuring " + what) }
	r, err = estimate.Measure(cmd.Context(), *p, m, teacher, c, rec, estimate.Sample{Rows: f.rows, Budget: f.budget, Say: say})
	progressLine("")
	if s.Weights == "quantized" {
		r.Basis = append(r.Basis, "weights: quantized was not measured: sampling is quicker than this says")
	}
	return r, s.Model, err
}

// modelOf is a preset's model, which may be meant for another machine.
func modelOf(preset string) string {
	raw, err := spec.Set(nil, "preset", preset)
	if err != nil {
		return ""
	}
	s, _ := spec.Resolve(raw) // it is the name of a resolved spec
	return s.Model
}

func (p planned) print(out io.Writer) error {
	fmt.Fprintf(out, "%s on %s, preset %s, kernels %s\n\n", p.Constitution, shortModel(p.Model), p.Preset, p.Kernels)
	w := tabwriter.NewWriter(out, 2, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "STAGE\tROWS\tTARGET\tSTEPS\tREAD\tDRAWN\tTRAINED\tTIME\t")
	count := func(n int64) string {
		if n == 0 {
			return "-"
		}
		return fmt.Sprint(n)
	}
	clock := func(s float64) string {
		if s == 0 {
			return "-"
		}
		return time.Duration(s * float64(time.Second)).Round(time.Second).String()
	}
	for _, s := range p.Stages {
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t\n", s.Name, s.Rows, s.Target, count(int64(s.Steps)), count(s.Read), count(s.Drawn), count(s.Trained), clock(s.Seconds))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out, "\nREAD, DRAWN and TRAINED are tokens of the model here; TRAINED counts every epoch.")
	if p.Seconds > 0 {
		fmt.Fprintf(out, "time     about %s on this machine as it is now", clock(p.Seconds))
		if p.Alone > 0 {
			fmt.Fprintf(out, ", %s if nothing else used it (the measurement got %.0f %% of its cores)", clock(p.Alone), 100*p.Share)
		}
		fmt.Fprintln(out)
	} else {
		fmt.Fprintln(out, "time     not measured")
	}
	if p.Memory > 0 {
		fmt.Fprintf(out, "memory   about %s at the peak of the worker\n", size(p.Memory))
	}
	if p.Adapters > 0 {
		fmt.Fprintf(out, "storage  about %s, of which adapters %s; most of the rest are checkpoints that `character gc` removes\n", size(p.Storage), size(p.Adapters))
	}
	if t := p.Teacher; t != nil {
		fmt.Fprintf(out, "teacher  %d requests, %d tokens in, %d out (at most %d)", t.Requests, t.TokensIn, t.TokensOut, t.MostOut)
		if t.Cost > 0 {
			fmt.Fprintf(out, ": costs %.2f, at most %.2f", t.Cost, t.MostCost)
		} else {
			fmt.Fprint(out, "; --price-in and --price-out tell what that costs")
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintln(out, "\nBasis:")
	for _, b := range p.Basis {
		fmt.Fprintf(out, "  - %s\n", b)
	}
	return nil
}
