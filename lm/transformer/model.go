package transformer

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"math"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/opencharacter/opencharacter/tensor"
)

// projection numbers the seven linear layers of a block that adapters act on.
type projection int

const (
	projQ projection = iota
	projK
	projV
	projO
	projGate
	projUp
	projDown
	projCount
)

// projNames are the module names of Hugging Face models, in projection order.
var projNames = [projCount]string{
	"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
	"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
}

// dims returns the output and input width of a projection.
func (c Config) dims(p projection) (out, in int) {
	switch p {
	case projQ:
		return c.Heads * c.HeadDim, c.Width
	case projK, projV:
		return c.KVHeads * c.HeadDim, c.Width
	case projO:
		return c.Width, c.Heads * c.HeadDim
	case projGate, projUp:
		return c.FFN, c.Width
	default:
		return c.Width, c.FFN
	}
}

// layer holds the frozen weights of one block. qNorm and kNorm are nil without QKNorm,
// attnPost and mlpPost without norms of the branches' outputs.
type layer struct {
	attnNorm, mlpNorm []float32 // [Width]
	attnPost, mlpPost []float32 // [Width]
	qNorm, kNorm      []float32 // [HeadDim]
	proj              [projCount]*tensor.Weight
}

// norm is one norm vector of a layer: where it stands, its length, its module's name in
// Hugging Face models, and its key in NewRandom.
type norm struct {
	at        *[]float32
	n         int
	name, key string
}

// norms lists the norm vectors of a layer in a fixed order.
func (c Config) norms(l *layer) []norm {
	list := []norm{
		{&l.attnNorm, c.Width, "input_layernorm", "attn"},
		{&l.mlpNorm, c.Width, "post_attention_layernorm", "mlp"},
	}
	if c.postNorms() { // the name of one norm in Llama is that of another in Gemma
		list[1].name = "pre_feedforward_layernorm"
		list = append(list,
			norm{&l.attnPost, c.Width, "post_attention_layernorm", "attnPost"},
			norm{&l.mlpPost, c.Width, "post_feedforward_layernorm", "mlpPost"})
	}
	if c.QKNorm {
		list = append(list,
			norm{&l.qNorm, c.HeadDim, "self_attn.q_norm", "q"},
			norm{&l.kNorm, c.HeadDim, "self_attn.k_norm", "k"})
	}
	return list
}

// Model is a loaded model: its dimensions and frozen weights, matrices in bf16
// or quantised and norm vectors in float32. It is never written after loading, so any number
// of goroutines may use it, each with its own Workspace.
type Model struct {
	Config
	embed     *tensor.Weight // [Vocab, Width]
	head      *tensor.Weight // [Vocab, Width]; the same Weight as embed when tied
	finalNorm []float32      // [Width]
	layers    []layer
	rope      *tensor.RoPE // of layers without a window
	localRope *tensor.RoPE // of layers with one
	divisors  []float32    // [HeadDim/2] of the rotary frequencies, if they stand with the weights
	shape     tensor.AttentionShape
	scale     float32 // of the embedding

	compute tensor.Compute

	hashOnce sync.Once
	hash     string
}

// newModel returns a model without weights; the rotary tables are set with them.
func newModel(cfg Config) *Model {
	return &Model{
		Config: cfg,
		layers: make([]layer, cfg.Layers),
		shape:  tensor.AttentionShape{Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, Scale: cfg.scale()},
		scale:  cfg.embeddingScale(),
	}
}

// attentionShape is the shape of attention in layer l.
func (m *Model) attentionShape(l int) tensor.AttentionShape {
	s := m.shape
	if m.windowed(l) {
		s.Window = m.Window
	}
	return s
}

// ropeOf returns the rotary tables of layer l.
func (m *Model) ropeOf(l int) *tensor.RoPE {
	if m.windowed(l) {
		return m.localRope
	}
	return m.rope
}

// embedTokens sets x [len(tokens), Width] to the input of the first layer.
func (m *Model) embedTokens(x *tensor.Tensor, tokens []int32) {
	tensor.Embed(x, m.embed, tokens)
	if m.scale != 1 {
		tensor.Scale(x, m.scale)
	}
}

// named is one frozen tensor with its Hugging Face name: a matrix or a vector.
type named struct {
	name   string
	matrix *tensor.Weight
	vector []float32
}

// tensors lists every frozen tensor in a fixed order.
func (m *Model) tensors() []named {
	list := []named{{name: "model.embed_tokens.weight", matrix: m.embed}, {name: "model.norm.weight", vector: m.finalNorm}}
	if !m.Tied {
		list = append(list, named{name: "lm_head.weight", matrix: m.head})
	}
	if m.divisors != nil {
		list = append(list, named{name: ropeFreqs, vector: m.divisors})
	}
	for i := range m.layers {
		l := &m.layers[i]
		prefix := fmt.Sprintf("model.layers.%d.", i)
		for _, v := range m.norms(l) {
			list = append(list, named{name: prefix + v.name + ".weight", vector: *v.at})
		}
		for p, w := range l.proj {
			list = append(list, named{name: prefix + projNames[p] + ".weight", matrix: w})
		}
	}
	return list
}

// matrices lists those among tensors.
func (m *Model) matrices() (list []*tensor.Weight) {
	for _, t := range m.tensors() {
		if t.matrix != nil {
			list = append(list, t.matrix)
		}
	}
	return list
}

// Bytes is the memory of the weight matrices as packed for the forward pass.
func (m *Model) Bytes() int64 {
	var sum int64
	for _, w := range m.matrices() {
		sum += w.Bytes()
	}
	return sum
}

// Hash identifies the model by content: the SHA-256, in hex, of its dimensions and
// of all weights as used (matrices in bf16 or, where they are quantised, and norms in
// float32). It does not depend
// on the file format the weights came from, unless llama3 rope scaling stands in it as
// parameters (config.json) or as divisors (GGUF). It is computed once.
func (m *Model) Hash() string {
	m.hashOnce.Do(func() {
		list := m.tensors()
		sums := make([][sha256.Size]byte, len(list))
		var g errgroup.Group
		g.SetLimit(runtime.GOMAXPROCS(0))
		for i, t := range list {
			g.Go(func() error { sums[i] = t.sum(); return nil })
		}
		_ = g.Wait() // the functions above return no error
		h := sha256.New()
		cfg, err := json.Marshal(m.Config)
		if err != nil {
			panic("transformer: a validated config must encode: " + err.Error())
		}
		h.Write(cfg)
		for i, t := range list {
			h.Write([]byte("\n" + t.name + "\n"))
			h.Write(sums[i][:])
		}
		m.hash = hex.EncodeToString(h.Sum(nil))
	})
	return m.hash
}

// sum hashes the values of one tensor.
func (t named) sum() (out [sha256.Size]byte) {
	h := sha256.New()
	switch {
	case t.matrix == nil:
		hashFloats(h, t.vector)
	case t.matrix.Format() != tensor.StoredBF16:
		row := make([]float32, t.matrix.In)
		for r := range t.matrix.Out {
			t.matrix.Row(r, row)
			hashFloats(h, row)
		}
	default:
		row, bits := make([]float32, t.matrix.In), make([]byte, 2*t.matrix.In)
		for r := range t.matrix.Out {
			t.matrix.Row(r, row)
			for j, x := range row {
				binary.LittleEndian.PutUint16(bits[2*j:], uint16(math.Float32bits(x)>>16))
			}
			h.Write(bits)
		}
	}
	h.Sum(out[:0])
	return out
}

// hashFloats writes the little-endian bits of x to h.
func hashFloats(h hash.Hash, x []float32) {
	var buf [4096]byte
	for len(x) > 0 {
		n := min(len(x), len(buf)/4)
		for j, v := range x[:n] {
			binary.LittleEndian.PutUint32(buf[4*j:], math.Float32bits(v))
		}
		h.Write(buf[:4*n])
		x = x[n:]
	}
}
