// Package tinymodel writes a whole chat model of a few hundred kilobytes: random weights, a byte-level tokenizer and a
// ChatML template, in the form that any Hugging Face folder has. Its answers are random letters that end by
// themselves after some dozens of tokens, so that whole runs on it take seconds. It knows nothing of real models.
package tinymodel

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/opencharacter/opencharacter/lm/safetensors"
)

const (
	width, heads, kvHeads, headDim, ffn, layers = 32, 4, 2, 8, 64, 2
	vocab                                       = 264 // 256 bytes, then special tokens, then padding
	endID                                       = 258
)

// template is ChatML, as most small chat models have it.
const template = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"

// Write writes the model into dir, which is made when missing. The same seed gives the same bytes.
func Write(dir string, seed uint64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("tinymodel: %w", err)
	}
	for name, v := range map[string]any{"config.json": config(), "tokenizer.json": tokenizer(), "tokenizer_config.json": map[string]any{
		"chat_template": template, "eos_token": "<|im_end|>", "bos_token": "<|im_start|>", "tokenizer_class": "PreTrainedTokenizerFast"}} {
		b, err := json.MarshalIndent(v, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return fmt.Errorf("tinymodel: %w", err)
		}
	}
	f, err := os.Create(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		return fmt.Errorf("tinymodel: %w", err)
	}
	defer f.Close()
	if err := safetensors.Write(f, weights(seed), map[string]string{"format": "pt"}); err != nil {
		return err
	}
	return f.Close()
}

func config() map[string]any {
	return map[string]any{
		"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "hidden_size": width, "intermediate_size": ffn, "num_hidden_layers": layers,
		"num_attention_heads": heads, "num_key_value_heads": kvHeads, "head_dim": headDim, "vocab_size": vocab, "max_position_embeddings": 2048,
		"rope_theta": 10000.0, "rms_norm_eps": 1e-5, "tie_word_embeddings": false, "hidden_act": "silu", "torch_dtype": "float32", "attention_bias": false, "mlp_bias": false,
	}
}

// byteRune is GPT-2's printable stand-in for a byte.
func byteRune(b int) rune {
	if b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae && b <= 0xff {
		return rune(b)
	}
	n := 0
	for c := range b {
		if !(c >= '!' && c <= '~' || c >= 0xa1 && c <= 0xac || c >= 0xae && c <= 0xff) {
			n++
		}
	}
	return rune(256 + n)
}

func tokenizer() map[string]any {
	ids := map[string]int{}
	for b := range 256 {
		ids[string(byteRune(b))] = b
	}
	var added []map[string]any
	for i, s := range []string{"<|endoftext|>", "<|im_start|>", "<|im_end|>"} {
		ids[s] = 256 + i
		added = append(added, map[string]any{"id": 256 + i, "content": s, "special": true, "normalized": false, "lstrip": false, "rstrip": false, "single_word": false})
	}
	level := map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}
	return map[string]any{
		"version": "1.0", "added_tokens": added, "normalizer": nil,
		"pre_tokenizer": map[string]any{"type": "Sequence", "pretokenizers": []any{map[string]any{"type": "Digits", "individual_digits": true}, level}},
		"decoder":       level,
		"model":         map[string]any{"type": "BPE", "vocab": ids, "merges": []string{}, "dropout": nil, "unk_token": nil, "byte_fallback": false, "fuse_unk": false, "ignore_merges": false},
	}
}

// weights are random, but for one direction: every embedding has a large first component, which survives the layers,
// and the head reads from it how likely a token is on its own: letters and spaces, sometimes an end, never control bytes.
func weights(seed uint64) []safetensors.Entry {
	r := rand.New(rand.NewPCG(seed, 7))
	var out []safetensors.Entry
	add := func(name string, rows, cols int, value func(i, j int) float64) {
		x := make([]float32, rows*cols)
		for i := range rows {
			for j := range cols {
				x[i*cols+j] = float32(value(i, j))
			}
		}
		shape := []int{rows, cols}
		if cols == 1 {
			shape = shape[:1]
		}
		out = append(out, safetensors.Entry{Name: name, DType: "F32", Shape: shape, Data: safetensors.F32Bytes(x)})
	}
	noise := func(s float64) func(int, int) float64 { return func(int, int) float64 { return s * r.NormFloat64() } }
	one := func(int, int) float64 { return 1 }
	add("model.embed_tokens.weight", vocab, width, func(_, j int) float64 {
		if j == 0 {
			return 4
		}
		return .5 * r.NormFloat64()
	})
	for l := range layers {
		p := fmt.Sprintf("model.layers.%d.", l)
		add(p+"self_attn.q_proj.weight", heads*headDim, width, noise(.2))
		add(p+"self_attn.k_proj.weight", kvHeads*headDim, width, noise(.2))
		add(p+"self_attn.v_proj.weight", kvHeads*headDim, width, noise(.2))
		add(p+"self_attn.o_proj.weight", width, heads*headDim, noise(.1))
		add(p+"mlp.gate_proj.weight", ffn, width, noise(.2))
		add(p+"mlp.up_proj.weight", ffn, width, noise(.2))
		add(p+"mlp.down_proj.weight", width, ffn, noise(.05))
		add(p+"input_layernorm.weight", width, 1, one)
		add(p+"post_attention_layernorm.weight", width, 1, one)
	}
	add("model.norm.weight", width, 1, one)
	add("lm_head.weight", vocab, width, func(i, j int) float64 {
		if j > 0 {
			return .2 * r.NormFloat64()
		}
		switch {
		case i == ' ':
			return 1.0
		case i >= 'a' && i <= 'z', i == endID:
			return .8
		}
		return -2
	})
	return out
}
