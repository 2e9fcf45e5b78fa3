//go:build !noserver

package activities

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/opencharacter/opencharacter/lm/safetensors"
	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/store"
)

// rewrite changes one tensor of a safetensors file.
func rewrite(t *testing.T, file []byte, change func(e *safetensors.Entry)) []byte {
	t.Helper()
	f, err := safetensors.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	var entries []safetensors.Entry
	first := ""
	for name := range f.Tensors {
		if first == "" || name < first {
			first = name
		}
	}
	for name, info := range f.Tensors {
		data, err := f.Raw(name)
		if err != nil {
			t.Fatal(err)
		}
		e := safetensors.Entry{Name: name, DType: info.DType, Shape: info.Shape, Data: data}
		if name == first {
			change(&e)
		}
		entries = append(entries, e)
	}
	var out bytes.Buffer
	if err := safetensors.Write(&out, entries, f.Metadata); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestCheckpointsThatCannotBe: the hash of each is right, and yet no trainer can have written it. The one before it is
// used, that is said, and the training ends with the bytes of one that was never disturbed.
func TestCheckpointsThatCannotBe(t *testing.T) {
	k := newKit(t)
	in := k.pairs("whole")
	want, _ := k.train(in)
	p, err := getPlan(t.Context(), k.store, k.plan)
	if err != nil {
		t.Fatal(err)
	}
	p.Spec.DPO.SegmentSteps = 5
	if in.Plan, err = putJSON(t.Context(), k.store, "plans", p); err != nil {
		t.Fatal(err)
	}
	nan := func(e *safetensors.Entry) { copy(e.Data, safetensors.F32Bytes([]float32{float32(math.NaN())})) }
	narrow := func(e *safetensors.Entry) { e.Shape, e.Data = []int{1, 1}, e.Data[:4] }
	const adapter, moments, state = "adapter_model.safetensors", "moments.safetensors", "trainer.json"
	for name, c := range map[string]struct {
		edit func(map[string][]byte)
		want string
	}{
		"adapter of another shape": {func(f map[string][]byte) { f[adapter] = rewrite(t, f[adapter], narrow) }, "has shape [1 1]"},
		"NaN in the adapter":       {func(f map[string][]byte) { f[adapter] = rewrite(t, f[adapter], nan) }, "not finite"},
		"NaN in a moment":          {func(f map[string][]byte) { f[moments] = rewrite(t, f[moments], nan) }, "holds NaN"},
		"no safetensors":           {func(f map[string][]byte) { f[moments] = []byte("nothing") }, moments},
		"half a file":              {func(f map[string][]byte) { f[adapter] = f[adapter][:len(f[adapter])/2] }, adapter},
		"no JSON":                  {func(f map[string][]byte) { f[state] = []byte("{") }, state},
		"no state":                 {func(f map[string][]byte) { delete(f, state) }, state},
		"no adapter":               {func(f map[string][]byte) { delete(f, adapter) }, adapter},
		"a state of another commit": {func(f map[string][]byte) {
			f[state] = bytes.Replace(f[state], []byte(`"step": 10`), []byte(`"step": 9`), 1)
		}, "that of step 9"},
	} {
		t.Run(name, func(t *testing.T) {
			x := in
			x.Key = "cannot-be-" + strings.ReplaceAll(name, " ", "-")
			for range 2 {
				k.fresh()
				do[SegmentOutput](k, k.engine.TrainSegment, x)
			}
			stream := checkpoints(x.Key, testWorkflow)
			claim, err := k.store.Claim(t.Context(), stream, "somebody")
			if err != nil {
				t.Fatal(err)
			}
			h := claim.Head()
			files, err := k.store.ReadFiles(t.Context(), h)
			if err != nil || h.Step != 10 {
				t.Fatalf("step %d %v", h.Step, err)
			}
			c.edit(files)
			if _, ok := claim.UsePrevious(); !ok { // it takes the place of the commit that it was made of
				t.Fatal("there is no commit before")
			}
			if err := claim.Commit(t.Context(), 10, files, json.RawMessage(h.Note)); err != nil {
				t.Fatal(err)
			}
			k.fresh()
			out := do[SegmentOutput](k, k.engine.TrainSegment, x)
			if !strings.Contains(out.Changed, "checkpoint of step 10 is corrupt") || !strings.Contains(out.Changed, c.want) || !strings.Contains(out.Changed, "continued from step 5") {
				t.Errorf("it says %q, want %q in it", out.Changed, c.want)
			}
			got, _ := k.train(x)
			for name, r := range want.Adapter.Files {
				if got.Adapter.Files[name].SHA256 != r.SHA256 {
					t.Errorf("%s differs from the undisturbed training's", name)
				}
			}
			if got.Metrics.SHA256 != want.Metrics.SHA256 {
				t.Error("the metrics differ")
			}
		})
	}
}

// overflowing is a finite adapter whose products are not: what a diverged training leaves.
func (k *kit) overflowing(p Plan) AdapterRef {
	k.t.Helper()
	a := transformer.NewAdapter(p.Shape, 1, 1, 1)
	for _, m := range a.Matrices() {
		for i := range m.T.Data() {
			m.T.Data()[i] = 1e38
		}
	}
	files, err := a.PEFT("")
	if err != nil {
		k.t.Fatal(err)
	}
	out := AdapterRef{Files: map[string]store.Ref{}}
	for name, b := range files {
		if out.Files[name], err = k.store.Put(k.t.Context(), "adapters", ".x", b); err != nil {
			k.t.Fatal(err)
		}
	}
	return out
}

// TestNonFiniteStops: every activity that meets numbers that are not finite stops for good and names row and cause.
func TestNonFiniteStops(t *testing.T) {
	k := newKit(t)
	p, err := getPlan(t.Context(), k.store, k.plan)
	if err != nil {
		t.Fatal(err)
	}
	broken := []AdapterRef{k.overflowing(p)}
	train := k.pairs("whole")
	frozen := train
	frozen.Frozen, frozen.To = broken, 3
	frozen.Reference = nil
	set := func(kind string) ChunkInput {
		s := do[PromptSet](k, k.data.MakePrompts, MakePromptsInput{Plan: k.plan, Kind: kind})
		return ChunkInput{Plan: k.plan, Prompts: s.Index, To: 3, Adapters: broken}
	}
	student, talks := set(KindPreferences), set("interaction")
	student.Role, talks.Role = RoleStudent, "interaction"
	var stopped = func(name string, err error, want ...string) {
		t.Helper()
		kind, fatal := failure(err)
		if !fatal || kind != NonFinite {
			t.Errorf("%s: %v", name, err)
			return
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want %q in it", name, err, w)
			}
		}
	}
	_, err = try[ChunkOutput](k, k.engine.ReferenceLogProbs, frozen, nil, nil)
	stopped("reference", err, "reference: row ", "its log-prob is NaN")
	_, err = try[ChunkOutput](k, k.engine.Generate, student, nil, nil)
	stopped("generate", err, "student: row ", "token 0")
	_, err = try[ChunkOutput](k, k.engine.Converse, talks, nil, nil)
	stopped("converse", err, "interaction: row ", "token 0")
	_, err = try[EvaluateOutput](k, k.engine.EvaluateModel, EvaluateInput{Plan: k.plan, Which: "dpo", Adapters: broken}, nil, nil)
	stopped("evaluate", err, "evaluation: row ")

	// A training that diverges after a checkpoint: the step, its rows and that checkpoint.
	p.Spec.DPO.SegmentSteps = 5
	if train.Plan, err = putJSON(t.Context(), k.store, "plans", p); err != nil {
		t.Fatal(err)
	}
	train.Key = "diverges"
	do[SegmentOutput](k, k.engine.TrainSegment, train)
	train.Frozen = broken
	_, err = try[SegmentOutput](k, k.engine.TrainSegment, train, nil, nil)
	if kind, fatal := failure(err); !fatal || kind != BadInput { // the frozen adapters are part of a checkpoint's identity
		t.Errorf("other frozen adapters: %v", err)
	}
	train.Key = "diverges at once"
	_, err = try[SegmentOutput](k, k.engine.TrainSegment, train, nil, nil)
	stopped("train", err, "step 1: ", "rows ", "the last good checkpoint is step 0 of stream train/diverges at once/")
}

// TestWatchdogOnDevice: an attempt that hangs is ended; where it does not even see that, the next attempt on this worker
// says so instead of sharing the device with it.
func TestWatchdogOnDevice(t *testing.T) {
	e := &Engine{Stall: 20 * time.Millisecond}
	k := &kit{t: t}
	free, left := make(chan struct{}), make(chan struct{})
	hang := func(ctx context.Context) (int, error) {
		defer close(left)
		<-free // as a kernel that waits for a thread which never comes
		return 1, nil
	}
	var live progress
	_, err := try[int](k, func(ctx context.Context, _ int) (int, error) { return onDevice(ctx, e, &live, hang) }, 0, nil, nil)
	if _, fatal := failure(err); err == nil || fatal || !strings.Contains(err.Error(), "no progress") {
		t.Errorf("hung: %v", err)
	}
	done := func(context.Context) (int, error) { return 2, nil }
	again := func(ctx context.Context, _ int) (int, error) { return onDevice(ctx, e, &progress{}, done) }
	_, err = try[int](k, again, 0, nil, nil)
	if _, fatal := failure(err); err == nil || fatal || !strings.Contains(err.Error(), "stop this worker and start it again") {
		t.Errorf("while it hangs: %v", err)
	}
	close(free)
	<-left
	for { // the lock is given back a moment after
		out, err := try[int](k, again, 0, nil, nil)
		if err == nil {
			if out != 2 {
				t.Errorf("%d", out)
			}
			break
		}
		if !strings.Contains(err.Error(), "stop this worker") {
			t.Fatal(err)
		}
	}
}

// TestInterrupt: the passes of a working attempt ask its context before every layer, which also is its sign of life.
func TestInterrupt(t *testing.T) {
	e, k := &Engine{}, &kit{t: t}
	stop := make(chan struct{})
	asked := 0
	_, err := try[int](k, func(ctx context.Context, _ int) (int, error) {
		var live progress
		return onDevice(ctx, e, &live, func(ctx context.Context) (int, error) {
			for before := live.count(); ; asked++ {
				if asked == 3 {
					if live.count() != before+3 {
						return 0, fmt.Errorf("%d signs of life", live.count()-before)
					}
					close(stop)
					<-ctx.Done()
				}
				if err := e.workspace().Interrupt(); err != nil {
					return 0, err
				}
			}
		})
	}, 0, stop, nil)
	if asked != 3 || err == nil || !strings.Contains(err.Error(), "worker is stopping") {
		t.Errorf("asked %d times: %v", asked, err)
	}
	if e.workspace().Interrupt != nil {
		t.Error("the next attempt inherits the context of this one")
	}
}
