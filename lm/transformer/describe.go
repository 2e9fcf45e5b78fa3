package transformer

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/opencharacter/opencharacter/lm/gguf"
)

// ConfigJSON returns the fields of a config.json of Hugging Face's transformers, in the spelling of version 4, which
// later ones read too, with more of the caller's (token ids, say). What that file cannot say is an error. Reading it
// gives the same Config.
func (s *Stream) ConfigJSON(more map[string]any) ([]byte, error) {
	c := s.Config
	if c.RopeScaling.Type == ropeDivisors {
		if c.RopeScaling = llama3Of(s.m.divisors, c); c.RopeScaling.Type == "" {
			return nil, fmt.Errorf("config.json: the divisors of the rotary frequencies (%s) are not those of Llama 3, and config.json has no field for others; export as GGUF", ropeFreqs)
		}
	}
	f := map[string]any{
		"model_type": c.Architecture, "num_hidden_layers": c.Layers, "hidden_size": c.Width, "num_attention_heads": c.Heads,
		"num_key_value_heads": c.KVHeads, "head_dim": c.HeadDim, "intermediate_size": c.FFN, "vocab_size": c.Vocab,
		"max_position_embeddings": c.Context, "rope_theta": c.RopeBase, "rope_scaling": nil, "rms_norm_eps": c.NormEps,
		"tie_word_embeddings": c.Tied, "attention_bias": false, "attention_dropout": 0.0, "use_cache": true, "torch_dtype": "bfloat16",
	}
	switch r := c.RopeScaling; r.Type {
	case ropeLinear:
		f["rope_scaling"] = map[string]any{"rope_type": r.Type, "factor": r.Factor}
	case ropeLlama3:
		f["rope_scaling"] = map[string]any{"rope_type": r.Type, "factor": r.Factor, "low_freq_factor": r.LowFreq,
			"high_freq_factor": r.HighFreq, "original_max_position_embeddings": r.Original}
	}
	switch c.Architecture {
	case archLlama:
		f["architectures"], f["hidden_act"], f["mlp_bias"] = []string{"LlamaForCausalLM"}, "silu", false
	case archQwen3:
		f["architectures"], f["hidden_act"] = []string{"Qwen3ForCausalLM"}, "silu"
		f["use_sliding_window"], f["sliding_window"], f["max_window_layers"] = false, nil, c.Layers
	case archGemma3:
		c.describeGemma3(f)
	}
	for k, v := range more {
		f[k] = v
	}
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	got, err := parseHFConfig(text)
	if err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	if got != c {
		return nil, fmt.Errorf("config.json cannot say what this model is: %+v would be read as %+v", c, got)
	}
	return append(text, '\n'), nil
}

func (c Config) describeGemma3(f map[string]any) {
	f["model_type"], f["architectures"] = hfGemma3Text, []string{"Gemma3ForCausalLM"}
	f["hidden_activation"], f["final_logit_softcapping"], f["attn_logit_softcapping"] = "gelu_pytorch_tanh", nil, nil
	f["query_pre_attn_scalar"] = c.QueryScalar
	if c.QueryScalar == 0 {
		f["query_pre_attn_scalar"] = float64(c.HeadDim)
	}
	types := make([]string, c.Layers)
	for l := range types {
		types[l] = hfFull
		if c.windowed(l) {
			types[l] = hfSliding
		}
	}
	f["layer_types"], f["sliding_window"], f["rope_local_base_freq"] = types, 4096, 10000.0
	if c.Window > 0 {
		f["sliding_window"], f["rope_local_base_freq"] = c.Window, c.LocalRopeBase
	}
}

// llama3Of recognises divisors that llama.cpp's converter made of the scaling of Llama 3: with the factors 1 and 4 that all
// published models have, the factor that is the divisor of the lowest frequency, and a power of two for the original
// context, theirs first. The zero value: they are others.
func llama3Of(divisors []float32, c Config) RopeScaling {
	if len(divisors) == 0 {
		return RopeScaling{}
	}
	originals := []int{8192}
	for n := 64; n <= maxContext; n *= 2 {
		originals = append(originals, n)
	}
	for _, n := range originals {
		r := RopeScaling{Type: ropeLlama3, Factor: float64(divisors[len(divisors)-1]), LowFreq: 1, HighFreq: 4, Original: n}
		if !slices.ContainsFunc(pairUp(r.divisors(c.HeadDim, c.RopeBase), divisors), func(d [2]float64) bool {
			return math.Abs(d[0]-d[1]) > 1e-5*d[0] // the converter computed them in float32
		}) {
			return r
		}
	}
	return RopeScaling{}
}

func pairUp(a []float64, b []float32) [][2]float64 {
	out := make([][2]float64, len(a))
	for i := range a {
		out[i] = [2]float64{a[i], float64(b[i])}
	}
	return out
}

// GGUFKeys returns the keys of a GGUF file that hold the dimensions, general.architecture first. What GGUF cannot say
// is an error. Reading a file with these keys and the tensors of [Stream.GGUF] gives the same Config, with the scaling of
// Llama 3 as divisors.
func (s *Stream) GGUFKeys() ([]gguf.Pair, error) {
	c := s.Config
	p := c.Architecture + "."
	number := func(key string, v int) gguf.Pair { return gguf.Uint32(p+key, uint32(v)) }
	keys := []gguf.Pair{
		gguf.Text("general.architecture", c.Architecture),
		number("block_count", c.Layers), number("context_length", c.Context), number("embedding_length", c.Width),
		number("feed_forward_length", c.FFN), number("attention.head_count", c.Heads), number("attention.head_count_kv", c.KVHeads),
		number("attention.key_length", c.HeadDim), number("attention.value_length", c.HeadDim),
		number("rope.dimension_count", c.HeadDim), number("vocab_size", c.Vocab),
		gguf.Float32(p+"rope.freq_base", float32(c.RopeBase)), gguf.Float32(p+"attention.layer_norm_rms_epsilon", c.NormEps),
	}
	if c.RopeScaling.Type == ropeLinear {
		keys = append(keys, gguf.Text(p+"rope.scaling.type", ropeLinear), gguf.Float32(p+"rope.scaling.factor", float32(c.RopeScaling.Factor)))
	}
	if c.Window > 0 {
		keys = append(keys, number("attention.sliding_window", c.Window))
		if c.LocalRopeBase != 10000 {
			keys = append(keys, gguf.Float32(p+"rope.freq_base_swa", float32(c.LocalRopeBase)))
		}
		if c.FullEvery != min(ggufPattern, c.Layers+1) {
			return nil, fmt.Errorf("gguf: every %d. layer has full attention; llama.cpp takes Gemma 3 to have it in every %d., and no key says otherwise; export as safetensors", c.FullEvery, ggufPattern)
		}
	}
	meta := map[string]any{}
	for _, k := range keys {
		meta[k.Key] = k.Value
	}
	f := &gguf.File{Meta: meta, Tensors: map[string]gguf.TensorInfo{}}
	for _, t := range s.GGUF() {
		f.Tensors[t.Name] = gguf.TensorInfo{Name: t.Name, Shape: slices.Clone(t.Shape)}
	}
	got, err := ggufConfig(f)
	if err != nil {
		return nil, fmt.Errorf("gguf: %w", err)
	}
	if c.RopeScaling.Type == ropeLlama3 {
		c.RopeScaling = RopeScaling{Type: ropeDivisors}
	}
	if got != c {
		return nil, fmt.Errorf("gguf: a GGUF file cannot say what this model is: %+v would be read as %+v; export as safetensors", c, got)
	}
	return keys, nil
}

// ggufPattern is the pattern that llama.cpp takes Gemma 3 to have.
const ggufPattern = 6
