package cpu

// Constants of gelu's tanh form: its argument is z (geluOne + geluCube z^2),
// doubled, so that gelu(z) = z / (1 + exp(-argument)).
const (
	geluOne   = 1.5957691216057308  // 2 sqrt(2/pi)
	geluCube  = 0.07135481627260025 // 0.044715 times that
	geluSlope = 0.21406444881780076 // three times that, for the derivative
)

func gegluGeneric(dst, gate, up *float32, n int) {
	d, g, u := vec(dst, n), vec(gate, n), vec(up, n)
	for i := range d {
		w := g[i] * (float32(float32(g[i]*g[i])*geluCube) + geluOne)
		d[i] = g[i] / (1 + exp1(-w)) * u[i]
	}
}

func gegluBackGeneric(dgate, dup, dy, gate, up *float32, n int) {
	dg, du, d, g, u := vec(dgate, n), vec(dup, n), vec(dy, n), vec(gate, n), vec(up, n)
	for i := range dg {
		square := float32(g[i] * g[i])
		slope := float32(square*geluSlope) + geluOne
		w := g[i] * (float32(square*geluCube) + geluOne)
		s := 1 / (1 + exp1(-w))
		gelu := g[i] * s
		du[i] = d[i] * gelu
		t := float32(gelu*float32((1-s)*slope)) + s
		dg[i] = float32(d[i]*u[i]) * t
	}
}

// GeGLU sets dst = gelu(gate)*up.
func (k *Kernels) GeGLU(dst, gate, up []float32) { gated(k.micro.geglu, dst, gate, up) }

// GeGLUBackward is the gradient of GeGLU.
func (k *Kernels) GeGLUBackward(dgate, dup, dy, gate, up []float32) {
	gatedBack(k.micro.gegluBack, dgate, dup, dy, gate, up)
}

// gated runs a loop over the elements of a gated unit, forward.
func gated(loop func(dst, gate, up *float32, n int), dst, gate, up []float32) {
	each(len(dst), func(lo, hi int) {
		n, rest := whole(lo, hi)
		if n > 0 {
			loop(&dst[lo], &gate[lo], &up[lo], n)
		}
		if rest > 0 {
			p := pads.Get().(*pad)
			loop(&p[0][0], p.fill(1, gate[lo+n:hi], 0), p.fill(2, up[lo+n:hi], 0), lanes)
			copy(dst[lo+n:hi], p[0][:])
			pads.Put(p)
		}
	})
}

// gatedBack runs a loop over the elements of a gated unit, backward.
func gatedBack(loop func(dgate, dup, dy, gate, up *float32, n int), dgate, dup, dy, gate, up []float32) {
	each(len(dy), func(lo, hi int) {
		n, rest := whole(lo, hi)
		if n > 0 {
			loop(&dgate[lo], &dup[lo], &dy[lo], &gate[lo], &up[lo], n)
		}
		if rest > 0 {
			p := pads.Get().(*pad)
			loop(&p[0][0], &p[1][0], p.fill(2, dy[lo+n:hi], 0), p.fill(3, gate[lo+n:hi], 0), p.fill(4, up[lo+n:hi], 0), lanes)
			copy(dgate[lo+n:hi], p[0][:])
			copy(dup[lo+n:hi], p[1][:])
			pads.Put(p)
		}
	})
}
