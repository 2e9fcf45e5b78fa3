//go:build !noserver

package activities

import (
	"context"
	"os"
	"strings"
	"testing"
)

// TestAWorkerWithoutTheModel: what a run has pinned is another worker's to serve; what nobody has found yet is the
// user's to mend, once every live worker has looked.
func TestAWorkerWithoutTheModel(t *testing.T) {
	k := newKit(t)
	set := do[PromptSet](k, k.data.MakePrompts, MakePromptsInput{Plan: k.plan, Kind: KindPreferences})
	p, err := getPlan(t.Context(), k.store, k.plan)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(p.Model.Name, p.Model.Name+"-gone"); err != nil {
		t.Fatal(err)
	}
	in := ChunkInput{Plan: k.plan, Role: RoleTeacher, Prompts: set.Index, To: 4}
	draft := p
	draft.Model, draft.Teacher = ModelInfo{}, ModelInfo{}
	ref, err := putJSON(t.Context(), k.store, "plans", draft)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		live        int // engine workers
		pinned      string
		unpinned    string
		unpinnedEnd bool
	}{
		{0, NotHere, BadInput, true},
		{1, NotHere, BadInput, true},
		{2, NotHere, NotHere, false},
	} {
		k.fresh()
		k.engine.Lanes = func(context.Context, string) int { return c.live }
		_, err := try[ChunkOutput](k, k.engine.Generate, in, nil, nil)
		if kind, fatal := failure(err); kind != c.pinned || fatal || !strings.Contains(err.Error(), p.Model.Name) {
			t.Errorf("%d workers, pinned: %v", c.live, err)
		}
		_, err = try[InspectModelOutput](k, k.engine.InspectModel, InspectModelInput{Plan: ref}, nil, nil)
		if kind, fatal := failure(err); kind != c.unpinned || fatal != c.unpinnedEnd || !strings.Contains(err.Error(), p.Model.Name) {
			t.Errorf("%d workers, not pinned: %v", c.live, err)
		}
	}
}

// TestAWorkerWithOtherKernels leaves the rows to the others; alone, it makes them and says so.
func TestAWorkerWithOtherKernels(t *testing.T) {
	k := newKit(t)
	set := do[PromptSet](k, k.data.MakePrompts, MakePromptsInput{Plan: k.plan, Kind: KindPreferences})
	in := ChunkInput{Plan: k.plan, Role: RoleTeacher, Prompts: set.Index, To: 4}
	if o := do[ChunkOutput](k, k.engine.Generate, in); o.Said != "" {
		t.Errorf("with the same kernels it says %q", o.Said)
	}
	p, err := getPlan(t.Context(), k.store, k.plan)
	if err != nil {
		t.Fatal(err)
	}
	p.Variant = "abacus"
	if in.Plan, err = putJSON(t.Context(), k.store, "plans", p); err != nil {
		t.Fatal(err)
	}
	if o := do[ChunkOutput](k, k.engine.Generate, in); !strings.Contains(o.Said, "abacus") || o.Rows != 4 {
		t.Errorf("alone: %+v", o)
	}
	k.engine.Lanes = func(context.Context, string) int { return 2 }
	_, err = try[ChunkOutput](k, k.engine.Generate, in, nil, nil)
	if kind, fatal := failure(err); kind != NotHere || fatal || !strings.Contains(err.Error(), "abacus") {
		t.Errorf("with another worker: %v", err)
	}
}
