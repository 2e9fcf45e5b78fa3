package transformer_test

import (
	"math"
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
