package transformer

import (
	"fmt"
	"math"
	"strings"

	"github.com/opencharacter/opencharacter/lm/gguf"
)

// LoadGGUF builds a model from an open GGUF file of architecture llama, qwen3 or gemma3;
// the file may be closed afterwards. Quantised matrices are widened and rounded to
// bf16. The row order that GGUF uses for llama queries and keys is undone.
func LoadGGUF(f *gguf.File) (*Model, error) { return loadGGUF(f, nil) }

func loadGGUF(f *gguf.File, blocks blockSource) (*Model, error) {
	l, cfg, permute, err := ggufLoader(f)
	if err != nil {
		return nil, err
	}
	l.blocks = blocks
	return l.load(cfg, permute)
}

// ggufLoader returns what load needs for a GGUF file.
func ggufLoader(f *gguf.File) (l *loader, cfg Config, permute func(int) int, err error) {
	if cfg, err = ggufConfig(f); err != nil {
		return nil, cfg, nil, fmt.Errorf("gguf: %w", err)
	}
	if cfg.Architecture == archLlama {
		permute = interleaved(cfg.HeadDim)
	}
	return &loader{src: ggufSource{f}, from: "gguf", name: ggufNames(cfg)}, cfg, permute, nil
}

// interleaved maps a row of a query or key matrix with half-split rotary pairs
// (j, j+d/2) to its place in a file that stores the pairs side by side (2j, 2j+1).
func interleaved(headDim int) func(int) int {
	half := headDim / 2
	return func(row int) int {
		head, j := row/headDim*headDim, row%headDim
		return head + 2*(j%half) + j/half
	}
}

// ggufParts maps the module names of Hugging Face to those of GGUF.
var ggufParts = map[string]string{
	"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
	"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
	"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
	"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}

// ggufPostNorms replaces ggufParts where norms follow the branches.
var ggufPostNorms = map[string]string{
	"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
}

// ggufNames returns the translation of Hugging Face's tensor names.
func ggufNames(cfg Config) func(hf string) string {
	return func(hf string) string {
		switch hf {
		case "model.embed_tokens.weight":
			return "token_embd.weight"
		case "model.norm.weight":
			return "output_norm.weight"
		case "lm_head.weight":
			return "output.weight"
		case ropeFreqs:
			return ropeFreqs
		}
		number, part, _ := strings.Cut(strings.TrimPrefix(hf, "model.layers."), ".")
		part = strings.TrimSuffix(part, ".weight")
		name := ggufParts[part]
		if post, ok := ggufPostNorms[part]; ok && cfg.postNorms() {
			name = post
		}
		return "blk." + number + "." + name + ".weight"
	}
}

// ggufSource reads tensors of a GGUF file.
type ggufSource struct{ f *gguf.File }

func (s ggufSource) names() []string { return s.f.Order }

func (s ggufSource) shape(name string) ([]int, bool) {
	t, ok := s.f.Tensors[name]
	return t.Shape, ok
}

func (s ggufSource) readRow(name string, row int, dst []float32) error {
	return s.f.ReadRow(name, row, dst)
}

// ggufConfig reads the dimensions from a GGUF file's keys.
func ggufConfig(f *gguf.File) (Config, error) {
	k := ggufKeys{meta: f.Meta}
	arch, _ := f.Meta["general.architecture"].(string)
	if arch != archLlama && arch != archQwen3 && arch != archGemma3 {
		return Config{}, fmt.Errorf("architecture %q is not supported; use a llama, qwen3 or gemma3 model", arch)
	}
	k.prefix = arch + "."
	c := Config{
		Architecture: arch,
		Layers:       k.integer("block_count", 0),
		Width:        k.integer("embedding_length", 0),
		Heads:        k.integer("attention.head_count", 0),
		FFN:          k.integer("feed_forward_length", 0),
		Context:      k.integer("context_length", 0),
		RopeBase:     k.number("rope.freq_base", 10000),
		NormEps:      float32(k.number("attention.layer_norm_rms_epsilon", 0)),
		QKNorm:       arch != archLlama,
	}
	c.KVHeads = k.integer("attention.head_count_kv", c.Heads)
	if c.Heads > 0 {
		c.HeadDim = k.integer("attention.key_length", c.Width/c.Heads)
	}
	if v := k.integer("attention.value_length", c.HeadDim); v != c.HeadDim && k.err == nil {
		k.err = fmt.Errorf("%sattention.value_length is %d and the key length %d; they must be equal", k.prefix, v, c.HeadDim)
	}
	if d := k.integer("rope.dimension_count", c.HeadDim); d != c.HeadDim && k.err == nil {
		k.err = fmt.Errorf("%srope.dimension_count is %d; partial rotation of heads of %d is not supported", k.prefix, d, c.HeadDim)
	}
	_, divisors := f.Tensors[ropeFreqs]
	c.RopeScaling = k.ropeScaling(divisors)
	if arch == archGemma3 {
		k.gemma3(&c)
	}
	if k.err != nil {
		return Config{}, k.err
	}
	_, untied := f.Tensors["output.weight"]
	c.Tied = !untied
	embed := f.Tensors["token_embd.weight"].Shape
	if len(embed) != 2 {
		return Config{}, fmt.Errorf("tensor %q is missing or not a matrix; re-download the model", "token_embd.weight")
	}
	c.Vocab = k.integer("vocab_size", embed[0])
	if tokens, ok := f.Meta["tokenizer.ggml.tokens"].([]string); ok && len(tokens) != embed[0] && k.err == nil {
		k.err = fmt.Errorf("the tokenizer has %d tokens and the embedding %d rows; the file is damaged or badly converted", len(tokens), embed[0])
	}
	return c, k.err
}

// ropeScaling reads how rotary positions are stretched: "linear", by divisors of their
// own, as llama.cpp's converter writes them for Llama 3, or not at all.
func (k *ggufKeys) ropeScaling(divisors bool) RopeScaling {
	kind, ok := k.meta[k.prefix+"rope.scaling.type"]
	switch {
	case ok && kind == ropeLinear && divisors:
		k.fail("the file has both linear rope scaling and scaled rotary frequencies (%s); only one is supported", ropeFreqs)
	case ok && kind == ropeLinear:
		return RopeScaling{Type: ropeLinear, Factor: k.number("rope.scaling.factor", 0)}
	case ok && kind != "none":
		k.fail("rope scaling %v is not supported; only plain, linear and llama3 rotary positions are", kind)
	case divisors:
		return RopeScaling{Type: ropeDivisors}
	}
	return RopeScaling{}
}

// gemma3 reads what is particular to Gemma 3. What the file does not say is what
// llama.cpp takes it to be: every sixth layer full, and scores divided by the root of
// Width/Heads in the model of 62 layers (27B).
func (k *ggufKeys) gemma3(c *Config) {
	for _, key := range []string{"final_logit_softcapping", "attn_logit_softcapping"} {
		if v, ok := k.meta[k.prefix+key]; ok && v != 0.0 {
			k.fail("%s%s is %v; capped logits and scores are not supported", k.prefix, key, v)
		}
	}
	if c.Layers == 62 && c.Heads > 0 {
		c.QueryScalar = float64(c.Width / c.Heads)
	}
	every, local := 1, k.number("rope.freq_base_swa", 10000)
	if _, ok := k.meta[k.prefix+"attention.sliding_window"]; ok {
		every = k.integer("attention.sliding_window_pattern", 6)
	}
	if every < 1 {
		k.fail("%sattention.sliding_window_pattern is %d; it must be positive", k.prefix, every)
	}
	window := 0
	if every > 1 {
		window = k.integer("attention.sliding_window", 0)
		if window < 1 {
			k.fail("%sattention.sliding_window is %d; it must be positive", k.prefix, window)
		}
	}
	c.setWindow(window, every, local)
}

// fail notes an error unless there is one.
func (k *ggufKeys) fail(format string, args ...any) {
	if k.err == nil {
		k.err = fmt.Errorf(format, args...)
	}
}

// ggufKeys reads typed keys below one architecture's prefix and keeps the first error.
type ggufKeys struct {
	meta   map[string]any
	prefix string
	err    error
}

// number returns a numeric key, or the default if it is absent; a default of 0
// makes the key required.
func (k *ggufKeys) number(key string, absent float64) float64 {
	value, ok := k.meta[k.prefix+key]
	switch v := value.(type) {
	case int64:
		return float64(v)
	case uint64:
		return float64(v)
	case float64:
		return v
	}
	if k.err == nil && ok {
		k.err = fmt.Errorf("key %s%s is %v; it must be a number", k.prefix, key, value)
	} else if k.err == nil && absent == 0 {
		k.err = fmt.Errorf("key %s%s is missing; re-download the model", k.prefix, key)
	}
	return absent
}

func (k *ggufKeys) integer(key string, absent int) int {
	v := k.number(key, float64(absent))
	if v != math.Trunc(v) || math.Abs(v) > 1<<31 {
		if k.err == nil {
			k.err = fmt.Errorf("key %s%s is %v; it must be a whole number", k.prefix, key, v)
		}
		return absent
	}
	return int(v)
}
