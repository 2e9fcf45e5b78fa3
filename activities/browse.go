package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/report"
	"github.com/opencharacter/opencharacter/store"
)

// Rows says where a stage's work lies while it goes on, and after: chains of chunks with dropped rows too, or the key of
// a training's checkpoints.
type Rows struct {
	Chosen       *store.Ref `json:"chosen,omitempty"`
	Rejected     *store.Ref `json:"rejected,omitempty"`
	Reflections  *store.Ref `json:"reflections,omitempty"`
	Interactions *store.Ref `json:"interactions,omitempty"`
	Training     string     `json:"training,omitempty"`
}

// Kinds of browsable rows.
const (
	RowPairs        = "pairs"
	RowReflections  = "reflections"
	RowInteractions = "interactions"
)

// Row is one row as a reader sees it.
type Row struct {
	ID       string        `json:"id"`
	Prompt   string        `json:"prompt"`
	Chosen   string        `json:"chosen,omitempty"`
	Rejected string        `json:"rejected,omitempty"`
	Text     string        `json:"text,omitempty"` // a reflection
	Turns    []report.Turn `json:"turns,omitempty"`
	Drop     string        `json:"drop,omitempty"` // the one reason; "" = kept
	Finish   string        `json:"finish,omitempty"`
}

// beyond is what a passing row is that a finished stage did not need.
const beyond = "beyond the target"

// Table is the rows of one kind. It grows with its stage: [Table.Follow] reads what is new.
type Table struct {
	Rows []Row
	// Resets counts how often the rows turned out to be others: a run was started again under the same id.
	Resets int

	heads [2]string // newest nodes that are read
	final bool
}

// Follow brings the table up to where the chains are. A finished stage (done) says which rows it has; one without
// chains, because it was reused or its rows were imported, is read from its data set alone.
func (t *Table) Follow(ctx context.Context, s *store.Store, kind string, at Rows, done *Stage) error {
	if t.final {
		return nil
	}
	var err error
	switch {
	case kind == RowPairs && at.Chosen != nil:
		err = t.pairs(ctx, s, at)
	case kind == RowReflections && at.Reflections != nil:
		err = follow(ctx, s, t, at.Reflections, ofReflection)
	case kind == RowInteractions && at.Interactions != nil:
		err = follow(ctx, s, t, at.Interactions, ofInteraction)
	case kind != RowPairs && kind != RowReflections && kind != RowInteractions:
		return fmt.Errorf("rows of kind %q are not known; want %s, %s or %s", kind, RowPairs, RowReflections, RowInteractions)
	}
	if err != nil || done == nil {
		return err
	}
	kept, err := keptRows(ctx, s, kind, done.Parts)
	if err != nil {
		return err
	}
	if len(t.Rows) == 0 {
		t.Rows, t.final = kept, true
		return nil
	}
	ids := map[string]bool{}
	for _, r := range kept {
		ids[r.ID] = true
	}
	for i := range t.Rows {
		if r := &t.Rows[i]; r.Drop == "" && !ids[r.ID] {
			r.Drop = beyond
		}
	}
	t.final = true
	return nil
}

// Final says that the table has all rows of a finished stage.
func (t *Table) Final() bool { return t.final }

// newer lists the nodes of a chain after the one named until, oldest first.
// met is false when until is not in it: it is another chain, and nodes are all of it.
func newer(ctx context.Context, s *store.Store, last *store.Ref, until string) (nodes []chunk, met bool, err error) {
	met = until == "" || last.Key == until
	for r := last; r != nil && r.Key != until; {
		n, err := getJSON[chunk](ctx, s, *r)
		if err != nil {
			return nil, false, fmt.Errorf("read rows: %w", err)
		}
		nodes = append(nodes, n)
		if r = n.Previous; r != nil && r.Key == until {
			met = true
		}
	}
	slices.Reverse(nodes)
	return nodes, met, nil
}

func follow[T any](ctx context.Context, s *store.Store, t *Table, last *store.Ref, row func(T) Row) error {
	nodes, met, err := newer(ctx, s, last, t.heads[0])
	if err != nil {
		return err
	}
	if !met {
		t.Rows, t.Resets = nil, t.Resets+1
	}
	for _, n := range nodes {
		rows, err := dataset.ReadParts[T](ctx, s, []store.Ref{n.Part})
		if err != nil {
			return err
		}
		for _, r := range rows {
			t.Rows = append(t.Rows, row(r))
		}
	}
	t.heads[0] = last.Key
	return nil
}

func ofReflection(r dataset.Response) Row {
	return Row{ID: r.ID, Prompt: r.Prompt, Text: r.Text, Drop: r.Drop, Finish: r.Finish}
}

func ofInteraction(c dataset.Conversation) Row {
	row := Row{ID: c.ID, Prompt: c.PromptText, Drop: c.Drop}
	for _, m := range c.Messages {
		switch m.Role {
		case "assistant":
			row.Turns = append(row.Turns, report.Turn{Speaker: "first speaker", Text: m.Content})
		case "user":
			row.Turns = append(row.Turns, report.Turn{Speaker: "second speaker", Text: m.Content})
		}
	}
	return row
}

// pairs joins the two sides of the prompts that are new.
func (t *Table) pairs(ctx context.Context, s *store.Store, at Rows) error {
	var sides [2][]dataset.Response
	for i, last := range []*store.Ref{at.Chosen, at.Rejected} {
		if last == nil {
			continue
		}
		nodes, met, err := newer(ctx, s, last, t.heads[i])
		if err != nil {
			return err
		}
		if !met {
			t.Rows, t.Resets = nil, t.Resets+1
		}
		for _, n := range nodes {
			rows, err := dataset.ReadParts[dataset.Response](ctx, s, []store.Ref{n.Part})
			if err != nil {
				return err
			}
			sides[i] = append(sides[i], rows...)
		}
	}
	other := map[string]dataset.Response{}
	for _, r := range sides[1] {
		other[r.ID] = r
	}
	for _, c := range sides[0] {
		row := Row{ID: c.ID, Prompt: c.Prompt, Chosen: c.Text}
		r, ok := other[c.ID]
		switch {
		case c.Drop != "":
			row.Drop = "chosen: " + c.Drop
		case ok:
			row.Rejected, row.Finish = r.Text, r.Finish
			if r.Drop != "" {
				row.Drop = "rejected: " + r.Drop
			}
		}
		t.Rows = append(t.Rows, row)
	}
	t.heads[0] = at.Chosen.Key
	if at.Rejected != nil {
		t.heads[1] = at.Rejected.Key
	}
	return nil
}

// keptRows are a finished stage's rows.
func keptRows(ctx context.Context, s *store.Store, kind string, parts []store.Ref) ([]Row, error) {
	var out []Row
	if kind == RowPairs {
		rows, err := dataset.ReadParts[dataset.Pair](ctx, s, parts)
		for _, r := range rows {
			out = append(out, Row{ID: r.ID, Prompt: text(r.Prompt), Chosen: text(r.Chosen), Rejected: text(r.Rejected), Finish: r.RejectedFinish})
		}
		return out, err
	}
	rows, err := dataset.ReadParts[dataset.Conversation](ctx, s, parts)
	for _, r := range rows {
		switch {
		case r.Kind == "reflection" && kind == RowReflections && len(r.Messages) > 0:
			out = append(out, Row{ID: r.ID, Prompt: r.PromptText, Text: r.Messages[len(r.Messages)-1].Content})
		case r.Kind == "interaction" && kind == RowInteractions:
			out = append(out, ofInteraction(r))
		}
	}
	return out, err
}

// StageOf is the stage whose rows a kind is.
func StageOf(kind string) string {
	if kind == RowPairs {
		return KindPreferences
	}
	return KindIntrospection
}

// LiveCurves reads the metrics that a training under way has committed, with the step they go to. workflow is the
// stage's workflow id.
func LiveCurves(ctx context.Context, s *store.Store, key, workflow string) (map[string][]report.Point, int64, error) {
	h, ok, err := s.ReadHead(ctx, checkpoints(key, workflow))
	if err != nil || !ok {
		return nil, 0, err
	}
	r, ok := h.Files[metricsFile]
	if !ok {
		return nil, 0, nil
	}
	b, err := s.Get(ctx, r)
	if errors.Is(err, store.ErrNotFound) { // the next commit has taken its place
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	out, err := points(b)
	return out, h.Step, err
}

// points are metrics.jsonl by name.
func points(b []byte) (map[string][]report.Point, error) {
	out := map[string][]report.Point{}
	return out, eachLine(b, func(row map[string]any) {
		step, _ := row["step"].(float64)
		for k, v := range row {
			if f, ok := v.(float64); ok && k != "step" {
				out[k] = append(out[k], report.Point{Step: int64(step), Value: f})
			}
		}
	})
}

// Folded is all of a row's text in small letters, for a search.
func (r Row) Folded() string {
	var b strings.Builder
	for _, s := range []string{r.ID, r.Prompt, r.Chosen, r.Rejected, r.Text} {
		b.WriteString(s)
		b.WriteByte('\n')
	}
	for _, t := range r.Turns {
		b.WriteString(t.Text)
		b.WriteByte('\n')
	}
	return strings.ToLower(b.String())
}
