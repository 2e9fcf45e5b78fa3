package transformer

import (
	"math"
	"slices"

	"github.com/opencharacter/opencharacter/tensor"
)

// joined is a stack of adapters laid out for decoding: with R the sum of the ranks,
// each projection has one A and one B, packed as weights are. With a handful of rows a
// call, packing the matrices each time would cost more than the products.
//
// The bits are those of the stack: a column of x . A^T knows nothing of the others,
// and one chain over R terms is the chains of the adapters in turn. In mode bf16, which
// takes terms in pairs, an adapter of odd rank gets one more of zeros.
type joined struct {
	of    []*Adapter
	rank  int
	pairs [][projCount][2]*tensor.Weight // A [R, in] and B [out, R]
	scale []float32                      // [R], nil when every scale is 1
}

// join copies the stack; nil for an empty one.
func join(cfg Config, stack []*Adapter, c tensor.Compute) *joined {
	if len(stack) == 0 {
		return nil
	}
	j := &joined{of: slices.Clone(stack)}
	plain := true
	for _, a := range stack {
		for range roomOf(a, c) {
			j.scale = append(j.scale, a.Scale())
		}
		plain = plain && a.Scale() == 1
	}
	j.rank = len(j.scale)
	if plain {
		j.scale = nil
	}
	weight, set := tensor.NewFloat32, func(dst, src []float32) { copy(dst, src) }
	if c == tensor.BF16 {
		set = flush
		weight = func(out, in int) *tensor.Weight {
			w := tensor.NewWeight(out, in)
			w.SetCompute(c)
			return w
		}
	}
	j.pairs = make([][projCount][2]*tensor.Weight, cfg.Layers)
	row := make([]float32, j.rank)
	for l := range j.pairs {
		for p := range projCount {
			out, in := cfg.dims(p)
			a, b := weight(j.rank, in), weight(out, j.rank)
			at, full := 0, make([]float32, in)
			for _, s := range stack {
				for r := range s.Rank {
					set(full, s.pairs[l][p].a.Row(r))
					a.SetRow(at+r, full)
				}
				at += roomOf(s, c)
			}
			for o := range out {
				at := 0
				for _, s := range stack {
					set(row[at:], s.pairs[l][p].b.Row(o))
					at += roomOf(s, c)
				}
				b.SetRow(o, row)
			}
			j.pairs[l][p] = [2]*tensor.Weight{a, b}
		}
	}
	return j
}

// flush copies src with 0 for subnormal numbers, as mode bf16 reads them; a Weight would
// round the greatest of them up to a number that counts.
func flush(dst, src []float32) {
	for i, x := range src {
		if math.Abs(float64(x)) < 0x1p-126 {
			x = float32(math.Copysign(0, float64(x)))
		}
		dst[i] = x
	}
}

// roomOf is how much of the joined rank an adapter takes.
func roomOf(a *Adapter, c tensor.Compute) int {
	if c == tensor.BF16 {
		return (a.Rank + 1) &^ 1
	}
	return a.Rank
}

// add adds the stack's part of projection p of layer l to y.
func (j *joined) add(ws *Workspace, y, x *tensor.Tensor, l int, p projection) {
	ab, h := j.pairs[l][p], ws.get(slotHidden, x.Rows, j.rank)
	tensor.Linear(h, x, ab[0], false)
	if j.scale != nil {
		for i := range h.Rows {
			row := h.Row(i)
			for c, s := range j.scale {
				row[c] *= s
			}
		}
	}
	tensor.Linear(y, h, ab[1], true)
}
