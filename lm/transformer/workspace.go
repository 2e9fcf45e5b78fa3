package transformer

import (
	"runtime"

	"github.com/opencharacter/opencharacter/tensor"
)

// Workspace is reusable scratch memory for LogProbs, Grad and Extend. It grows to
// the largest call it has seen and then stays, so a steady state allocates nothing
// of size. One goroutine may use it at a time; its contents have no meaning between
// calls.
type Workspace struct {
	// MemoryLimit, if above 0, is the most bytes that Grad may keep of its forward pass;
	// scratch and weights come on top. A batch that would need more (see
	// Config.ActivationBytes) is computed to the same bits in less memory and more time.
	MemoryLimit int64
	// Interrupt, if set, is asked before every layer of every pass, forward and backward. An error of it ends the pass and
	// is returned as it is: a pass over a large batch of a large model takes minutes.
	Interrupt func() error

	layers    []activations // one per layer for Grad, one for all layers else
	recompute bool          // this batch is over the limit
	floats    map[slot]*buffer
	lowRanks  []*buffer     // by adapter: x . A^T, or the gradient there
	terms     []tensor.Term // of one projection

	tokens, pos, distinct, ends, targets []int32
	repeated                             []bool
	page, cell, lengths                  []int32
	pages                                [][]int32
}

// NewWorkspace returns an empty workspace.
func NewWorkspace() *Workspace { return &Workspace{floats: map[slot]*buffer{}} }

// Release gives the memory to the collector; the workspace can be used again.
func (ws *Workspace) Release() {
	limit, interrupt := ws.MemoryLimit, ws.Interrupt
	*ws = *NewWorkspace()
	ws.MemoryLimit, ws.Interrupt = limit, interrupt
}

// interrupted asks Interrupt.
func (ws *Workspace) interrupted() error {
	if ws.Interrupt == nil {
		return nil
	}
	return ws.Interrupt()
}

// slot names one scratch matrix of a workspace.
type slot int

const (
	slotX slot = iota // output of the last layer
	slotNorm
	slotY
	slotAct
	slotTop // residual rows that the head reads
	slotTopAtt
	slotTopNorm
	slotTopGrad
	slotInv
	slotLogProbs
	slotLSE
	slotHidden // x . A^T of adapters joined
	slotDX
	slotDNorm
	slotDAtt
	slotDQ
	slotDK
	slotDV
	slotDKRaw
	slotDAct
	slotDGate
	slotDUp
	slotDBranch
	slotAllQ // unfolded rows, for attention over shared beginnings
	slotAllK
	slotAllV
	slotAllAtt
	slotAllDAtt
	slotAllDQ
	slotAllDK
	slotAllDV
)

// buffer is a matrix whose shape changes from call to call over one growing storage.
type buffer struct {
	data []float32
	t    *tensor.Tensor
}

// roundRows is the granularity of growth, in rows, or in values of a vector: nearly equal
// batches share a size.
const roundRows = 64

// largeFloats is the size from which an outgrown buffer is collected at once
// rather than left to the next cycle, to keep the peak of memory low.
const largeFloats = 4 << 20

// shape returns the buffer as a rows x cols matrix with arbitrary contents.
func (b *buffer) shape(rows, cols int) *tensor.Tensor {
	if b.t != nil && b.t.Rows == rows && b.t.Cols == cols {
		return b.t
	}
	if need := rows * cols; need > len(b.data) {
		grown := (rows + roundRows - 1) / roundRows * roundRows * cols
		if rows == 1 { // a vector
			grown = (cols + roundRows - 1) / roundRows * roundRows
		}
		old := len(b.data)
		b.data, b.t = nil, nil
		if old >= largeFloats {
			runtime.GC()
		}
		b.data = tensor.New(1, grown).Data()
	}
	b.t = tensor.FromSlice(rows, cols, b.data[:rows*cols])
	return b.t
}

// get returns the scratch matrix of a slot.
func (ws *Workspace) get(s slot, rows, cols int) *tensor.Tensor {
	b := ws.floats[s]
	if b == nil {
		b = &buffer{}
		ws.floats[s] = b
	}
	return b.shape(rows, cols)
}

// lowRank returns the scratch matrix of adapter i of a stack.
func (ws *Workspace) lowRank(i, rows, rank int) *tensor.Tensor {
	for len(ws.lowRanks) <= i {
		ws.lowRanks = append(ws.lowRanks, &buffer{})
	}
	return ws.lowRanks[i].shape(rows, rank)
}

// vector returns the scratch vector of a slot.
func (ws *Workspace) vector(s slot, n int) []float32 { return ws.get(s, 1, n).Data() }

// activations is what one layer keeps of its forward pass. The outputs of the two
// norms and of SwiGLU are not kept: they are cheap to compute again from x, mid,
// gate and up, to the same bits, and would be a third of the memory.
type activations struct {
	x, mid     *tensor.Tensor // [T, Width] residual stream at the layer's input and after attention
	q, k, v    *tensor.Tensor // after the rotation
	qRaw, kRaw *tensor.Tensor // before the per-head norm (QKNorm only)
	att        *tensor.Tensor // [T, Heads*HeadDim] output of attention
	stats      *tensor.Tensor // [all tokens, 2*Heads] of tensor.Attention; nil without a backward pass
	gate, up   *tensor.Tensor // [T, FFN]

	// Outputs of the two branches [T, Width] before the norms that follow them in some
	// models. Without these norms nothing needs them later and they are scratch.
	attOut, mlpOut       *tensor.Tensor
	attOutInv, mlpOutInv []float32

	attnInv, mlpInv []float32                 // [T]
	qInv, kInv      []float32                 // [T*Heads], [T*KVHeads]
	hidden          [projCount]*tensor.Tensor // scale * x . A^T [T, rank] of the trainable adapter

	store [actCount]buffer
}

// Buffers of one layer's activations; those of hidden come last.
const (
	actX = iota
	actMid
	actQ
	actK
	actV
	actQRaw
	actKRaw
	actAtt
	actStats
	actGate
	actUp
	actAttnInv
	actMLPInv
	actQInv
	actKInv
	actAttOut
	actMLPOut
	actAttOutInv
	actMLPOutInv
	actHidden
	actCount = actHidden + int(projCount)
)

// reserve shapes the activations of one layer for n distinct tokens of all. rank is the
// rank of the trainable adapter, or 0 when no backward pass follows.
func (a *activations) reserve(ws *Workspace, c Config, n, all, rank int) {
	heads, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	a.x = a.store[actX].shape(n, c.Width)
	a.mid = a.store[actMid].shape(n, c.Width)
	a.q = a.store[actQ].shape(n, heads)
	a.k = a.store[actK].shape(n, kv)
	a.v = a.store[actV].shape(n, kv)
	a.qRaw, a.kRaw = a.q, a.k
	if c.QKNorm {
		a.qRaw = a.store[actQRaw].shape(n, heads)
		a.kRaw = a.store[actKRaw].shape(n, kv)
		a.qInv = a.store[actQInv].shape(1, n*c.Heads).Data()
		a.kInv = a.store[actKInv].shape(1, n*c.KVHeads).Data()
	}
	a.att = a.store[actAtt].shape(n, heads)
	a.stats = nil
	a.gate = a.store[actGate].shape(n, c.FFN)
	a.up = a.store[actUp].shape(n, c.FFN)
	a.attnInv = a.store[actAttnInv].shape(1, n).Data()
	a.mlpInv = a.store[actMLPInv].shape(1, n).Data()
	a.reserveBranches(ws, n, c.postNorms())
	if rank > 0 {
		a.stats = a.store[actStats].shape(all, 2*c.Heads)
		for p := range a.hidden {
			a.hidden[p] = a.store[actHidden+p].shape(n, rank)
		}
	}
}

// reserveBranches shapes the outputs of the branches for n tokens.
func (a *activations) reserveBranches(ws *Workspace, n int, kept bool) {
	if !kept {
		a.attOut = ws.get(slotY, n, a.mid.Cols)
		a.mlpOut, a.attOutInv, a.mlpOutInv = a.attOut, nil, nil
		return
	}
	a.attOut = a.store[actAttOut].shape(n, a.mid.Cols)
	a.mlpOut = a.store[actMLPOut].shape(n, a.mid.Cols)
	a.attOutInv = a.store[actAttOutInv].shape(1, n).Data()
	a.mlpOutInv = a.store[actMLPOutInv].shape(1, n).Data()
}

// reserve shapes the activations of count layers.
func (ws *Workspace) reserve(c Config, count, n, all, rank int) {
	for len(ws.layers) < count {
		ws.layers = append(ws.layers, activations{})
	}
	for i := range count {
		ws.layers[i].reserve(ws, c, n, all, rank)
	}
}
