package transformer_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/opencharacter/opencharacter/lm/transformer"
)

// Every gradient matrix agrees with finite differences of the loss along a random
// direction. The loss is a weighted sum of log-probs. A fourth-order difference with
// step h = 2^-5 has a truncation error of order h^4 and a rounding error of
// about (n terms) * 2^-24 * |logprob| / h, some 1e-4 here; 2 % of the norm product
// leaves room for both and is far below what a wrong term would cause.
func TestGradientFiniteDifferences(t *testing.T) {
	eachExact(t, func(t *testing.T, m *transformer.Model) {
		stack := []*transformer.Adapter{randomAdapter(m.Config, 3, 6, 1), randomAdapter(m.Config, 5, 10, 2)}
		rows, positions, _ := pack(randomRows(m.Vocab, 5, 7, 12, 3)...)
		r := rand.New(rand.NewPCG(1, 2))
		weights := make([]float32, len(positions))
		for i := range weights {
			weights[i] = float32(r.NormFloat64())
		}
		ws := transformer.NewWorkspace()
		grads := transformer.NewGradients(stack[1])
		if err := m.Grad(ws, rows, positions, stack, grads, func([]float32) []float32 { return weights }); err != nil {
			t.Fatal(err)
		}
		loss := func() (sum float64) {
			lp, err := m.LogProbs(ws, rows, positions, stack)
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range lp {
				sum += float64(weights[i]) * float64(v)
			}
			return sum
		}
		analytic := grads.Matrices()
		for k, p := range stack[1].Matrices() {
			data, g := p.T.Data(), analytic[k].T.Data()
			saved := append([]float32(nil), data...)
			dir, dot, gg := make([]float64, len(data)), 0.0, 0.0
			norm := 0.0
			for i := range dir {
				dir[i] = r.NormFloat64()
				norm += dir[i] * dir[i]
			}
			for i := range dir {
				dir[i] /= math.Sqrt(norm)
				dot += dir[i] * float64(g[i])
				gg += float64(g[i]) * float64(g[i])
			}
			at := func(h float64) float64 {
				for i := range data {
					data[i] = float32(float64(saved[i]) + h*dir[i])
				}
				return loss()
			}
			const h = 1.0 / 32
			numeric := (8*(at(h)-at(-h)) - (at(2*h) - at(-2*h))) / (12 * h)
			copy(data, saved)
			if gg == 0 {
				t.Errorf("%s: gradient is zero", p.Name)
			}
			// the direction is a unit vector, so the derivative is about |g|/sqrt(n)
			if tol := 2e-3 + 0.02*math.Sqrt(gg/float64(len(data))); math.Abs(numeric-dot) > tol {
				t.Errorf("%s: analytic derivative %.6f, numeric %.6f, tolerance %.6f", p.Name, dot, numeric, tol)
			}
		}
	})
}

// A nil derivative stops before the backward pass.
func TestGradStopsOnNil(t *testing.T) {
	m := newTiny(t, tinyConfigs["llama"])
	a := randomAdapter(m.Config, 2, 2, 1)
	rows, positions, _ := pack(randomRows(m.Vocab, 5, 7)...)
	g := transformer.NewGradients(a)
	if err := m.Grad(transformer.NewWorkspace(), rows, positions, []*transformer.Adapter{a}, g, func([]float32) []float32 { return nil }); err != nil {
		t.Fatal(err)
	}
	for _, x := range g.Matrices() {
		for _, v := range x.T.Data() {
			if v != 0 {
				t.Fatalf("%s has a gradient without a backward pass", x.Name)
			}
		}
	}
}
