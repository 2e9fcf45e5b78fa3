//go:build !noserver

package activities

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.temporal.io/sdk/temporal"

	"github.com/opencharacter/opencharacter/dataset"
	"github.com/opencharacter/opencharacter/heartbeat"
	"github.com/opencharacter/opencharacter/lm/chat"
	"github.com/opencharacter/opencharacter/store"
	"github.com/opencharacter/opencharacter/testenv/s3server"
)

// chains answers prompts [0, n) in chunks of a size, as the workflow does.
func (k *kit) chains(n, size int) (teacher, student *store.Ref) {
	k.t.Helper()
	set := do[PromptSet](k, k.data.MakePrompts, MakePromptsInput{Plan: k.plan, Kind: KindPreferences})
	for from := 0; from < n; from += size {
		in := ChunkInput{Plan: k.plan, Role: RoleTeacher, Prompts: set.Index, From: from, To: min(n, from+size), Previous: teacher}
		o := do[ChunkOutput](k, k.engine.Generate, in)
		teacher = &o.Chain
		in.Role, in.Only, in.Previous = RoleStudent, teacher, student
		u := do[ChunkOutput](k, k.engine.Generate, in)
		if u.Rows != o.Kept {
			k.t.Errorf("the student answers %d prompts of %d kept", u.Rows, o.Kept)
		}
		student = &u.Chain
	}
	return teacher, student
}

// TestChunksChangeNothing: the pairs are the same bytes whatever the chunks are.
func TestChunksChangeNothing(t *testing.T) {
	k := newKit(t)
	var first Stage
	for i, size := range []int{40, 11} {
		teacher, student := k.chains(40, size)
		st := do[Stage](k, k.data.JoinPairs, JoinPairsInput{Plan: k.plan, Key: "k", Teacher: teacher, Student: student})
		if st.Kept != 12 || st.Rows <= st.Kept || len(st.Dropped) == 0 {
			t.Errorf("stage %+v", st)
		}
		var drops int64
		for _, n := range st.Dropped {
			drops += n
		}
		if drops != st.Rows-st.Kept {
			t.Errorf("%d rows, %d kept, %v dropped: some are lost", st.Rows, st.Kept, st.Dropped)
		}
		if i == 0 {
			first = st
		} else if st.Parts[0] != first.Parts[0] {
			t.Errorf("chunks of %d give other pairs", size)
		}
		k.fresh()
	}
	_, err := try[Stage](k, k.data.JoinPairs, JoinPairsInput{Plan: k.plan, Key: "none"}, nil, nil)
	if kind, ok := failure(err); !ok || kind != StageFailed {
		t.Errorf("no answers at all: %v", err)
	}
}

// failure is the type of an error that is not retried.
func failure(err error) (kind string, fatal bool) {
	var app *temporal.ApplicationError
	if errors.As(err, &app) {
		return app.Type(), app.NonRetryable()
	}
	return "", false
}

// TestIdenticalAnswersAreNoPair: and another prompt takes their place.
func TestIdenticalAnswersAreNoPair(t *testing.T) {
	k := newKit(t)
	set := do[PromptSet](k, k.data.MakePrompts, MakePromptsInput{Plan: k.plan, Kind: KindPreferences})
	in := ChunkInput{Plan: k.plan, Role: RoleStudent, Prompts: set.Index, To: 10}
	plain := do[ChunkOutput](k, k.engine.Generate, in)
	in.Only = &plain.Chain // the same answers on the other side
	same := do[ChunkOutput](k, k.engine.Generate, in)
	if plain.Kept == 0 || same.Kept != 0 || same.Dropped["identical_answers"] != plain.Kept {
		t.Errorf("%+v, then %+v", plain, same)
	}
}

// pairs makes the pairs and the reference, and the input of a training.
func (k *kit) pairs(key string) TrainInput {
	k.t.Helper()
	teacher, student := k.chains(40, 40)
	st := do[Stage](k, k.data.JoinPairs, JoinPairsInput{Plan: k.plan, Key: key, Teacher: teacher, Student: student})
	in := TrainInput{Plan: k.plan, Kind: KindDPO, Key: key, Data: st.Parts}
	if p := do[PrepareOutput](k, k.engine.PrepareTraining, in); p.Rows != 12 || p.Steps != 12 {
		k.t.Fatalf("prepared %+v", p)
	}
	for from := 0; from < 12; from += 7 {
		c := in
		c.From, c.To, c.Previous = from, from+7, in.Reference
		o := do[ChunkOutput](k, k.engine.ReferenceLogProbs, c)
		in.Reference = &o.Chain
	}
	return in
}

// train runs segments until the training is done, each on a worker that has just started.
func (k *kit) train(in TrainInput) (out SegmentOutput, segments int) {
	k.t.Helper()
	for !out.Done {
		k.fresh()
		out = do[SegmentOutput](k, k.engine.TrainSegment, in)
		segments++
	}
	return out, segments
}

// stopInTheMiddle stops the worker when a heartbeat tells of the second step.
func (k *kit) stopInTheMiddle(in TrainInput) error {
	stop, once := make(chan struct{}), sync.Once{}
	k.fresh()
	_, err := try[SegmentOutput](k, k.engine.TrainSegment, in, stop, func(l Live) {
		if l.Done > 1 {
			once.Do(func() { close(stop) })
		}
	})
	return err
}

// TestTrainingSurvives: segments, a worker that stops in the middle and a damaged checkpoint end with the same bytes.
func TestTrainingSurvives(t *testing.T) {
	whole := newKit(t)
	want, n := whole.train(whole.pairs("whole"))
	if n != 1 || want.Step != 12 {
		t.Fatalf("%d segments, step %d", n, want.Step)
	}
	lines, err := whole.store.Get(t.Context(), *want.Metrics)
	if err != nil {
		t.Fatal(err)
	}
	var row map[string]any
	if err := json.Unmarshal(lines[:bytes.IndexByte(lines, '\n')], &row); err != nil || row["preference_loss"] != math.Ln2 || row["margin"] != 0.0 || row["accuracy"] != .5 {
		t.Errorf("first step %v %v", row, err)
	}
	same := func(t *testing.T, got SegmentOutput) {
		t.Helper()
		for name, r := range want.Adapter.Files {
			if got.Adapter.Files[name].SHA256 != r.SHA256 {
				t.Errorf("%s differs from the undisturbed training's", name)
			}
		}
		if got.Metrics.SHA256 != want.Metrics.SHA256 || !maps.Equal(got.Values, want.Values) {
			t.Error("the metrics differ")
		}
	}
	in := func(key string) TrainInput { x := whole.pairs("whole"); x.Key = key; return x }

	t.Run("stopping worker", func(t *testing.T) {
		x := in("")
		// Another try where the training was over before a heartbeat saw its second step.
		var err error
		for try := 0; err == nil && try < 20; try++ {
			x.Key = fmt.Sprint("stopped-", try)
			err = whole.stopInTheMiddle(x)
		}
		var app *temporal.ApplicationError
		if !errors.As(err, &app) || app.Type() != heartbeat.StoppedType || app.NonRetryable() {
			t.Fatalf("error %v", err)
		}
		h, ok, err := whole.store.ReadHead(t.Context(), checkpoints(x.Key, testWorkflow))
		if err != nil || !ok || h.Step == 0 || h.Step == 12 {
			t.Errorf("head %+v %v", h, err)
		}
		got, _ := whole.train(x)
		same(t, got)
	})
	t.Run("damaged checkpoints", func(t *testing.T) {
		p, err := getPlan(t.Context(), whole.store, whole.plan)
		if err != nil {
			t.Fatal(err)
		}
		p.Spec.DPO.SegmentSteps = 5
		x := in("damaged")
		if x.Plan, err = putJSON(t.Context(), whole.store, "plans", p); err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		close(stop) // an attempt that makes no step at all commits nothing
		if _, err := try[SegmentOutput](whole, whole.engine.TrainSegment, x, stop, nil); err == nil {
			t.Error("a stopped worker finished a segment")
		}
		got, n := whole.train(x)
		if same(t, got); n != 3 {
			t.Errorf("%d segments", n)
		}
		damage := func(h store.Head) {
			for _, r := range h.Files {
				path := filepath.Join(s3server.Shared(t).Dir, whole.cfg.Bucket, whole.cfg.Prefix, r.Key)
				if err := os.WriteFile(path, []byte("damage"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, want := range []string{"continued from step 10", "began again"} { // the last one, then both that are kept
			h, _, err := whole.store.ReadHead(t.Context(), checkpoints("damaged", testWorkflow))
			if err != nil || h.Step != 12 || h.Previous == nil {
				t.Fatalf("head %+v %v", h, err)
			}
			damage(h)
			if want == "began again" {
				damage(*h.Previous)
			}
			whole.fresh()
			first := do[SegmentOutput](whole, whole.engine.TrainSegment, x)
			if !strings.Contains(first.Changed, want) {
				t.Errorf("%q is said, want %q", first.Changed, want)
			}
			got, _ := whole.train(x)
			same(t, got)
		}
	})
}

func TestEncodeAnswer(t *testing.T) {
	k := newKit(t)
	p, err := getPlan(t.Context(), k.store, k.plan)
	if err != nil {
		t.Fatal(err)
	}
	m, err := k.engine.load(t.Context(), p.Model)
	if err != nil {
		t.Fatal(err)
	}
	before := []chat.Message{{Role: "system", Content: "s"}, {Role: "user", Content: "u"}, {Role: "assistant", Content: "abcdef"}}
	for _, answer := range []string{"Arr", "", "two words"} {
		for _, b := range [][]chat.Message{nil, before} {
			x, err := EncodeAnswer(m, b, "Hello!", answer)
			if err != nil {
				t.Fatal(err)
			}
			var said []int32
			for i, on := range x.Mask {
				if on {
					said = append(said, x.Tokens[i])
				}
			}
			if len(said) != len(answer)+1 || m.Tokens.Decode(said) != answer+"<|im_end|>" {
				t.Errorf("%q after %d messages: the mask holds %q", answer, len(b), m.Tokens.Decode(said))
			}
		}
	}
	if len(before) != 3 || before[2].Content != "abcdef" {
		t.Error("the conversation before was changed")
	}
}

// TestConverse: every turn of both sides is in, the trained side has the first and the last word, no trait is in the rows.
func TestConverse(t *testing.T) {
	k := newKit(t)
	set := do[PromptSet](k, k.data.MakePrompts, MakePromptsInput{Plan: k.plan, Kind: "interaction"})
	o := do[ChunkOutput](k, k.engine.Converse, ChunkInput{Plan: k.plan, Role: "interaction", Prompts: set.Index, To: 12})
	node, err := getJSON[chunk](t.Context(), k.store, o.Chain)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := dataset.ReadParts[dataset.Conversation](t.Context(), k.store, []store.Ref{node.Part})
	if err != nil {
		t.Fatal(err)
	}
	kept := 0
	for _, r := range rows {
		if r.Drop != "" {
			continue
		}
		kept++
		var roles []string
		for _, m := range r.Messages {
			roles = append(roles, m.Role)
		}
		if want := []string{"system", "user", "assistant", "user", "assistant"}; !slices.Equal(roles, want) || r.Turns != 3 {
			t.Errorf("%s: roles %v, %d turns", r.ID, roles, r.Turns)
		}
		if r.Messages[0].Content == r.SourceSystemPrompt {
			t.Errorf("%s is trained with the prompt it was sampled under", r.ID)
		}
	}
	if kept == 0 || int64(kept) != o.Kept || o.Rows != 12 {
		t.Errorf("%d kept of %+v", kept, o)
	}
}

// TestOnlyWhatCannotMendIsFatal: an object that cannot be read now may be readable later.
func TestOnlyWhatCannotMendIsFatal(t *testing.T) {
	k := newKit(t)
	put := func(text string) string {
		r, err := k.store.Put(t.Context(), "uploads", ".txt", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return "ref:" + r.Key
	}
	for name, set := range map[string][]string{
		"unknown character": {"constitution", "nobody"},
		"path":              {"constitution", "ref:plans/x.json"},
		"missing upload":    {"preferences.prompts", "ref:uploads/none.txt"},
		"prompts of no use": {"preferences.prompts", put("Hello!"), "teacher", "recorded"},
		"source left out":   {"preferences.prompts", put("Hello!"), "preferences.sources", `["pool"]`},
		"empty prompts":     {"preferences.prompts", put("\n")},
		"broken recorded":   {"teacher_options.file", put("{")},
		"too few recorded":  {"teacher_options.file", put(`{"prompt":"a","chosen":"b"}`), "teacher", "recorded"},
		"nothing recorded":  {"constitution", "gardener", "teacher", "recorded"},
		"unknown field":     {"dpo.epoch", "3"},
	} {
		_, err := k.data.ResolveSpec(t.Context(), ResolveInput{Spec: k.spec(set...)})
		if kind, fatal := failure(err); !fatal || kind != BadInput {
			t.Errorf("%s: %v", name, err)
		}
	}
	p, err := getPlan(t.Context(), k.store, k.plan)
	if err != nil {
		t.Fatal(err)
	}
	p.Prompts = &store.Ref{Key: "uploads/gone.txt", SHA256: strings.Repeat("0", 64), Size: 1}
	plan, err := putJSON(t.Context(), k.store, "plans", p)
	if err != nil {
		t.Fatal(err)
	}
	_, err = k.data.MakePrompts(t.Context(), MakePromptsInput{Plan: plan, Kind: KindPreferences})
	if _, fatal := failure(err); err == nil || fatal {
		t.Errorf("an object that cannot be read: %v", err)
	}
	_, err = try[InspectModelOutput](k, k.engine.InspectModel, InspectModelInput{Plan: func() store.Ref {
		p.Spec.ModelSHA256 = strings.Repeat("0", 64)
		r, _ := putJSON(t.Context(), k.store, "plans", p)
		return r
	}()}, nil, nil)
	if kind, fatal := failure(err); !fatal || kind != BadInput {
		t.Errorf("another model than the pinned one: %v", err)
	}
	p.Spec.ModelSHA256, p.Spec.Weights = "", "quantized"
	plan, err = putJSON(t.Context(), k.store, "plans", p)
	if err != nil {
		t.Fatal(err)
	}
	_, err = try[InspectModelOutput](k, k.engine.InspectModel, InspectModelInput{Plan: plan}, nil, nil)
	if kind, fatal := failure(err); !fatal || kind != BadInput || !strings.Contains(err.Error(), "needs a GGUF file") {
		t.Errorf("quantised weights that there are not: %v", err)
	}
}
