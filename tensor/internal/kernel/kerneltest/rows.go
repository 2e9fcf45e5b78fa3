package kerneltest

import (
	"fmt"
	"math"
	"testing"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

var lengths = []int{0, 1, 5, 31, 32, 33, 64, 100, 576, 1000}

func elementwise(t *testing.T, k kernel.Kernels) {
	rng := newRand(4)
	for _, n := range append(lengths, 40000) {
		a, b := random(rng, 1, n), random(rng, 1, n)
		sum, scaled := clone(a), clone(a)
		k.Add(sum.Data, b.Data)
		k.Scale(scaled.Data, 1.7)
		for i := range a.Data {
			if sum.Data[i] != a.Data[i]+b.Data[i] || scaled.Data[i] != a.Data[i]*1.7 {
				t.Fatalf("element %d of %d: Add %v Scale %v", i, n, sum.Data[i], scaled.Data[i])
			}
		}
	}
}

func swiglu(t *testing.T, k kernel.Kernels) {
	rng := newRand(5)
	for _, n := range lengths {
		gate, up, dy := random(rng, 1, n), random(rng, 1, n), random(rng, 1, n)
		for i := range gate.Data {
			gate.Data[i] *= 6
		}
		if n > 40 {
			copy(gate.Data[33:], []float32{0, 200, -200, 88, -88, 1e-30})
		}
		dst, dg, du := zeros(1, n), zeros(1, n), zeros(1, n)
		k.SwiGLU(dst.Data, gate.Data, up.Data)
		k.SwiGLUBackward(dg.Data, du.Data, dy.Data, gate.Data, up.Data)
		for i := range dst.Data {
			g, v, d := float64(gate.Data[i]), float64(up.Data[i]), float64(dy.Data[i])
			s := 1 / (1 + math.Exp(-g))
			// 1+e, the division and two products: each one rounding, plus the
			// exponential. Beyond 88 the exponential saturates, where silu is
			// below 1e-36.
			rel := expError + math.Abs(g)*u + 6*u
			near(t, "SwiGLU", i, dst.Data[i], g*s*v, math.Abs(g*s*v)*rel+1e-35)
			near(t, "SwiGLU dup", i, du.Data[i], d*g*s, math.Abs(d*g*s)*rel+1e-35)
			size := s + math.Abs(g)*s*(1-s)
			near(t, "SwiGLU dgate", i, dg.Data[i], d*v*(s+g*s*(1-s)), math.Abs(d*v)*(size*(rel+6*u)+math.Abs(g)*s*3*u)+1e-35)
			// The formula itself, against a finite difference.
			const h = 1e-6
			f := func(g float64) float64 { return d * v * g / (1 + math.Exp(-g)) }
			near(t, "SwiGLU difference", i, dg.Data[i], (f(g+h)-f(g-h))/(2*h), 1e-5*(1+math.Abs(d*v)))
		}
		alone := zeros(1, n)
		for i := range alone.Data {
			k.SwiGLU(alone.Data[i:i+1], gate.Data[i:i+1], up.Data[i:i+1])
		}
		equal(t, "SwiGLU one by one", alone.Data, dst.Data)
	}
}

func rmsNorm(t *testing.T, k kernel.Kernels) {
	const eps = 1e-5
	rng := newRand(6)
	for _, n := range lengths[1:] {
		x, dy, w, inv := random(rng, 7, n), random(rng, 7, n), random(rng, 1, n).Data, make([]float32, 7)
		y, dx := zeros(7, n), random(rng, 7, n)
		base := clone(dx)
		k.RMSNorm(y, x, w, eps, inv)
		over := zeros(7, n)
		k.RMSNormBackward(over, dy, x, w, inv, false)
		k.RMSNormBackward(dx, dy, x, w, inv, true)
		for i := range 7 {
			var sq, dot, size float64
			for j := range n {
				xv, g := float64(x.Row(i)[j]), float64(dy.Row(i)[j])*float64(w[j])
				sq += xv * xv
				dot += g * xv
				size += math.Abs(g * xv)
			}
			s := 1 / math.Sqrt(sq/float64(n)+eps)
			// The lanes' sums hold n/32 terms and are folded in five steps.
			lane := gamma(n/kernel.Lanes + 8)
			near(t, "RMSNorm inv", i, inv[i], s, s*(lane+2*u))
			for j := range n {
				xv, wv, g := float64(x.Row(i)[j]), float64(w[j]), float64(dy.Row(i)[j])
				near(t, fmt.Sprint("RMSNorm n=", n), j, y.Row(i)[j], xv*s*wv, math.Abs(xv*s*wv)*(lane+5*u))
				a, b := g*wv*s, -xv*s*s*s/float64(n)*dot
				bound := math.Abs(a)*(lane+6*u) + math.Abs(xv)*s*s*s/float64(n)*size*(4*lane+8*u)
				near(t, "RMSNormBackward", j, over.Row(i)[j], a+b, bound)
				o := float64(base.Row(i)[j])
				near(t, "RMSNormBackward accumulate", j, dx.Row(i)[j], o+a+b, bound+4*u*(math.Abs(o)+math.Abs(a)+math.Abs(b)))
			}
			one, oneInv := zeros(1, n), make([]float32, 1)
			k.RMSNorm(one, view(x, i, i+1), w, eps, oneInv)
			equal(t, "RMSNorm row alone", one.Data, y.Row(i))
			k.RMSNormBackward(one, view(dy, i, i+1), view(x, i, i+1), w, oneInv, false)
			equal(t, "RMSNormBackward row alone", one.Data, over.Row(i))
		}
	}
	// The formula against finite differences of sum(dy * y) in float64.
	const n, h = 9, 1e-6
	x, dy, w := random(rng, 1, n), random(rng, 1, n), random(rng, 1, n).Data
	loss := func(x []float64) (l float64) {
		var sq float64
		for _, v := range x {
			sq += v * v
		}
		for j, v := range x {
			l += float64(dy.Data[j]) * v * float64(w[j]) / math.Sqrt(sq/n+eps)
		}
		return l
	}
	inv, dx, y := make([]float32, 1), zeros(1, n), zeros(1, n)
	k.RMSNorm(y, x, w, eps, inv)
	k.RMSNormBackward(dx, dy, x, w, inv, false)
	for j := range n {
		near(t, "RMSNorm difference", j, dx.Data[j], difference(x.Data, j, h, loss), 1e-5)
	}
}

// difference is the central difference of f for element j of x, in float64.
func difference(x []float32, j int, h float64, f func([]float64) float64) float64 {
	at := make([]float64, len(x))
	for i, v := range x {
		at[i] = float64(v)
	}
	at[j] += h
	up := f(at)
	at[j] -= 2 * h
	return (up - f(at)) / (2 * h)
}

func rotate(t *testing.T, k kernel.Kernels) {
	rng := newRand(7)
	for _, half := range []int{1, 8, 31, 32, 40, 64} {
		const heads, rows = 3, 5
		x, angle := random(rng, rows, 2*half*heads), random(rng, 4, half)
		cos, sin := make([]float32, len(angle.Data)), make([]float32, len(angle.Data))
		for i, v := range angle.Data {
			s, c := math.Sincos(float64(v))
			cos[i], sin[i] = float32(c), float32(s)
		}
		pos := []int32{3, 0, 1, 2, 2}
		y := clone(x)
		k.Rotate(y, heads, pos, cos, sin, false)
		for i := range rows {
			for c := range x.Cols {
				h, j := c/(2*half), c%half
				a, b := float64(x.Row(i)[2*h*half+j]), float64(x.Row(i)[(2*h+1)*half+j])
				cs, sn := float64(cos[int(pos[i])*half+j]), float64(sin[int(pos[i])*half+j])
				want := a*cs - b*sn
				if c%(2*half) >= half {
					want = b*cs + a*sn
				}
				near(t, "Rotate", c, y.Row(i)[c], want, 3*u*(math.Abs(a)+math.Abs(b)))
			}
		}
		k.Rotate(y, heads, pos, cos, sin, true)
		for i := range x.Data {
			near(t, "Rotate there and back", i, y.Data[i], float64(x.Data[i]), 1e-5)
		}
	}
}

func adamw(t *testing.T, k kernel.Kernels) {
	rng := newRand(8)
	for _, n := range append(lengths, 20000) {
		o := kernel.AdamW{LR: 0.01, Beta1: 0.9, Beta2: 0.98, Eps: 1e-8, WeightDecay: 0.1}
		p, m, v := random(rng, 1, n), zeros(1, n), zeros(1, n)
		pw, mw, vw := make([]float64, n), make([]float64, n), make([]float64, n)
		for i, x := range p.Data {
			pw[i] = float64(x)
		}
		for o.Step = 1; o.Step <= 4; o.Step++ {
			g := random(rng, 1, n)
			k.AdamW(o, p.Data, g.Data, m.Data, v.Data)
			b1, b2, lr := float64(o.Beta1), float64(o.Beta2), float64(o.LR)
			for i, x := range g.Data {
				gf := float64(x)
				pw[i] *= 1 - lr*float64(o.WeightDecay)
				mw[i] = b1*mw[i] + (1-b1)*gf
				vw[i] = b2*vw[i] + (1-b2)*gf*gf
				pw[i] -= lr / (1 - math.Pow(b1, float64(o.Step))) * mw[i] /
					(math.Sqrt(vw[i])/math.Sqrt(1-math.Pow(b2, float64(o.Step))) + float64(o.Eps))
				// A step moves a parameter by about lr; a moment that cancels
				// keeps the absolute error of its largest term.
				near(t, "AdamW", i, p.Data[i], pw[i], 4*u*float64(o.Step)*(math.Abs(pw[i])+1))
				near(t, "AdamW m", i, m.Data[i], mw[i], 16*u)
				near(t, "AdamW v", i, v.Data[i], vw[i], 8*u*vw[i])
			}
		}
	}
}

func sumSquares(t *testing.T, k kernel.Kernels) {
	rng := newRand(9)
	for _, n := range append(lengths, 70001) {
		x := random(rng, 1, n)
		var want float64
		for _, v := range x.Data {
			want += float64(v) * float64(v)
		}
		if got := k.SumSquares(x.Data); math.Abs(got-want) > 1e-12*want {
			t.Fatalf("SumSquares of %d = %v, want %v", n, got, want)
		}
		if n > 0 && k.SumSquares(x.Data) != k.SumSquares(clone(x).Data) {
			t.Fatal("SumSquares is not repeatable")
		}
	}
}
