package kerneltest

import (
	"fmt"
	"math"
	"testing"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

func lse64(x []float32) float64 {
	top, sum := math.Inf(-1), 0.0
	for _, v := range x {
		top = max(top, float64(v))
	}
	for _, v := range x {
		sum += math.Exp(float64(v) - top)
	}
	return top + math.Log(sum)
}

func logSumExp(t *testing.T, k kernel.Kernels) {
	rng := newRand(10)
	for _, n := range []int{1, 5, 31, 32, 511, 512, 513, 1030, 5000} {
		x := random(rng, 1, n).Data
		for i := range x {
			x[i] *= 8
		}
		if n > 100 {
			x[77] = float32(math.Inf(-1))
		}
		// A relative error e of the sum is an absolute error e of its log; the
		// arguments x-max are rounded once: |x-max| u each, weighted by p.
		want := lse64(x)
		bound := expError + gamma(32) + u*math.Abs(want) + 40*u
		near(t, "LogSumExp", n, k.LogSumExp(x), want, bound)
	}
	if got := k.LogSumExp([]float32{1, float32(math.NaN()), 2}); got == got {
		t.Fatalf("LogSumExp passed over a NaN: %v", got)
	}
	if got := k.LogSumExp([]float32{1e30, -1e30}); got != 1e30 {
		t.Fatalf("LogSumExp(1e30, -1e30) = %v", got)
	}
}

func softmax(t *testing.T, k kernel.Kernels) {
	rng := newRand(11)
	for _, n := range lengths[1:] {
		x, y := random(rng, 1, n).Data, make([]float32, n)
		for _, inv := range []float32{1, 0.25, 1.5} {
			k.Softmax(y, x, inv)
			scaled := make([]float32, n)
			for i := range x {
				scaled[i] = x[i] * inv
			}
			l := lse64(scaled)
			for i := range y {
				p := math.Exp(float64(x[i])*float64(inv) - l)
				near(t, "Softmax", i, y[i], p, p*(2*expError+gamma(n/kernel.Lanes+8)+40*u))
			}
		}
		k.Softmax(x, x, 1.5)
		equal(t, "Softmax in place", x, y)
	}
}

type headCase struct {
	m, vocab, in int
	targets      []int32
	x, w         kernel.Matrix
}

func headCases(seed uint64) (cases []headCase) {
	rng := newRand(seed)
	for _, s := range []struct{ m, vocab, in int }{{0, 10, 8}, {1, 1, 3}, {1, 600, 33}, {5, 512, 64}, {26, 1100, 48}} {
		c := headCase{m: s.m, vocab: s.vocab, in: s.in, x: random(rng, s.m, s.in), w: random(rng, s.vocab, s.in)}
		for range s.m {
			c.targets = append(c.targets, int32(rng.IntN(s.vocab)))
		}
		if s.m > 2 {
			c.targets[0], c.targets[1] = 0, int32(s.vocab-1)
		}
		cases = append(cases, c)
	}
	return cases
}

// head: HeadLogProb has the bits of LogSumExp over Linear, and of itself on
// any part of the rows.
func head(t *testing.T, k kernel.Kernels) {
	for _, c := range headCases(12) {
		w, kept := newWeight(k, c.w)
		logits, lp, lse := zeros(c.m, c.vocab), make([]float32, c.m), make([]float32, c.m)
		k.Linear(logits, c.x, w, false)
		k.HeadLogProb(lp, lse, c.x, w, c.targets)
		used := factors(k, c.x)
		for i := range c.m {
			row := logits.Row(i)
			l := k.LogSumExp(row)
			equal(t, fmt.Sprint("lse of row ", i), lse[i:i+1], []float32{l})
			equal(t, fmt.Sprint("logprob of row ", i), lp[i:i+1], []float32{row[c.targets[i]] - l})
			exact := make([]float32, c.vocab)
			var size float64
			for v := range exact {
				var s, a float64
				for d, y := range kept.Row(v) {
					p := float64(used.Row(i)[d]) * float64(y)
					s, a = s+p, a+math.Abs(p)
				}
				exact[v], size = float32(s), max(size, a)
			}
			want := float64(exact[c.targets[i]]) - lse64(exact)
			near(t, "logprob", i, lp[i], want, 2*gamma(c.in+2)*size+expError+100*u*(1+math.Abs(want)))
			a, b := make([]float32, 1), make([]float32, 1)
			k.HeadLogProb(a, b, view(c.x, i, i+1), w, c.targets[i:i+1])
			equal(t, "row alone", []float32{a[0], b[0]}, []float32{lp[i], lse[i]})
		}
	}
}

func headGradient(t *testing.T, k kernel.Kernels) {
	for _, c := range headCases(13) {
		w, kept := newWeight(k, c.w)
		for i := range c.x.Data {
			c.x.Data[i] *= 0.3
		}
		lp, lse, same, dx := make([]float32, c.m), make([]float32, c.m), make([]float32, c.m), random(newRand(15), c.m, c.in)
		k.HeadLogProb(lp, lse, c.x, w, c.targets)
		k.HeadLogProbGrad(same, dx, c.x, w, c.targets)
		equal(t, "logprob beside its gradient", same, lp)
		used := factors(k, c.x)
		for i := range c.m {
			logp := func(x []float64) float64 {
				z, top, sum := make([]float64, c.vocab), math.Inf(-1), 0.0
				for v := range z {
					for d, y := range kept.Row(v) {
						z[v] += x[d] * float64(y)
					}
					top = max(top, z[v])
				}
				for _, v := range z {
					sum += math.Exp(v - top)
				}
				return z[c.targets[i]] - top - math.Log(sum)
			}
			for d := 0; d < c.in; d += 1 + c.in/5 {
				want := difference(used.Row(i), d, 1e-5, logp)
				bound := 1e-4 * (1 + math.Abs(want))
				if k.Compute() == kernel.BF16 {
					// Each exponential is rounded, by 2^-9 at most; the p_v sum to 1.
					var size float64
					for v := range c.vocab {
						size = max(size, math.Abs(float64(kept.Row(v)[d])))
					}
					bound += size / 512
				}
				near(t, "HeadLogProbGrad", d, dx.Row(i)[d], want, bound)
			}
			one := zeros(1, c.in)
			k.HeadLogProbGrad(same[:1], one, view(c.x, i, i+1), w, c.targets[i:i+1])
			equal(t, "gradient of a row alone", one.Data, dx.Row(i))
		}
	}
}
