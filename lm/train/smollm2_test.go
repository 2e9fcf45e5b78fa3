package train_test

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/lm/gguf"
	"github.com/opencharacter/opencharacter/lm/safetensors"
	"github.com/opencharacter/opencharacter/lm/train"
	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/tensor"
)

// smolTrain is smollm2/train.json; its rows stand in the recording of lm/transformer.
type smolTrain struct {
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
	Adapter struct {
		Rank     int      `json:"rank"`
		Alpha    float64  `json:"alpha"`
		Seed     uint64   `json:"seed"`
		Matrices []string `json:"matrices"`
	} `json:"adapter"`
	DPO smolRun `json:"dpo"`
	SFT smolRun `json:"sft"`
}

type smolRun struct {
	Batches [][]int `json:"batches"`
	Steps   []struct {
		Loss     float64 `json:"loss"`
		GradNorm float64 `json:"grad_norm"`
	} `json:"steps"`
	Error struct {
		StepLoss     float64 `json:"step_loss"`
		StepGradNorm float64 `json:"step_grad_norm_rel"`
		FinalNorms   float64 `json:"final_norms_rel"`
		FinalSamples float64 `json:"final_samples_rms"`
	} `json:"float32_error"`
}

// smolData is the part of smollm2/rows.json that training needs.
type smolData struct {
	Tokens  []int32   `json:"tokens"`
	Offsets []int     `json:"offsets"`
	Mask    []int     `json:"mask"`
	Pairs   [][2]int  `json:"pairs"`
	SFT     []int     `json:"sft_rows"`
	Sums    []float64 `json:"sums_base"`
}

func (d smolData) example(i int) train.Example {
	from, to := d.Offsets[i], d.Offsets[i+1]
	return refExample{Tokens: d.Tokens[from:to], Mask: d.Mask[from:to]}.example()
}

// loadTestModel loads the real model named by CHARACTER_TESTMODEL.
func loadTestModel(t *testing.T) (m *transformer.Model) {
	t.Helper()
	path := os.Getenv("CHARACTER_TESTMODEL")
	if path == "" {
		if strings.Contains(os.Getenv("CHARACTER_REQUIRE"), "model") {
			t.Fatal("CHARACTER_REQUIRE asks for the model, but CHARACTER_TESTMODEL does not name it")
		}
		t.Skip("CHARACTER_TESTMODEL does not name the GGUF file of SmolLM2-135M-Instruct")
	}
	f, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err = transformer.LoadGGUF(f)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return m
}

// generated is the recording's first adapter: B zero, A from splitmix64(seed<<48 | k<<32 | i)
// for element i of matrix k, scaled by 1/sqrt(in).
func (r smolTrain) generated(cfg transformer.Config) *transformer.Adapter {
	a := transformer.NewAdapter(cfg, r.Adapter.Rank, r.Adapter.Alpha, 0)
	at := map[string]int{}
	for k, name := range r.Adapter.Matrices {
		at[name] = k
	}
	for _, m := range a.Matrices() {
		if !strings.Contains(m.Name, "lora_A") {
			continue
		}
		scale := float32(1 / math.Sqrt(float64(m.T.Cols)))
		for i := range m.T.Data() {
			z := r.Adapter.Seed<<48 | uint64(at[m.Name])<<32 | uint64(i)
			z += 0x9e3779b97f4a7c15
			z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
			z = (z ^ z>>27) * 0x94d049bb133111eb
			z ^= z >> 31
			m.T.Data()[i] = float32(float64(z>>40)/(1<<23)-1) * scale
		}
	}
	return a
}

func readJSON(t *testing.T, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func TestRecordedStepsSmolLM2(t *testing.T) {
	m := loadTestModel(t)
	dir := filepath.Join("testdata", "ref", "smollm2")
	var ref smolTrain
	var data smolData
	readJSON(t, filepath.Join(dir, "train.json"), &ref)
	readJSON(t, filepath.Join("..", "transformer", "testdata", "ref", "smollm2", "rows.json"), &data)
	o := train.Options{
		Loss: train.LossSFT, Beta: ref.Options.Beta, LR: ref.Options.LR, ClipNorm: ref.Options.ClipNorm, Beta1: ref.Options.Beta1,
		Beta2: ref.Options.Beta2, Eps: ref.Options.Eps, WeightDecay: ref.Options.WeightDecay,
	}
	t.Run("sft", func(t *testing.T) {
		a := ref.generated(m.Config)
		tr := newTrainer(t, m, nil, a, o)
		ref.SFT.follow(t, func(batch []int) (train.Metrics, error) {
			var rows []train.Row
			for _, i := range batch {
				rows = append(rows, train.Row{ID: "row", Example: data.example(data.SFT[i])})
			}
			return tr.StepSFT(rows)
		})
		ref.compareFinal(t, a, dir, "sft", ref.SFT)
	})
	t.Run("dpo", func(t *testing.T) {
		o.Loss, o.NLL = train.LossDPO, ref.Options.NLL
		a := ref.generated(m.Config)
		tr := newTrainer(t, m, nil, a, o)
		ref.DPO.follow(t, func(batch []int) (train.Metrics, error) {
			var pairs []train.Pair
			for _, i := range batch {
				c, r := data.Pairs[i][0], data.Pairs[i][1]
				pairs = append(pairs, train.Pair{
					ID: "pair", Chosen: data.example(c), Rejected: data.example(r), RefChosen: data.Sums[c], RefRejected: data.Sums[r],
				})
			}
			return tr.StepDPO(pairs)
		})
		ref.compareFinal(t, a, dir, "dpo", ref.DPO)
	})
}

// follow takes the recorded steps and compares loss and gradient norm.
func (r smolRun) follow(t *testing.T, step func(batch []int) (train.Metrics, error)) {
	t.Helper()
	for k, batch := range r.Batches {
		got, err := step(batch)
		if err != nil {
			t.Fatal(err)
		}
		want := r.Steps[k]
		closeTo(t, "loss", k, got.Loss, want.Loss, slack*r.Error.StepLoss)
		closeTo(t, "gradient norm", k, got.GradNorm, want.GradNorm, slack*r.Error.StepGradNorm*want.GradNorm)
	}
}

// compareFinal compares the norm and eight samples of every matrix after the last step.
func (r smolTrain) compareFinal(t *testing.T, a *transformer.Adapter, dir, kind string, run smolRun) {
	t.Helper()
	f, err := safetensors.Open(filepath.Join(dir, "final.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	norms, err := f.Floats(kind + ".final_norms")
	if err != nil {
		t.Fatal(err)
	}
	samples, err := f.Floats(kind + ".final_samples")
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]*tensor.Tensor{}
	for _, m := range a.Matrices() {
		byName[m.Name] = m.T
	}
	// Adam turns a gradient near zero into a step of either sign, so single samples may be
	// several learning rates apart: the root of the mean square is compared.
	squares := 0.0
	for k, name := range r.Adapter.Matrices {
		data := byName[name].Data()
		if norm := math.Sqrt(tensor.SumSquares(data)); math.Abs(norm/float64(norms[k])-1) > slack*run.Error.FinalNorms+1e-6 {
			t.Errorf("%s: norm %v, recorded %v", name, norm, norms[k])
		}
		for s := range 8 {
			d := float64(data[len(data)*(2*s+1)/16]) - float64(samples[8*k+s])
			squares += d * d
		}
	}
	if rms := math.Sqrt(squares / float64(len(samples))); !(rms <= slack*run.Error.FinalSamples) {
		t.Errorf("samples of the final matrices differ by %.3g, tolerance %.3g", rms, slack*run.Error.FinalSamples)
	} else {
		t.Logf("samples of the final matrices differ by %.3g, tolerance %.3g", rms, slack*run.Error.FinalSamples)
	}
}
