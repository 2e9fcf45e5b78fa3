package tensor

import (
	"fmt"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

// Term is a product A [M,R] . B that is added to another, as a LoRA adapter does.
type Term struct{ A, B *Tensor }

// Linear sets dst[M,Out] (+)= x[M,In] . W^T, in w's compute mode, and adds A . B^T, B
// [Out,R], for each of more. The bits are those of MatMulNT(dst, A, B, true) after it; it
// saves reading dst again.
func Linear(dst, x *Tensor, w *Weight, accumulate bool, more ...Term) {
	if dst.Rows != x.Rows || dst.Cols != w.Out || x.Cols != w.In {
		panic(fmt.Sprintf("tensor.Linear: dst (%d,%d) x (%d,%d) W (%d,%d)", dst.Rows, dst.Cols, x.Rows, x.Cols, w.Out, w.In))
	}
	for _, t := range more {
		check(t.A.Rows == dst.Rows && t.B.Rows == dst.Cols && t.A.Cols == t.B.Cols, "Linear", dst, t.A, t.B)
	}
	w.compute.kernels().Linear(dst.matrix(), x.matrix(), w.packed, accumulate, terms(more)...)
}

// LinearBackward sets dx[M,In] (+)= dy[M,Out] . W, the gradient of Linear for
// its input, and adds A . B, B [R,In], for each of more. The first call on a weight makes a
// transposed packed copy, which doubles the weight's memory. W must not be quantised.
func LinearBackward(dx, dy *Tensor, w *Weight, accumulate bool, more ...Term) {
	if dx.Rows != dy.Rows || dy.Cols != w.Out || dx.Cols != w.In {
		panic(fmt.Sprintf("tensor.LinearBackward: dx (%d,%d) dy (%d,%d) W (%d,%d)", dx.Rows, dx.Cols, dy.Rows, dy.Cols, w.Out, w.In))
	}
	w.only("LinearBackward")
	for _, t := range more {
		check(t.A.Rows == dx.Rows && t.B.Cols == dx.Cols && t.A.Cols == t.B.Rows, "LinearBackward", dx, t.A, t.B)
	}
	w.compute.kernels().LinearBackward(dx.matrix(), dy.matrix(), w.packed, accumulate, terms(more)...)
}

func terms(more []Term) []kernel.Term {
	list := make([]kernel.Term, len(more))
	for i, t := range more {
		list[i] = kernel.Term{A: t.A.matrix(), B: t.B.matrix()}
	}
	return list
}

// MatMulNT sets dst[M,N] (+)= a[M,K] . b[N,K]^T.
func MatMulNT(dst, a, b *Tensor, accumulate bool) { Exact.MatMulNT(dst, a, b, accumulate) }

// MatMulNN sets dst[M,N] (+)= a[M,K] . b[K,N].
func MatMulNN(dst, a, b *Tensor, accumulate bool) { Exact.MatMulNN(dst, a, b, accumulate) }

// MatMulTN sets dst[M,N] (+)= a[K,M]^T . b[K,N].
func MatMulTN(dst, a, b *Tensor, accumulate bool) { Exact.MatMulTN(dst, a, b, accumulate) }
