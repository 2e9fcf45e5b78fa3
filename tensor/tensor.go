// Package tensor computes on dense float32 matrices and frozen bfloat16
// weights, with the operations a transformer needs, forward and backward.
//
// It knows nothing of models, files or training. Each operation has one file
// that states its formula and shapes. Wrong shapes panic: they are errors of
// the program, not of its input. Start at [Tensor], [Weight] and [Linear].
//
// Every result obeys the row law: the numbers of a row depend on that row and
// the weights only, never on the other rows of a batch, on threads, or on how
// a reduction was split. See package kernel for the exact order. Results may
// differ between variants ("avx512", "avx2", "generic"), so [Variant] is worth
// recording next to them.
package tensor

import (
	"fmt"
	"time"

	"github.com/opencharacter/opencharacter/tensor/internal/cpu"
	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

var device kernel.Kernels = cpu.Best()

// Variant names the kernels in use: "avx512", "avx2" or "generic". See VariantOf
// for products in mode BF16.
func Variant() string { return device.Name() }

// SetThreads sets how many threads operations may use; 0 means GOMAXPROCS.
// Results never depend on it.
func SetThreads(n int) { cpu.SetThreads(n) }

// Peak runs multiply-adds in registers on all threads for about d and returns
// how many floating-point operations it did: what benchmarks compare with.
func Peak(d time.Duration) float64 { return PeakOf(Exact, d) }

// Tensor is a row-major matrix of float32 with contiguous rows. A vector is a
// matrix with one row.
type Tensor struct {
	Rows, Cols int
	data       []float32
}

// New returns a zeroed rows x cols tensor, aligned to 64 bytes.
func New(rows, cols int) *Tensor {
	if rows < 0 || cols < 0 {
		panic(fmt.Sprintf("tensor.New: negative shape (%d,%d)", rows, cols))
	}
	return &Tensor{rows, cols, cpu.Floats(rows * cols)}
}

// FromSlice wraps data, which must hold rows*cols values, without copying.
func FromSlice(rows, cols int, data []float32) *Tensor {
	if rows < 0 || cols < 0 || len(data) != rows*cols {
		panic(fmt.Sprintf("tensor.FromSlice: %d values for shape (%d,%d)", len(data), rows, cols))
	}
	return &Tensor{rows, cols, data}
}

// Data returns the whole storage, Rows*Cols values.
func (t *Tensor) Data() []float32 { return t.data }

// Row returns row i; writing to it writes to t.
func (t *Tensor) Row(i int) []float32 {
	if i < 0 || i >= t.Rows {
		panic(fmt.Sprintf("tensor.Row: row %d of %d", i, t.Rows))
	}
	return t.data[i*t.Cols : (i+1)*t.Cols : (i+1)*t.Cols]
}

// View returns rows [r0,r1) sharing t's storage.
func (t *Tensor) View(r0, r1 int) *Tensor {
	if r0 < 0 || r1 < r0 || r1 > t.Rows {
		panic(fmt.Sprintf("tensor.View: rows [%d,%d) of %d", r0, r1, t.Rows))
	}
	return &Tensor{r1 - r0, t.Cols, t.data[r0*t.Cols : r1*t.Cols : r1*t.Cols]}
}

// Reshape returns the same storage as rows x cols; the product must match.
func (t *Tensor) Reshape(rows, cols int) *Tensor {
	if rows < 0 || cols < 0 || rows*cols != len(t.data) {
		panic(fmt.Sprintf("tensor.Reshape: (%d,%d) to (%d,%d)", t.Rows, t.Cols, rows, cols))
	}
	return &Tensor{rows, cols, t.data}
}

// Zero sets every element to 0.
func (t *Tensor) Zero() { clear(t.data) }

func (t *Tensor) matrix() kernel.Matrix {
	return kernel.Matrix{Rows: t.Rows, Cols: t.Cols, Data: t.data}
}

// check panics with the operation's name and shapes unless ok.
func check(ok bool, op string, ts ...*Tensor) {
	if ok {
		return
	}
	s := ""
	for _, t := range ts {
		s += fmt.Sprintf(" (%d,%d)", t.Rows, t.Cols)
	}
	panic("tensor." + op + ": shapes do not fit:" + s)
}

func same(a, b *Tensor) bool { return a.Rows == b.Rows && a.Cols == b.Cols }
