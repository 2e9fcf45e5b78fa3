package transformer

import (
	"math"
	"slices"

	"github.com/opencharacter/opencharacter/tensor"
)

// joined is a stack of adapters laid out for decoding: with R the sum of the ranks,
// each projection has one A and one B. With a handful of rows a call, transposing or
// rounding the matrices each time would cost more than the products.
//
// The bits are those of the stack: a column of x . A^T knows nothing of the others,
// and one chain over R terms is the chains of the adapters in turn. In mode bf16, which
// takes terms in pairs, an adapter of odd rank gets one more of zeros.
type joined struct {
	of     []*Adapter
	rank   int
	exact  [][projCount]pair              // A^T [in, R] and B^T [R, out]
	packed [][projCount][2]*tensor.Weight // A [R, in] and B [out, R], in mode bf16 instead
	scale  []float32                      // [R], nil when every scale is 1
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
	if c == tensor.BF16 {
		j.pack(cfg, stack)
		return j
	}
	j.exact = make([][projCount]pair, cfg.Layers)
	for l := range j.exact {
		for p := range projCount {
			out, in := cfg.dims(p)
			ab, at := pair{a: tensor.New(in, j.rank), b: tensor.New(j.rank, out)}, 0
			for _, a := range stack {
				transpose(ab.a, 0, at, a.pairs[l][p].a)
				transpose(ab.b, at, 0, a.pairs[l][p].b)
				at += a.Rank
			}
			j.exact[l][p] = ab
		}
	}
	return j
}

// pack rounds the stack to weights.
func (j *joined) pack(cfg Config, stack []*Adapter) {
	j.packed = make([][projCount][2]*tensor.Weight, cfg.Layers)
	row := make([]float32, j.rank)
	for l := range j.packed {
		for p := range projCount {
			out, in := cfg.dims(p)
			a, b := tensor.NewWeight(j.rank, in), tensor.NewWeight(out, j.rank)
			a.SetCompute(tensor.BF16)
			b.SetCompute(tensor.BF16)
			at, full := 0, make([]float32, in)
			for _, s := range stack {
				for r := range s.Rank {
					flush(full, s.pairs[l][p].a.Row(r))
					a.SetRow(at+r, full)
				}
				at += roomOf(s, tensor.BF16)
			}
			for o := range out {
				at := 0
				for _, s := range stack {
					flush(row[at:], s.pairs[l][p].b.Row(o))
					at += roomOf(s, tensor.BF16)
				}
				b.SetRow(o, row)
			}
			j.packed[l][p] = [2]*tensor.Weight{a, b}
		}
	}
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

// transpose writes src^T into dst with its first element at (row, col).
func transpose(dst *tensor.Tensor, row, col int, src *tensor.Tensor) {
	for c := range src.Cols {
		to := dst.Row(row + c)[col:]
		for r := range src.Rows {
			to[r] = src.Data()[r*src.Cols+c]
		}
	}
}

// add adds the stack's part of projection p of layer l to y.
func (j *joined) add(ws *Workspace, y, x *tensor.Tensor, l int, p projection) {
	h := ws.get(slotHidden, x.Rows, j.rank)
	if j.packed != nil {
		tensor.Linear(h, x, j.packed[l][p][0], false)
	} else {
		tensor.MatMulNN(h, x, j.exact[l][p].a, false)
	}
	if j.scale != nil {
		for i := range h.Rows {
			row := h.Row(i)
			for c, s := range j.scale {
				row[c] *= s
			}
		}
	}
	if j.packed != nil {
		tensor.Linear(y, h, j.packed[l][p][1], true)
	} else {
		tensor.MatMulNN(y, h, j.exact[l][p].b, true)
	}
}
