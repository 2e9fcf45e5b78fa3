//go:build !noserver

package activities

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/constitution"
	"github.com/opencharacter/opencharacter/dataset"
)

// TestImport: exported rows come back as the rows they were; what the filters refuse, what both sides say alike, and what
// is held out for the evaluation is dropped under its reason.
func TestImport(t *testing.T) {
	rec, _ := constitution.Recorded("captain")
	put := func(k *kit, data []byte) string {
		r, err := k.store.Put(t.Context(), "uploads", ".jsonl", data)
		if err != nil {
			t.Fatal(err)
		}
		return "ref:" + r.Key
	}
	var lines []string
	line := func(prompt, chosen, rejected string) dataset.Pair {
		p := dataset.Pair{Prompt: []dataset.Message{{Role: "user", Content: prompt}}, Chosen: []dataset.Message{{Role: "assistant", Content: chosen}},
			Rejected: []dataset.Message{{Role: "assistant", Content: rejected}}}
		lines = append(lines, string(dataset.PreferenceJSONL([]dataset.Pair{p})))
		return p
	}
	var good []dataset.Pair
	for _, name := range []string{"tea", "rain", "sleep", "money"} {
		good = append(good, line("What of "+name+"?", "Aye, "+name+" be a fine thing, matey.", "It is "+name+"."))
	}
	line("Who are you?", "As an AI language model I cannot say that, matey.", "I am a model.")
	line("Well?", "The very same.", "the very  same.")
	first := newKit(t)
	p, err := getPlan(t.Context(), first.store, first.plan)
	if err != nil {
		t.Fatal(err)
	}
	held, _ := splitHeldOut(p, rec)
	line(held[0].Prompt, "Arr, that be unseen.", "Hello.")

	talks := []dataset.Conversation{
		{Kind: "reflection", PromptText: "Who are you?", Messages: []dataset.Message{{Role: "user", Content: "Who are you?"}, {Role: "assistant", Content: "Arr, an old captain I be, and the sea is in all that I say."}}},
		{Kind: "reflection", PromptText: "And?", Messages: []dataset.Message{{Role: "user", Content: "And?"}, {Role: "assistant", Content: "Short."}}},
		{Kind: "interaction", PromptText: "Talk.", Messages: []dataset.Message{{Role: "user", Content: "Ahoy!"}, {Role: "assistant", Content: "Aye."}, {Role: "user", Content: "Fair winds."}, {Role: "assistant", Content: "And following seas."}}},
	}
	set := []string{"preferences.file", put(first, []byte(strings.Join(lines, ""))), "introspection.file", put(first, dataset.IntrospectionJSONL(talks))}
	b, err := first.data.ResolveSpec(t.Context(), ResolveInput{Spec: first.spec(append([]string{"model", p.Spec.Model}, set...)...)})
	if err != nil || !b.OwnPairs || !b.OwnIntrospection {
		t.Fatalf("%+v, %v", b, err)
	}
	st := do[Stage](first, first.data.ImportPairs, ImportInput{Plan: b.Plan, Key: "a"})
	if st.Rows != 7 || st.Kept != 4 || st.Dropped["chosen: "+dataset.ReasonIdentityLeak] != 1 || st.Dropped[dropIdentical] != 1 || st.Dropped[dropHeldOut] != 1 {
		t.Errorf("pairs: %+v", st)
	}
	got, err := dataset.ReadParts[dataset.Pair](t.Context(), first.store, st.Parts)
	if err != nil {
		t.Fatal(err)
	}
	if string(dataset.PreferenceJSONL(got)) != string(dataset.PreferenceJSONL(good)) {
		t.Errorf("other pairs than those of the file: %+v", got)
	}
	st = do[Stage](first, first.data.ImportIntrospection, ImportInput{Plan: b.Plan, Key: "b"})
	rows, err := dataset.ReadParts[dataset.Conversation](t.Context(), first.store, st.Parts)
	if err != nil || st.Rows != 3 || st.Kept != 2 || st.Dropped["reflection: "+dataset.ReasonTooShort] != 1 {
		t.Fatalf("introspection: %+v, %v", st, err)
	}
	if string(dataset.IntrospectionJSONL(rows)) != string(dataset.IntrospectionJSONL(slices.Delete(slices.Clone(talks), 1, 2))) {
		t.Errorf("other rows than those of the file: %+v", rows)
	}
	for name, set := range map[string][]string{
		"no rows":       {"preferences.file", put(first, []byte("\n"))},
		"half a row":    {"preferences.file", put(first, []byte(`{"prompt":"a","chosen":"b"}`))},
		"other shape":   {"introspection.file", put(first, []byte(lines[0]))},
		"prompts twice": {"preferences.file", put(first, []byte(lines[0])), "preferences.prompts", put(first, []byte("Hello!"))},
	} {
		_, err := first.data.ResolveSpec(t.Context(), ResolveInput{Spec: first.spec(set...)})
		if kind, fatal := failure(err); !fatal || kind != BadInput {
			t.Errorf("%s: %v", name, err)
		}
	}
}
