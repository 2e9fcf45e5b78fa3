package tensor

import (
	"fmt"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

// AttentionShape describes grouped-query attention: Heads query heads share
// KVHeads key/value heads (Heads/KVHeads neighbours share one), each HeadDim
// wide; scores are multiplied by Scale, which is positive. A Window above 0
// limits every position to the last Window positions of its row, itself
// included; 0 means no limit.
type AttentionShape struct {
	Heads, KVHeads, HeadDim int
	Scale                   float32
	Window                  int
}

func (s AttentionShape) check(op string) {
	if s.Heads <= 0 || s.KVHeads <= 0 || s.Heads%s.KVHeads != 0 || s.HeadDim <= 0 || !(s.Scale > 0) || s.Window < 0 {
		panic(fmt.Sprintf("tensor.%s: bad attention shape %+v", op, s))
	}
}

func (s AttentionShape) q(t *Tensor) bool  { return t.Cols == s.Heads*s.HeadDim }
func (s AttentionShape) kv(t *Tensor) bool { return t.Cols == s.KVHeads*s.HeadDim }

// Attention is causal softmax attention over packed rows. Row i of the batch
// is positions offsets[i] up to offsets[i+1]; position t attends to the
// positions of its own row up to itself, within the window:
//
//	dst_t = sum_j softmax_j(Scale * q_t . k_j) v_j
//
// q and dst are [T, Heads*HeadDim], k and v [T, KVHeads*HeadDim]. stats
// [T, 2*Heads] keeps what AttentionBackward needs; it may be nil.
func Attention(dst, q, k, v *Tensor, offsets []int32, s AttentionShape, stats *Tensor) {
	s.check("Attention")
	check(same(dst, q) && same(k, v) && q.Rows == k.Rows && s.q(q) && s.kv(k), "Attention", dst, q, k, v)
	checkOffsets("Attention", offsets, q.Rows)
	var st kernel.Matrix
	if stats != nil {
		check(stats.Rows == q.Rows && stats.Cols == 2*s.Heads, "Attention (stats)", stats)
		st = stats.matrix()
	}
	device.Attention(dst.matrix(), q.matrix(), k.matrix(), v.matrix(), offsets, kernel.AttentionShape(s), st)
}

// AttentionBackward overwrites dq, dk and dv with the gradients of Attention,
// given dout, Attention's output out and its saved stats. With p the attention
// weights and D_t = dout_t . out_t per head,
//
//	dv_j = sum_t p_tj dout_t      ds_tj = p_tj (dout_t . v_j - D_t)
//	dq_t = Scale sum_j ds_tj k_j  dk_j = Scale sum_t ds_tj q_t
func AttentionBackward(dq, dk, dv, dout, out, q, k, v *Tensor, offsets []int32, s AttentionShape, stats *Tensor) {
	s.check("AttentionBackward")
	check(same(dq, q) && same(dout, q) && same(out, q) && same(dk, k) && same(dv, k) && same(v, k) && q.Rows == k.Rows &&
		s.q(q) && s.kv(k) && stats.Rows == q.Rows && stats.Cols == 2*s.Heads, "AttentionBackward", dq, dk, dv, dout, out, q, k, v, stats)
	checkOffsets("AttentionBackward", offsets, q.Rows)
	device.AttentionBackward(dq.matrix(), dk.matrix(), dv.matrix(), dout.matrix(), out.matrix(), q.matrix(), k.matrix(), v.matrix(),
		offsets, kernel.AttentionShape(s), stats.matrix())
}

func checkOffsets(op string, offsets []int32, rows int) {
	ok := len(offsets) > 0 && offsets[0] == 0 && int(offsets[len(offsets)-1]) == rows
	for i := 1; ok && i < len(offsets); i++ {
		ok = offsets[i] >= offsets[i-1]
	}
	if !ok {
		panic(fmt.Sprintf("tensor.%s: offsets %v do not run from 0 to %d", op, offsets, rows))
	}
}
