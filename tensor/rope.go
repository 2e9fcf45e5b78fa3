package tensor

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
)

// RoPE holds the tables of rotary position embedding in the half-split layout
// of Hugging Face: with x1 and x2 the halves of a head,
//
//	x1' = x1 cos - x2 sin    x2' = x2 cos + x1 sin
//
// at angle pos * base^(-2i/headDim) / divisor_i for pair i. Angles are computed
// in float64; their sines and cosines are rounded once. It is safe for
// concurrent use.
type RoPE struct {
	headDim  int
	base     float64
	divisors []float64 // nil means 1 for all
	mu       sync.Mutex
	tables   atomic.Pointer[ropeTables]
}

type ropeTables struct {
	positions int
	cos, sin  []float32 // [positions, headDim/2]
}

// NewRoPE makes tables for positions below maxPos; they grow on demand.
// headDim is even.
func NewRoPE(headDim int, base float64, maxPos int) *RoPE {
	return NewScaledRoPE(headDim, base, nil, maxPos)
}

// NewScaledRoPE is NewRoPE with one divisor of the frequency for each of the
// headDim/2 pairs: how models stretch their positions to longer contexts. The
// slice is kept.
func NewScaledRoPE(headDim int, base float64, divisors []float64, maxPos int) *RoPE {
	if headDim <= 0 || headDim%2 != 0 || !(base > 0) {
		panic(fmt.Sprintf("tensor.NewRoPE: headDim %d must be even and positive, base %v positive", headDim, base))
	}
	if divisors != nil && len(divisors) != headDim/2 {
		panic(fmt.Sprintf("tensor.NewScaledRoPE: %d divisors for %d pairs", len(divisors), headDim/2))
	}
	r := &RoPE{headDim: headDim, base: base, divisors: divisors}
	r.grow(max(maxPos, 1))
	return r
}

func (r *RoPE) grow(n int) *ropeTables {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.tables.Load(); t != nil {
		if n <= t.positions {
			return t
		}
		n = max(n, 2*t.positions)
	}
	half := r.headDim / 2
	t := &ropeTables{n, make([]float32, n*half), make([]float32, n*half)}
	for i := range half {
		f := math.Pow(r.base, -2*float64(i)/float64(r.headDim))
		if r.divisors != nil {
			f /= r.divisors[i]
		}
		for p := range n {
			s, c := math.Sincos(float64(p) * f)
			t.cos[p*half+i], t.sin[p*half+i] = float32(c), float32(s)
		}
	}
	r.tables.Store(t)
	return t
}

// Apply turns every head of row i of x [T, heads*headDim] by position pos[i],
// in place.
func (r *RoPE) Apply(x *Tensor, heads int, pos []int32) { r.rotate("Apply", x, heads, pos, false) }

// ApplyBackward turns back: the gradient of Apply, in place.
func (r *RoPE) ApplyBackward(dx *Tensor, heads int, pos []int32) {
	r.rotate("ApplyBackward", dx, heads, pos, true)
}

func (r *RoPE) rotate(op string, x *Tensor, heads int, pos []int32, inverse bool) {
	check(x.Cols == heads*r.headDim && x.Rows == len(pos), "RoPE."+op, x)
	t, top := r.tables.Load(), int32(0)
	for _, p := range pos {
		if p < 0 {
			panic(fmt.Sprintf("tensor.RoPE.%s: position %d", op, p))
		}
		top = max(top, p)
	}
	if int(top) >= t.positions {
		t = r.grow(int(top) + 1)
	}
	device.Rotate(x.matrix(), heads, pos, t.cos, t.sin, inverse)
}
