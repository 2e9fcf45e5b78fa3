package cpu

import (
	"math"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

const rowGrain = 1 << 14 // elements a task of a row operation should hold

// each runs fn over [0,n) in short pieces whose starts are multiples of lanes.
// They are short because fn calls assembly, which cannot be preempted.
func each(n int, fn func(lo, hi int)) {
	blocks := (n + rowGrain - 1) / rowGrain
	spread(blocks, 1, func(b0, b1 int) {
		for b := b0; b < b1; b++ {
			fn(b*rowGrain, min((b+1)*rowGrain, n))
		}
	})
}

// whole splits [lo,hi) into its part of whole lanes and the rest.
func whole(lo, hi int) (n, rest int) {
	n = (hi - lo) &^ (lanes - 1)
	return n, hi - lo - n
}

// Add sets dst += x.
func (k *Kernels) Add(dst, x []float32) {
	each(len(dst), func(lo, hi int) { k.add(dst[lo:hi], x[lo:hi]) })
}

func (k *Kernels) add(dst, x []float32) {
	n, _ := whole(0, len(dst))
	if n > 0 {
		k.micro.add(&dst[0], &x[0], n)
	}
	for i := n; i < len(dst); i++ {
		dst[i] += x[i]
	}
}

// Scale sets dst *= s.
func (k *Kernels) Scale(dst []float32, s float32) {
	each(len(dst), func(lo, hi int) { k.scale(dst[lo:hi], s) })
}

func (k *Kernels) scale(dst []float32, s float32) {
	n, _ := whole(0, len(dst))
	if n > 0 {
		k.micro.scale(&dst[0], n, s)
	}
	for i := n; i < len(dst); i++ {
		dst[i] = float32(dst[i]*s) + 0
	}
}

// SwiGLU sets dst = silu(gate)*up.
func (k *Kernels) SwiGLU(dst, gate, up []float32) { gated(k.micro.swiglu, dst, gate, up) }

// SwiGLUBackward is the gradient of SwiGLU.
func (k *Kernels) SwiGLUBackward(dgate, dup, dy, gate, up []float32) {
	gatedBack(k.micro.swigluBack, dgate, dup, dy, gate, up)
}

// RMSNorm sets dst = x*inv*weight per row.
func (k *Kernels) RMSNorm(dst, x kernel.Matrix, weight []float32, eps float32, inv []float32) {
	c := x.Cols
	spread(x.Rows, rowGrain/(c+1), func(lo, hi int) {
		for i := lo; i < hi; i++ {
			xr, dr := x.Row(i), dst.Row(i)
			s := float32(1 / math.Sqrt(float64(k.micro.dotOf(xr, xr))/float64(c)+float64(eps)))
			if inv != nil {
				inv[i] = s
			}
			n, rest := whole(0, c)
			if n > 0 {
				k.micro.norm(&dr[0], &xr[0], &weight[0], n, s)
			}
			for j := c - rest; j < c; j++ {
				dr[j] = float32(xr[j]*s) * weight[j]
			}
		}
	})
}

// RMSNormBackward is the gradient of RMSNorm for x.
func (k *Kernels) RMSNormBackward(dx, dy, x kernel.Matrix, weight, inv []float32, accumulate bool) {
	c := x.Cols
	spread(x.Rows, rowGrain/(c+1), func(lo, hi int) {
		t := scratch(c)
		p := pads.Get().(*pad)
		for i := lo; i < hi; i++ {
			xr, dr, gr := x.Row(i), dx.Row(i), dy.Row(i)
			n, rest := whole(0, c)
			wg := t.f[:c]
			if n > 0 {
				k.micro.norm(&wg[0], &gr[0], &weight[0], n, 1)
			}
			for j := n; j < c; j++ {
				wg[j] = gr[j] * weight[j]
			}
			s := float64(inv[i])
			b := float32(-s * s * s / float64(c) * float64(k.micro.dotOf(wg, xr)))
			if n > 0 {
				var base *float32
				if accumulate {
					base = &dr[0]
				}
				k.micro.normBack(&dr[0], &gr[0], &xr[0], &weight[0], base, n, inv[i], b)
			}
			if rest > 0 {
				var base *float32
				if accumulate {
					base = p.fill(4, dr[n:], 0)
				}
				k.micro.normBack(&p[0][0], p.fill(1, gr[n:], 0), p.fill(2, xr[n:], 0), p.fill(3, weight[n:], 0), base, lanes, inv[i], b)
				copy(dr[n:], p[0][:])
			}
		}
		pads.Put(p)
		t.free()
	})
}

// Rotate applies rotary position embedding.
func (k *Kernels) Rotate(x kernel.Matrix, heads int, pos []int32, cos, sin []float32, inverse bool) {
	sign := float32(1)
	if inverse {
		sign = -1
	}
	half := x.Cols / heads / 2
	n, rest := whole(0, half)
	spread(x.Rows, rowGrain/(x.Cols+1), func(lo, hi int) {
		p := pads.Get().(*pad)
		for i := lo; i < hi; i++ {
			row := x.Row(i)
			c, s := cos[int(pos[i])*half:][:half], sin[int(pos[i])*half:][:half]
			for h := range heads {
				x1, x2 := row[2*h*half:][:half], row[(2*h+1)*half:][:half]
				if n > 0 {
					k.micro.rotate(&x1[0], &x2[0], &c[0], &s[0], n, sign)
				}
				if rest > 0 {
					a, b := p.fill(0, x1[n:], 0), p.fill(1, x2[n:], 0)
					k.micro.rotate(a, b, p.fill(2, c[n:], 0), p.fill(3, s[n:], 0), lanes, sign)
					copy(x1[n:], p[0][:])
					copy(x2[n:], p[1][:])
				}
			}
		}
		pads.Put(p)
	})
}
