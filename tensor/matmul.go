package tensor

import "fmt"

// Linear sets dst[M,Out] (+)= x[M,In] . W^T, in w's compute mode.
func Linear(dst, x *Tensor, w *Weight, accumulate bool) {
	if dst.Rows != x.Rows || dst.Cols != w.Out || x.Cols != w.In {
		panic(fmt.Sprintf("tensor.Linear: dst (%d,%d) x (%d,%d) W (%d,%d)", dst.Rows, dst.Cols, x.Rows, x.Cols, w.Out, w.In))
	}
	w.compute.kernels().Linear(dst.matrix(), x.matrix(), w.packed, accumulate)
}

// LinearBackward sets dx[M,In] (+)= dy[M,Out] . W, the gradient of Linear for
// its input. The first call on a weight makes a transposed packed copy, which
// doubles the weight's memory. W must not be quantised.
func LinearBackward(dx, dy *Tensor, w *Weight, accumulate bool) {
	if dx.Rows != dy.Rows || dy.Cols != w.Out || dx.Cols != w.In {
		panic(fmt.Sprintf("tensor.LinearBackward: dx (%d,%d) dy (%d,%d) W (%d,%d)", dx.Rows, dx.Cols, dy.Rows, dy.Cols, w.Out, w.In))
	}
	w.only("LinearBackward")
	w.compute.kernels().LinearBackward(dx.matrix(), dy.matrix(), w.packed, accumulate)
}

// MatMulNT sets dst[M,N] (+)= a[M,K] . b[N,K]^T.
func MatMulNT(dst, a, b *Tensor, accumulate bool) { Exact.MatMulNT(dst, a, b, accumulate) }

// MatMulNN sets dst[M,N] (+)= a[M,K] . b[K,N].
func MatMulNN(dst, a, b *Tensor, accumulate bool) { Exact.MatMulNN(dst, a, b, accumulate) }

// MatMulTN sets dst[M,N] (+)= a[K,M]^T . b[K,N].
func MatMulTN(dst, a, b *Tensor, accumulate bool) { Exact.MatMulTN(dst, a, b, accumulate) }
