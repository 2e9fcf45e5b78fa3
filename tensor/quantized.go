package tensor

import (
	"fmt"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

// Format says how the values of a Weight are stored.
type Format int

const (
	// StoredBF16 is bfloat16, the format of NewWeight.
	StoredBF16 Format = iota
	// Q4 is 4-bit integers q, 0 to 15, with a scale d and a minimum m, both float16,
	// for each Block neighbours of a row: a value is d*q + m, rounded once to float32.
	// It holds GGUF's Q4_1 and, with m = -8d, Q4_0 without loss, in 5 bits a value.
	Q4
	// Q8 is 8-bit integers, -128 to 127, with a float16 scale d for each Block
	// neighbours of a row: a value is d*q, exact in float32. It holds GGUF's Q8_0
	// without loss, in 8.5 bits a value.
	Q8
	// StoredF32 is float32, the format of NewFloat32.
	StoredF32
)

// Block is the number of neighbours in a row that share a scale.
const Block = kernel.Block

var formatNames = [...]string{"bf16", "q4", "q8", "f32"}

// String is "bf16", "q4", "q8" or "f32".
func (f Format) String() string {
	if f < 0 || int(f) >= len(formatNames) {
		return fmt.Sprintf("Format(%d)", int(f))
	}
	return formatNames[f]
}

// NewQuantized returns a weight [out, in] of format Q4 or Q8, to be filled with
// SetBlocks; in is a multiple of Block. A product with it is that with the float32
// matrix of its values, in the same order of additions, so its rows obey the row law
// and quantisation itself is the only loss. It has no transposed products: Linear,
// Embed and HeadLogProb work, LinearBackward and HeadLogProbGrad panic.
func NewQuantized(out, in int, f Format) *Weight {
	if out < 0 || in < 0 || in%Block != 0 || f != Q4 && f != Q8 {
		panic(fmt.Sprintf("tensor.NewQuantized: shape (%d,%d) in format %v; rows must be multiples of %d values in q4 or q8", out, in, f, Block))
	}
	return &Weight{Out: out, In: in, packed: device.NewQuantized(out, in, kernel.Format(f))}
}

// NewFloat32 returns a zero weight of float32s, to be filled with SetRow, which rounds
// nothing: for small matrices that are multiplied with often, such as an adapter's. It
// has the operations of NewQuantized, and is for mode Exact too.
func NewFloat32(out, in int) *Weight {
	if out < 0 || in < 0 {
		panic(fmt.Sprintf("tensor.NewFloat32: negative shape (%d,%d)", out, in))
	}
	return &Weight{Out: out, In: in, packed: device.NewFloat32(out, in)}
}

// Format says how w is stored.
func (w *Weight) Format() Format { return Format(w.packed.Format()) }

// SetBlocks stores row i of a quantised weight: In values q, one to a byte (0 to 15 for
// Q4, an int8 for Q8), and In/Block scales and, for Q4 only, minimums, as the bits of
// float16s, which should be finite. Distinct rows may be set at the same time. All rows
// must be set before the weight's first use.
func (w *Weight) SetBlocks(i int, q []byte, scale, minimum []uint16) {
	w.checkRow("SetBlocks", i, len(q))
	f, mins := w.Format(), 0
	if f == Q4 {
		mins = w.In / Block
	}
	if f != Q4 && f != Q8 || len(scale) != w.In/Block || len(minimum) != mins {
		panic(fmt.Sprintf("tensor.Weight.SetBlocks: %d scales and %d minimums for (%d,%d) in format %v", len(scale), len(minimum), w.Out, w.In, f))
	}
	if f == Q4 {
		for j, v := range q {
			if v > 15 {
				panic(fmt.Sprintf("tensor.Weight.SetBlocks: value %d of row %d is %d, more than 4 bits hold", j, i, v))
			}
		}
	}
	w.packed.SetBlocks(i, q, scale, minimum)
}

// only panics unless w is stored as bfloat16.
func (w *Weight) only(op string) {
	if f := w.Format(); f != StoredBF16 {
		panic(fmt.Sprintf("tensor.%s: the weight (%d,%d) is stored as %v, which has no such operation; load the model without quantized weights", op, w.Out, w.In, f))
	}
}
