package transformer

import (
	"slices"

	"github.com/opencharacter/opencharacter/tensor"
)

// joined is a stack of adapters laid out for decoding: with R the sum of the ranks,
// each projection has one A^T [in, R] and one B^T [R, out]. With a handful of rows a
// call, transposing the matrices each time would cost more than the products.
//
// The bits are those of the stack: a column of x . A^T knows nothing of the others,
// and one chain over R terms is the chains of the adapters in turn.
type joined struct {
	of     []*Adapter
	layers [][projCount]pair // a is A^T, b is B^T
	scale  []float32         // [R], nil when every scale is 1
}

// join copies the stack; nil for an empty one.
func join(cfg Config, stack []*Adapter) *joined {
	if len(stack) == 0 {
		return nil
	}
	j := &joined{of: slices.Clone(stack), layers: make([][projCount]pair, cfg.Layers)}
	plain := true
	for _, a := range stack {
		for range a.Rank {
			j.scale = append(j.scale, a.Scale())
		}
		plain = plain && a.Scale() == 1
	}
	rank := len(j.scale)
	if plain {
		j.scale = nil
	}
	for l := range j.layers {
		for p := range projCount {
			out, in := cfg.dims(p)
			ab, at := pair{a: tensor.New(in, rank), b: tensor.New(rank, out)}, 0
			for _, a := range stack {
				transpose(ab.a, 0, at, a.pairs[l][p].a)
				transpose(ab.b, at, 0, a.pairs[l][p].b)
				at += a.Rank
			}
			j.layers[l][p] = ab
		}
	}
	return j
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
	ab := j.layers[l][p]
	h := ws.get(slotHidden, x.Rows, ab.a.Cols)
	tensor.MatMulNN(h, x, ab.a, false)
	if j.scale != nil {
		for i := range h.Rows {
			row := h.Row(i)
			for c, s := range j.scale {
				row[c] *= s
			}
		}
	}
	tensor.MatMulNN(y, h, ab.b, true)
}
