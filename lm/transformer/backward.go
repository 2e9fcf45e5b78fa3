package transformer

import (
	"errors"
	"fmt"

	"github.com/opencharacter/opencharacter/tensor"
)

// Grad runs the forward pass, calls loss with the log-probs of the scored positions
// (valid during the call only), and propagates what it returns, dLoss/dlogprob for
// each position, back into the last adapter of the stack. The gradients are added to
// grads. If loss returns nil there is no backward pass and no error. After an error of
// Workspace.Interrupt grads hold a part of the gradients.
//
// Rows add to each gradient in order, so the bits of grads do not depend on how
// a batch is cut into calls as long as the rows come in the same order.
func (m *Model) Grad(ws *Workspace, rows Rows, positions []int32, stack []*Adapter, grads *Gradients, loss func(logprobs []float32) []float32) error {
	if len(stack) == 0 {
		return errors.New("transformer: grad: the stack is empty; there is no adapter to train")
	}
	if m.Quantized() {
		return errors.New("transformer: grad: the model's weights are quantized; load the model without quantized weights to train")
	}
	if err := m.CheckStack(stack); err != nil {
		return err
	}
	last := stack[len(stack)-1]
	if grads.rank != last.Rank || last.fits(grads.cfg) != nil {
		return fmt.Errorf("transformer: grad: the gradients (rank %d) were not made for the last adapter of the stack (rank %d)", grads.rank, last.Rank)
	}
	if err := m.check(rows, positions); err != nil {
		return err
	}
	if len(positions) == 0 {
		return errors.New("transformer: grad: no scored positions")
	}
	logprobs, err := m.forward(ws, rows, positions, stack, last.Rank)
	if err != nil {
		return err
	}
	dlogprobs := loss(logprobs)
	if dlogprobs == nil {
		return nil
	}
	if len(dlogprobs) != len(positions) {
		return fmt.Errorf("transformer: grad: the loss returned %d derivatives for %d positions", len(dlogprobs), len(positions))
	}
	return m.backward(ws, rows, positions, stack, grads, dlogprobs)
}

// backward walks the layers from the top. dx is dLoss/d(residual stream).
func (m *Model) backward(ws *Workspace, rows Rows, positions []int32, stack []*Adapter, grads *Gradients, dlogprobs []float32) error {
	n := len(ws.tokens)
	dx := ws.get(slotDX, n, m.Width)
	m.scoreBackward(ws, dx, positions, dlogprobs)
	for l := m.Layers - 1; l >= 0; l-- {
		if err := ws.interrupted(); err != nil {
			return err
		}
		a := ws.at(l)
		if ws.recompute && l+1 < m.Layers {
			m.again(ws, a, l, rows.Offsets, stack)
		}
		m.mlpBackward(ws, dx, a, l, stack, grads)
		m.attentionBackward(ws, dx, a, l, rows.Offsets, stack, grads)
	}
	return nil
}

// scoreBackward sets dx from the derivatives of the log-probs; it is zero at
// positions that are not scored.
func (m *Model) scoreBackward(ws *Workspace, dx *tensor.Tensor, positions []int32, dlogprobs []float32) {
	k := len(positions)
	x, dtop := ws.get(slotTop, k, m.Width), ws.get(slotDNorm, k, m.Width)
	// forward: logprob = log softmax(norm . head^T)[target]; norm = RMSNorm(x)
	dnorm := ws.get(slotTopGrad, k, m.Width) // of the log-probs; the loss scales its rows
	for i, d := range dlogprobs {
		for j, v := range dnorm.Row(i) {
			dnorm.Row(i)[j] = d * v
		}
	}
	tensor.RMSNormBackward(dtop, dnorm, x, m.finalNorm, ws.vector(slotInv, k), false)
	dx.Zero()
	for i, at := range ws.places(positions) { // a shared token may predict for several rows
		to := dx.Row(int(at))
		for j, v := range dtop.Row(i) {
			to[j] += v
		}
	}
}

// mlpBackward turns dx from the gradient at a layer's output into the gradient
// at a.mid. Forward: out = mid + p2(Wdown act), act = silu(gate) * up, gate = Wgate
// n2(mid), up = Wup n2(mid); see block.go for p2, and for gelu.
func (m *Model) mlpBackward(ws *Workspace, dx *tensor.Tensor, a *activations, l int, stack []*Adapter, grads *Gradients) {
	w, n := &m.layers[l], dx.Rows
	act, dact := ws.get(slotAct, n, m.FFN), ws.get(slotDAct, n, m.FFN)
	m.activate(act, a.gate, a.up)
	dout := postNormBackward(ws, dx, a.mlpOut, w.mlpPost, a.mlpOutInv)
	m.linearBackward(ws, dact, dout, act, l, projDown, stack, a.hidden[projDown], grads, false)

	dgate, dup := ws.get(slotDGate, n, m.FFN), ws.get(slotDUp, n, m.FFN)
	m.activateBackward(dgate, dup, dact, a.gate, a.up)

	norm, dnorm := ws.get(slotNorm, n, m.Width), ws.get(slotDNorm, n, m.Width)
	tensor.RMSNorm(norm, a.mid, w.mlpNorm, m.NormEps, nil)
	m.linearBackward(ws, dnorm, dgate, norm, l, projGate, stack, a.hidden[projGate], grads, false)
	m.linearBackward(ws, dnorm, dup, norm, l, projUp, stack, a.hidden[projUp], grads, true)
	tensor.RMSNormBackward(dx, dnorm, a.mid, w.mlpNorm, a.mlpInv, true)
}

// attentionBackward turns dx from the gradient at a.mid into the gradient at a.x.
// Forward: mid = x + p1(Wo attention(q, k, v)) with q, k, v from n1(x). Nothing
// trainable lies below the first layer, so there dx is left unfinished.
func (m *Model) attentionBackward(ws *Workspace, dx *tensor.Tensor, a *activations, l int, offsets []int32, stack []*Adapter, grads *Gradients) {
	w, n := &m.layers[l], dx.Rows
	heads, kv := m.Heads*m.HeadDim, m.KVHeads*m.HeadDim
	datt := ws.get(slotDAtt, n, heads)
	dout := postNormBackward(ws, dx, a.attOut, w.attnPost, a.attOutInv)
	m.linearBackward(ws, datt, dout, a.att, l, projO, stack, a.hidden[projO], grads, false)

	dq, dk, dv := ws.get(slotDQ, n, heads), ws.get(slotDK, n, kv), ws.get(slotDV, n, kv)
	m.attentionGrad(ws, dq, dk, dv, datt, a, l, offsets)
	rope := m.ropeOf(l)
	rope.ApplyBackward(dq, m.Heads, ws.pos)
	rope.ApplyBackward(dk, m.KVHeads, ws.pos)
	if m.QKNorm {
		dqRaw, dkRaw := datt, ws.get(slotDKRaw, n, kv) // datt has done its work
		headNormBackward(dqRaw, dq, a.qRaw, w.qNorm, a.qInv)
		headNormBackward(dkRaw, dk, a.kRaw, w.kNorm, a.kInv)
		dq, dk = dqRaw, dkRaw
	}

	norm := ws.get(slotNorm, n, m.Width)
	tensor.RMSNorm(norm, a.x, w.attnNorm, m.NormEps, nil)
	var dnorm *tensor.Tensor
	if l > 0 {
		dnorm = ws.get(slotDNorm, n, m.Width)
	}
	m.linearBackward(ws, dnorm, dq, norm, l, projQ, stack, a.hidden[projQ], grads, false)
	m.linearBackward(ws, dnorm, dk, norm, l, projK, stack, a.hidden[projK], grads, true)
	m.linearBackward(ws, dnorm, dv, norm, l, projV, stack, a.hidden[projV], grads, true)
	if l > 0 {
		tensor.RMSNormBackward(dx, dnorm, a.x, w.attnNorm, a.attnInv, true)
	}
}

// postNormBackward is the backward pass of postNorm: the gradient at out, or dx itself
// where no norm follows.
func postNormBackward(ws *Workspace, dx, out *tensor.Tensor, weight, inv []float32) *tensor.Tensor {
	if weight == nil {
		return dx
	}
	dout := ws.get(slotDBranch, dx.Rows, dx.Cols)
	tensor.RMSNormBackward(dout, dx, out, weight, inv, false)
	return dout
}

// activateBackward is the backward pass of activate.
func (m *Model) activateBackward(dgate, dup, dact, gate, up *tensor.Tensor) {
	if m.geglu() {
		tensor.GeGLUBackward(dgate, dup, dact, gate, up)
		return
	}
	tensor.SwiGLUBackward(dgate, dup, dact, gate, up)
}

// headNormBackward is the backward pass of headNorm.
func headNormBackward(dx, dy, x *tensor.Tensor, weight []float32, inv []float32) {
	n, d := len(x.Data())/len(weight), len(weight)
	tensor.RMSNormBackward(dx.Reshape(n, d), dy.Reshape(n, d), x.Reshape(n, d), weight, inv, false)
}
