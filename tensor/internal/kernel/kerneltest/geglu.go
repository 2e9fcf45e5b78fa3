package kerneltest

import (
	"math"
	"testing"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

// gelu64 is gelu's tanh form, as it is usually written.
func gelu64(z float64) float64 {
	return z / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(z+0.044715*z*z*z)))
}

func geglu(t *testing.T, k kernel.Kernels) {
	rng := newRand(26)
	for _, n := range append(lengths, 40000) {
		gate, up, dy := random(rng, 1, n), random(rng, 1, n), random(rng, 1, n)
		for i := range gate.Data {
			gate.Data[i] *= 3
		}
		if n > 50 {
			copy(gate.Data[33:], []float32{0, 200, -200, 10, -10, 5.3, -5.3, 1e-30, -1e-30, -0.7517, 1, -1})
		}
		dst, dg, du := zeros(1, n), zeros(1, n), zeros(1, n)
		k.GeGLU(dst.Data, gate.Data, up.Data)
		k.GeGLUBackward(dg.Data, du.Data, dy.Data, gate.Data, up.Data)
		for i := range dst.Data {
			z, v, d := float64(gate.Data[i]), float64(up.Data[i]), float64(dy.Data[i])
			one := 2 * math.Sqrt(2/math.Pi)
			w, slope := one*(z+0.044715*z*z*z), one*(1+3*0.044715*z*z)
			s := 1 / (1 + math.Exp(-w))
			// The argument: two constants and four operations on terms of one
			// sign, each one rounding, so at most 6u of itself, and as an
			// exponent that times |w|. Then the exponential, 1+e, the division
			// and two products.
			rel := expError + 7*math.Abs(w)*u + 6*u
			// The exponential saturates at exp(88.37), so s stays above low.
			const low = 4.3e-39
			tail := math.Abs(z) * low
			near(t, "GeGLU", i, dst.Data[i], z*s*v, math.Abs(z*s*v)*rel+math.Abs(v)*tail+1e-37)
			near(t, "GeGLU dup", i, du.Data[i], d*z*s, math.Abs(d*z*s)*rel+math.Abs(d)*tail+1e-37)
			// s, and gelu (1-s) slope, whose 1-s is off by 3u and what s is off by.
			off := s*(1-s)*rel + 2*u*s
			bound := s*rel + math.Abs(z)*slope*(s*(1-s)*(rel+6*u)+s*(off+u)+low) + low
			near(t, "GeGLU dgate", i, dg.Data[i], d*v*(s+z*s*(1-s)*slope), math.Abs(d*v)*(bound+4*u*(s+math.Abs(z)*s*(1-s)*slope))+1e-37)
			// The formulas themselves, against the usual form and its differences:
			// a central difference is off by h^2/6 of the third derivative, below
			// 2, and by 2^-52 |gelu| / h.
			if math.Abs(z) < 50 {
				const h = 1e-5
				near(t, "GeGLU as tanh", i, dst.Data[i], gelu64(z)*v, math.Abs(z*s*v)*rel+math.Abs(z*v)*3e-16+1e-37)
				difference := (gelu64(z+h) - gelu64(z-h)) / (2 * h)
				near(t, "GeGLU difference", i, dg.Data[i], d*v*difference, math.Abs(d*v)*(bound+4*u*(1+math.Abs(z)*slope)+1e-9*(1+math.Abs(z))))
			}
		}
		alone := zeros(1, n)
		for i := range min(n, 1000) {
			k.GeGLU(alone.Data[i:i+1], gate.Data[i:i+1], up.Data[i:i+1])
		}
		equal(t, "GeGLU one by one", alone.Data[:min(n, 1000)], dst.Data[:min(n, 1000)])
	}
}
