// Package kernel is the contract every compute device implements: the list of
// operations, their shapes and the order in which each one adds.
//
// It knows nothing of models. Shapes are already checked when a method is
// called; package tensor does that. The conformance suite is in kerneltest.
//
// # The row law
//
// Every element of a product is one chain of multiply-adds over the reduction
// index in ascending order. The chain starts at 0, or at the present value of
// dst when accumulate is true. No method may split that chain, so tiling,
// threads, the number of rows and the splitting of a reduction over several
// accumulating calls never change a bit. In mode BF16 the chain runs over pairs
// of indices instead, so a reduction may be split at even indices only. Sums over a row (norms, softmax) are
// taken in Lanes lanes: element i goes to lane i mod Lanes, each lane adds in
// ascending order, and the lanes are folded by halves. The result depends on
// the row alone.
package kernel

// Compute says how products treat their float32 factors.
type Compute int

const (
	// Exact uses float32 factors as they are.
	Exact Compute = iota
	// BF16 rounds the factors of every product (both sides of the MatMuls, the
	// left side of those with a Weight, in the head the exponentials too) to
	// bfloat16, to nearest even. An element then takes the indices of its
	// reduction in pairs: for k = 0, 2, 4, ... it adds the product of index k+1
	// and then that of k, each with one rounding (the products are exact in
	// float32), and an index beyond the end adds 0. Subnormal factors and sums
	// count as 0. This is what the instruction VDPBF16PS computes; every variant
	// gives the same bits.
	BF16
)

// Lanes is the number of partial sums of every row reduction.
const Lanes = 32

// PageSize is the number of positions in one page of a KV cache.
const PageSize = 32

// HeadChunk is the number of vocabulary entries per partial log-sum-exp.
const HeadChunk = 512

// Matrix is a row-major float32 matrix with contiguous rows.
type Matrix struct {
	Rows, Cols int
	Data       []float32
}

// Row returns row i.
func (m Matrix) Row(i int) []float32 { return m.Data[i*m.Cols : (i+1)*m.Cols : (i+1)*m.Cols] }

// Term is a product that is added to another one.
type Term struct{ A, B Matrix }

// AttentionShape describes grouped-query attention. Heads is a multiple of
// KVHeads; query head h reads key/value head h / (Heads/KVHeads). Scale
// multiplies the scores and is positive. With a Window above 0 a position
// attends to the last Window positions up to itself only.
type AttentionShape struct {
	Heads, KVHeads, HeadDim int
	Scale                   float32
	Window                  int
}

// First returns the first position that the position before end attends to.
func (s AttentionShape) First(end int) int {
	if s.Window > 0 {
		return max(0, end-s.Window)
	}
	return 0
}

// Format says how a Weight is stored.
type Format int

const (
	// StoredBF16 is bfloat16, filled with SetRow.
	StoredBF16 Format = iota
	// Q4 and Q8 are blocks of Block neighbours of a row, filled with SetBlocks.
	// A value of Q4 is d*q + m with one rounding, q being 0 to 15; one of Q8 is d*q
	// with q from -128 to 127, which is exact in float32.
	Q4
	Q8
	// StoredF32 is float32, filled with SetRow.
	StoredF32
)

// Block is the number of values that share a scale; In of a Weight of blocks is a
// multiple of it.
const Block = 32

// Weight is a frozen matrix [out, in]. A product with it is that with the float32
// matrix of its values, whatever the format.
type Weight interface {
	Format() Format
	SetRow(i int, src []float32) // StoredBF16: rounds to nearest even
	// SetBlocks stores row i of a Q4 or Q8: in values q, a byte each, two's
	// complement for Q8, and in/Block scales and minimums, float16s by their bits;
	// Q8 has no min.
	SetBlocks(i int, q []byte, scale, min []uint16)
	Row(i int, dst []float32)
	Bytes() int64
}

// KV is a paged key/value cache over all layers of one model.
type KV interface {
	Grow(pages int)
	Pages() int
	CopyPage(dst, src int)
	Write(layer int, k, v Matrix, page, slot []int32)
}

// AdamW is one optimiser step: learning rate, decays, and the 1-based step
// that sets the bias corrections.
type AdamW struct {
	LR, Beta1, Beta2, Eps, WeightDecay float32
	Step                               int
}

// Kernels runs operations. Implementations are safe for concurrent use.
type Kernels interface {
	Name() string
	// Compute is the mode of products; With returns the same kernels in mode c.
	// Weights, caches and all else are shared by the modes.
	Compute() Compute
	With(c Compute) Kernels

	NewWeight(out, in int) Weight
	// NewFloat32 returns a weight of float32s. Like those of NewQuantized it is for mode
	// Exact, and without LinearBackward and HeadLogProbGrad.
	NewFloat32(out, in int) Weight
	// NewQuantized returns a weight of blocks. It is for mode Exact, and without
	// LinearBackward and HeadLogProbGrad.
	NewQuantized(out, in int, f Format) Weight
	// Linear sets dst[m,out] (+)= x[m,in] . W^T + sum over more of A . B^T, each
	// chain going on with the terms in turn.
	Linear(dst, x Matrix, w Weight, accumulate bool, more ...Term)
	// LinearBackward sets dx[m,in] (+)= dy[m,out] . W + sum over more of A . B.
	LinearBackward(dx, dy Matrix, w Weight, accumulate bool, more ...Term)
	// MatMulNT sets dst[m,n] (+)= a[m,k] . b[n,k]^T.
	MatMulNT(dst, a, b Matrix, accumulate bool)
	// MatMulNN sets dst[m,n] (+)= a[m,k] . b[k,n].
	MatMulNN(dst, a, b Matrix, accumulate bool)
	// MatMulTN sets dst[m,n] (+)= a[k,m]^T . b[k,n].
	MatMulTN(dst, a, b Matrix, accumulate bool)

	// Add sets dst += x; Scale sets dst *= s.
	Add(dst, x []float32)
	Scale(dst []float32, s float32)

	// RMSNorm sets dst = x * inv * weight with inv = 1/sqrt(mean(x^2)+eps) per
	// row; inv may be nil.
	RMSNorm(dst, x Matrix, weight []float32, eps float32, inv []float32)
	// RMSNormBackward sets dx (+)= the gradient of RMSNorm for x.
	RMSNormBackward(dx, dy, x Matrix, weight, inv []float32, accumulate bool)

	// Rotate turns every head of row i by the angles whose cosines and sines
	// are cos[pos[i]*half:] and sin[pos[i]*half:], half = headDim/2. inverse
	// turns back.
	Rotate(x Matrix, heads int, pos []int32, cos, sin []float32, inverse bool)

	// SwiGLU sets dst = silu(gate) * up.
	SwiGLU(dst, gate, up []float32)
	SwiGLUBackward(dgate, dup, dy, gate, up []float32)
	// GeGLU sets dst = gelu(gate) * up with the tanh form of gelu.
	GeGLU(dst, gate, up []float32)
	GeGLUBackward(dgate, dup, dy, gate, up []float32)

	// Attention is causal attention within each row offsets[i]:offsets[i+1].
	// stats[t] holds, for every head, the greatest score times Scale and one
	// over the sum of exponentials; it may have no data.
	Attention(dst, q, k, v Matrix, offsets []int32, s AttentionShape, stats Matrix)
	AttentionBackward(dq, dk, dv, dout, out, q, k, v Matrix, offsets []int32, s AttentionShape, stats Matrix)
	NewKV(layers, pages int, s AttentionShape) KV
	// AttentionKV lets query row i attend to the first lengths[i] positions
	// stored in pages[i], or to the last window of these if window is above 0.
	// Its bits equal those of Attention. The window of the cache's shape is
	// not looked at: layers may differ.
	AttentionKV(dst, q Matrix, c KV, layer int, pages [][]int32, lengths []int32, window int)

	// HeadLogProb sets lse[i] = log sum_v exp(x_i . W_v) and logprob[i] =
	// x_i . W_target[i] - lse[i].
	HeadLogProb(logprob, lse []float32, x Matrix, w Weight, targets []int32)
	// HeadLogProbGrad sets logprob as HeadLogProb does, bit for bit, and grad_i =
	// W_targets[i] - sum_v p_iv W_v, the gradient of logprob[i] for x_i.
	HeadLogProbGrad(logprob []float32, grad, x Matrix, w Weight, targets []int32)
	// LogSumExp equals HeadLogProb's lse for the same logits.
	LogSumExp(logits []float32) float32
	// Softmax sets dst = softmax(logits * invTemperature).
	Softmax(dst, logits []float32, invTemperature float32)

	AdamW(o AdamW, param, grad, m, v []float32)
	// SumSquares adds squares in float64, block by block in a fixed order.
	SumSquares(x []float32) float64
}
