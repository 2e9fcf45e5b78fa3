package transformer

import "github.com/opencharacter/opencharacter/tensor"

// lora is the stack of adapters of one forward pass.
type lora struct {
	adapters []*Adapter
	joined   *joined // the same stack for decoding, or nil
	train    bool    // keep what the backward pass of the last adapter needs
}

// linear computes y = x . W^T + sum over the stack of scale * (x . A^T) . B^T for
// projection p of layer l: x [T, in], y [T, out]. hidden receives scale * x . A^T of
// the last adapter when s.train is set.
func (m *Model) linear(ws *Workspace, y, x *tensor.Tensor, l int, p projection, s lora, hidden *tensor.Tensor) {
	if s.joined != nil {
		tensor.Linear(y, x, m.layers[l].proj[p], false)
		s.joined.add(ws, y, x, l, p)
		return
	}
	terms := ws.terms[:0]
	for i, a := range s.adapters {
		h := hidden
		if !s.train || i < len(s.adapters)-1 {
			h = ws.lowRank(i, x.Rows, a.Rank)
		}
		m.lowRank(h, x, a, l, p)
		terms = append(terms, tensor.Term{A: h, B: a.pairs[l][p].b})
	}
	ws.terms = terms
	tensor.Linear(y, x, m.layers[l].proj[p], false, terms...)
}

// lowRank sets h = scale * x . A^T for one adapter.
func (m *Model) lowRank(h, x *tensor.Tensor, a *Adapter, l int, p projection) {
	m.compute.MatMulNT(h, x, a.pairs[l][p].a, false)
	tensor.Scale(h, a.Scale())
}

// linearBackward is the backward pass of linear. Forward, for each adapter:
//
//	h = scale * x . A^T;  y = x . W^T + sum h . B^T
//
// so with dh = scale * dy . B
//
//	dx = dy . W + sum dh . A;  dA = dh^T . x;  dB = dy^T . h.
//
// dx is added to when accumulate is set; a nil dx is not computed. dA and dB, of
// the last adapter of the stack only, are added to grads: one chain over the rows in
// order, so cutting a batch into several calls leaves their bits alone.
func (m *Model) linearBackward(ws *Workspace, dx, dy, x *tensor.Tensor, l int, p projection, stack []*Adapter, hidden *tensor.Tensor, grads *Gradients, accumulate bool) {
	terms := ws.terms[:0]
	for i, a := range stack {
		last := i == len(stack)-1
		if dx == nil && !last {
			continue
		}
		ab := a.pairs[l][p]
		dh := ws.lowRank(i, dy.Rows, a.Rank)
		m.compute.MatMulNN(dh, dy, ab.b, false)
		tensor.Scale(dh, a.Scale())
		terms = append(terms, tensor.Term{A: dh, B: ab.a})
		if last {
			g := grads.pairs[l][p]
			tensor.MatMulTN(g.a, dh, x, true)
			tensor.MatMulTN(g.b, dy, hidden, true)
		}
	}
	ws.terms = terms
	if dx != nil {
		tensor.LinearBackward(dx, dy, m.layers[l].proj[p], accumulate, terms...)
	}
}
