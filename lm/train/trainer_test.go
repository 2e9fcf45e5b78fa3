package train_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/lm/train"
	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/tensor"
	"github.com/opencharacter/opencharacter/testenv/hostile"
)

// Ten steps equal four, a save, a new trainer with another adapter, a restore and six
// more: every byte of the checkpoint and every metric.
func TestResumeIsExact(t *testing.T) { eachMode(t, resumeIsExact) }

func resumeIsExact(t *testing.T, c tensor.Compute) {
	m := newTiny(t)
	m.SetCompute(c)
	frozen := []*transformer.Adapter{trainedAdapter(3, 6, 1)}
	pairs, rows := makePairs(t, m, frozen, 13), makeRows(13)
	for _, o := range []train.Options{
		{Loss: "dpo", LR: 1e-2, NLL: 0.2, BatchSize: 4, Epochs: 3, Schedule: "cosine", WarmupSteps: 2, TotalSteps: 12, MinLRRatio: 0.1, ClipNorm: 0.3, Seed: 8},
		{Loss: "sft", LR: 1e-2, BatchSize: 4, Epochs: 3, WeightDecay: 0.01, Seed: 9},
	} {
		step := func(tr *train.Trainer) train.Metrics {
			t.Helper()
			var got train.Metrics
			var err error
			if o.Loss == "dpo" {
				var batch []train.Pair
				for _, i := range o.Batch(13, tr.Step()) {
					batch = append(batch, pairs[i])
				}
				got, err = tr.StepDPO(batch)
			} else {
				var batch []train.Row
				for _, i := range o.Batch(13, tr.Step()) {
					batch = append(batch, rows[i])
				}
				got, err = tr.StepSFT(batch)
			}
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		whole := newTrainer(t, m, frozen, transformer.NewAdapter(tiny, 4, 8, 9), o)
		var want []train.Metrics
		for range 10 {
			want = append(want, step(whole))
		}
		first := newTrainer(t, m, frozen, transformer.NewAdapter(tiny, 4, 8, 9), o)
		for range 4 {
			step(first)
		}
		second := newTrainer(t, m, frozen, transformer.NewAdapter(tiny, 4, 8, 10), o)
		if err := second.Restore(save(t, first)); err != nil {
			t.Fatal(err)
		}
		if second.Step() != 4 {
			t.Errorf("restored at step %d", second.Step())
		}
		sameFiles(t, "right after the restore", save(t, second), save(t, first))
		for k := 4; k < 10; k++ {
			if got := step(second); got.Loss != want[k].Loss || got.GradNorm != want[k].GradNorm || got.LR != want[k].LR || got.Step != k+1 {
				t.Errorf("%s: resumed step %+v, undisturbed %+v", o.Loss, got, want[k])
			}
		}
		sameFiles(t, o.Loss, save(t, second), save(t, whole))
	}
}

// A checkpoint of one compute mode is refused in the other; that of mode exact looks as
// it did before there was another.
func TestRestoreKeepsCompute(t *testing.T) {
	exact, rounded := newTiny(t), newTiny(t)
	rounded.SetCompute(tensor.BF16)
	fresh := func() *transformer.Adapter { return trainedAdapter(4, 8, 9) }
	o := train.Options{Loss: "dpo", LR: 1e-3}
	a, b := newTrainer(t, exact, nil, fresh(), o), newTrainer(t, rounded, nil, fresh(), o)
	for name, c := range map[string]struct {
		from, to *train.Trainer
		want     string
	}{
		"exact to bf16": {a, b, "trained in compute mode exact, this model is in bf16"},
		"bf16 to exact": {b, a, "trained in compute mode bf16, this model is in exact"},
	} {
		if err := c.to.Restore(save(t, c.from)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
		if err := c.from.Restore(save(t, c.from)); err != nil {
			t.Errorf("%s: its own checkpoint: %v", name, err)
		}
	}
	if s := string(save(t, a)["trainer.json"]); strings.Contains(s, "compute") {
		t.Errorf("trainer.json of mode exact names the mode: %s", s)
	}
}

func TestRestoreErrors(t *testing.T) {
	m := newTiny(t)
	o := train.Options{Loss: "sft", LR: 1e-2}
	frozen := trainedAdapter(3, 6, 1)
	tr := newTrainer(t, m, []*transformer.Adapter{frozen}, transformer.NewAdapter(tiny, 4, 8, 9), o)
	if _, err := tr.StepSFT(makeRows(2)); err != nil {
		t.Fatal(err)
	}
	good := save(t, tr)
	other, err := transformer.NewRandom(tiny, 2)
	if err != nil {
		t.Fatal(err)
	}
	fresh := func() *transformer.Adapter { return transformer.NewAdapter(tiny, 4, 8, 9) }
	faster := o
	faster.LR = 2e-2
	for _, c := range []struct {
		name string
		tr   *train.Trainer
		edit func(map[string][]byte)
		want string
	}{
		{"model", newTrainer(t, other, []*transformer.Adapter{frozen}, fresh(), o), nil, "trained on model"},
		{"frozen", newTrainer(t, m, nil, fresh(), o), nil, "other frozen adapters"},
		{"options", newTrainer(t, m, []*transformer.Adapter{frozen}, fresh(), faster), nil, "other options"},
		{"rank", newTrainer(t, m, []*transformer.Adapter{frozen}, transformer.NewAdapter(tiny, 5, 8, 9), o), nil, "rank 4"},
		{"no state", nil, func(f map[string][]byte) { delete(f, "trainer.json") }, "trainer.json is missing"},
		{"bad state", nil, func(f map[string][]byte) { f["trainer.json"] = []byte("{") }, "trainer.json is not valid"},
		{"negative step", nil, func(f map[string][]byte) {
			f["trainer.json"] = []byte(strings.Replace(string(f["trainer.json"]), `"step": 1`, `"step": -1`, 1))
		}, "step is -1"},
		{"no moments", nil, func(f map[string][]byte) { delete(f, "moments.safetensors") }, "moments.safetensors: the file is missing"},
		{"damaged moments", nil, func(f map[string][]byte) { f["moments.safetensors"] = f["moments.safetensors"][:50] }, "moments.safetensors"},
		{"moments of the adapter", nil, func(f map[string][]byte) { f["moments.safetensors"] = f["adapter_model.safetensors"] }, "is missing"},
		{"no adapter", nil, func(f map[string][]byte) { delete(f, "adapter_model.safetensors") }, "adapter_model.safetensors is missing"},
	} {
		files := map[string][]byte{}
		for name, data := range good {
			files[name] = data
		}
		if c.edit != nil {
			c.edit(files)
		}
		target := c.tr
		if target == nil {
			target = newTrainer(t, m, []*transformer.Adapter{frozen}, fresh(), o)
		}
		before := save(t, target)
		if err := target.Restore(files); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
		sameFiles(t, c.name+": after the error", save(t, target), before)
	}
}

// A step that meets a number that is not finite names the step and the rows and changes
// nothing; training goes on with other rows.
func TestNonFiniteStops(t *testing.T) {
	m := newTiny(t)
	pairs, rows := makePairs(t, m, nil, 4), makeRows(4)
	a := trainedAdapter(4, 8, 9)
	tr := newTrainer(t, m, nil, a, train.Options{Loss: "dpo", LR: 1e-3, MicroTokens: 1})
	if _, err := tr.StepDPO(pairs); err != nil {
		t.Fatal(err)
	}
	before := save(t, tr)
	bad := append([]train.Pair(nil), pairs...)
	bad[2].RefChosen = math.NaN()
	_, err := tr.StepDPO(bad)
	if !errors.Is(err, train.ErrNonFinite) || !strings.Contains(err.Error(), "step 2") || !strings.Contains(err.Error(), "pair-2") {
		t.Errorf("NaN reference: %v", err)
	}
	sameFiles(t, "after a NaN reference", save(t, tr), before)

	// An adapter that overflows: the loss of the first row is not a number.
	broken := trainedAdapter(4, 8, 9)
	for i, x := range broken.Matrices() {
		if i == 1 {
			x.T.Data()[0] = math.MaxFloat32
		}
	}
	tr = newTrainer(t, m, []*transformer.Adapter{broken}, a, train.Options{Loss: "sft", LR: 1e-3, MicroTokens: 1})
	hash := a.Hash()
	_, err = tr.StepSFT(rows)
	if !errors.Is(err, train.ErrNonFinite) || !strings.Contains(err.Error(), "step 1") || !strings.Contains(err.Error(), "row-0") {
		t.Errorf("overflow: %v", err)
	}
	if a.Hash() != hash || tr.Step() != 0 {
		t.Error("the failed step changed the adapter or the count")
	}
}

func TestRowErrors(t *testing.T) {
	m := newTiny(t)
	ok := makeRows(1)[0].Example
	long := train.Example{Tokens: make([]int32, 161), Mask: make([]bool, 161)}
	long.Mask[5] = true
	none := train.Example{Tokens: ok.Tokens, Mask: make([]bool, len(ok.Tokens))}
	first := train.Example{Tokens: []int32{1, 2}, Mask: []bool{true, true}}
	uneven := train.Example{Tokens: []int32{1, 2}, Mask: []bool{false}}
	foreign := train.Example{Tokens: []int32{1, 99}, Mask: []bool{false, true}}
	for name, c := range map[string]struct {
		e    train.Example
		want string
	}{
		"no mask":    {none, "selects no token"},
		"empty":      {train.Example{}, "selects no token"},
		"long":       {long, "161 tokens exceed the model's context of 160"},
		"first":      {first, "first token"},
		"uneven":     {uneven, "1 mask values for 2 tokens"},
		"vocabulary": {foreign, "outside the vocabulary"},
	} {
		sft := newTrainer(t, m, nil, trainedAdapter(4, 8, 9), train.Options{Loss: "sft", LR: 1e-3})
		_, err := sft.StepSFT([]train.Row{{"good", ok}, {"bad-row", c.e}})
		if err == nil || !strings.Contains(err.Error(), c.want) || name != "vocabulary" && !strings.Contains(err.Error(), "bad-row") {
			t.Errorf("sft, %s: %v", name, err)
		}
		dpo := newTrainer(t, m, nil, trainedAdapter(4, 8, 9), train.Options{Loss: "dpo", LR: 1e-3})
		_, err = dpo.StepDPO([]train.Pair{{ID: "bad-pair", Chosen: ok, Rejected: c.e}})
		if err == nil || !strings.Contains(err.Error(), c.want) || name != "vocabulary" && !strings.Contains(err.Error(), `"bad-pair" (rejected)`) {
			t.Errorf("dpo, %s: %v", name, err)
		}
		if _, _, err := train.SumLogProbs(m, transformer.NewWorkspace(), []train.Example{ok, c.e}, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("score, %s: %v", name, err)
		}
		if sft.Step()+dpo.Step() != 0 {
			t.Errorf("%s: a failed step counts", name)
		}
	}
	sft := newTrainer(t, m, nil, trainedAdapter(4, 8, 9), train.Options{Loss: "sft", LR: 1e-3})
	if _, err := sft.StepSFT(nil); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("empty batch: %v", err)
	}
	if _, err := sft.StepDPO(makePairs(t, m, nil, 1)); err == nil || !strings.Contains(err.Error(), "made for the sft loss") {
		t.Errorf("wrong loss: %v", err)
	}
}

func TestNewErrors(t *testing.T) {
	m := newTiny(t)
	a := trainedAdapter(4, 8, 9)
	other := tiny
	other.Layers = 3
	for name, c := range map[string]struct {
		frozen []*transformer.Adapter
		a      *transformer.Adapter
		o      train.Options
		want   string
	}{
		"no loss":      {nil, a, train.Options{LR: 1e-3}, `loss is ""`},
		"no rate":      {nil, a, train.Options{Loss: "sft"}, "lr is 0"},
		"rate":         {nil, a, train.Options{Loss: "sft", LR: -1}, "lr is -1"},
		"rate NaN":     {nil, a, train.Options{Loss: "sft", LR: math.NaN()}, "lr is NaN"},
		"beta":         {nil, a, train.Options{Loss: "dpo", LR: 1e-3, Beta: -0.1}, "beta is -0.1"},
		"beta inf":     {nil, a, train.Options{Loss: "dpo", LR: 1e-3, Beta: math.Inf(1)}, "beta is +Inf"},
		"nll":          {nil, a, train.Options{Loss: "sft", LR: 1e-3, NLL: 1}, "nll is 1"},
		"kl":           {nil, a, train.Options{Loss: "dpo", LR: 1e-3, KL: -1}, "kl is -1"},
		"kl of sft":    {nil, a, train.Options{Loss: "sft", LR: 1e-3, KL: 1}, "kl is 1"},
		"schedule":     {nil, a, train.Options{Loss: "sft", LR: 1e-3, Schedule: "linear"}, `schedule is "linear"`},
		"cosine":       {nil, a, train.Options{Loss: "sft", LR: 1e-3, Schedule: "cosine", WarmupSteps: 3, TotalSteps: 3}, "total_steps (3)"},
		"ratio":        {nil, a, train.Options{Loss: "sft", LR: 1e-3, MinLRRatio: 2}, "min_lr_ratio is 2"},
		"clip":         {nil, a, train.Options{Loss: "sft", LR: 1e-3, ClipNorm: -1}, "clip_norm is -1"},
		"beta2":        {nil, a, train.Options{Loss: "sft", LR: 1e-3, Beta2: 1}, "beta2 is 1"},
		"decay":        {nil, a, train.Options{Loss: "sft", LR: 1e-3, WeightDecay: 5000}, "weight_decay is 5000"},
		"batch":        {nil, a, train.Options{Loss: "sft", LR: 1e-3, BatchSize: -4}, "batch_size is -4"},
		"epochs":       {nil, a, train.Options{Loss: "sft", LR: 1e-3, Epochs: -1}, "epochs is -1"},
		"micro":        {nil, a, train.Options{Loss: "sft", LR: 1e-3, MicroTokens: -1}, "micro_tokens is -1"},
		"no adapter":   {nil, nil, train.Options{Loss: "sft", LR: 1e-3}, "is nil"},
		"other model":  {nil, transformer.NewAdapter(other, 4, 4, 1), train.Options{Loss: "sft", LR: 1e-3}, "3 layers"},
		"frozen twice": {[]*transformer.Adapter{a}, a, train.Options{Loss: "sft", LR: 1e-3}, "also among the frozen"},
	} {
		if _, err := train.New(m, c.frozen, c.a, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
	quantized, err := transformer.NewRandomQuantized(transformer.Config{
		Architecture: "llama", Layers: 1, Width: 32, Heads: 4, KVHeads: 4, HeadDim: 8, FFN: 32, Vocab: 9,
		Context: 8, RopeBase: 10000, NormEps: 1e-5, Tied: true,
	}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := train.New(quantized, nil, transformer.NewAdapter(quantized.Config, 2, 2, 1), train.Options{Loss: "sft", LR: 1e-3}); err == nil || !strings.Contains(err.Error(), "without quantized weights") {
		t.Errorf("quantized weights: error %v", err)
	}
}

// A hostile checkpoint never panics, and one that is refused leaves the trainer alone.
func FuzzRestore(f *testing.F) {
	cfg := transformer.Config{
		Architecture: "llama", Layers: 1, Width: 2, Heads: 1, KVHeads: 1, HeadDim: 2, FFN: 2, Vocab: 3,
		Context: 8, RopeBase: 10000, NormEps: 1e-5, Tied: true,
	}
	m, err := transformer.NewRandom(cfg, 1)
	if err != nil {
		f.Fatal(err)
	}
	tr := newTrainer(f, m, nil, transformer.NewAdapter(cfg, 1, 1, 1), train.Options{Loss: "sft", LR: 1e-3})
	if _, err := tr.StepSFT([]train.Row{{ID: "r", Example: train.Example{Tokens: []int32{0, 1}, Mask: []bool{false, true}}}}); err != nil {
		f.Fatal(err)
	}
	good := save(f, tr)
	f.Add(good["trainer.json"], good["moments.safetensors"])
	f.Add([]byte(`{"step":1e99}`), good["moments.safetensors"])
	f.Add(good["trainer.json"], good["moments.safetensors"][:60])
	f.Add(good["trainer.json"], good["adapter_model.safetensors"])
	f.Fuzz(func(t *testing.T, state, moments []byte) {
		before := save(t, tr)
		files := map[string][]byte{"trainer.json": state, "moments.safetensors": moments,
			"adapter_config.json": good["adapter_config.json"], "adapter_model.safetensors": good["adapter_model.safetensors"]}
		var err error
		hostile.Bounds{}.Hold(t, len(state)+len(moments), func() { err = tr.Restore(files) })
		if err != nil {
			sameFiles(t, "after a refused checkpoint", save(t, tr), before)
		} else if tr.Step() < 0 {
			t.Fatalf("restored to step %d", tr.Step())
		}
	})
}

// FuzzRestoreAdapter: the same with a hostile adapter; what is accepted is saved as it was restored.
func FuzzRestoreAdapter(f *testing.F) {
	cfg := transformer.Config{
		Architecture: "llama", Layers: 1, Width: 2, Heads: 1, KVHeads: 1, HeadDim: 2, FFN: 2, Vocab: 3,
		Context: 8, RopeBase: 10000, NormEps: 1e-5, Tied: true,
	}
	m, err := transformer.NewRandom(cfg, 1)
	if err != nil {
		f.Fatal(err)
	}
	tr := newTrainer(f, m, nil, transformer.NewAdapter(cfg, 1, 1, 1), train.Options{Loss: "sft", LR: 1e-3})
	good := save(f, tr)
	f.Add(good["adapter_config.json"], good["adapter_model.safetensors"])
	f.Add(good["adapter_config.json"], good["moments.safetensors"])
	f.Add([]byte(`{"peft_type":"LORA","r":2,"lora_alpha":1}`), good["adapter_model.safetensors"])
	f.Fuzz(func(t *testing.T, config, weights []byte) {
		before := save(t, tr)
		files := map[string][]byte{"trainer.json": good["trainer.json"], "moments.safetensors": good["moments.safetensors"],
			"adapter_config.json": config, "adapter_model.safetensors": weights}
		var err error
		hostile.Bounds{PerByte: 200}.Hold(t, len(config)+len(weights), func() { err = tr.Restore(files) })
		if err != nil {
			if !errors.Is(err, train.ErrDamaged) {
				t.Errorf("not said to be damaged: %v", err)
			}
			sameFiles(t, "after a refused checkpoint", save(t, tr), before)
			return
		}
		after := save(t, tr)
		if err := tr.Restore(after); err != nil {
			t.Fatalf("what was restored cannot be saved and restored again: %v", err)
		}
		sameFiles(t, "saved twice", save(t, tr), after)
	})
}
