package cpu

import (
	"math"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

// The constants of one step, as the inner loop reads them.
const (
	adamBeta1, adamRest1 = 0, 1 // beta1, 1-beta1
	adamBeta2, adamRest2 = 2, 3
	adamDecay            = 4 // 1 - lr*weightDecay
	adamStep             = 5 // -lr / (1-beta1^step)
	adamRoot             = 6 // 1 / sqrt(1-beta2^step)
	adamEps              = 7
)

// AdamW updates param, m and v in place.
func (k *Kernels) AdamW(o kernel.AdamW, param, grad, m, v []float32) {
	t := float64(o.Step)
	b1, b2 := float64(o.Beta1), float64(o.Beta2)
	c := &[8]float32{
		o.Beta1, float32(1 - b1), o.Beta2, float32(1 - b2),
		float32(1 - float64(o.LR)*float64(o.WeightDecay)),
		float32(-float64(o.LR) / (1 - math.Pow(b1, t))),
		float32(1 / math.Sqrt(1-math.Pow(b2, t))), o.Eps,
	}
	each(len(param), func(lo, hi int) {
		n, rest := whole(lo, hi)
		if n > 0 {
			k.micro.adamw(&param[lo], &grad[lo], &m[lo], &v[lo], n, c)
		}
		if rest > 0 {
			p := pads.Get().(*pad)
			k.micro.adamw(p.fill(0, param[lo+n:hi], 0), p.fill(1, grad[lo+n:hi], 0), p.fill(2, m[lo+n:hi], 0), p.fill(3, v[lo+n:hi], 0), lanes, c)
			copy(param[lo+n:hi], p[0][:])
			copy(m[lo+n:hi], p[2][:])
			copy(v[lo+n:hi], p[3][:])
			pads.Put(p)
		}
	})
}

func adamwGeneric(param, grad, m, v *float32, n int, c *[8]float32) {
	ps, gs, ms, vs := vec(param, n), vec(grad, n), vec(m, n), vec(v, n)
	for i := range ps {
		g := gs[i]
		mi := float32(ms[i]*c[adamBeta1]) + float32(g*c[adamRest1])
		vi := float32(vs[i]*c[adamBeta2]) + float32(float32(g*g)*c[adamRest2])
		ms[i], vs[i] = mi, vi
		d := float32(float32(math.Sqrt(float64(vi)))*c[adamRoot]) + c[adamEps]
		ps[i] = float32(ps[i]*c[adamDecay]) + float32(float32(mi*c[adamStep])/d)
	}
}

// SumSquares adds squares in float64: four chains per block of 1<<14 values,
// then the blocks in order.
func (k *Kernels) SumSquares(x []float32) float64 {
	const size = 1 << 14
	blocks := (len(x) + size - 1) / size
	sums := make([]float64, blocks)
	parallel(blocks, func(b int) {
		s := x[b*size : min((b+1)*size, len(x))]
		var t [4]float64
		for ; len(s) >= 4; s = s[4:] {
			for j := range t {
				f := float64(s[j])
				t[j] += f * f
			}
		}
		for j, v := range s {
			t[j] += float64(v) * float64(v)
		}
		sums[b] = (t[0] + t[1]) + (t[2] + t[3])
	})
	var total float64
	for _, s := range sums {
		total += s
	}
	return total
}
