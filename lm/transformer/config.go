package transformer

import (
	"cmp"
	"fmt"
	"math"

	"github.com/opencharacter/opencharacter/tensor"
)

// Names of the architectures this package runs.
const (
	archLlama  = "llama"
	archQwen3  = "qwen3"
	archGemma3 = "gemma3"
)

// Limits that no real model of these families comes near; they stop a hostile
// file from asking for absurd amounts of memory.
const (
	maxLayers  = 1024
	maxWidth   = 1 << 17
	maxVocab   = 1 << 21
	maxContext = 1 << 24
)

// Config holds the dimensions of a model. Width is the size of the residual
// stream; queries have Heads x HeadDim values a token, keys and values
// KVHeads x HeadDim. Tied says that the head is the embedding matrix. QKNorm says
// that queries and keys pass an RMS norm per head before the rotation (Qwen3, Gemma 3).
// The architecture gemma3 also means GeGLU, a scaled embedding, and norms of the
// branches' outputs (block.go).
//
// With a Window above 0 every FullEvery-th layer attends to its whole row; the others
// attend to the last Window positions and rotate with LocalRopeBase, unscaled.
type Config struct {
	Architecture string  `json:"architecture"` // "llama", "qwen3" or "gemma3"
	Layers       int     `json:"layers"`
	Width        int     `json:"width"`
	Heads        int     `json:"heads"`
	KVHeads      int     `json:"kv_heads"`
	HeadDim      int     `json:"head_dim"`
	FFN          int     `json:"ffn"`
	Vocab        int     `json:"vocab"`
	Context      int     `json:"context"` // longest row, in tokens
	RopeBase     float64 `json:"rope_base"`
	NormEps      float32 `json:"norm_eps"`
	Tied         bool    `json:"tied"`
	QKNorm       bool    `json:"qk_norm"`

	RopeScaling   RopeScaling `json:"rope_scaling,omitzero"`
	Window        int         `json:"window,omitempty"`
	FullEvery     int         `json:"full_every,omitempty"` // 1 + Layers if no layer is full
	LocalRopeBase float64     `json:"local_rope_base,omitempty"`
	QueryScalar   float64     `json:"query_scalar,omitempty"` // scores are divided by its root; 0 means HeadDim
}

// Validate reports the first impossible value by name.
func (c Config) Validate() error {
	if c.Architecture != archLlama && c.Architecture != archQwen3 && c.Architecture != archGemma3 {
		return fmt.Errorf("transformer: architecture %q is not supported; use a llama, qwen3 or gemma3 model", c.Architecture)
	}
	for _, d := range []struct {
		name       string
		value, max int
	}{
		{"layers", c.Layers, maxLayers}, {"width", c.Width, maxWidth}, {"heads", c.Heads, maxWidth},
		{"kv_heads", c.KVHeads, maxWidth}, {"head_dim", c.HeadDim, maxWidth}, {"ffn", c.FFN, maxWidth},
		{"vocab", c.Vocab, maxVocab}, {"context", c.Context, maxContext},
	} {
		if d.value < 1 || d.value > d.max {
			return fmt.Errorf("transformer: config: %s is %d; it must lie in 1..%d", d.name, d.value, d.max)
		}
	}
	if c.Heads%c.KVHeads != 0 {
		return fmt.Errorf("transformer: config: %d heads cannot share %d key/value heads evenly", c.Heads, c.KVHeads)
	}
	if c.HeadDim%2 != 0 {
		return fmt.Errorf("transformer: config: head_dim is %d; rotary positions need an even number", c.HeadDim)
	}
	if c.Heads*c.HeadDim > maxWidth {
		return fmt.Errorf("transformer: config: %d heads of %d are wider than %d", c.Heads, c.HeadDim, maxWidth)
	}
	if !(c.RopeBase > 1) || math.IsInf(c.RopeBase, 0) {
		return fmt.Errorf("transformer: config: rope_base is %v; it must be a number above 1", c.RopeBase)
	}
	if !(c.NormEps > 0 && c.NormEps < 1) {
		return fmt.Errorf("transformer: config: norm_eps is %v; it must lie between 0 and 1", c.NormEps)
	}
	if !(c.QueryScalar >= 0) || c.QueryScalar > maxWidth {
		return fmt.Errorf("transformer: config: query_scalar is %v; it must lie in 0..%d", c.QueryScalar, maxWidth)
	}
	if err := c.checkWindow(); err != nil {
		return err
	}
	return c.RopeScaling.check()
}

// checkWindow reports an impossible sliding window.
func (c Config) checkWindow() error {
	switch {
	case c.Window == 0 && (c.FullEvery != 0 || c.LocalRopeBase != 0):
		return fmt.Errorf("transformer: config: full_every is %d and local_rope_base %v without a window; both must be 0", c.FullEvery, c.LocalRopeBase)
	case c.Window == 0:
		return nil
	case c.Window < 0 || c.Window > maxContext:
		return fmt.Errorf("transformer: config: window is %d; it must lie in 0..%d", c.Window, maxContext)
	case c.FullEvery < 2 || c.FullEvery > c.Layers+1:
		return fmt.Errorf("transformer: config: full_every is %d; with a window it must lie in 2..%d", c.FullEvery, c.Layers+1)
	case !(c.LocalRopeBase > 1) || math.IsInf(c.LocalRopeBase, 0):
		return fmt.Errorf("transformer: config: local_rope_base is %v; it must be a number above 1", c.LocalRopeBase)
	}
	return nil
}

// setWindow notes a sliding window in all but every n-th layer, in the one spelling that
// Validate accepts.
func (c *Config) setWindow(window, every int, base float64) {
	if every > 1 {
		c.Window, c.FullEvery, c.LocalRopeBase = window, min(every, c.Layers+1), base
	}
	if c.QueryScalar == float64(c.HeadDim) {
		c.QueryScalar = 0
	}
}

// scale is what attention multiplies its scores by.
func (c Config) scale() float32 {
	return float32(1 / math.Sqrt(cmp.Or(c.QueryScalar, float64(c.HeadDim))))
}

// geglu tells whether the MLP is gated by gelu, not silu.
func (c Config) geglu() bool { return c.Architecture == archGemma3 }

// postNorms tells whether a norm follows attention and MLP before they join the
// residual stream.
func (c Config) postNorms() bool { return c.Architecture == archGemma3 }

// embeddingScale is what the embedding is multiplied by: for Gemma the square root of
// the width, rounded to bf16, as the model was trained.
func (c Config) embeddingScale() float32 {
	if c.Architecture != archGemma3 {
		return 1
	}
	one, w := []float32{float32(math.Sqrt(float64(c.Width)))}, tensor.NewWeight(1, 1)
	w.SetRow(0, one)
	w.Row(0, one)
	return one[0]
}

// windowed tells whether layer l attends to the last Window positions only.
func (c Config) windowed(l int) bool { return c.Window > 0 && (l+1)%c.FullEvery != 0 }
