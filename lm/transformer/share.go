package transformer

import (
	"fmt"

	"github.com/opencharacter/opencharacter/tensor"
)

// Rows that begin with the same tokens, such as the two answers of a preference pair,
// have the same numbers there: the row law says so. Rows.Shared lets a call compute such
// a beginning once. All token-wise work then runs on the distinct tokens; attention
// alone, a small part of the whole, sees the rows unfolded.

// checkShared reports a shared beginning that is not one.
func checkShared(rows Rows) error {
	if rows.Shared == nil {
		return nil
	}
	if len(rows.Shared) != len(rows.Offsets)-1 {
		return fmt.Errorf("transformer: %d shared beginnings for %d rows", len(rows.Shared), len(rows.Offsets)-1)
	}
	for i, n := range rows.Shared {
		if n == 0 {
			continue
		}
		from, to := rows.Offsets[i], rows.Offsets[i+1]
		if i == 0 || n < 0 || n >= to-from || n > from-rows.Offsets[i-1] {
			return fmt.Errorf("transformer: row %d of %d tokens cannot share its first %d with the row before", i, to-from, n)
		}
		before := rows.Tokens[rows.Offsets[i-1]:]
		for j, id := range rows.Tokens[from : from+n] {
			if id != before[j] {
				return fmt.Errorf("transformer: row %d is said to share %d tokens with the row before, but token %d differs", i, n, j)
			}
		}
	}
	return nil
}

// unfold lists the distinct tokens of the rows and their positions; ws.distinct[p] is the
// place of token p of the batch among them, and ws.repeated[p] says that an earlier row
// has brought it.
func (ws *Workspace) unfold(rows Rows) {
	ws.tokens, ws.pos, ws.distinct, ws.repeated = ws.tokens[:0], ws.pos[:0], ws.distinct[:0], ws.repeated[:0]
	for i := range len(rows.Offsets) - 1 {
		from, to, shared := rows.Offsets[i], rows.Offsets[i+1], int32(0)
		if rows.Shared != nil {
			shared = rows.Shared[i]
		}
		for p := from; p < to; p++ {
			at := int32(len(ws.tokens))
			if p < from+shared {
				at = ws.distinct[rows.Offsets[i-1]+p-from]
			} else {
				ws.tokens, ws.pos = append(ws.tokens, rows.Tokens[p]), append(ws.pos, p-from)
			}
			ws.distinct, ws.repeated = append(ws.distinct, at), append(ws.repeated, p < from+shared)
		}
	}
}

// folded tells whether some token of the batch is computed once for several rows.
func (ws *Workspace) folded() bool { return len(ws.tokens) < len(ws.distinct) }

// places translates positions in the batch to places among the distinct tokens.
func (ws *Workspace) places(positions []int32) []int32 {
	ws.ends = ws.ends[:0]
	for _, p := range positions {
		ws.ends = append(ws.ends, ws.distinct[p])
	}
	return ws.ends
}

// spread copies x, one row for each distinct token, to scratch with one for each token.
func (ws *Workspace) spread(s slot, x *tensor.Tensor) *tensor.Tensor {
	out := ws.get(s, len(ws.distinct), x.Cols)
	for p, at := range ws.distinct {
		copy(out.Row(p), x.Row(int(at)))
	}
	return out
}

// collect is the backward pass of spread: it adds up the gradients of all copies.
func (ws *Workspace) collect(dx, dy *tensor.Tensor) {
	dx.Zero()
	for p, at := range ws.distinct {
		to := dx.Row(int(at))
		for j, v := range dy.Row(p) {
			to[j] += v
		}
	}
}

// attention computes a.att of layer l from a.q, a.k and a.v over the rows of the batch.
func (m *Model) attention(ws *Workspace, a *activations, l int, offsets []int32) {
	shape := m.attentionShape(l)
	if !ws.folded() {
		tensor.Attention(a.att, a.q, a.k, a.v, offsets, shape, a.stats)
		return
	}
	out := ws.get(slotAllAtt, len(ws.distinct), a.att.Cols)
	tensor.Attention(out, ws.spread(slotAllQ, a.q), ws.spread(slotAllK, a.k), ws.spread(slotAllV, a.v), offsets, shape, a.stats)
	for p, at := range ws.distinct {
		if !ws.repeated[p] {
			copy(a.att.Row(int(at)), out.Row(p))
		}
	}
}

// attentionGrad is the backward pass of attention. A repeated token's output is read
// once, so its gradient is passed to the first copy and is zero for the others.
func (m *Model) attentionGrad(ws *Workspace, dq, dk, dv, datt *tensor.Tensor, a *activations, l int, offsets []int32) {
	shape := m.attentionShape(l)
	if !ws.folded() {
		tensor.AttentionBackward(dq, dk, dv, datt, a.att, a.q, a.k, a.v, offsets, shape, a.stats)
		return
	}
	n := len(ws.distinct)
	dout := ws.spread(slotAllDAtt, datt)
	for p, again := range ws.repeated {
		if again {
			clear(dout.Row(p))
		}
	}
	allDQ, allDK, allDV := ws.get(slotAllDQ, n, dq.Cols), ws.get(slotAllDK, n, dk.Cols), ws.get(slotAllDV, n, dv.Cols)
	tensor.AttentionBackward(allDQ, allDK, allDV, dout, ws.spread(slotAllAtt, a.att),
		ws.spread(slotAllQ, a.q), ws.spread(slotAllK, a.k), ws.spread(slotAllV, a.v), offsets, shape, a.stats)
	ws.collect(dq, allDQ)
	ws.collect(dk, allDK)
	ws.collect(dv, allDV)
}
