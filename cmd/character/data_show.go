package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/opencharacter/opencharacter/activities"
	"github.com/opencharacter/opencharacter/cmd/internal/columns"
	"github.com/opencharacter/opencharacter/dataset"
)

type showOptions struct {
	n             int
	grep, reason  string
	dropped, json bool
}

func dataShowCmd() *cobra.Command {
	var o showOptions
	c := &cobra.Command{
		Use:   "show ID[/DATASET]",
		Short: "Read rows: pairs side by side, reflections, conversations, and what was dropped",
		Long: `Show rows of a data set: captain/dpo, captain/introspection, or captain for the first one there is. On a wide terminal
the two answers of a pair stand side by side.

--dropped shows what was tried and left out, each with its reason. Those rows are in the bucket until ` + "`character gc`" + ` removes
them; rows of a file of your own that were left out are counted only.`,
		Example: `  character data show captain
  character data show captain/introspection --n 2
  character data show captain/dpo --grep "the weather" --n 0
  character data show captain --dropped --reason "chosen: unfinished"
  character data show captain --json | jq '.rows[].prompt'`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.n < 0 {
				return usage(fmt.Errorf("--n %d: give the number of rows to show, 0 for all", o.n))
			}
			o.dropped = o.dropped || o.reason != ""
			b, done, err := openBucket(cmd)
			if err != nil {
				return err
			}
			defer done()
			d, err := findDataSet(cmd.Context(), b, args[0])
			if err != nil {
				return err
			}
			v := rowView{out: cmd.OutOrStdout(), screen: screenOf(cmd.OutOrStdout()), o: o, d: d}
			switch {
			case o.dropped && d.plan == nil:
				return fmt.Errorf("data set %s belongs to no run any more, so what was dropped for it cannot be told; leave --dropped out", d.Name)
			case o.dropped:
				if o.reason != "" && !slices.Contains(sortedKeys(d.Dropped), o.reason) {
					return usage(fmt.Errorf("--reason %q: nothing was dropped for that from %s; the reasons there: %s", o.reason, d.Name, strings.Join(reasonsOf(d), ", ")))
				}
				rows, err := activities.DroppedRows(cmd.Context(), b, *d.plan, d.stage)
				if errors.Is(err, activities.ErrNotKept) {
					return fmt.Errorf("%s: %w; counted were: %s", d.Name, err, strings.Join(reasonsOf(d), ", "))
				}
				if err != nil {
					return err
				}
				return showRows(v, rows, droppedTexts, rowView.dropped)
			case d.Stage == activities.KindPreferences:
				rows, err := activities.RowsIn[dataset.Pair](cmd.Context(), b, d.stage.Parts)
				if err != nil {
					return err
				}
				return showRows(v, rows, func(r dataset.Pair) []string {
					return []string{r.ID, dataset.Spoken(r.Prompt), dataset.Spoken(r.Chosen), dataset.Spoken(r.Rejected)}
				}, rowView.pair)
			}
			rows, err := activities.RowsIn[dataset.Conversation](cmd.Context(), b, d.stage.Parts)
			if err != nil {
				return err
			}
			return showRows(v, rows, func(r dataset.Conversation) []string { return []string{r.ID, dataset.Spoken(r.Messages)} }, rowView.conversation)
		},
	}
	c.Flags().IntVar(&o.n, "n", 5, "most rows to show, 0 = all")
	c.Flags().StringVar(&o.grep, "grep", "", "only rows that hold this text, in any letter case")
	c.Flags().BoolVar(&o.dropped, "dropped", false, "show what was tried and left out")
	c.Flags().StringVar(&o.reason, "reason", "", "only what was dropped for this reason, as `character data stats` counts them")
	c.Flags().BoolVar(&o.json, "json", false, `print {"dataset","found","rows":[...]} for scripts`)
	return c
}

// reasonsOf lists reasons with their counts.
func reasonsOf(d dataSet) []string {
	var out []string
	for _, k := range sortedKeys(d.Dropped) {
		out = append(out, fmt.Sprintf("%q (%d)", k, d.Dropped[k]))
	}
	if len(out) == 0 {
		return []string{"none"}
	}
	return out
}

func droppedTexts(r activities.DroppedRow) []string {
	return []string{r.ID, r.Prompt, r.Text, r.Other, dataset.Spoken(r.Turns)}
}

// rowView writes rows for people.
type rowView struct {
	out    io.Writer
	screen screen
	o      showOptions
	d      dataSet
}

// showRows picks the rows that were asked for and shows each, or all as JSON.
func showRows[T any](v rowView, rows []T, texts func(T) []string, show func(rowView, T)) error {
	all := len(rows)
	want := strings.ToLower(v.o.grep)
	found := []T{}
	for _, r := range rows {
		if d, ok := any(r).(activities.DroppedRow); ok && v.o.reason != "" && d.Reason != v.o.reason {
			continue
		}
		if want == "" || slices.ContainsFunc(texts(r), func(s string) bool { return strings.Contains(strings.ToLower(s), want) }) {
			found = append(found, r)
		}
	}
	n := len(found)
	if v.o.n > 0 {
		found = found[:min(n, v.o.n)]
	}
	if v.o.json {
		return printJSON(v.out, map[string]any{"dataset": v.d.Name, "dropped": v.o.dropped, "found": n, "rows": found})
	}
	for i, r := range found {
		fmt.Fprintf(v.out, "── %d of %d ", i+1, n)
		show(v, r)
		fmt.Fprintln(v.out)
	}
	what := "rows"
	if v.o.dropped {
		what = "dropped rows"
	}
	_, err := fmt.Fprintf(v.out, "%d of %d %s of %s shown, %d fit.%s\n", len(found), all, what, v.d.Name, n, v.more(n))
	return err
}

func (v rowView) more(n int) string {
	if v.o.n > 0 && n > v.o.n {
		return " --n 0 shows all."
	}
	return ""
}

// lines writes a text under a label: wrapped on a terminal, whole elsewhere.
func (v rowView) lines(label, text string) {
	if !v.screen.terminal {
		fmt.Fprintf(v.out, "%s%s\n", label, strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", len(label))))
		return
	}
	for i, l := range columns.Wrap(text, v.screen.width-len(label)) {
		if i > 0 {
			label = strings.Repeat(" ", len(label))
		}
		fmt.Fprintf(v.out, "%s%s\n", label, l)
	}
}

// beside writes two texts side by side where there is room.
func (v rowView) beside(a, b columns.Text) {
	if v.screen.wide() {
		_ = columns.Print(v.out, v.screen.width, a, b) // a closed output is noticed at the last line
		return
	}
	for _, t := range []columns.Text{a, b} {
		v.lines(fmt.Sprintf("%-10s", t.Title), t.Text)
	}
}

func (v rowView) pair(r dataset.Pair) {
	cut := ""
	if r.RejectedFinish == "length" {
		cut = ", rejected was cut"
	}
	fmt.Fprintf(v.out, "%s, from %s%s\n", v.screen.safe(r.ID), v.screen.safe(r.Source), cut)
	v.lines("prompt    ", dataset.Spoken(r.Prompt))
	v.beside(columns.Text{Title: "chosen", Text: dataset.Spoken(r.Chosen)}, columns.Text{Title: "rejected", Text: dataset.Spoken(r.Rejected)})
}

func (v rowView) conversation(r dataset.Conversation) {
	fmt.Fprintf(v.out, "%s, %s\n", v.screen.safe(r.ID), v.screen.safe(r.Kind))
	v.turns(r.Messages)
}

func (v rowView) turns(msgs []dataset.Message) {
	for _, m := range msgs {
		v.lines(fmt.Sprintf("%-10s", m.Role), m.Content)
	}
}

func (v rowView) dropped(r activities.DroppedRow) {
	cut := ""
	if r.Finish != "" && r.Finish != "stop" {
		cut = ", ended by " + r.Finish
	}
	fmt.Fprintf(v.out, "%s, dropped for %s%s\n", v.screen.safe(r.ID), r.Reason, cut)
	switch {
	case len(r.Turns) > 0:
		v.turns(r.Turns)
	case r.Other != "":
		v.lines("prompt    ", r.Prompt)
		v.beside(columns.Text{Title: "chosen", Text: r.Other}, columns.Text{Title: "dropped", Text: r.Text})
	default:
		v.lines("prompt    ", r.Prompt)
		v.lines("dropped   ", r.Text)
	}
}
