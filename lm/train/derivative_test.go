package train

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestPairDerivatives: the derivative of the loss for every token's log-prob agrees with central differences, with and
// without the NLL and the divergence term. At h = 1e-3 the formula's own error is of the order of h^2.
func TestPairDerivatives(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	draw := func(n int) []float32 {
		out := make([]float32, n)
		for i := range out {
			out[i] = -float32(r.Float64())
		}
		return out
	}
	const h, n = 1e-3, 4 // n pairs a step: the other three add nothing to these derivatives
	for _, w := range [][2]float64{{0, 0}, {.2, 0}, {0, .5}, {.1, 2}} {
		tokens, ref := draw(8), draw(8)
		p := Pair{RefTokens: [2][]float32{ref[:5], ref[5:]}, RefChosen: Total(ref[:5]), RefRejected: Total(ref[5:])}
		loss := func() (float64, []float32) {
			d := &dpo{beta: .3, nll: w[0], kl: w[1], pairs: n}
			g := d.pair(nil, p, tokens[:5], tokens[5:])
			return d.loss.value / n, g
		}
		_, got := loss()
		if len(got) != len(tokens) {
			t.Fatalf("%d derivatives for %d tokens", len(got), len(tokens))
		}
		for i, was := range tokens {
			tokens[i] = was + h
			up := float64(tokens[i])
			above, _ := loss()
			tokens[i] = was - h
			down := float64(tokens[i])
			below, _ := loss()
			tokens[i] = was
			want := (above - below) / (up - down)
			if math.Abs(float64(got[i])-want) > 1e-6+1e-5*math.Abs(want) {
				t.Errorf("nll %v, kl %v, token %d: derivative %v, differences give %v", w[0], w[1], i, got[i], want)
			}
		}
	}
}
