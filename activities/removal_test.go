//go:build !noserver

package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/spec"
	"github.com/opencharacter/opencharacter/store"
)

// twoRuns records runs a and b, which share their preferences and differ in everything after.
func twoRuns(t *testing.T, seed uint64) (*Data, *store.Store) {
	t.Helper()
	w := newWorld(t, seed)
	ctx, d := t.Context(), &Data{Store: w.s}
	s, err := spec.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	shared := w.put("constitutions", ".json", []byte(`{"name":"captain"}`))
	pairs := []dataset.Pair{{ID: "p", Prompt: []dataset.Message{{Role: "user", Content: "q"}}, Chosen: []dataset.Message{{Role: "assistant", Content: "c"}}, Rejected: []dataset.Message{{Role: "assistant", Content: "r"}}}}
	for _, id := range []string{"a", "b"} {
		own := s
		own.DPO.Epochs = int(id[0])
		plan := Plan{Spec: own, Name: "captain", Constitution: shared}
		ref, err := putJSON(ctx, w.s, "plans", plan)
		w.check(err)
		pref := Stage{Kind: KindPreferences, Key: "0123456789abcdef", Rows: 1, Kept: 1}
		pref.Parts, err = dataset.WriteParts(ctx, w.s, "parts/pairs", pairs)
		w.check(err)
		pref.Folder, err = writeFolder(ctx, w.s, plan, "dpo", pref, pairs)
		w.check(err)
		_, err = d.KeepStage(ctx, pref)
		w.check(err)
		dpo := Stage{Kind: KindDPO, Key: "d" + id, Adapter: &AdapterRef{Files: map[string]store.Ref{"adapter_model.safetensors": w.put("adapters", ".safetensors", []byte("adapter of "+id))}}}
		_, err = d.KeepStage(ctx, dpo)
		w.check(err)
		for _, stream := range []string{checkpoints(dpo.Key, id+"/dpo"), checkpoints("unfinished", id+"/sft")} {
			c, err := w.s.Claim(ctx, stream, id)
			w.check(err)
			w.check(c.Commit(ctx, 1, map[string][]byte{"state.json": []byte(id)}, nil))
		}
		w.check(d.RecordRun(ctx, Record{ID: id, State: "completed", Plan: ref, Stages: []Stage{pref, dpo}}))
	}
	w.put("uploads", ".txt", []byte("a user's file"))
	return d, w.s
}

func TestRemoval(t *testing.T) {
	_, s := twoRuns(t, 1001)
	ctx := t.Context()
	whole := func() *Inventory {
		t.Helper()
		v, err := TakeInventory(ctx, s)
		if err != nil {
			t.Fatal(err)
		}
		damage, err := v.Check(ctx, true)
		if err != nil || len(damage) > 0 {
			t.Fatalf("damage %+v, %v", damage, err)
		}
		return v
	}
	before := whole()
	if _, err := before.Removal("ghost"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a run that is not there: %v", err)
	}
	r, err := before.Removal("a")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(r.Stages, []string{KindDPO}) || !slices.Equal(r.Shared, []string{KindPreferences}) || r.Bytes <= 0 {
		t.Errorf("removal %+v", r)
	}
	if last := r.Objects[len(r.Objects)-1].Key; last != "runs/a/HEAD.json" {
		t.Errorf("the last to go is %s", last)
	}
	for _, o := range r.Objects {
		if strings.HasPrefix(o.Key, "uploads/") || strings.HasPrefix(o.Key, "datasets/") || strings.HasPrefix(o.Key, "runs/b/") || strings.HasPrefix(o.Key, "constitutions/") {
			t.Errorf("%s would go", o.Key)
		}
	}
	// Whoever stops anywhere can begin again.
	half := r.Objects[:len(r.Objects)/2]
	for _, o := range half {
		if err := s.Remove(ctx, o); err != nil {
			t.Fatal(err)
		}
	}
	v, err := TakeInventory(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	if r, err = v.Removal("a"); err != nil || len(r.Objects) != len(before.Objects)-len(half)-kept(before, r, half) {
		t.Errorf("after half of it: %d objects, %v", len(r.Objects), err)
	}
	for _, o := range r.Objects {
		if err := s.Remove(ctx, o); err != nil {
			t.Fatal(err)
		}
	}
	after := whole()
	for key := range after.Objects {
		if strings.HasPrefix(key, "runs/a/") || strings.HasPrefix(key, "train/da/") || strings.Contains(key, shortHash("a/sft")) {
			t.Errorf("%s is left", key)
		}
	}
	if _, _, err := RecordIn(context.WithoutCancel(ctx), s, "b"); err != nil {
		t.Errorf("the other run: %v", err)
	}
	// The last run takes what was shared with it.
	r, err = after.Removal("b")
	if err != nil || len(r.Shared) != 0 || len(r.Stages) != 2 {
		t.Errorf("the last run: %+v, %v", r, err)
	}
	for _, o := range r.Objects {
		if err := s.Remove(ctx, o); err != nil {
			t.Fatal(err)
		}
	}
	left, err := s.List(ctx, "")
	if err != nil || len(left) != 1 || !strings.HasPrefix(left[0].Key, "uploads/") {
		t.Errorf("left %v, %v", keysOf(left), err)
	}
}

// kept counts the objects that are in neither list.
func kept(v *Inventory, r Removal, gone []store.Object) (n int) {
	named := map[string]bool{}
	for _, o := range append(slices.Clone(r.Objects), gone...) {
		named[o.Key] = true
	}
	for key := range v.Objects {
		if !named[key] {
			n++
		}
	}
	return n
}

func keysOf(objects []store.Object) (out []string) {
	for _, o := range objects {
		out = append(out, fmt.Sprint(o.Key))
	}
	return out
}

// TestRemovalNeedsOtherRecords: a run whose record cannot be read might need anything.
func TestRemovalNeedsOtherRecords(t *testing.T) {
	_, s := twoRuns(t, 1002)
	h, _, err := s.ReadHead(t.Context(), "runs/b")
	if err != nil {
		t.Fatal(err)
	}
	objects, err := s.List(t.Context(), h.Files["run.json"].Key)
	if err != nil || len(objects) != 1 {
		t.Fatal(objects, err)
	}
	if err := s.Remove(t.Context(), objects[0]); err != nil {
		t.Fatal(err)
	}
	v, err := TakeInventory(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Removal("a"); err == nil || !strings.Contains(err.Error(), "run b") || !strings.Contains(err.Error(), "character repair") {
		t.Errorf("beside a damaged run: %v", err)
	}
	if _, err := v.Removal("b"); err != nil { // its own damage is no reason to keep it
		t.Errorf("the damaged run itself: %v", err)
	}
}
