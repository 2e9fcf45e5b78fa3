package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/activities"
)

func exportCmd() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "export ID --out DIR",
		Short: "Write a run's files: adapters, data sets, metrics, report",
		Long: `Write everything a run made into a new folder:

  spec.json                 the resolved spec, models and constitution pinned by hash
  dpo/ character/           PEFT adapters; character is the exact rank concatenation of DPO and SFT
  data/dpo data/introspection   Parquet, as Hugging Face datasets and TRL read it
  NAME_dpo.jsonl NAME_introspection.jsonl   the same rows as JSON lines
  metrics.jsonl timings.jsonl   values of every step; clocks of every step
  report.html               one page to look at
  SHA256SUMS                of all that carries no clock: equal runs have equal sums`,
		Example: "  character export captain --out captain-files",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if dir == "" {
				return usage(fmt.Errorf("--out is missing: name a new folder, e.g. --out %s-files", args[0]))
			}
			e, err := open(cmd)
			if err != nil {
				return err
			}
			defer e.close()
			missing, err := activities.Export(cmd.Context(), e.store, args[0], dir)
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
	return c
}
