package transformer

import (
	"runtime"

	"github.com/opencharacter/opencharacter/tensor"
)

// Under a memory limit Grad keeps, of each layer but the last, only its input, and makes
// the rest again in the backward pass, layer by layer. That is the same code on the same
// numbers, so every bit of log-probs and gradients is the same; it costs nearly another
// forward pass, about a third of a step.

// keptFloats is how many float32s one layer keeps of its forward pass for n distinct
// tokens of all, its input included: the sum of what activations.reserve shapes.
func (c Config) keptFloats(n, all, rank int) int {
	heads, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	perToken := 2*c.Width + 2*heads + 2*kv + 2*c.FFN + 2 + int(projCount)*rank
	if c.QKNorm {
		perToken += heads + kv + c.Heads + c.KVHeads
	}
	if c.postNorms() {
		perToken += 2*c.Width + 2
	}
	return n*perToken + all*2*c.Heads
}

// ActivationBytes is the memory of what Grad keeps between its forward and its backward
// pass for a batch of n tokens, none of them shared, and an adapter of the given rank: of
// all layers, and with all but one layer recomputed.
func (c Config) ActivationBytes(n, rank int) (kept, recomputed int64) {
	layer := c.keptFloats(n, n, rank)
	return 4 * int64(c.Layers) * int64(layer), 4 * (int64(layer) + int64(c.Layers-1)*int64(n*c.Width))
}

// limit decides whether the batch at hand keeps all activations or recomputes them.
func (ws *Workspace) limit(c Config, n, all, rank int) {
	bytes := 4 * int64(c.Layers) * int64(c.keptFloats(n, all, rank))
	ws.recompute = rank > 0 && c.Layers > 1 && ws.MemoryLimit > 0 && bytes > ws.MemoryLimit
}

// reserveInputs shapes the activations of one layer and the inputs of the others, and
// lets go of what else those hold from batches that were kept whole.
func (ws *Workspace) reserveInputs(c Config, n, all, rank int) {
	ws.reserve(c, 1, n, all, rank)
	for len(ws.layers) < c.Layers {
		ws.layers = append(ws.layers, activations{})
	}
	dropped := 0
	for l := 1; l < len(ws.layers); l++ {
		input := ws.layers[l].store[actX]
		for i := range ws.layers[l].store {
			dropped += len(ws.layers[l].store[i].data)
		}
		dropped -= len(input.data)
		ws.layers[l] = activations{}
		if l < c.Layers {
			ws.layers[l].store[actX] = input
			ws.layers[l].x = ws.layers[l].store[actX].shape(n, c.Width)
		}
	}
	if dropped >= largeFloats {
		runtime.GC() // as when a large buffer is outgrown
	}
}

// at returns the activations of layer l: its own, or those that all layers share, with
// the input of this one.
func (ws *Workspace) at(l int) *activations {
	if !ws.recompute {
		return &ws.layers[l]
	}
	ws.layers[0].x = ws.input(l)
	return &ws.layers[0]
}

// input returns the residual stream at the input of layer l.
func (ws *Workspace) input(l int) *tensor.Tensor { return ws.layers[l].store[actX].t }

// again makes the activations of layer l once more from its input, but not its output.
func (m *Model) again(ws *Workspace, a *activations, l int, offsets []int32, stack []*Adapter) {
	w, s := &m.layers[l], lora{adapters: stack, train: true}
	m.qkv(ws, a, l, ws.pos, s)
	m.attention(ws, a, l, offsets)
	act := m.hiddenMLP(ws, a, l, s)
	if w.mlpPost == nil { // the backward pass needs no more of the last projection
		m.lowRank(a.hidden[projDown], act, stack[len(stack)-1], l, projDown)
		return
	}
	m.linear(ws, a.mlpOut, act, l, projDown, s, a.hidden[projDown])
	m.postNorm(ws.get(slotY, act.Rows, m.Width), a.mlpOut, w.mlpPost, a.mlpOutInv)
}
