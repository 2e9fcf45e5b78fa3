package train

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/opencharacter/opencharacter/lm/transformer"
)

// TestLongPair: the gradient of a pair whose answers pass one after the other, the first with a factor that is found
// later, is that of the pair passed back whole. Both are sums of some 500 float32 terms in other orders: each is within
// 500 * 2^-24 of the sum of the terms' sizes, so the difference of two gradients is within 1e-4 of their norm.
func TestLongPair(t *testing.T) {
	cfg := transformer.Config{Architecture: "llama", Layers: 2, Width: 24, Heads: 6, KVHeads: 2, HeadDim: 4, FFN: 37, Vocab: 67,
		Context: 400, RopeBase: 10000, NormEps: 1e-5, Tied: true}
	m, err := transformer.NewRandom(cfg, 1)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(7, 7))
	answer := func(n int) Example {
		e := Example{Mask: make([]bool, 20+n)}
		for i := range e.Mask {
			e.Tokens, e.Mask[i] = append(e.Tokens, int32(r.IntN(cfg.Vocab))), i >= 20
		}
		return e
	}
	p := Pair{ID: "long", Chosen: answer(290), Rejected: answer(230), RefChosen: -1210, RefRejected: -970}
	ex := []Example{p.Chosen, p.Rejected}
	a := transformer.NewAdapter(cfg, 4, 8, 9)
	for _, x := range a.Matrices() { // B begins at zero
		for i, d := 0, x.T.Data(); i < len(d); i++ {
			d[i] += float32(r.NormFloat64()) / 20
		}
	}
	tr, err := New(m, nil, a, Options{Loss: LossDPO, LR: 1e-3, Beta: .1, NLL: .2})
	if err != nil {
		t.Fatal(err)
	}
	grads := func(add func(d *dpo) error) (out []float64, d *dpo) {
		tr.grads.Zero()
		d = &dpo{beta: tr.o.Beta, nll: tr.o.NLL, pairs: 2}
		if err := add(d); err != nil {
			t.Fatal(err)
		}
		for _, g := range tr.grads.Matrices() {
			for _, v := range g.T.Data() {
				out = append(out, float64(v))
			}
		}
		return out, d
	}
	want, whole := grads(func(d *dpo) error { return tr.grad(ex, never, tr.derivatives(d, []Pair{p})) })
	for range 2 { // the second time with what the first has left in memory
		got, long := grads(func(d *dpo) error { return tr.dpoSpan(d, []Pair{p}, ex) })
		if *long != *whole {
			t.Errorf("the loss is %+v, want %+v", *long, *whole)
		}
		norm, diff := 0.0, 0.0
		for i := range want {
			norm, diff = norm+want[i]*want[i], diff+(got[i]-want[i])*(got[i]-want[i])
		}
		if norm == 0 || diff == 0 || math.Sqrt(diff) > 1e-4*math.Sqrt(norm) {
			t.Errorf("the gradients are %g apart, their norm is %g (and 0 would mean that both go the same way)", math.Sqrt(diff), math.Sqrt(norm))
		}
	}
}
