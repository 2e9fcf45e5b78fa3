package train_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencharacter/opencharacter/lm/safetensors"
	"github.com/opencharacter/opencharacter/lm/train"
	"github.com/opencharacter/opencharacter/lm/transformer"
)

// Ten optimiser steps recorded from torch and PEFT (testdata/ref/README.md). The
// recording states how far torch's float32 run is from the same run in float64;
// ours may be up to four times further, because it sums in one chain where torch sums
// in 16 lanes or more, and both stand on opposite sides: 5 times, 8 with room (the
// derivation is beside the tests of lm/transformer).
const slack = 8

type refExample struct {
	Tokens []int32 `json:"tokens"`
	Mask   []int   `json:"mask"`
}

func (e refExample) example() train.Example {
	out := train.Example{Tokens: e.Tokens}
	for _, m := range e.Mask {
		out.Mask = append(out.Mask, m == 1)
	}
	return out
}

// refRun is one loss of train.json.
type refRun struct {
	Batches [][]int `json:"batches"`
	Steps   []struct {
		Loss       float64 `json:"loss"`
		GradNorm   float64 `json:"grad_norm"`
		Preference float64 `json:"preference"`
		Chosen     float64 `json:"chosen_reward"`
		Rejected   float64 `json:"rejected_reward"`
	} `json:"steps"`
	Error struct {
		StepLoss     float64 `json:"step_loss"`
		StepGradNorm float64 `json:"step_grad_norm_rel"`
		FinalWeights struct {
			Abs float64 `json:"abs"`
		} `json:"final_weights"`
	} `json:"float32_error"`
}

type refTrain struct {
	Options struct {
		LR          float64 `json:"lr"`
		Beta1       float64 `json:"beta1"`
		Beta2       float64 `json:"beta2"`
		Eps         float64 `json:"eps"`
		WeightDecay float64 `json:"weight_decay"`
		ClipNorm    float64 `json:"clip_norm"`
		Beta        float64 `json:"beta"`
		NLL         float64 `json:"nll_weight"`
	} `json:"options"`
	Pairs []struct {
		ID          string     `json:"id"`
		Chosen      refExample `json:"chosen"`
		Rejected    refExample `json:"rejected"`
		RefChosen   float64    `json:"ref_chosen"`
		RefRejected float64    `json:"ref_rejected"`
	} `json:"pairs"`
	Rows []struct {
		ID string `json:"id"`
		refExample
	} `json:"rows"`
	DPO refRun `json:"dpo"`
	SFT refRun `json:"sft"`
}

func readAdapter(t *testing.T, dir string, cfg transformer.Config) *transformer.Adapter {
	t.Helper()
	files := map[string][]byte{}
	for _, name := range []string{"adapter_config.json", "adapter_model.safetensors"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = data
	}
	a, err := transformer.ReadPEFT(files, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestRecordedSteps(t *testing.T) {
	for _, name := range []string{"tiny-llama", "tiny-qwen3", "tiny-gemma3"} {
		dir, model := filepath.Join("testdata", "ref", name), filepath.Join("..", "transformer", "testdata", "ref", name)
		m, err := transformer.LoadSafetensors(filepath.Join(model, "model"))
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(dir, "train.json"))
		if err != nil {
			t.Fatal(err)
		}
		var ref refTrain
		if err := json.Unmarshal(data, &ref); err != nil {
			t.Fatal(err)
		}
		frozen := []*transformer.Adapter{readAdapter(t, filepath.Join(model, "frozen"), m.Config)}
		t.Run(name+"/dpo", func(t *testing.T) { recordedDPO(t, m, frozen, dir, ref) })
		t.Run(name+"/sft", func(t *testing.T) { recordedSFT(t, m, frozen, dir, ref) })
	}
}

func (r refTrain) options(loss string) train.Options {
	o := r.Options
	return train.Options{
		Loss: loss, Beta: o.Beta, LR: o.LR, ClipNorm: o.ClipNorm,
		Beta1: o.Beta1, Beta2: o.Beta2, Eps: o.Eps, WeightDecay: o.WeightDecay, MicroTokens: 50,
	}
}

// closeTo reports a value outside the tolerance.
func closeTo(t *testing.T, what string, step int, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("step %d: %s is %v, recorded %v: difference %.3g exceeds %.3g", step+1, what, got, want, math.Abs(got-want), tolerance)
	}
}

func recordedDPO(t *testing.T, m *transformer.Model, frozen []*transformer.Adapter, dir string, ref refTrain) {
	o := ref.options(train.LossDPO)
	o.NLL = ref.Options.NLL
	adapter := readAdapter(t, filepath.Join(dir, "start"), m.Config)
	tr := newTrainer(t, m, frozen, adapter, o)
	for k, batch := range ref.DPO.Batches {
		var pairs []train.Pair
		longest := 0
		for _, i := range batch {
			p := ref.Pairs[i]
			pairs = append(pairs, train.Pair{ID: p.ID, Chosen: p.Chosen.example(), Rejected: p.Rejected.example(), RefChosen: p.RefChosen, RefRejected: p.RefRejected})
			longest = max(longest, len(p.Chosen.Tokens), len(p.Rejected.Tokens))
		}
		got, err := tr.StepDPO(pairs)
		if err != nil {
			t.Fatal(err)
		}
		want, tol := ref.DPO.Steps[k], slack*ref.DPO.Error.StepLoss
		closeTo(t, "loss", k, got.Loss, want.Loss, tol)
		closeTo(t, "gradient norm", k, got.GradNorm, want.GradNorm, slack*ref.DPO.Error.StepGradNorm*want.GradNorm)
		// A reward is beta times the difference of two sums near 200, each recorded in float32
		// with half a unit in the last place, 2^-17, and summed over up to 40 float32 terms.
		rewardTol := ref.Options.Beta*2*math.Exp2(-17)*math.Sqrt(float64(longest)) + tol
		closeTo(t, "chosen reward", k, got.ChosenReward, want.Chosen, rewardTol)
		closeTo(t, "rejected reward", k, got.RejectedReward, want.Rejected, rewardTol)
	}
	compareAdapter(t, adapter, filepath.Join(dir, "dpo_final.safetensors"), slack*ref.DPO.Error.FinalWeights.Abs)
}

func recordedSFT(t *testing.T, m *transformer.Model, frozen []*transformer.Adapter, dir string, ref refTrain) {
	adapter := readAdapter(t, filepath.Join(dir, "start"), m.Config)
	tr := newTrainer(t, m, frozen, adapter, ref.options(train.LossSFT))
	for k, batch := range ref.SFT.Batches {
		var rows []train.Row
		for _, i := range batch {
			rows = append(rows, train.Row{ID: ref.Rows[i].ID, Example: ref.Rows[i].example()})
		}
		got, err := tr.StepSFT(rows)
		if err != nil {
			t.Fatal(err)
		}
		want := ref.SFT.Steps[k]
		closeTo(t, "loss", k, got.Loss, want.Loss, slack*ref.SFT.Error.StepLoss)
		closeTo(t, "gradient norm", k, got.GradNorm, want.GradNorm, slack*ref.SFT.Error.StepGradNorm*want.GradNorm)
	}
	compareAdapter(t, adapter, filepath.Join(dir, "sft_final.safetensors"), slack*ref.SFT.Error.FinalWeights.Abs)
}

// compareAdapter compares every matrix with the recorded one.
func compareAdapter(t *testing.T, a *transformer.Adapter, path string, tolerance float64) {
	t.Helper()
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	worst, where := 0.0, ""
	for _, m := range a.Matrices() {
		want, err := f.Floats(m.Name)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range m.T.Data() {
			if d := math.Abs(float64(v) - float64(want[i])); !(d <= worst) {
				worst, where = d, m.Name
			}
		}
	}
	if !(worst <= tolerance) {
		t.Errorf("%s differs by %.3g after ten steps, tolerance %.3g", where, worst, tolerance)
	} else {
		t.Logf("greatest difference after ten steps %.3g, tolerance %.3g", worst, tolerance)
	}
}
