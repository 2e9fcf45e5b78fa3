package transformer

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
)

// Names of model_type that stand for archGemma3: the text model alone, and the text and
// image model, whose text part is what this package runs.
const (
	hfGemma3Text  = "gemma3_text"
	hfGemma3Image = "gemma3"
)

// Kinds of attention in layer_types.
const (
	hfFull    = "full_attention"
	hfSliding = "sliding_attention"
)

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
	RopeScaling   ropeSettings    `json:"rope_scaling"`
	RopeParams    ropeSettings    `json:"rope_parameters"`
	NormEps       *float64        `json:"rms_norm_eps"`
	Tied          *bool           `json:"tie_word_embeddings"`
	AttentionBias bool            `json:"attention_bias"`
	MLPBias       bool            `json:"mlp_bias"`
	Act           string          `json:"hidden_act"`
	Sliding       bool            `json:"use_sliding_window"`
	LayerTypes    []string        `json:"layer_types"`
	PartialRotary *float64        `json:"partial_rotary_factor"`
	Quantization  json.RawMessage `json:"quantization_config"`

	// Gemma 3
	Text          json.RawMessage `json:"text_config"` // of the text and image model
	Activation    string          `json:"hidden_activation"`
	Window        *int            `json:"sliding_window"`
	Pattern       *int            `json:"sliding_window_pattern"`
	LocalTheta    *float64        `json:"rope_local_base_freq"`
	QueryScalar   *float64        `json:"query_pre_attn_scalar"`
	FinalCap      *float64        `json:"final_logit_softcapping"`
	AttentionCap  *float64        `json:"attn_logit_softcapping"`
	Bidirectional *bool           `json:"use_bidirectional_attention"`
}

// parseHFConfig reads a Hugging Face config.json, in the spelling of
// transformers 4 (rope_theta, rope_scaling) or 5 (rope_parameters). Whatever
// would change the numbers and is not built here is refused by name.
func parseHFConfig(data []byte) (Config, error) {
	var h hfConfig
	if err := json.Unmarshal(data, &h); err != nil {
		return Config{}, fmt.Errorf("not valid JSON: %w", err)
	}
	if h.ModelType == hfGemma3Image {
		if len(h.Text) == 0 {
			return Config{}, errors.New("model_type is gemma3 and text_config is missing; a text model has the type gemma3_text")
		}
		text := h.Text
		h = hfConfig{Quantization: h.Quantization}
		if err := json.Unmarshal(text, &h); err != nil {
			return Config{}, fmt.Errorf("text_config is not valid: %w", err)
		}
		if h.ModelType != hfGemma3Text {
			return Config{}, fmt.Errorf("text_config: model_type %q is not supported; only gemma3_text is", h.ModelType)
		}
	}
	gemma := h.ModelType == hfGemma3Text
	act := "silu"
	if gemma {
		act = "gelu_pytorch_tanh"
	}
	switch {
	case h.ModelType != archLlama && h.ModelType != archQwen3 && !gemma:
		return Config{}, fmt.Errorf("model_type %q is not supported; use a llama, qwen3 or gemma3 model", h.ModelType)
	case h.AttentionBias:
		return Config{}, errors.New("attention_bias is true; projections with a bias are not supported")
	case h.MLPBias:
		return Config{}, errors.New("mlp_bias is true; projections with a bias are not supported")
	case h.Act != "" && h.Act != act:
		return Config{}, fmt.Errorf("hidden_act %q is not supported; only %s is", h.Act, act)
	case h.Activation != "" && h.Activation != act:
		return Config{}, fmt.Errorf("hidden_activation %q is not supported; only %s is", h.Activation, act)
	case h.Sliding:
		return Config{}, errors.New("use_sliding_window is true; sliding-window attention is supported for gemma3 only")
	case h.PartialRotary != nil && *h.PartialRotary != 1:
		return Config{}, fmt.Errorf("partial_rotary_factor %v is not supported; only 1 is", *h.PartialRotary)
	case len(h.Quantization) > 0 && string(h.Quantization) != "null":
		return Config{}, errors.New("quantization_config is set; use the unquantised safetensors or a GGUF file")
	case h.FinalCap != nil:
		return Config{}, fmt.Errorf("final_logit_softcapping is %v; capped logits are not supported", *h.FinalCap)
	case h.AttentionCap != nil:
		return Config{}, fmt.Errorf("attn_logit_softcapping is %v; capped attention scores are not supported", *h.AttentionCap)
	case h.Bidirectional != nil && *h.Bidirectional:
		return Config{}, errors.New("use_bidirectional_attention is true; only causal attention is supported")
	}
	if gemma {
		return h.gemma3()
	}
	for i, kind := range h.LayerTypes {
		if kind != hfFull {
			return Config{}, fmt.Errorf("layer %d has %q; only %s is supported", i, kind, hfFull)
		}
	}
	c := h.plain(Config{Architecture: h.ModelType, RopeBase: 10000, NormEps: 1e-6, KVHeads: h.Heads, QKNorm: h.ModelType == archQwen3})
	if h.HeadDim == nil && h.Heads > 0 {
		if h.Width%h.Heads != 0 {
			return Config{}, fmt.Errorf("hidden_size %d does not divide into %d heads and head_dim is not given", h.Width, h.Heads)
		}
		c.HeadDim = h.Width / h.Heads
	}
	for _, rope := range []ropeSettings{h.RopeScaling, h.RopeParams} {
		if err := rope.apply(&c.RopeBase, &c.RopeScaling); err != nil {
			return Config{}, err
		}
	}
	return c, c.Validate()
}

// plain fills in the fields that all families have; c holds what missing ones mean.
func (h *hfConfig) plain(c Config) Config {
	c.Layers, c.Width, c.Heads, c.FFN = h.Layers, h.Width, h.Heads, h.FFN
	c.Vocab, c.Context = h.Vocab, h.Context
	if h.KVHeads != nil {
		c.KVHeads = *h.KVHeads
	}
	if h.HeadDim != nil {
		c.HeadDim = *h.HeadDim
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
	return c
}

// gemma3 reads the config of a Gemma 3 text model. Published files leave out what equals
// the defaults of transformers' Gemma3TextConfig, which stand here.
func (h *hfConfig) gemma3() (Config, error) {
	h.Layers, h.Width, h.Heads = cmp.Or(h.Layers, 26), cmp.Or(h.Width, 2304), cmp.Or(h.Heads, 8)
	h.FFN, h.Vocab, h.Context = cmp.Or(h.FFN, 9216), cmp.Or(h.Vocab, 262208), cmp.Or(h.Context, 131072)
	c := h.plain(Config{Architecture: archGemma3, KVHeads: 4, HeadDim: 256, RopeBase: 1e6, NormEps: 1e-6, QKNorm: true, Tied: true})
	c.QueryScalar = 256
	if h.QueryScalar != nil {
		c.QueryScalar = *h.QueryScalar
		if !(c.QueryScalar > 0) {
			return Config{}, fmt.Errorf("query_pre_attn_scalar is %v; it must be positive", c.QueryScalar)
		}
	}
	local, window, pattern := 10000.0, 4096, 6
	if h.LocalTheta != nil {
		local = *h.LocalTheta
	}
	if h.Window != nil {
		window = *h.Window
	}
	if h.Pattern != nil {
		pattern = *h.Pattern
	}
	if h.LayerTypes != nil {
		var err error
		if pattern, err = period(h.LayerTypes, h.Layers); err != nil {
			return Config{}, err
		}
	}
	if pattern < 1 || window < 1 {
		return Config{}, fmt.Errorf("sliding_window_pattern is %d and sliding_window %d; both must be positive", pattern, window)
	}
	full, sliding := []ropeSettings{h.RopeScaling, h.RopeParams}, ropeSettings(nil)
	if h.RopeParams != nil { // transformers 5: one for each kind of layer
		if h.RopeParams[hfFull] == nil && h.RopeParams[hfSliding] == nil {
			return Config{}, fmt.Errorf("rope_parameters has neither %s nor %s; a gemma3 model needs both", hfFull, hfSliding)
		}
		var of [2]ropeSettings
		for i, kind := range []string{hfFull, hfSliding} {
			if h.RopeParams[kind] == nil {
				continue
			}
			settings, ok := h.RopeParams[kind].(map[string]any)
			if !ok {
				return Config{}, fmt.Errorf("rope_parameters: %s is %v; it must be an object", kind, h.RopeParams[kind])
			}
			of[i] = settings
		}
		full, sliding = []ropeSettings{h.RopeScaling, of[0]}, of[1]
	}
	for _, rope := range full {
		if err := rope.apply(&c.RopeBase, &c.RopeScaling); err != nil {
			return Config{}, err
		}
	}
	var scaled RopeScaling
	if err := sliding.apply(&local, &scaled); err != nil {
		return Config{}, err
	}
	if scaled.Type != "" {
		return Config{}, fmt.Errorf("rope scaling %s of %s layers is not supported; only that of %s layers is", scaled.Type, hfSliding, hfFull)
	}
	c.setWindow(window, pattern, local)
	return c, c.Validate()
}

// period returns n if every n-th of the layers has full attention and the others a
// sliding window; more than there are layers if none is full.
func period(types []string, layers int) (int, error) {
	if len(types) != layers {
		return 0, fmt.Errorf("layer_types names %d layers and num_hidden_layers is %d", len(types), layers)
	}
	n := layers + 1
	for i, kind := range types {
		if kind == hfFull {
			n = i + 1
			break
		}
	}
	for i, kind := range types {
		want := hfSliding
		if (i+1)%n == 0 {
			want = hfFull
		}
		if kind != want {
			return 0, fmt.Errorf("layer_types: layer %d has %q; with the first %s at layer %d it must be %s, as only a steady pattern is supported", i, kind, hfFull, n-1, want)
		}
	}
	return n, nil
}
