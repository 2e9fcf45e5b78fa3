package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/activities"
)

func exportCmd() *cobra.Command {
	var dir, board string
	var formats []string
	c := &cobra.Command{
		Use:   "export ID --out DIR",
		Short: "Write a run's files: adapters, data sets, metrics, report, whole models",
		Long: `Write everything a run made into a new folder:

  spec.json                 the resolved spec, models and constitution pinned by hash
  dpo/ character/           PEFT adapters; character is the exact rank concatenation of DPO and SFT
  data/dpo data/introspection   Parquet, as Hugging Face datasets and TRL read it
  NAME_dpo.jsonl NAME_introspection.jsonl   the same rows as JSON lines
  metrics.jsonl timings.jsonl   values of every step; clocks of every step
  report.html               one page to look at
  SHA256SUMS                of all that carries no clock: equal runs have equal sums

--format also writes whole models, for other programs, each into a folder of DIR with a model card and SHA256SUMS of
its own; the base model must be on this machine:

  safetensors       merged, bf16, with config, tokenizer and chat template: transformers and whatever else reads such folders
  safetensors-f32   the same in float32, twice the size: rounding to bf16 takes something away from a small adapter
  gguf-bf16         merged, one GGUF file: llama.cpp and what is built on it
  gguf-q8_0         the same at half the size
  gguf-lora         the adapters alone, for llama.cpp beside a GGUF file of the base model; nothing is rounded away
  all               all five

--tensorboard DIR writes the values of every step as TensorBoard reads them, into DIR/ID, with or without --out; several
runs in one DIR stand side by side (tensorboard --logdir DIR).

Which lines open what, in which tool: docs/exports.md.`,
		Example: `  character export captain --out captain-files
  character export captain --out captain-files --format safetensors,gguf-q8_0
  character export captain --tensorboard board`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if dir == "" && board != "" && len(formats) > 0 {
				return usage(fmt.Errorf("--format needs --out: name a new folder, e.g. --out %s-files", args[0]))
			}
			if dir == "" && board == "" {
				return usage(fmt.Errorf("--out is missing: name a new folder, e.g. --out %s-files", args[0]))
			}
			models, err := modelFormats(formats)
			if err != nil {
				return usage(err)
			}
			e, err := open(cmd)
			if err != nil {
				return err
			}
			defer e.close()
			if board != "" {
				n, err := activities.ExportTensorBoard(cmd.Context(), e.store, args[0], board)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%d values written to %s. Look at them: tensorboard --logdir %s\n", n, filepath.Join(board, args[0]), board)
				if dir == "" {
					return nil
				}
			}
			missing, err := activities.ExportWith(cmd.Context(), e.store, args[0], dir, activities.Models{
				Formats: models, Hub: hubOptions(cmd),
				Progress: func(format string) { fmt.Fprintf(cmd.ErrOrStderr(), "Writing %s\n", format) },
			})
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if len(missing) > 0 {
				fmt.Fprintf(out, "The run has no %s yet: those files are left out.\n", strings.Join(missing, ", "))
			}
			_, err = fmt.Fprintf(out, "Written to %s. Look at %s/report.html\n", dir, dir)
			return err
		},
	}
	c.Flags().StringVar(&dir, "out", "", "new folder to write to")
	c.Flags().StringVar(&board, "tensorboard", "", "folder for TensorBoard: the run's values are written to DIR/ID")
	c.Flags().StringSliceVar(&formats, "format", nil, "whole models to write too: "+strings.Join(activities.ModelFormats(), ", ")+" or all; several with commas, or the flag again")
	return c
}

// modelFormats checks the names before anything is opened.
func modelFormats(names []string) ([]string, error) {
	if len(names) == 1 && names[0] == "all" {
		return activities.ModelFormats(), nil
	}
	for i, n := range names {
		if !slices.Contains(activities.ModelFormats(), n) {
			return nil, fmt.Errorf("--format %q is not known; give %s or all", n, strings.Join(activities.ModelFormats(), ", "))
		}
		if slices.Contains(names[:i], n) {
			return nil, fmt.Errorf("--format %s is named twice", n)
		}
	}
	return names, nil
}
