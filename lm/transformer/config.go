package transformer

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// Names of the architectures this package runs.
const (
	archLlama = "llama"
	archQwen3 = "qwen3"
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
// that queries and keys pass an RMS norm per head before the rotation (Qwen3).
type Config struct {
	Architecture string  `json:"architecture"` // "llama" or "qwen3"
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
}

// Validate reports the first impossible value by name.
func (c Config) Validate() error {
	if c.Architecture != archLlama && c.Architecture != archQwen3 {
		return fmt.Errorf("transformer: architecture %q is not supported; use a llama or qwen3 model", c.Architecture)
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
	return nil
}

// hfConfig is the part of a Hugging Face config.json that shapes the computation.
// Pointers tell a missing field from a zero.
type hfConfig struct {
	ModelType     string          `json:"model_type"`
	Layers        int             `json:"num_hidden_layers"`
	Width         int             `json:"hidden_size"`
	Heads         int             `json:"num_attention_heads"`
	KVHeads       *int            `json:"num_key_value_heads"`
	HeadDim       *int            `json:"head_dim"`
	FFN           int             `json:"intermediate_size"`
	Vocab         int             `json:"vocab_size"`
	Context       int             `json:"max_position_embeddings"`
	RopeTheta     *float64        `json:"rope_theta"`
	RopeScaling   map[string]any  `json:"rope_scaling"`
	RopeParams    map[string]any  `json:"rope_parameters"`
	NormEps       *float64        `json:"rms_norm_eps"`
	Tied          *bool           `json:"tie_word_embeddings"`
	AttentionBias bool            `json:"attention_bias"`
	MLPBias       bool            `json:"mlp_bias"`
	Act           string          `json:"hidden_act"`
	Sliding       bool            `json:"use_sliding_window"`
	LayerTypes    []string        `json:"layer_types"`
	PartialRotary *float64        `json:"partial_rotary_factor"`
	Quantization  json.RawMessage `json:"quantization_config"`
}

// parseHFConfig reads a Hugging Face config.json, in the spelling of
// transformers 4 (rope_theta, rope_scaling) or 5 (rope_parameters). Whatever
// would change the numbers and is not built here is refused by name.
func parseHFConfig(data []byte) (Config, error) {
	var h hfConfig
	if err := json.Unmarshal(data, &h); err != nil {
		return Config{}, fmt.Errorf("not valid JSON: %w", err)
	}
	switch {
	case h.ModelType != archLlama && h.ModelType != archQwen3:
		return Config{}, fmt.Errorf("model_type %q is not supported; use a llama or qwen3 model", h.ModelType)
	case h.AttentionBias:
		return Config{}, errors.New("attention_bias is true; projections with a bias are not supported")
	case h.MLPBias:
		return Config{}, errors.New("mlp_bias is true; projections with a bias are not supported")
	case h.Act != "" && h.Act != "silu":
		return Config{}, fmt.Errorf("hidden_act %q is not supported; only silu is", h.Act)
	case h.Sliding:
		return Config{}, errors.New("use_sliding_window is true; sliding-window attention is not supported")
	case h.PartialRotary != nil && *h.PartialRotary != 1:
		return Config{}, fmt.Errorf("partial_rotary_factor %v is not supported; only 1 is", *h.PartialRotary)
	case len(h.Quantization) > 0 && string(h.Quantization) != "null":
		return Config{}, errors.New("quantization_config is set; use the unquantised safetensors or a GGUF file")
	}
	for i, kind := range h.LayerTypes {
		if kind != "full_attention" {
			return Config{}, fmt.Errorf("layer %d has %q; only full_attention is supported", i, kind)
		}
	}
	c := Config{
		Architecture: h.ModelType, Layers: h.Layers, Width: h.Width, Heads: h.Heads, FFN: h.FFN,
		Vocab: h.Vocab, Context: h.Context, KVHeads: h.Heads, RopeBase: 10000, NormEps: 1e-6,
		QKNorm: h.ModelType == archQwen3,
	}
	if h.KVHeads != nil {
		c.KVHeads = *h.KVHeads
	}
	if h.HeadDim != nil {
		c.HeadDim = *h.HeadDim
	} else if h.Heads > 0 {
		if h.Width%h.Heads != 0 {
			return Config{}, fmt.Errorf("hidden_size %d does not divide into %d heads and head_dim is not given", h.Width, h.Heads)
		}
		c.HeadDim = h.Width / h.Heads
	}
	if h.NormEps != nil {
		c.NormEps = float32(*h.NormEps)
	}
	if h.Tied != nil {
		c.Tied = *h.Tied
	}
	if h.RopeTheta != nil {
		c.RopeBase = *h.RopeTheta
	}
	for _, rope := range []map[string]any{h.RopeScaling, h.RopeParams} {
		for _, key := range []string{"rope_type", "type"} {
			if kind, ok := rope[key]; ok && kind != "default" {
				return Config{}, fmt.Errorf("rope scaling %v is not supported; only plain rotary positions are", kind)
			}
		}
		if theta, ok := rope["rope_theta"]; ok {
			base, ok := theta.(float64)
			if !ok {
				return Config{}, fmt.Errorf("rope_theta is %v; it must be a number", theta)
			}
			c.RopeBase = base
		}
		if factor, ok := rope["factor"]; ok && factor != 1.0 {
			return Config{}, fmt.Errorf("rope scaling with factor %v is not supported; only plain rotary positions are", factor)
		}
		if part, ok := rope["partial_rotary_factor"]; ok && part != 1.0 {
			return Config{}, fmt.Errorf("partial_rotary_factor %v is not supported; only 1 is", part)
		}
	}
	return c, c.Validate()
}
