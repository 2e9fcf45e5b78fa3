package transformer

import (
	"fmt"

	"github.com/opencharacter/opencharacter/tensor"
)

// Rows is a packed batch of token rows without padding: row i is
// Tokens[Offsets[i]:Offsets[i+1]], and no row sees another.
//
// Shared, if not nil, says of each row how many of its first tokens equal those of the
// row before and may be computed together with them. A row keeps at least one token of its
// own. Sharing changes no bit of a log-prob; a gradient it changes within rounding,
// because the shared tokens' part is summed first.
type Rows struct{ Tokens, Offsets, Shared []int32 }

// check reports the first thing that makes the batch or the positions unusable.
func (m *Model) check(rows Rows, positions []int32) error {
	if len(rows.Offsets) < 2 || rows.Offsets[0] != 0 || int(rows.Offsets[len(rows.Offsets)-1]) != len(rows.Tokens) {
		return fmt.Errorf("transformer: offsets must run from 0 to the number of tokens (%d), one more than rows", len(rows.Tokens))
	}
	next := 0
	for i := range len(rows.Offsets) - 1 {
		from, to := rows.Offsets[i], rows.Offsets[i+1]
		if to <= from {
			return fmt.Errorf("transformer: row %d has no tokens (offsets %d to %d)", i, from, to)
		}
		if int(to-from) > m.Context {
			return fmt.Errorf("transformer: row %d has %d tokens and the model's context is %d; shorten the row", i, to-from, m.Context)
		}
		for ; next < len(positions) && positions[next] < to; next++ {
			switch p := positions[next]; {
			case p < from || next > 0 && p <= positions[next-1]:
				return fmt.Errorf("transformer: scored positions must ascend from 0: found %d at index %d", p, next)
			case p == to-1:
				return fmt.Errorf("transformer: position %d is the last of row %d; no token follows it", p, i)
			}
		}
	}
	if next < len(positions) {
		return fmt.Errorf("transformer: scored position %d lies outside %d tokens", positions[next], len(rows.Tokens))
	}
	if err := checkShared(rows); err != nil {
		return err
	}
	return m.checkTokens(rows.Tokens)
}

func (m *Model) checkTokens(tokens []int32) error {
	for i, id := range tokens {
		if id < 0 || int(id) >= m.Vocab {
			return fmt.Errorf("transformer: token %d at index %d is outside the vocabulary of %d; is this the model's own tokenizer?", id, i, m.Vocab)
		}
	}
	return nil
}

// LogProbs runs the forward pass over packed rows and returns, for each scored
// position p, log P(Tokens[p+1] | its row up to p). Positions index Tokens, ascend,
// and are never the last of a row. The result is a new slice.
func (m *Model) LogProbs(ws *Workspace, rows Rows, positions []int32, stack []*Adapter) ([]float32, error) {
	if err := m.CheckStack(stack); err != nil {
		return nil, err
	}
	if err := m.check(rows, positions); err != nil {
		return nil, err
	}
	if len(positions) == 0 {
		return nil, nil
	}
	logprobs, err := m.forward(ws, rows, positions, stack, 0)
	if err != nil {
		return nil, err
	}
	return append([]float32(nil), logprobs...), nil
}

// forward computes the log-probs of the scored positions. With a rank above 0 every
// layer keeps its activations for a backward pass into an adapter of that rank, or its
// input, see recompute.go. The returned slice belongs to the workspace. Its only error is
// that of Workspace.Interrupt.
func (m *Model) forward(ws *Workspace, rows Rows, positions []int32, stack []*Adapter, rank int) ([]float32, error) {
	ws.unfold(rows)
	n, train := len(ws.tokens), rank > 0
	ws.limit(m.Config, n, len(rows.Tokens), rank)
	switch {
	case ws.recompute:
		ws.reserveInputs(m.Config, n, len(rows.Tokens), rank)
	case train:
		ws.reserve(m.Config, m.Layers, n, len(rows.Tokens), rank)
	default:
		ws.reserve(m.Config, 1, n, len(rows.Tokens), 0)
	}
	m.embedTokens(ws.layers[0].x, ws.tokens)
	s := lora{adapters: stack, train: train}
	var out *tensor.Tensor
	for l := range m.Layers {
		if err := ws.interrupted(); err != nil {
			return nil, err
		}
		last := l+1 == m.Layers
		a := &ws.layers[0]
		if train {
			a = ws.at(l)
		}
		m.qkv(ws, a, l, ws.pos, s)
		m.attention(ws, a, l, rows.Offsets)
		if last && !train {
			a.narrow(ws, ws.places(positions))
		}
		switch {
		case !train:
			out = a.x
		case last:
			out = ws.get(slotX, n, m.Width)
		default:
			out = ws.input(l + 1)
		}
		m.mix(ws, out, a, l, s)
	}
	if train {
		top := ws.get(slotTop, len(positions), m.Width)
		for i, at := range ws.places(positions) {
			copy(top.Row(i), out.Row(int(at)))
		}
		out = top
	}
	return m.score(ws, out, rows.Tokens, positions, train), ws.interrupted()
}

// score runs the final norm and the head on x [len(positions), Width], the residual
// stream at the scored positions. For a backward pass it keeps the gradients of the
// log-probs: the head's logits are at hand here, and would have to be made again there.
func (m *Model) score(ws *Workspace, x *tensor.Tensor, tokens, positions []int32, train bool) []float32 {
	ws.targets = ws.targets[:0]
	for _, p := range positions {
		ws.targets = append(ws.targets, tokens[p+1])
	}
	norm := ws.get(slotTopNorm, x.Rows, m.Width)
	tensor.RMSNorm(norm, x, m.finalNorm, m.NormEps, ws.vector(slotInv, x.Rows))
	logprobs := ws.vector(slotLogProbs, x.Rows)
	if train {
		tensor.HeadLogProbGrad(logprobs, ws.get(slotTopGrad, x.Rows, m.Width), norm, m.head, ws.targets)
	} else {
		tensor.HeadLogProb(logprobs, ws.vector(slotLSE, x.Rows), norm, m.head, ws.targets)
	}
	return logprobs
}
