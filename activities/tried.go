package activities

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/store"
)

// ErrNotKept says that what a stage dropped cannot be shown any more, or never was in the bucket.
var ErrNotKept = errors.New("the dropped rows are not in the bucket")

// DroppedRow is an answer or a conversation that a stage tried and left out.
type DroppedRow struct {
	ID     string            `json:"id"`
	Reason string            `json:"reason"` // as the stage counts it: "chosen: unfinished"
	Prompt string            `json:"prompt"`
	Text   string            `json:"text,omitempty"`   // the answer
	Other  string            `json:"other,omitempty"`  // the chosen answer, where the rejected one was dropped
	Turns  []dataset.Message `json:"turns,omitempty"`  // of a conversation
	Finish string            `json:"finish,omitempty"` // stop, length, context
	Tokens int               `json:"tokens,omitempty"`
}

// DroppedRows are the rows that a stage (KindPreferences or KindIntrospection) tried and left out, in the order in which
// they were tried. Nothing names them once the stage is done: they are found among the chunks of the bucket, and are
// taken for the stage's only when they make exactly its rows and its counts. Otherwise, as after `gc`, the error is
// ErrNotKept.
func DroppedRows(ctx context.Context, b Bucket, p Plan, st Stage) ([]DroppedRow, error) {
	if len(st.Dropped) == 0 {
		return nil, nil
	}
	switch {
	case st.Kind == KindPreferences && p.Pairs == nil:
		return droppedPairs(ctx, b, p, st)
	case st.Kind == KindIntrospection && p.Talks == nil:
		return droppedTalks(ctx, b, p, st)
	case st.Kind == KindPreferences, st.Kind == KindIntrospection:
		return nil, fmt.Errorf("%w: these rows came from a file of yours, and only the counts of those that were left out are kept", ErrNotKept)
	}
	return nil, fmt.Errorf("stage %s drops no rows that could be shown", st.Kind)
}

func gone(st Stage) error {
	return fmt.Errorf("%w: no chunks there make stage %s's %d rows (`character gc` removes them after a run)", ErrNotKept, st.Kind, st.Kept)
}

// chainsIn are the chains of chunks in a folder that no other chain there goes on with, and that begin at the first
// prompt, as parts in their order.
func chainsIn(ctx context.Context, b Bucket, folder string) ([][]store.Ref, error) {
	objects, err := b.List(ctx, folder+"/")
	if err != nil {
		return nil, err
	}
	nodes, inner := map[string]chunk{}, map[string]bool{}
	for _, o := range objects {
		if path.Ext(o.Key) != ".json" {
			continue
		}
		data, err := b.GetKey(ctx, o.Key)
		if err != nil && !lost(err) {
			return nil, err
		}
		var n chunk
		if err != nil || strict(data, &n) != nil || n.Part.Key == "" {
			continue // damaged, or not a chunk
		}
		nodes[o.Key] = n
		if n.Previous != nil {
			inner[n.Previous.Key] = true
		}
	}
	var out [][]store.Ref
	for _, key := range slices.Sorted(maps.Keys(nodes)) {
		if inner[key] {
			continue
		}
		var parts []store.Ref
		n, ok := nodes[key]
		for steps := 0; ok && steps <= len(nodes); steps++ { // a chain of content names cannot be a ring, a damaged one might
			parts = append(parts, n.Part)
			if n.Previous == nil {
				break
			}
			n, ok = nodes[n.Previous.Key]
		}
		if ok && n.Previous == nil && n.From == 0 {
			slices.Reverse(parts)
			out = append(out, parts)
		}
	}
	return out, nil
}

// each reads the chains of a folder one by one until take is content with one.
func each[T any](ctx context.Context, b Bucket, folder string, take func([]T) bool) error {
	chains, err := chainsIn(ctx, b, folder)
	if err != nil {
		return err
	}
	for _, parts := range chains {
		rows, err := RowsIn[T](ctx, b, parts)
		if err != nil && !lost(err) {
			return err
		}
		if err == nil && take(rows) {
			return nil
		}
	}
	return nil
}

func droppedPairs(ctx context.Context, b Bucket, p Plan, st Stage) ([]DroppedRow, error) {
	pairs, err := RowsIn[dataset.Pair](ctx, b, st.Parts)
	if err != nil {
		return nil, err
	}
	// side keeps the chains whose answers are those of the pairs.
	side := func(role string, said func(dataset.Pair) string) (found [][]dataset.Response, err error) {
		return found, each(ctx, b, "parts/"+role, func(rows []dataset.Response) bool {
			texts := map[string]string{}
			for _, r := range rows {
				if r.Drop == "" {
					texts[r.ID] = r.Text
				}
			}
			for _, x := range pairs {
				if t, ok := texts[x.ID]; !ok || t != said(x) {
					return false
				}
			}
			found = append(found, rows)
			return false
		})
	}
	teacher, err := side(RoleTeacher, func(x dataset.Pair) string { return text(x.Chosen) })
	if err != nil {
		return nil, err
	}
	student, err := side(RoleStudent, func(x dataset.Pair) string { return text(x.Rejected) })
	if err != nil {
		return nil, err
	}
	for _, chosen := range teacher {
		for _, rejected := range student {
			got := Stage{Kind: st.Kind}
			made, err := PairsOf(p, chosen, rejected, &got)
			if err == nil && int64(len(made)) == st.Kept && got.Rows == st.Rows && maps.Equal(got.Dropped, st.Dropped) {
				return pairDrops(chosen[:st.Rows], rejected), nil
			}
		}
	}
	return nil, gone(st)
}

// pairDrops lists what PairsOf counted, by the same rules.
func pairDrops(chosen, rejected []dataset.Response) (out []DroppedRow) {
	byID := map[string]dataset.Response{}
	for _, r := range rejected {
		byID[r.ID] = r
	}
	for _, c := range chosen {
		r := byID[c.ID]
		switch {
		case c.Drop != "":
			out = append(out, DroppedRow{ID: c.ID, Reason: "chosen: " + c.Drop, Prompt: c.Prompt, Text: c.Text, Finish: c.Finish, Tokens: c.Tokens})
		case r.Drop != "":
			out = append(out, DroppedRow{ID: c.ID, Reason: "rejected: " + r.Drop, Prompt: c.Prompt, Text: r.Text, Other: c.Text, Finish: r.Finish, Tokens: r.Tokens})
		case fold(c.Text) == fold(r.Text):
			out = append(out, DroppedRow{ID: c.ID, Reason: dropIdentical, Prompt: c.Prompt, Text: r.Text, Other: c.Text, Finish: r.Finish, Tokens: r.Tokens})
		}
	}
	return out
}

func droppedTalks(ctx context.Context, b Bucket, p Plan, st Stage) ([]DroppedRow, error) {
	rows, err := RowsIn[dataset.Conversation](ctx, b, st.Parts)
	if err != nil {
		return nil, err
	}
	kept := map[string][]string{} // what was said, by kind, in order
	for _, r := range rows {
		kept[r.Kind] = append(kept[r.Kind], r.ID+"\x00"+text(r.Messages))
	}
	// counted walks through tried rows up to the last kept one (all of them, where the target was missed), and is right
	// when kept rows and counts are the stage's.
	counted := func(kind string, target, n int, row func(int) (key, drop string)) (tried int, ok bool) {
		drops, want, at := map[string]int64{}, kept[kind], 0
		for ; tried < n && at < target; tried++ {
			key, drop := row(tried)
			switch {
			case drop != "":
				drops[kind+": "+drop]++
			case at >= len(want) || want[at] != key:
				return 0, false
			default:
				at++
			}
		}
		for k, v := range st.Dropped {
			if strings.HasPrefix(k, kind+": ") && drops[k] != v {
				return 0, false
			}
			delete(drops, k)
		}
		return tried, at == len(want) && len(drops) == 0
	}
	dropped := func(kind string) bool {
		for k := range st.Dropped {
			if strings.HasPrefix(k, kind+": ") {
				return true
			}
		}
		return false
	}
	var out []DroppedRow
	found := 0
	if dropped("reflection") {
		err = each(ctx, b, "parts/"+RoleReflection, func(all []dataset.Response) bool {
			n, ok := counted("reflection", p.Spec.Introspection.Reflections, len(all), func(i int) (string, string) {
				return all[i].ID + "\x00" + all[i].Prompt + "\n" + all[i].Text, all[i].Drop
			})
			if !ok {
				return false
			}
			found++
			for _, r := range all[:n] {
				if r.Drop != "" {
					out = append(out, DroppedRow{ID: r.ID, Reason: "reflection: " + r.Drop, Prompt: r.Prompt, Text: r.Text, Finish: r.Finish, Tokens: r.Tokens})
				}
			}
			return true
		})
		if err != nil {
			return nil, err
		}
		if found == 0 {
			return nil, gone(st)
		}
	}
	if !dropped("interaction") {
		return out, nil
	}
	found = 0
	err = each(ctx, b, "parts/interaction", func(all []dataset.Conversation) bool {
		n, ok := counted("interaction", p.Spec.Introspection.Interactions, len(all), func(i int) (string, string) {
			return all[i].ID + "\x00" + text(all[i].Messages), all[i].Drop
		})
		if !ok {
			return false
		}
		found++
		for _, r := range all[:n] {
			if r.Drop != "" {
				out = append(out, DroppedRow{ID: r.ID, Reason: "interaction: " + r.Drop, Prompt: r.PromptText, Turns: r.Messages, Tokens: r.Tokens})
			}
		}
		return true
	})
	if err == nil && found == 0 {
		err = gone(st)
	}
	return out, err
}
