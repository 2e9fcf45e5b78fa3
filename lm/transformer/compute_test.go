package transformer_test

import (
	"encoding/json"
	"math"
	"path/filepath"
	"testing"

	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/tensor"
)

// Mode bf16 rounds the factors of products to 8 bits, which moves log-probs and
// gradients, but little: a factor by 2^-9 of it at most. Through n products in turn, with
// two rounded factors each, the error of a result is of order n * 2^-8 of its size;
// tiny models have some 15 products from the bottom to the top and as many back.
func TestBF16NearExact(t *testing.T) {
	for name, cfg := range tinyConfigs {
		t.Run(name, func(t *testing.T) {
			exact, rounded := newTiny(t, cfg), newTiny(t, cfg)
			rounded.SetCompute(tensor.BF16)
			if exact.Compute() != tensor.Exact || rounded.Compute() != tensor.BF16 {
				t.Fatal("SetCompute does not set the mode of its model alone")
			}
			if exact.Hash() != rounded.Hash() {
				t.Error("the mode changes the hash of the weights")
			}
			stack := []*transformer.Adapter{randomAdapter(cfg, 4, 4, 1), randomAdapter(cfg, 6, 6, 2)}
			rows := randomRows(cfg.Vocab, 8, 40, 17)
			a, b := logProbs(t, exact, stack, rows...), logProbs(t, rounded, stack, rows...)
			same := true
			for i := range a {
				same = same && a[i] == b[i]
				if d := math.Abs(float64(a[i] - b[i])); !(d < 15.0/256*(1+math.Abs(float64(a[i])))) {
					t.Errorf("log-prob %d is %v exactly and %v in bf16", i, a[i], b[i])
				}
			}
			if same {
				t.Error("mode bf16 changes nothing")
			}
			ws := transformer.NewWorkspace()
			ga, gb := gradients(t, exact, ws, stack, rows).Matrices(), gradients(t, rounded, ws, stack, rows).Matrices()
			for k := range ga {
				var diff, size float64
				for i, x := range ga[k].T.Data() {
					d := float64(x) - float64(gb[k].T.Data()[i])
					diff, size = diff+d*d, size+float64(x)*float64(x)
				}
				if !(diff <= size*math.Pow(30.0/256, 2)) {
					t.Errorf("%s: the bf16 gradient is off by %.3g of its size", ga[k].Name, math.Sqrt(diff/size))
				}
			}
		})
	}
}

// On the real model, mode bf16 moves log-probs about as much as rounding the weights did
// when the model was loaded: that is recorded (bf16_error), and now the other factor of
// each product is rounded by as much. Twice that in the root mean square leaves room for
// the adapter's factors, and five times as much for the worst of some 400 tokens; a
// mistake costs far more.
func TestBF16SmolLM2(t *testing.T) {
	dir := filepath.Join("testdata", "ref", "smollm2")
	exact, rounded := loadTestModel(t), loadTestModel(t)
	rounded.SetCompute(tensor.BF16)
	var rows smolRows
	if err := json.Unmarshal(readFile(t, dir, "rows.json"), &rows); err != nil {
		t.Fatal(err)
	}
	var recorded struct {
		Error struct {
			RMS float64 `json:"logprob_rms"`
		} `json:"bf16_error"`
	}
	if err := json.Unmarshal(readFile(t, dir, "rows.json"), &recorded); err != nil {
		t.Fatal(err)
	}
	stack := []*transformer.Adapter{generated(t, exact.Config, rows)}
	r := &recording{dir: dir, model: exact, both: stack, rows: rows.refRows}
	packed, positions := r.batch()
	for name, stack := range map[string][]*transformer.Adapter{"base": nil, "adapter": stack} {
		var lp [2][]float32
		for i, m := range []*transformer.Model{exact, rounded} {
			var err error
			if lp[i], err = m.LogProbs(transformer.NewWorkspace(), packed, positions, stack); err != nil {
				t.Fatal(err)
			}
		}
		var sum, mean, worst float64
		for i, x := range lp[0] {
			d := float64(lp[1][i]) - float64(x)
			sum, mean, worst = sum+d*d, mean+d, max(worst, math.Abs(d))
		}
		n := float64(len(lp[0]))
		rms := math.Sqrt(sum / n)
		t.Logf("%s: %d log-probs off by %.4f in the root mean square, %+.4f in the mean, %.3f at most", name, len(lp[0]), rms, mean/n, worst)
		if !(rms <= 2*recorded.Error.RMS) || !(worst <= 5*2*recorded.Error.RMS) || rms == 0 {
			t.Errorf("%s: the recorded root mean square for rounded weights is %.4f", name, recorded.Error.RMS)
		}
	}
}
