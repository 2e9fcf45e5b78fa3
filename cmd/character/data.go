package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/testenv/stack"
)

func dataCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "data",
		Short: "List, read, measure, write out and import data sets",
		Long: `Look at what runs made. A data set is named RUN/dpo (preference pairs) or RUN/introspection (reflections and
conversations), an imported one as you named it; what no run names any more goes by its folder's name. Where nothing runs on
--data, the files of the bucket are read as they are, and no server is started; only import starts one.`,
		Example: "  character data ls\n  character data show captain/dpo --grep rain\n  character data show captain --dropped\n  character data stats captain\n  character data import pairs.jsonl --id mine",
	}
	c.AddCommand(dataLsCmd(), dataShowCmd(), dataStatsCmd(), dataExportCmd(), dataImportCmd())
	return c
}

// openBucket opens the runs' bucket for reading: over S3 where a server runs, else its plain files.
func openBucket(cmd *cobra.Command) (activities.Bucket, func(), error) {
	if !onCluster(cmd) {
		dir := dataDir(cmd)
		_, alive, err := stack.Read(dir)
		if err != nil {
			return nil, nil, err
		}
		if !alive {
			if _, err := os.Stat(filepath.Join(dir, "stack.json")); err != nil {
				return nil, nil, fmt.Errorf("there are no runs in %s yet: start one with `character run captain`, or name another --data", dir)
			}
			return localBucket(dir), func() {}, nil
		}
	}
	e, err := openRunning(cmd)
	if err != nil {
		return nil, nil, err
	}
	return e.store, e.close, nil
}

// Tables of a run, by the last part of a data set's name.
const (
	tableDPO           = "dpo"
	tableIntrospection = "introspection"
)

func tableOf(kind string) string {
	if kind == activities.KindPreferences {
		return tableDPO
	}
	return tableIntrospection
}

// dataSet is one finished data set.
type dataSet struct {
	Name    string           `json:"name"` // RUN/dpo, RUN/introspection, or a folder's name
	Run     string           `json:"run,omitempty"`
	Stage   string           `json:"stage"`
	Rows    int64            `json:"rows"`  // kept
	Tried   int64            `json:"tried"` // rows
	Dropped map[string]int64 `json:"dropped"`
	Bytes   int64            `json:"bytes"` // of its Parquet file
	Columns []string         `json:"columns"`
	Folder  string           `json:"folder"`         // in the bucket
	File    string           `json:"file,omitempty"` // of an import: what a spec names

	stage activities.Stage
	plan  *activities.Plan // nil where no run names it
}

func newDataSet(st activities.Stage) dataSet {
	d := dataSet{Stage: st.Kind, Rows: st.Kept, Tried: st.Rows, Dropped: orEmpty(st.Dropped), Folder: st.Folder, stage: st, Columns: dataset.Columns[dataset.Conversation]()}
	if st.Kind == activities.KindPreferences {
		d.Columns = dataset.Columns[dataset.Pair]()
	}
	return d
}

// dataSets lists those of a run, the one of that name, or all; the newest stage last.
func dataSets(ctx context.Context, b activities.Bucket, run string) ([]dataSet, error) {
	sizes := map[string]int64{}
	objects, err := b.List(ctx, "datasets/")
	if err != nil {
		return nil, err
	}
	var folders []string
	for _, o := range objects {
		sizes[o.Key] = o.Size
		if f, ok := strings.CutSuffix(o.Key, "/__meta/manifest.json"); ok {
			folders = append(folders, f)
		}
	}
	if run != "" && spec.CheckRunID(run) == nil { // an import, or a folder, goes first
		d, err := folderSet(ctx, b, "datasets/"+run)
		if d.Bytes = sizes[d.stage.Table(tableOf(d.Stage))]; err == nil {
			return []dataSet{d}, nil
		}
		if !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
	}
	ids := []string{run}
	if run == "" {
		if ids, err = recordedRuns(ctx, b); err != nil {
			return nil, err
		}
	}
	out := []dataSet{}
	named := map[string]bool{}
	for _, id := range ids {
		r, p, err := activities.RecordIn(ctx, b, id)
		if errors.Is(err, store.ErrNotFound) && run == "" {
			continue // claimed, and nothing recorded yet
		}
		if errors.Is(err, store.ErrNotFound) {
			return nil, noRun(ctx, b, id)
		}
		if err != nil {
			return nil, err
		}
		for _, st := range r.Stages {
			if st.Folder == "" {
				continue
			}
			d := newDataSet(st)
			d.Name, d.Run, d.plan, d.Bytes = id+"/"+tableOf(st.Kind), id, &p, sizes[st.Table(tableOf(st.Kind))]
			named[st.Folder] = true
			out = append(out, d)
		}
	}
	if run != "" {
		return out, nil
	}
	for _, f := range folders {
		if named[f] {
			continue
		}
		d, err := folderSet(ctx, b, f)
		if err != nil {
			return nil, err
		}
		d.Bytes = sizes[d.stage.Table(tableOf(d.Stage))]
		out = append(out, d)
	}
	return out, nil
}

// folderSet is the data set of a folder in the bucket.
func folderSet(ctx context.Context, b activities.Bucket, folder string) (dataSet, error) {
	data, err := b.GetKey(ctx, folder+"/__meta/manifest.json")
	if err != nil {
		return dataSet{}, err
	}
	m, err := dataset.ParseManifest(data)
	if err != nil {
		return dataSet{}, fmt.Errorf("data set %s: %w; `character repair --check` says more", folder, err)
	}
	files, own, imported := activities.ImportOf(m)
	if !imported {
		files = folder
	}
	d := newDataSet(activities.Stage{Kind: m.Kind, Key: m.InputHash, Parts: m.Parts, Folder: files, Rows: m.Rows, Kept: m.Kept, Dropped: m.Dropped})
	d.Name, d.File = strings.TrimPrefix(folder, "datasets/"), own
	return d, nil
}

// recordedRuns are the ids of the runs of a bucket.
func recordedRuns(ctx context.Context, b activities.Bucket) ([]string, error) {
	objects, err := b.List(ctx, "runs/")
	var ids []string
	for _, o := range objects {
		if id, ok := strings.CutSuffix(strings.TrimPrefix(o.Key, "runs/"), "/HEAD.json"); ok {
			ids = append(ids, id)
		}
	}
	return ids, err
}

// noRun says that there is no such run, and which there are.
func noRun(ctx context.Context, b activities.Bucket, id string) error {
	ids, err := recordedRuns(ctx, b)
	if err != nil {
		return err
	}
	hint := "there are none yet"
	if len(ids) > 0 {
		hint = "there are " + strings.Join(ids[:min(len(ids), 8)], ", ")
	}
	return fmt.Errorf("no run %q is recorded: %s; `character runs list` shows all", id, hint)
}

// findDataSet finds RUN/TABLE, the only or first one of RUN, or a folder's name.
func findDataSet(ctx context.Context, b activities.Bucket, name string) (dataSet, error) {
	id, table, both := strings.Cut(name, "/")
	if both && !slices.Contains([]string{tableDPO, tableIntrospection, activities.KindPreferences}, table) {
		return dataSet{}, usage(fmt.Errorf("data set %q: after the run's name stands %s or %s, such as %s/%s", name, tableDPO, tableIntrospection, id, tableDPO))
	}
	if table == activities.KindPreferences {
		table = tableDPO
	}
	if err := spec.CheckRunID(id); err != nil {
		return dataSet{}, usage(err)
	}
	if !both {
		if d, err := folderSet(ctx, b, "datasets/"+name); err == nil || !errors.Is(err, store.ErrNotFound) {
			return d, err
		}
	}
	all, err := dataSets(ctx, b, id)
	if err != nil {
		return dataSet{}, err
	}
	for _, d := range all {
		if !both || strings.HasSuffix(d.Name, "/"+table) || d.Run == "" && tableOf(d.Stage) == table {
			return d, nil
		}
	}
	return dataSet{}, fmt.Errorf("run %s has no data set %syet; `character status %s` tells how far it is", id, strings.TrimLeft(table+" ", " "), id)
}

func dataLsCmd() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "ls [ID]",
		Short: "List the data sets of a run, or of the bucket",
		Long:  "List data sets with their rows, what was tried for them, the bytes of their Parquet file, and the stage that made them.",
		Example: `  character data ls
  character data ls captain
  character data ls --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, done, err := openBucket(cmd)
			if err != nil {
				return err
			}
			defer done()
			all, err := dataSets(cmd.Context(), b, strings.Join(args, ""))
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"datasets": all})
			}
			return printDataSets(cmd.OutOrStdout(), all)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, `print {"datasets":[...]} for scripts`)
	return c
}

func printDataSets(out io.Writer, all []dataSet) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(out, "No data set is finished yet; `character status` tells how far the runs are.")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tROWS\tTRIED\tBYTES\tSTAGE\tCOLUMNS")
	for _, d := range all {
		main := d.Columns[:1]
		if d.Stage == activities.KindPreferences {
			main = d.Columns[:3]
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t%s and %d more\n", d.Name, d.Rows, d.Tried, size(d.Bytes), d.Stage, strings.Join(main, ", "), len(d.Columns)-len(main))
	}
	return w.Flush()
}

// size writes bytes for people.
func size(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d B", n)
}
