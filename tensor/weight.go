package tensor

import (
	"fmt"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

// Weight is a frozen matrix W [Out, In], packed in the order the kernels read it:
// in bfloat16 (NewWeight), quantised blocks (NewQuantized) or float32 (NewFloat32).
// Products with it widen to float32 exactly, unless SetCompute asks for another mode.
type Weight struct {
	Out, In int
	packed  kernel.Weight
	compute Compute
}

// NewWeight returns a zero weight, to be filled with SetRow.
func NewWeight(out, in int) *Weight {
	if out < 0 || in < 0 {
		panic(fmt.Sprintf("tensor.NewWeight: negative shape (%d,%d)", out, in))
	}
	return &Weight{Out: out, In: in, packed: device.NewWeight(out, in)}
}

// SetRow stores src, In values, as row i, rounded to bfloat16 (nearest even)
// unless w is of NewFloat32.
// Distinct rows may be set at the same time. All rows must be set before the
// weight's first use.
func (w *Weight) SetRow(i int, src []float32) {
	w.checkRow("SetRow", i, len(src))
	if w.Format() != StoredF32 {
		w.only("SetRow")
	}
	w.packed.SetRow(i, src)
}

// Row unpacks row i into dst, In values, exactly.
func (w *Weight) Row(i int, dst []float32) {
	w.checkRow("Row", i, len(dst))
	w.packed.Row(i, dst)
}

// SetCompute sets the mode of all products with w, Exact at first: Linear,
// LinearBackward and the head. It copies nothing. No product may run meanwhile.
// A quantised weight has mode Exact only; another one panics.
func (w *Weight) SetCompute(c Compute) {
	c.kernels() // a mode that does not exist fails here
	if c != Exact {
		w.only("SetCompute(" + c.String() + ")")
	}
	w.compute = c
}

// Compute returns the mode of products with w.
func (w *Weight) Compute() Compute { return w.compute }

// Bytes is the memory held, the transposed copy of LinearBackward included
// once it exists.
func (w *Weight) Bytes() int64 { return w.packed.Bytes() }

func (w *Weight) checkRow(op string, i, n int) {
	if i < 0 || i >= w.Out || n != w.In {
		panic(fmt.Sprintf("tensor.Weight.%s: row %d with %d values, weight is (%d,%d)", op, i, n, w.Out, w.In))
	}
}

// Embed copies row ids[i] of w to row i of dst [len(ids), In].
func Embed(dst *Tensor, w *Weight, ids []int32) {
	check(dst.Rows == len(ids) && dst.Cols == w.In, "Embed", dst)
	for i, id := range ids {
		w.Row(int(id), dst.Row(i))
	}
}
