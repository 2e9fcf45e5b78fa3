package tensor

import (
	"fmt"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

// AdamW is one step of Adam with decoupled weight decay, as torch.optim.AdamW:
//
//	param -= LR*WeightDecay*param
//	m = Beta1 m + (1-Beta1) grad      v = Beta2 v + (1-Beta2) grad^2
//	param -= LR/(1-Beta1^Step) * m / (sqrt(v)/sqrt(1-Beta2^Step) + Eps)
//
// Step counts from 1.
type AdamW struct {
	LR, Beta1, Beta2, Eps, WeightDecay float32
	Step                               int
}

// Apply updates param and the moments m and v in place.
func (o AdamW) Apply(param, grad, m, v []float32) {
	n := len(param)
	if len(grad) != n || len(m) != n || len(v) != n || o.Step < 1 {
		panic(fmt.Sprintf("tensor.AdamW: %d params, %d grads, %d and %d moments, step %d", n, len(grad), len(m), len(v), o.Step))
	}
	device.AdamW(kernel.AdamW(o), param, grad, m, v)
}

// SumSquares returns the sum of x_i^2, added in float64 in a fixed order that
// depends on len(x) alone.
func SumSquares(x []float32) float64 { return device.SumSquares(x) }
