package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/store"
)

// difference is a field or a measurement of two runs; nil where a run has none.
type difference struct {
	Stage string `json:"stage,omitempty"`
	Name  string `json:"name"`
	A     any    `json:"a"`
	B     any    `json:"b"`
}

// comparison is what `runs compare --json` prints.
type comparison struct {
	A       string       `json:"a"`
	B       string       `json:"b"`
	Equal   int          `json:"equal_fields"` // of the spec
	Spec    []difference `json:"spec"`         // the fields that differ
	Metrics []difference `json:"metrics"`
}

func runsCompareCmd() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "compare A B",
		Short: "What two runs' specs differ in, and their measurements side by side",
		Long: `Compare two runs: the fields of their resolved specs that differ (with the hashes of model and constitution and the kernels),
and for every stage that one of them has finished its counts and values side by side. Held-out gains are nats a token.`,
		Example: "  character runs compare captain captain-3-epochs\n  character runs compare captain sarcastic --json",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, done, err := openBucket(cmd)
			if err != nil {
				return err
			}
			defer done()
			var recs [2]activities.Record
			var plans [2]activities.Plan
			for i, id := range args {
				if recs[i], plans[i], err = activities.RecordIn(cmd.Context(), b, id); errors.Is(err, store.ErrNotFound) {
					return noRun(cmd.Context(), b, id)
				} else if err != nil {
					return err
				}
			}
			c, err := compareRuns(recs, plans)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), c)
			}
			return c.print(cmd.OutOrStdout())
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

func compareRuns(recs [2]activities.Record, plans [2]activities.Plan) (comparison, error) {
	c := comparison{A: recs[0].ID, B: recs[1].ID, Spec: []difference{}, Metrics: []difference{}}
	var flat [2]map[string]any
	for i, p := range plans {
		flat[i] = map[string]any{"constitution (name)": p.Name, "constitution (sha256)": p.Constitution.SHA256, "model (sha256)": p.Model.SHA256, "kernels": p.Variant}
		raw, err := p.Spec.Full()
		if err != nil {
			return c, err
		}
		var tree map[string]any
		if err := json.Unmarshal(raw, &tree); err != nil {
			return c, err
		}
		flatten(flat[i], "", tree)
	}
	for _, k := range union(flat[0], flat[1]) {
		a, b := flat[0][k], flat[1][k]
		if fmt.Sprint(a) == fmt.Sprint(b) {
			c.Equal++
		} else {
			c.Spec = append(c.Spec, difference{Name: k, A: a, B: b})
		}
	}
	for _, kind := range stageKinds {
		values := [2]map[string]any{{}, {}}
		for i, r := range recs {
			st, ok := r.Stage(kind)
			if !ok {
				continue
			}
			if st.Rows > 0 {
				values[i]["rows tried"], values[i]["rows kept"] = float64(st.Rows), float64(st.Kept)
			}
			for k, v := range st.Dropped {
				values[i]["dropped "+k] = float64(v)
			}
			for k, v := range st.Values {
				values[i][strings.ReplaceAll(k, "_", " ")] = v
			}
		}
		for _, k := range union(values[0], values[1]) {
			c.Metrics = append(c.Metrics, difference{Stage: kind, Name: k, A: values[0][k], B: values[1][k]})
		}
	}
	return c, nil
}

// flatten writes a tree's leaves as dotted names.
func flatten(to map[string]any, prefix string, tree map[string]any) {
	for k, v := range tree {
		if sub, ok := v.(map[string]any); ok {
			flatten(to, prefix+k+".", sub)
		} else {
			to[prefix+k] = v
		}
	}
}

func union(a, b map[string]any) []string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}

func (c comparison) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	cell := func(v any) string {
		switch x := v.(type) {
		case nil:
			return "-"
		case float64:
			return fmt.Sprintf("%.6g", x)
		case string:
			if x == "" {
				return `""`
			}
			return shortModel(x)
		}
		return shortModel(fmt.Sprint(v))
	}
	fmt.Fprintf(w, "SPEC\t%s\t%s\n", c.A, c.B)
	for _, d := range c.Spec {
		fmt.Fprintf(w, "%s\t%s\t%s\n", d.Name, cell(d.A), cell(d.B))
	}
	fmt.Fprintf(w, "(%d fields are equal)\t\t\n\t\t\t\n", c.Equal)
	fmt.Fprintf(w, "MEASURED\t%s\t%s\tB - A\n", c.A, c.B)
	for _, d := range c.Metrics {
		diff := ""
		a, okA := d.A.(float64)
		b, okB := d.B.(float64)
		if okA && okB {
			diff = fmt.Sprintf("%+.4g", b-a)
		}
		fmt.Fprintf(w, "%s: %s\t%s\t%s\t%s\n", d.Stage, d.Name, cell(d.A), cell(d.B), diff)
	}
	if len(c.Metrics) == 0 {
		fmt.Fprintln(w, "(neither run has finished a stage)\t\t\t")
	}
	return w.Flush()
}
