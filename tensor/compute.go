package tensor

import (
	"fmt"
	"time"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

// Compute says in what arithmetic products are taken. Sums are float32 in both
// modes, each in one fixed order, and all that is no product is the same.
type Compute int

const (
	// Exact uses float32 factors as they are. It is the default.
	Exact Compute = iota
	// BF16 rounds the factors of a product to bfloat16 (8 bits, to nearest even)
	// first. Machines with AVX512_BF16 are about twice as quick at that; others
	// compute the same bits without gain. Subnormal numbers count as 0.
	BF16
)

var computeNames = [...]string{"exact", "bf16"}

// String is "exact" or "bf16".
func (c Compute) String() string {
	if c < 0 || int(c) >= len(computeNames) {
		return fmt.Sprintf("Compute(%d)", int(c))
	}
	return computeNames[c]
}

// ParseCompute is the inverse of String; "" is Exact.
func ParseCompute(s string) (Compute, error) {
	for i, name := range computeNames {
		if s == name {
			return Compute(i), nil
		}
	}
	if s == "" {
		return Exact, nil
	}
	return Exact, fmt.Errorf("tensor: compute %q is not known; use exact or bf16", s)
}

// modes are the device's kernels by mode.
var modes = [...]kernel.Kernels{Exact: device.With(kernel.Exact), BF16: device.With(kernel.BF16)}

func (c Compute) kernels() kernel.Kernels {
	if c < 0 || int(c) >= len(modes) {
		panic("tensor: no such mode: " + c.String())
	}
	return modes[c]
}

// VariantOf names the kernels that mode c uses: that of Variant for Exact; for BF16
// "avx512+bf16dp" with the instructions for it and "avx512+bf16", "avx2+bf16" or
// "generic+bf16" without.
func VariantOf(c Compute) string { return c.kernels().Name() }

// PeakOf is Peak for the arithmetic of mode c.
func PeakOf(c Compute, d time.Duration) float64 {
	type peaker interface {
		Peak(d time.Duration) float64
	}
	return c.kernels().(peaker).Peak(d)
}

// MatMulNT is the function MatMulNT in mode c.
func (c Compute) MatMulNT(dst, a, b *Tensor, accumulate bool) {
	check(dst.Rows == a.Rows && dst.Cols == b.Rows && a.Cols == b.Cols, "MatMulNT", dst, a, b)
	c.kernels().MatMulNT(dst.matrix(), a.matrix(), b.matrix(), accumulate)
}

// MatMulNN is the function MatMulNN in mode c.
func (c Compute) MatMulNN(dst, a, b *Tensor, accumulate bool) {
	check(dst.Rows == a.Rows && dst.Cols == b.Cols && a.Cols == b.Rows, "MatMulNN", dst, a, b)
	c.kernels().MatMulNN(dst.matrix(), a.matrix(), b.matrix(), accumulate)
}

// MatMulTN is the function MatMulTN in mode c. BF16 takes rows of a and b in pairs,
// so a sum over rows that is cut into several accumulating calls keeps its bits only
// where all but the last have an even number of rows.
func (c Compute) MatMulTN(dst, a, b *Tensor, accumulate bool) {
	check(dst.Rows == a.Cols && dst.Cols == b.Cols && a.Rows == b.Rows, "MatMulTN", dst, a, b)
	c.kernels().MatMulTN(dst.matrix(), a.matrix(), b.matrix(), accumulate)
}
