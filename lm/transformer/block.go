package transformer

import "github.com/opencharacter/opencharacter/tensor"

// A block computes, with RMS norms n1 and n2,
//
//	q, k, v = Wq n1(x), Wk n1(x), Wv n1(x)     per-head norm of q and k if QKNorm, then rotation
//	mid     = x + p1(Wo attention(q, k, v))
//	out     = mid + p2(Wdown (silu(Wgate n2(mid)) * Wup n2(mid)))
//
// p1 and p2 are RMS norms in Gemma, which also has gelu for silu, and nothing elsewhere.
// The first line is qkv, the other two are mix. What lies between them, attention
// over packed rows or over the cache, is the caller's.

// qkv fills a.q, a.k and a.v from a.x. pos [T] is each token's place in its row.
func (m *Model) qkv(ws *Workspace, a *activations, l int, pos []int32, s lora) {
	w, n := &m.layers[l], a.x.Rows
	norm := ws.get(slotNorm, n, m.Width)
	tensor.RMSNorm(norm, a.x, w.attnNorm, m.NormEps, a.attnInv)
	m.linear(ws, a.qRaw, norm, l, projQ, s, a.hidden[projQ])
	m.linear(ws, a.kRaw, norm, l, projK, s, a.hidden[projK])
	m.linear(ws, a.v, norm, l, projV, s, a.hidden[projV])
	if m.QKNorm {
		headNorm(a.q, a.qRaw, w.qNorm, m.NormEps, a.qInv)
		headNorm(a.k, a.kRaw, w.kNorm, m.NormEps, a.kInv)
	}
	rope := m.ropeOf(l)
	rope.Apply(a.q, m.Heads, pos)
	rope.Apply(a.k, m.KVHeads, pos)
}

// mix turns a.att into the output of the layer; out may be a.x itself.
func (m *Model) mix(ws *Workspace, out *tensor.Tensor, a *activations, l int, s lora) {
	act := m.hiddenMLP(ws, a, l, s)
	m.linear(ws, a.mlpOut, act, l, projDown, s, a.hidden[projDown])
	y := ws.get(slotY, act.Rows, m.Width)
	sum(out, a.mid, m.postNorm(y, a.mlpOut, m.layers[l].mlpPost, a.mlpOutInv))
}

// hiddenMLP is mix up to the hidden layer of the MLP, which it returns: scratch.
func (m *Model) hiddenMLP(ws *Workspace, a *activations, l int, s lora) *tensor.Tensor {
	w, n := &m.layers[l], a.x.Rows
	y := ws.get(slotY, n, m.Width)
	m.linear(ws, a.attOut, a.att, l, projO, s, a.hidden[projO])
	sum(a.mid, a.x, m.postNorm(y, a.attOut, w.attnPost, a.attOutInv))
	norm, act := ws.get(slotNorm, n, m.Width), ws.get(slotAct, n, m.FFN)
	tensor.RMSNorm(norm, a.mid, w.mlpNorm, m.NormEps, a.mlpInv)
	m.linear(ws, a.gate, norm, l, projGate, s, a.hidden[projGate])
	m.linear(ws, a.up, norm, l, projUp, s, a.hidden[projUp])
	m.activate(act, a.gate, a.up)
	return act
}

// postNorm returns the norm of a branch's output, in y, or the output itself where the
// model has no such norm.
func (m *Model) postNorm(y, out *tensor.Tensor, weight, inv []float32) *tensor.Tensor {
	if weight == nil {
		return out
	}
	tensor.RMSNorm(y, out, weight, m.NormEps, inv)
	return y
}

// activate is the gated unit of the MLP.
func (m *Model) activate(dst, gate, up *tensor.Tensor) {
	if m.geglu() {
		tensor.GeGLU(dst, gate, up)
		return
	}
	tensor.SwiGLU(dst, gate, up)
}

// narrow reduces the activations to some rows between attention and mix: in the last
// layer only the rows that the head reads matter.
func (a *activations) narrow(ws *Workspace, rows []int32) {
	k := len(rows)
	x, att := ws.get(slotTop, k, a.x.Cols), ws.get(slotTopAtt, k, a.att.Cols)
	for i, r := range rows {
		copy(x.Row(i), a.x.Row(int(r)))
		copy(att.Row(i), a.att.Row(int(r)))
	}
	a.x, a.att = x, att
	// A token may be read for several rows, so k may exceed the rows there were.
	a.mid = a.store[actMid].shape(k, a.mid.Cols)
	a.gate = a.store[actGate].shape(k, a.gate.Cols)
	a.up = a.store[actUp].shape(k, a.up.Cols)
	a.mlpInv = a.store[actMLPInv].shape(1, k).Data()
	a.reserveBranches(ws, k, a.attOutInv != nil)
}

// headNorm applies an RMS norm with weight [HeadDim] to every head of x [T, heads*HeadDim].
func headNorm(dst, x *tensor.Tensor, weight []float32, eps float32, inv []float32) {
	n, d := len(x.Data())/len(weight), len(weight)
	tensor.RMSNorm(dst.Reshape(n, d), x.Reshape(n, d), weight, eps, inv)
}

// sum sets dst = x + y. The branch is added to the residual stream as a whole, not
// accumulated into it term by term, because the stream can be far larger.
func sum(dst, x, y *tensor.Tensor) {
	if dst != x {
		copy(dst.Data(), x.Data())
	}
	tensor.Add(dst, y)
}
