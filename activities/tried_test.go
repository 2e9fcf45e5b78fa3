//go:build !noserver

package activities

import (
	"errors"
	"maps"
	"path"
	"testing"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/store"
)

// TestDroppedRows: the rows that stages left out are found again, exactly as they were counted, beside the chunks of
// another run; and when they are gone that is said.
func TestDroppedRows(t *testing.T) {
	k := newKit(t)
	p, err := getPlan(t.Context(), k.store, k.plan)
	if err != nil {
		t.Fatal(err)
	}
	k.chains(12, 12) // of another run, which ended early
	teacher, student := k.chains(40, 11)
	st := do[Stage](k, k.data.JoinPairs, JoinPairsInput{Plan: k.plan, Key: "k", Teacher: teacher, Student: student})
	rows, err := DroppedRows(t.Context(), k.store, p, st)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, r := range rows {
		got[r.Reason]++
		if r.Prompt == "" || r.ID == "" {
			t.Errorf("row %+v", r)
		}
	}
	if len(rows) == 0 || !maps.Equal(got, st.Dropped) {
		t.Errorf("dropped %v, want %v", got, st.Dropped)
	}

	pairs, err := RowsIn[dataset.Pair](t.Context(), k.store, st.Parts)
	if err != nil || int64(len(pairs)) != st.Kept {
		t.Fatalf("%d pairs, want %d: %v", len(pairs), st.Kept, err)
	}
	if data, err := k.store.GetKey(t.Context(), st.Table("dpo")); err != nil || len(data) == 0 {
		t.Errorf("table %s: %v", st.Table("dpo"), err)
	}

	// Introspection: both kinds.
	var last [2]*store.Ref
	for i, kind := range []string{"reflection", "interaction"} {
		set := do[PromptSet](k, k.data.MakePrompts, MakePromptsInput{Plan: k.plan, Kind: kind})
		for from := 0; from < set.Count; from += 7 {
			in := ChunkInput{Plan: k.plan, Role: kind, Prompts: set.Index, From: from, To: min(set.Count, from+7), Previous: last[i]}
			verb := k.engine.Generate
			if kind == "interaction" {
				verb = k.engine.Converse
			}
			o := do[ChunkOutput](k, verb, in)
			last[i] = &o.Chain
		}
	}
	in := do[Stage](k, k.data.JoinIntrospection, JoinIntrospectionInput{Plan: k.plan, Key: "i", Reflections: last[0], Interactions: last[1]})
	if rows, err = DroppedRows(t.Context(), k.store, p, in); err != nil {
		t.Fatal(err)
	}
	got = map[string]int64{}
	for _, r := range rows {
		got[r.Reason]++
	}
	if len(rows) == 0 || !maps.Equal(got, in.Dropped) {
		t.Errorf("introspection dropped %v, want %v", got, in.Dropped)
	}

	// Another count is another stage's.
	other := st
	other.Dropped = map[string]int64{"chosen: repetition": 1}
	if _, err := DroppedRows(t.Context(), k.store, p, other); !errors.Is(err, ErrNotKept) {
		t.Errorf("other counts: %v", err)
	}
	objects, err := k.store.List(t.Context(), "parts/teacher/")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if path.Ext(o.Key) == ".json" {
			if err := k.store.Remove(t.Context(), o); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := DroppedRows(t.Context(), k.store, p, st); !errors.Is(err, ErrNotKept) {
		t.Errorf("after the chunks are gone: %v", err)
	}
}
