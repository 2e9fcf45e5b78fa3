// Package kerneltest checks an implementation of kernel.Kernels: every
// operation against float64 arithmetic with a derived error bound, every
// gradient against finite differences, and the row law bit by bit.
//
// It knows nothing of how an implementation works. Start at Run.
//
// # Bounds
//
// With u = 2^-24 the unit roundoff, a chain of n fused multiply-adds computes
// sum x_i y_i with error at most g(n) sum |x_i y_i|, g(n) = n u / (1 - n u)
// (Higham, Accuracy and Stability, section 3.1). A chain that rounds products
// too has g(n+1). Starting from dst adds |dst| to the sum of magnitudes. The
// tests allow g(n+2) and so cover both. An exponential costs at most expError
// relative error, on top of |argument| u for the rounding of its argument.
package kerneltest

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

const (
	u        = 1.0 / (1 << 24)
	expError = 4 * u
)

// gamma is Higham's g(n).
func gamma(n int) float64 { return float64(n) * u / (1 - float64(n)*u) }

// Run tests every operation of k. threads sets the number of threads.
func Run(t *testing.T, k kernel.Kernels, threads func(n int)) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, k kernel.Kernels)
	}{
		{"Products", products},
		{"ProductRowLaw", productRowLaw},
		{"ProductTerms", productTerms},
		{"CacheShared", cacheShared},
		{"Weight", weights},
		{"Quantized", quantizedWeights},
		{"Elementwise", elementwise},
		{"SwiGLU", swiglu},
		{"GeGLU", geglu},
		{"RMSNorm", rmsNorm},
		{"Rotate", rotate},
		{"Attention", attention},
		{"AttentionGradient", attentionGradient},
		{"AttentionRowLaw", attentionRowLaw},
		{"Cache", cache},
		{"LogSumExp", logSumExp},
		{"Softmax", softmax},
		{"Head", head},
		{"HeadGradient", headGradient},
		{"AdamW", adamw},
		{"SumSquares", sumSquares},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer threads(0)
			for _, n := range []int{1, 3} {
				threads(n)
				c.test(t, k)
			}
		})
	}
}

// random returns a matrix of normal values.
func random(rng *rand.Rand, rows, cols int) kernel.Matrix {
	m := zeros(rows, cols)
	for i := range m.Data {
		m.Data[i] = float32(rng.NormFloat64())
	}
	return m
}

func zeros(rows, cols int) kernel.Matrix {
	return kernel.Matrix{Rows: rows, Cols: cols, Data: make([]float32, rows*cols)}
}

func clone(m kernel.Matrix) kernel.Matrix {
	m.Data = append([]float32(nil), m.Data...)
	return m
}

func view(m kernel.Matrix, r0, r1 int) kernel.Matrix {
	return kernel.Matrix{Rows: r1 - r0, Cols: m.Cols, Data: m.Data[r0*m.Cols : r1*m.Cols]}
}

func transpose(m kernel.Matrix) kernel.Matrix {
	t := zeros(m.Cols, m.Rows)
	for i := range m.Rows {
		for j := range m.Cols {
			t.Data[j*m.Rows+i] = m.Data[i*m.Cols+j]
		}
	}
	return t
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

// near fails unless got is within bound of want.
func near(t *testing.T, what string, i int, got float32, want, bound float64) {
	t.Helper()
	if !(math.Abs(float64(got)-want) <= bound) {
		t.Fatalf("%s[%d] = %v, want %v within %.3g (off by %.3g)", what, i, got, want, bound, math.Abs(float64(got)-want))
	}
}

// equal fails unless a and b have the same bits.
func equal(t *testing.T, what string, a, b []float32) {
	t.Helper()
	if len(a) != len(b) {
		t.Fatalf("%s: %d and %d values", what, len(a), len(b))
	}
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			t.Fatalf("%s[%d]: %v (%08x) and %v (%08x) differ", what, i, a[i], math.Float32bits(a[i]), b[i], math.Float32bits(b[i]))
		}
	}
}
