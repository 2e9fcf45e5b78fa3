//go:build !noserver

package activities

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/spec"
)

// TestAdjustSpec: the new plan names the stages as a run would that was started with it, and keeps the keys of those
// that nothing changed for.
func TestAdjustSpec(t *testing.T) {
	k := newKit(t)
	keys := func(ref AdjustInput) map[string]string {
		out := map[string]string{}
		for _, kind := range []string{KindPreferences, KindDPO, KindIntrospection, KindSFT, KindEvaluation} {
			f, err := k.data.FindStage(t.Context(), FindStageInput{Kind: kind, Plan: ref.Plan})
			if err != nil {
				t.Fatal(err)
			}
			out[kind] = f.Key
		}
		return out
	}
	before := keys(AdjustInput{Plan: k.plan})
	out, err := k.data.AdjustSpec(t.Context(), AdjustInput{Plan: k.plan, Changes: json.RawMessage(`{"sft.epochs":1,"dpo.segment_seconds":7,"evaluation.scored":2,"preferences.pairs":11}`), Stages: map[string]spec.Phase{KindPreferences: spec.UnderWay}})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Changes) < 3 || out.Brief.Pairs != 11 || out.Sizes.MinPairs != 4 {
		t.Errorf("%+v", out)
	}
	after := keys(AdjustInput{Plan: out.Brief.Plan})
	for kind, changed := range map[string]bool{KindPreferences: true, KindDPO: false, KindIntrospection: false, KindEvaluation: true} {
		if (before[kind] != after[kind]) != changed {
			t.Errorf("%s: key %s, then %s", kind, before[kind], after[kind])
		}
	}
	b, err := k.store.GetKey(t.Context(), out.Brief.Spec)
	if err != nil {
		t.Fatal(err)
	}
	s, err := spec.Resolve(b)
	if err != nil || s.SFT.Epochs != 1 || s.Evaluation.Scored != 2 {
		t.Errorf("the stored spec: %v %+v", err, s.SFT)
	}
	// No change: the same plan and the same spec.
	same, err := k.data.AdjustSpec(t.Context(), AdjustInput{Plan: out.Brief.Plan, Changes: json.RawMessage(`{"sft.epochs":1}`)})
	if err != nil || len(same.Changes) != 0 || same.Brief.Plan.Key != out.Brief.Plan.Key || same.Brief.Spec != out.Brief.Spec {
		t.Errorf("%v %+v", err, same)
	}
	for changes, want := range map[string]string{`{"preferences.pairs":9}`: "preferences is over", `{"dpo.epochs":0}`: "dpo.epochs is 0", `[]`: "want a JSON object", `{"seed":1}`: "start another run"} {
		_, err := k.data.AdjustSpec(t.Context(), AdjustInput{Plan: k.plan, Changes: json.RawMessage(changes), Stages: map[string]spec.Phase{KindPreferences: spec.Over}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", changes, err, want)
		}
	}
}
