package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/spec"
)

type importFlags struct {
	id, kind, split, preset string
	set                     []string
	check, json             bool
}

func dataImportCmd() *cobra.Command {
	var f importFlags
	c := &cobra.Command{
		Use:   "import FILE|FOLDER --id NAME",
		Short: "Store pairs or conversations of your own as a data set that runs can train on",
		Long: `Read JSON lines, Parquet, or a folder of them as Hugging Face has it; check every row; apply the quality filters; and store
what passes as data set NAME. The shapes of rows that are read are in docs/exports.md. A row that does not fit is an error with
file, line and column, and nothing is stored. Rows that the filters drop are counted by reason.

The import is there when the command has ended well, and not before: killed in the middle it has changed nothing, and the same
command can be given again. NAME is never overwritten.

A run that names it starts at that stage: "character run captain --pairs NAME" trains DPO on it at once, "--introspection NAME"
takes the place of the introspection stage.`,
		Example: `  character data import pairs.jsonl --id mine
  character data import my-dataset-folder --id mine --split train
  character data import talks.parquet --id talks --kind introspection
  character data import pairs.jsonl --check                     # count, store nothing
  character data import long.jsonl --id long --set preferences.filter.max_chars=20000`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return dataImport(cmd, args[0], f) },
	}
	c.Flags().StringVar(&f.id, "id", "", "name of the new data set")
	c.Flags().StringVar(&f.kind, "kind", "", "dpo or introspection (default: by the columns)")
	c.Flags().StringVar(&f.split, "split", "train", "of a folder: the split to read")
	c.Flags().StringVar(&f.preset, "preset", "", "filter with the limits of this preset: demo (default), paper-scale or published")
	c.Flags().StringArrayVar(&f.set, "set", nil, "set one limit of the filters, as runs have them, e.g. --set preferences.filter.max_chars=20000 (repeatable)")
	c.Flags().BoolVar(&f.check, "check", false, "only read, check and count; store nothing")
	c.Flags().BoolVar(&f.json, "json", false, "print one JSON object for scripts")
	return c
}

// importReport is what `data import --json` prints.
type importReport struct {
	Name    string           `json:"name,omitempty"`
	Kind    string           `json:"kind"` // dpo or introspection
	Files   []string         `json:"files"`
	LeftOut []string         `json:"left_out"` // files of other splits
	Rows    int64            `json:"rows"`     // read
	Kept    int64            `json:"kept"`
	Dropped map[string]int64 `json:"dropped"`
	// Repeated are rows that say, as a whole, what an earlier one says. They are kept.
	Repeated int    `json:"repeated"`
	File     string `json:"file,omitempty"` // what a spec names
	Existed  bool   `json:"existed"`        // the same rows were there under that name
	Stored   bool   `json:"stored"`
}

func dataImport(cmd *cobra.Command, path string, f importFlags) error {
	switch {
	case f.id == "" && !f.check:
		return usage(errors.New("--id is missing: name the new data set, such as --id mine (or only --check the file)"))
	case f.kind != "" && f.kind != tableDPO && f.kind != tableIntrospection:
		return usage(fmt.Errorf("--kind %q is not known; give dpo or introspection", f.kind))
	case f.id != "":
		if err := activities.CheckImportName(f.id); err != nil {
			return usage(fmt.Errorf("--id: %w", err))
		}
	}
	found, err := importFiles(path, f.split, f.kind)
	if err != nil {
		return err
	}
	in, err := f.read(found.files)
	if err != nil {
		return err
	}
	sifted := in.Sift()
	st := sifted.Stage
	r := importReport{Name: f.id, Kind: tableOf(in.Kind), Files: found.names(), LeftOut: found.leftOut, Rows: st.Rows, Kept: st.Kept, Dropped: st.Dropped}
	if in.Kind == activities.KindPreferences {
		r.Repeated = dataset.SummarizePairs(sifted.Pairs).Repeated
	} else {
		r.Repeated = dataset.SummarizeConversations(sifted.Talks).Repeated
	}
	if !f.check {
		e, err := openOrServers(cmd)
		if err != nil {
			return err
		}
		defer e.close()
		saved, err := sifted.Save(cmd.Context(), e.store)
		if err != nil {
			return fmt.Errorf("data import: %w", err)
		}
		r.File, r.Existed, r.Stored = saved.File, saved.Existed, true
	}
	if f.json {
		return printJSON(cmd.OutOrStdout(), r)
	}
	return r.print(cmd.OutOrStdout(), dataFlag(dataDir(cmd)))
}

// read reads rows of the kind that the flag or the columns say.
func (f importFlags) read(files []dataset.File) (in activities.Import, err error) {
	s, err := f.limits()
	if err != nil {
		return in, err
	}
	kind := f.kind
	if kind == "" {
		if kind, err = dataset.KindOfRows(files[0]); err != nil {
			return in, err
		}
	}
	in = activities.Import{Name: f.id, Kind: activities.KindPreferences, Filter: s.Preferences.Filter}
	if kind == tableDPO {
		in.Pairs, err = dataset.ImportPreferences(files...)
		return in, err
	}
	in.Kind, in.Filter = activities.KindIntrospection, s.Introspection.Filter
	in.Talks, err = dataset.ImportIntrospection(files...)
	return in, err
}

// limits are a run's, of which only those of the filters may be set here.
func (f importFlags) limits() (s spec.Spec, err error) {
	raw := []byte("{}")
	if f.preset != "" {
		if raw, err = spec.Set(raw, "preset", f.preset); err != nil {
			return s, err
		}
	}
	for _, kv := range f.set {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || !strings.HasPrefix(k, "preferences.filter.") && !strings.HasPrefix(k, "introspection.filter.") {
			return s, usage(fmt.Errorf("--set %q: want a limit of the filters, e.g. --set preferences.filter.max_chars=20000; everything else is the run's", kv))
		}
		if raw, err = spec.Set(raw, k, v); err != nil {
			return s, err
		}
	}
	return spec.Resolve(raw)
}

func (r importReport) print(out io.Writer, flag string) error {
	fmt.Fprintf(out, "Read %s", strings.Join(r.Files[:min(len(r.Files), 4)], ", "))
	if n := len(r.Files); n > 4 {
		fmt.Fprintf(out, " and %d more files", n-4)
	}
	fmt.Fprintln(out, ".")
	if len(r.LeftOut) > 0 {
		fmt.Fprintf(out, "Left out, because they are of another split: %s.\n", strings.Join(r.LeftOut, ", "))
	}
	fmt.Fprintf(out, "%d rows of kind %s read, %d pass the filters", r.Rows, r.Kind, r.Kept)
	if r.Repeated > 0 {
		fmt.Fprintf(out, ", %d of them repeat an earlier one", r.Repeated)
	}
	fmt.Fprintln(out, ".")
	for _, k := range sortedKeys(r.Dropped) {
		fmt.Fprintf(out, "  dropped %-32s %d\n", k, r.Dropped[k])
	}
	if !r.Stored {
		_, err := fmt.Fprintln(out, "Nothing is stored: this was --check.")
		return err
	}
	field, use := "preferences", "--pairs"
	if r.Kind == tableIntrospection {
		field, use = "introspection", "--introspection"
	}
	done := "Stored as data set"
	if r.Existed {
		done = "The same rows are there already: data set"
	}
	_, err := fmt.Fprintf(out, "%s %s. Train on it: character run captain --id NEW %s %s%s\nIn a spec of the Temporal UI: {\"%s\":{\"file\":\"%s\"}}\n", done, r.Name, use, r.Name, flag, field, r.File)
	return err
}

// openOrServers connects to what runs, or starts the servers alone for as long as the command takes.
func openOrServers(cmd *cobra.Command) (*env, error) {
	e, err := openRunning(cmd)
	if !errors.Is(err, errNotRunning) {
		return e, err
	}
	return openOwn(cmd, false, 0)
}
