package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/dataset"
)

// dataStats is one data set of `data stats --json`.
type dataStats struct {
	dataSet
	Summary dataset.Summary `json:"summary"`
}

func dataStatsCmd() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "stats [ID[/DATASET]]",
		Short: "Count rows, lengths in tokens and characters, drop reasons and repetitions",
		Long: `Measure a data set, those of a run, or all. Lengths are characters (Unicode code points) and, where the sampler counted
them, tokens; p95 is the length that 95 of 100 rows do not exceed. A text counts as repeated when an earlier row has it,
letter case and white space apart: with preferences.repeats above 1 prompts repeat on purpose.`,
		Example: "  character data stats captain\n  character data stats captain/dpo --json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, done, err := openBucket(cmd)
			if err != nil {
				return err
			}
			defer done()
			var sets []dataSet
			if name := strings.Join(args, ""); strings.Contains(name, "/") {
				d, err := findDataSet(cmd.Context(), b, name)
				if err != nil {
					return err
				}
				sets = []dataSet{d}
			} else if sets, err = dataSets(cmd.Context(), b, name); err != nil {
				return err
			}
			all := []dataStats{}
			for _, d := range sets {
				s := dataStats{dataSet: d}
				if d.Stage == activities.KindPreferences {
					rows, err := activities.RowsIn[dataset.Pair](cmd.Context(), b, d.stage.Parts)
					if err != nil {
						return err
					}
					s.Summary = dataset.SummarizePairs(rows)
				} else {
					rows, err := activities.RowsIn[dataset.Conversation](cmd.Context(), b, d.stage.Parts)
					if err != nil {
						return err
					}
					s.Summary = dataset.SummarizeConversations(rows)
				}
				all = append(all, s)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"datasets": all})
			}
			return printStats(cmd.OutOrStdout(), all)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, `print {"datasets":[...]} for scripts`)
	return c
}

func printStats(out io.Writer, all []dataStats) error {
	if len(all) == 0 {
		return printDataSets(out, nil)
	}
	for i, s := range all {
		if i > 0 {
			fmt.Fprintln(out)
		}
		fmt.Fprintf(out, "%s: %d rows of %d tried, %d repeated as a whole\n", s.Name, s.Rows, s.Tried, s.Summary.Repeated)
		w := tabwriter.NewWriter(out, 2, 8, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(w, "\t\tmin\tmedian\tmean\tp95\tmax\trepeated\t")
		for _, c := range s.Summary.Columns {
			fmt.Fprintf(w, "%s\tcharacters\t%d\t%d\t%.0f\t%d\t%d\t%d\t\n", c.Name, c.Chars.Min, c.Chars.Median, c.Chars.Mean, c.Chars.P95, c.Chars.Max, c.Repeated)
			if t := c.Tokens; t.Count > 0 {
				fmt.Fprintf(w, "\ttokens\t%d\t%d\t%.0f\t%d\t%d\t\t\n", t.Min, t.Median, t.Mean, t.P95, t.Max)
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
		for _, k := range sortedKeys(s.Dropped) {
			fmt.Fprintf(out, "  dropped %-32s %d\n", k, s.Dropped[k])
		}
	}
	return nil
}

var dataFormats = []string{"jsonl", "parquet", "csv"}

func dataExportCmd() *cobra.Command {
	var format, path string
	c := &cobra.Command{
		Use:   "export ID/DATASET --out FILE",
		Short: "Write one data set to a file: JSONL, Parquet or CSV",
		Long: `Write a data set to a new file, whole or not at all.

  jsonl     one row a line, as --pairs and --introspection of ` + "`character run`" + ` read it
  parquet   the stored file with all columns, as Hugging Face datasets and TRL read it
  csv       one row a line with all columns; lists of messages of more than one turn are JSON

Without --format the file's ending decides.`,
		Example: `  character data export captain/dpo --out pairs.jsonl
  character data export captain/introspection --format parquet --out introspection.parquet
  character data export captain/dpo --out pairs.csv`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if path == "" {
				return usage(errors.New("--out is missing: name a new file, such as --out pairs.jsonl"))
			}
			if format == "" {
				if format = strings.TrimPrefix(filepath.Ext(path), "."); !slices.Contains(dataFormats, format) {
					return usage(fmt.Errorf("--out %s: its ending says no format; add --format %s", path, strings.Join(dataFormats, "|")))
				}
			}
			if !slices.Contains(dataFormats, format) {
				return usage(fmt.Errorf("--format %q is not known; give %s", format, strings.Join(dataFormats, ", ")))
			}
			b, done, err := openBucket(cmd)
			if err != nil {
				return err
			}
			defer done()
			d, err := findDataSet(cmd.Context(), b, args[0])
			if err != nil {
				return err
			}
			data, err := encodeSet(cmd, b, d, format)
			if err != nil {
				return err
			}
			if err := writeNew(path, data); err != nil {
				return fmt.Errorf("--out: %w", err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d rows of %s written to %s (%s)\n", d.Rows, d.Name, path, size(int64(len(data))))
			return err
		},
	}
	c.Flags().StringVar(&format, "format", "", "jsonl, parquet or csv (default: by the file's ending)")
	c.Flags().StringVar(&path, "out", "", "new file to write")
	return c
}

func encodeSet(cmd *cobra.Command, b activities.Bucket, d dataSet, format string) ([]byte, error) {
	ctx := cmd.Context()
	if format == "parquet" {
		data, err := b.GetKey(ctx, d.stage.Table(tableOf(d.Stage)))
		if err != nil {
			return nil, fmt.Errorf("data set %s: %w; `character repair --check` says more", d.Name, err)
		}
		if d.Stage == activities.KindPreferences {
			_, err = dataset.DecodeParquet[dataset.Pair](data)
		} else {
			_, err = dataset.DecodeParquet[dataset.Conversation](data)
		}
		return data, err
	}
	if d.Stage == activities.KindPreferences {
		rows, err := activities.RowsIn[dataset.Pair](ctx, b, d.stage.Parts)
		if err != nil || format == "jsonl" {
			return dataset.PreferenceJSONL(rows), err
		}
		return pairsCSV(rows)
	}
	rows, err := activities.RowsIn[dataset.Conversation](ctx, b, d.stage.Parts)
	if err != nil || format == "jsonl" {
		return dataset.IntrospectionJSONL(rows), err
	}
	return conversationsCSV(rows)
}

// cell is a text, or the JSON of more than one message.
func cell(msgs []dataset.Message) string {
	if len(msgs) == 1 {
		return msgs[0].Content
	}
	b, _ := json.Marshal(msgs) // plain strings
	return string(b)
}

func pairsCSV(rows []dataset.Pair) ([]byte, error) {
	table := [][]string{{"id", "prompt", "chosen", "rejected", "source", "teacher", "student", "chosen_tokens", "rejected_tokens", "rejected_finish"}}
	for _, r := range rows {
		table = append(table, []string{r.ID, cell(r.Prompt), cell(r.Chosen), cell(r.Rejected), r.Source, r.Teacher, r.Student, strconv.Itoa(r.ChosenTokens), strconv.Itoa(r.RejectedTokens), r.RejectedFinish})
	}
	return tableCSV(table)
}

func conversationsCSV(rows []dataset.Conversation) ([]byte, error) {
	table := [][]string{{"id", "kind", "template_id", "prompt_text", "messages", "source_system_prompt", "turns", "tokens"}}
	for _, r := range rows {
		table = append(table, []string{r.ID, r.Kind, r.TemplateID, r.PromptText, cell(r.Messages), r.SourceSystemPrompt, strconv.Itoa(r.Turns), strconv.Itoa(r.Tokens)})
	}
	return tableCSV(table)
}

func tableCSV(table [][]string) ([]byte, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	err := w.WriteAll(table)
	return b.Bytes(), err
}
