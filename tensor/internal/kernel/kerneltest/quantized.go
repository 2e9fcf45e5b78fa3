package kerneltest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

// float16 is the value of a float16 by its definition.
func float16(h uint16) float64 {
	sign, e, f := 1-2*float64(h>>15), int(h>>10&31), float64(h&0x3ff)
	if e == 0 {
		return sign * math.Ldexp(f, -24)
	}
	return sign * math.Ldexp(1024+f, e-25)
}

// quantized is a random weight of blocks, with its values worked out here: exactly, then
// rounded once. Scales and minimums are of all sizes from subnormal to 4, and of both signs.
func quantized(rng *rand.Rand, k kernel.Kernels, f kernel.Format, out, in int) (kernel.Weight, kernel.Matrix) {
	w, values := k.NewQuantized(out, in, f), zeros(out, in)
	q, scale, minimum := make([]byte, in), make([]uint16, in/kernel.Block), make([]uint16, in/kernel.Block)
	for i := range out {
		for b := range scale {
			scale[b] = uint16(rng.IntN(0x4400)) | uint16(rng.IntN(2))<<15
			minimum[b] = uint16(rng.IntN(0x4400)) | uint16(rng.IntN(2))<<15
		}
		for j := range q {
			d, m := float16(scale[j/kernel.Block]), float16(minimum[j/kernel.Block])
			if f == kernel.Q4 {
				q[j] = byte(rng.IntN(16))
				values.Row(i)[j] = float32(d*float64(q[j]) + m) // fits a float64
			} else {
				q[j] = byte(rng.IntN(256))
				values.Row(i)[j] = float32(d * float64(int8(q[j])))
			}
		}
		w.SetBlocks(i, q, scale, minimum)
	}
	return w, values
}

// quantizedWeights: products with weights of blocks are, bit for bit, those with the
// float32 matrix of their values, for any cut of rows, and near the truth.
func quantizedWeights(t *testing.T, k kernel.Kernels) {
	if k.Compute() != kernel.Exact {
		return // refused by package tensor
	}
	rng := newRand(30)
	type shape struct{ m, n, k int }
	shapes := []shape{{0, 5, 32}, {1, 1, 32}, {1, 33, 64}, {1, 300, 800}, {29, 100, 96}, {40, 33, 416}, {3, 257, 416}, {25, 40, 800}, {160, 300, 64}}
	for m := 1; m <= 24; m++ {
		shapes = append(shapes, shape{m, 160 + m, 32 * (1 + m%3)})
	}
	for _, f := range []kernel.Format{kernel.Q4, kernel.Q8} {
		for _, s := range shapes {
			w, values := quantized(rng, k, f, s.n, s.k)
			name := fmt.Sprintf("format %d %dx%dx%d", f, s.m, s.n, s.k)
			if w.Format() != f || w.Bytes() < int64(s.n*s.k/2) || w.Bytes() > int64((s.n+31)/32*s.k*36) {
				t.Fatalf("%s: format %d, %d bytes", name, w.Format(), w.Bytes())
			}
			row := make([]float32, s.k)
			for i := range s.n {
				w.Row(i, row)
				for j, v := range values.Row(i) {
					if row[j] != v {
						t.Fatalf("%s: value %d,%d is %v, want %v", name, i, j, row[j], v)
					}
				}
			}
			x := random(rng, s.m, s.k)
			for _, acc := range []bool{false, true} {
				start := random(rng, s.m, s.n)
				got, want := clone(start), clone(start)
				k.Linear(got, x, w, acc)
				k.MatMulNT(want, x, values, acc)
				equal(t, name, got.Data, want.Data)
				for i := range got.Data {
					var truth, size float64
					if acc {
						truth = float64(start.Data[i])
						size = math.Abs(truth)
					}
					for c, v := range values.Row(i % s.n) {
						p := float64(x.Row(i / s.n)[c]) * float64(v)
						truth += p
						size += math.Abs(p)
					}
					near(t, name, i, got.Data[i], truth, gamma(s.k+2)*size)
				}
				if acc {
					m := kernel.Term{A: random(rng, s.m, 6), B: random(rng, s.n, 6)}
					k.MatMulNT(got, m.A, m.B, true)
					both := clone(start)
					k.Linear(both, x, w, true, m)
					equal(t, name+" with a term", both.Data, got.Data)
					continue
				}
				for _, step := range []int{1, 2, 3, 5, 7, 13} {
					parts := zeros(s.m, s.n)
					for r := 0; r < s.m; r += step {
						e := min(r+step, s.m)
						k.Linear(view(parts, r, e), view(x, r, e), w, false)
					}
					equal(t, fmt.Sprint(name, " rows by ", step), parts.Data, got.Data)
				}
			}
		}
		quantizedHead(t, k, rng, f)
	}
}

// quantizedHead: HeadLogProb takes the logits of Linear.
func quantizedHead(t *testing.T, k kernel.Kernels, rng *rand.Rand, f kernel.Format) {
	const rows, vocab, in = 21, 1100, 96
	w, _ := quantized(rng, k, f, vocab, in)
	x, logits := random(rng, rows, in), zeros(rows, vocab)
	for i := range x.Data {
		x.Data[i] *= 0.1
	}
	k.Linear(logits, x, w, false)
	targets, want, wantLSE := make([]int32, rows), make([]float32, rows), make([]float32, rows)
	for i := range targets {
		targets[i] = int32(rng.IntN(vocab))
		wantLSE[i] = k.LogSumExp(logits.Row(i))
		want[i] = logits.Row(i)[targets[i]] - wantLSE[i]
	}
	got, lse := make([]float32, rows), make([]float32, rows)
	k.HeadLogProb(got, lse, x, w, targets)
	equal(t, "head lse", lse, wantLSE)
	equal(t, "head", got, want)
}
