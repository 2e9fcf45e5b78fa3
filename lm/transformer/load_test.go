package transformer_test

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/lm/gguf"
	"github.com/opencharacter/opencharacter/lm/safetensors"
	"github.com/opencharacter/opencharacter/lm/transformer"
)

// weights is a model at rest: a shape and values for every Hugging Face name.
type weights map[string]matrix

type matrix struct {
	shape []int
	data  []float32
}

// randomWeights makes bf16 values for every tensor of a config.
func randomWeights(c transformer.Config) weights {
	r := rand.New(rand.NewPCG(4, 4))
	w := weights{}
	add := func(name string, shape ...int) {
		n := 1
		for _, s := range shape {
			n *= s
		}
		data := make([]float32, n)
		for i := range data {
			data[i] = math.Float32frombits(math.Float32bits(float32(r.NormFloat64()*0.2)) &^ 0xffff)
		}
		w[name] = matrix{shape, data}
	}
	add("model.embed_tokens.weight", c.Vocab, c.Width)
	add("model.norm.weight", c.Width)
	if !c.Tied {
		add("lm_head.weight", c.Vocab, c.Width)
	}
	for l := range c.Layers {
		p := fmt.Sprintf("model.layers.%d.", l)
		add(p+"input_layernorm.weight", c.Width)
		add(p+"post_attention_layernorm.weight", c.Width)
		if c.Architecture == "gemma3" {
			add(p+"pre_feedforward_layernorm.weight", c.Width)
			add(p+"post_feedforward_layernorm.weight", c.Width)
		}
		if c.QKNorm {
			add(p+"self_attn.q_norm.weight", c.HeadDim)
			add(p+"self_attn.k_norm.weight", c.HeadDim)
		}
		q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
		add(p+"self_attn.q_proj.weight", q, c.Width)
		add(p+"self_attn.k_proj.weight", kv, c.Width)
		add(p+"self_attn.v_proj.weight", kv, c.Width)
		add(p+"self_attn.o_proj.weight", c.Width, q)
		add(p+"mlp.gate_proj.weight", c.FFN, c.Width)
		add(p+"mlp.up_proj.weight", c.FFN, c.Width)
		add(p+"mlp.down_proj.weight", c.Width, c.FFN)
	}
	return w
}

func hfConfig(c transformer.Config) map[string]any {
	h := map[string]any{
		"model_type": c.Architecture, "num_hidden_layers": c.Layers, "hidden_size": c.Width, "num_attention_heads": c.Heads,
		"num_key_value_heads": c.KVHeads, "head_dim": c.HeadDim, "intermediate_size": c.FFN, "vocab_size": c.Vocab,
		"max_position_embeddings": c.Context, "rope_theta": c.RopeBase, "rms_norm_eps": c.NormEps, "tie_word_embeddings": c.Tied,
		"hidden_act": "silu", "rope_scaling": nil,
	}
	if r := c.RopeScaling; r.Type == "linear" {
		h["rope_scaling"] = map[string]any{"rope_type": "linear", "factor": r.Factor}
	} else if r.Type == "llama3" {
		h["rope_scaling"] = map[string]any{
			"rope_type": "llama3", "factor": r.Factor, "low_freq_factor": r.LowFreq, "high_freq_factor": r.HighFreq,
			"original_max_position_embeddings": r.Original,
		}
	}
	if c.Architecture == "gemma3" {
		delete(h, "hidden_act")
		for k, v := range map[string]any{
			"model_type": "gemma3_text", "hidden_activation": "gelu_pytorch_tanh", "sliding_window": c.Window, "sliding_window_pattern": c.FullEvery,
			"rope_local_base_freq": c.LocalRopeBase, "query_pre_attn_scalar": cmp.Or(c.QueryScalar, float64(c.HeadDim)), "attn_logit_softcapping": nil, "final_logit_softcapping": nil,
		} {
			h[k] = v
		}
	}
	return h
}

// writeFolder writes a Hugging Face folder with the tensors spread over some shards.
func writeFolder(t testing.TB, config map[string]any, w weights, shards int) string {
	t.Helper()
	dir := t.TempDir()
	data, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	files, index, i := make([][]safetensors.Entry, shards), map[string]string{}, 0
	for name, m := range w {
		files[i%shards] = append(files[i%shards], safetensors.Entry{Name: name, DType: "F32", Shape: m.shape, Data: safetensors.F32Bytes(m.data)})
		index[name] = fmt.Sprintf("model-%d.safetensors", i%shards)
		i++
	}
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("config.json", data)
	for k, entries := range files {
		var out bytes.Buffer
		if err := safetensors.Write(&out, entries, nil); err != nil {
			t.Fatal(err)
		}
		name := "model.safetensors"
		if shards > 1 {
			name = fmt.Sprintf("model-%d.safetensors", k)
		}
		write(name, out.Bytes())
	}
	if shards > 1 {
		data, err := json.Marshal(map[string]any{"weight_map": index})
		if err != nil {
			t.Fatal(err)
		}
		write("model.safetensors.index.json", data)
	}
	return dir
}

// ggufNames translates a module name for the writer below, apart from the loader's table.
var ggufNames = strings.NewReplacer("model.layers.", "blk.", "model.embed_tokens", "token_embd", "model.norm", "output_norm", "lm_head", "output",
	"input_layernorm", "attn_norm", "post_attention_layernorm", "ffn_norm", "self_attn.q_proj", "attn_q", "self_attn.k_proj", "attn_k",
	"self_attn.v_proj", "attn_v", "self_attn.o_proj", "attn_output", "self_attn.q_norm", "attn_q_norm", "self_attn.k_norm", "attn_k_norm",
	"mlp.gate_proj", "ffn_gate", "mlp.up_proj", "ffn_up", "mlp.down_proj", "ffn_down")

// gemmaNames comes before ggufNames for Gemma, whose norms have other names.
var gemmaNames = strings.NewReplacer("post_attention_layernorm", "post_attention_norm", "pre_feedforward_layernorm", "ffn_norm",
	"post_feedforward_layernorm", "post_ffw_norm")

// writeGGUF writes an F32 GGUF v3 file as llama.cpp's converter does, with the
// rows of llama's q and k interleaved, and Gemma's norms increased by 1.
func writeGGUF(t testing.TB, c transformer.Config, w weights, extra map[string]any) string {
	return writeGGUFAs(t, c, w, extra, func(_ string, data []float32) (uint32, []byte) { return 0, safetensors.F32Bytes(data) })
}

// writeGGUFAs is writeGGUF with tensors encoded by their Hugging Face names; encode returns
// the number of the type too.
func writeGGUFAs(t testing.TB, c transformer.Config, w weights, extra map[string]any, encode func(name string, data []float32) (uint32, []byte)) string {
	t.Helper()
	le := binary.LittleEndian
	text := func(b []byte, s string) []byte { return append(le.AppendUint64(b, uint64(len(s))), s...) }
	keys := map[string]any{
		"general.architecture": c.Architecture, c.Architecture + ".block_count": uint32(c.Layers), c.Architecture + ".embedding_length": uint32(c.Width),
		c.Architecture + ".attention.head_count": uint32(c.Heads), c.Architecture + ".attention.head_count_kv": uint32(c.KVHeads),
		c.Architecture + ".attention.key_length": uint32(c.HeadDim), c.Architecture + ".feed_forward_length": uint32(c.FFN),
		c.Architecture + ".context_length": uint32(c.Context), c.Architecture + ".rope.freq_base": float32(c.RopeBase),
		c.Architecture + ".attention.layer_norm_rms_epsilon": c.NormEps,
	}
	if c.Window > 0 {
		keys["gemma3.attention.sliding_window"] = uint32(c.Window)
		keys["gemma3.attention.sliding_window_pattern"] = uint32(c.FullEvery)
	}
	if c.RopeScaling.Type == "linear" {
		keys[c.Architecture+".rope.scaling.type"], keys[c.Architecture+".rope.scaling.factor"] = "linear", float32(c.RopeScaling.Factor)
	}
	for k, v := range extra {
		keys[k] = v
	}
	head := le.AppendUint64(le.AppendUint64(le.AppendUint32([]byte("GGUF"), 3), uint64(len(w))), uint64(len(keys)))
	for k, v := range keys {
		head = text(head, k)
		switch v := v.(type) {
		case string:
			head = text(le.AppendUint32(head, 8), v)
		case uint32:
			head = le.AppendUint32(le.AppendUint32(head, 4), v)
		case float32:
			head = le.AppendUint32(le.AppendUint32(head, 6), math.Float32bits(v))
		default:
			t.Fatalf("key %s has type %T", k, v)
		}
	}
	var body []byte
	for name, m := range w {
		data, hf := m.data, name
		if c.Architecture == "llama" && (strings.Contains(name, "q_proj") || strings.Contains(name, "k_proj")) {
			data = interleave(data, c.HeadDim, m.shape[1])
		}
		if c.Architecture == "gemma3" {
			if name = gemmaNames.Replace(name); strings.HasSuffix(name, "norm.weight") {
				data = slices.Clone(data)
				for i := range data {
					data[i]++
				}
			}
		}
		head = le.AppendUint32(text(head, ggufNames.Replace(name)), uint32(len(m.shape)))
		for i := len(m.shape) - 1; i >= 0; i-- {
			head = le.AppendUint64(head, uint64(m.shape[i]))
		}
		kind, raw := encode(hf, data)
		head = le.AppendUint64(le.AppendUint32(head, kind), uint64(len(body)))
		body = append(body, raw...)
		body = append(body, make([]byte, -len(body)&31)...)
	}
	head = append(head, make([]byte, -len(head)&31)...)
	path := filepath.Join(t.TempDir(), "model.gguf")
	if err := os.WriteFile(path, append(head, body...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// interleave is the converter's reshape(heads, 2, d/2, in).swapaxes(1, 2).
func interleave(data []float32, d, in int) []float32 {
	var out []float32
	for head := 0; head < len(data); head += d * in {
		for i := range d / 2 {
			for half := range 2 {
				from := head + (half*d/2+i)*in
				out = append(out, data[from:from+in]...)
			}
		}
	}
	return out
}

// openGGUF loads a model from a GGUF file.
func openGGUF(path string) (m *transformer.Model, err error) {
	f, err := gguf.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return transformer.LoadGGUF(f)
}

// The same weights from one safetensors file, from shards and from GGUF are the same
// model by hash.
func TestLoadFormatsAgree(t *testing.T) {
	for name, cfg := range tinyConfigs {
		if cfg.RopeScaling.Type == "llama3" {
			continue // GGUF has divisors for it: TestLoadRopeDivisors
		}
		if cfg.Architecture == "gemma3" {
			cfg.QueryScalar = 0 // GGUF does not say it
		}
		t.Run(name, func(t *testing.T) {
			w := randomWeights(cfg)
			one, err := transformer.LoadSafetensors(writeFolder(t, hfConfig(cfg), w, 1))
			if err != nil {
				t.Fatal(err)
			}
			if one.Config != cfg {
				t.Errorf("config %+v, want %+v", one.Config, cfg)
			}
			sharded, err := transformer.LoadSafetensors(writeFolder(t, hfConfig(cfg), w, 3))
			if err != nil {
				t.Fatal(err)
			}
			fromGGUF, err := openGGUF(writeGGUF(t, cfg, w, nil))
			if err != nil {
				t.Fatal(err)
			}
			if sharded.Hash() != one.Hash() || fromGGUF.Hash() != one.Hash() {
				t.Errorf("hashes differ: one file %.8s, shards %.8s, gguf %.8s", one.Hash(), sharded.Hash(), fromGGUF.Hash())
			}
			w["model.norm.weight"].data[0] += 1
			other, err := transformer.LoadSafetensors(writeFolder(t, hfConfig(cfg), w, 1))
			if err != nil {
				t.Fatal(err)
			}
			if other.Hash() == one.Hash() {
				t.Error("other weights have the same hash")
			}
		})
	}
}

// Transformers 5 keeps the rotary settings in rope_parameters.
func TestLoadRopeParameters(t *testing.T) {
	cfg := tinyConfigs["qwen3"]
	h := hfConfig(cfg)
	delete(h, "rope_theta")
	h["rope_parameters"] = map[string]any{"rope_theta": cfg.RopeBase, "rope_type": "default"}
	m, err := transformer.LoadSafetensors(writeFolder(t, h, randomWeights(cfg), 1))
	if err != nil {
		t.Fatal(err)
	}
	if m.RopeBase != cfg.RopeBase {
		t.Errorf("rope base %v, want %v", m.RopeBase, cfg.RopeBase)
	}
}

func TestLoadSafetensorsErrors(t *testing.T) {
	cfg := tinyConfigs["llama"]
	for _, c := range []struct {
		name   string
		change func(h map[string]any, w weights)
		want   string
	}{
		{"family", func(h map[string]any, _ weights) { h["model_type"] = "gpt2" }, `model_type "gpt2"`},
		{"scaling", func(h map[string]any, _ weights) {
			h["rope_scaling"] = map[string]any{"rope_type": "llama3", "factor": 8}
		}, "rope scaling llama3: low_freq_factor is missing"},
		{"scaling of v5", func(h map[string]any, _ weights) { h["rope_parameters"] = map[string]any{"rope_type": "yarn"} }, "rope scaling yarn"},
		{"bias", func(h map[string]any, _ weights) { h["attention_bias"] = true }, "attention_bias"},
		{"activation", func(h map[string]any, _ weights) { h["hidden_act"] = "gelu" }, `hidden_act "gelu"`},
		{"sliding", func(h map[string]any, _ weights) { h["layer_types"] = []string{"full_attention", "sliding_attention"} }, "layer 1 has"},
		{"quantised", func(h map[string]any, _ weights) { h["quantization_config"] = map[string]any{"bits": 4} }, "quantization_config"},
		{"no layers", func(h map[string]any, _ weights) { h["num_hidden_layers"] = 0 }, "layers is 0"},
		{"many layers", func(h map[string]any, _ weights) { h["num_hidden_layers"] = 3 }, "layers.2.mlp.down_proj.weight\" is missing"},
		{"heads", func(h map[string]any, _ weights) { h["num_key_value_heads"] = 4 }, "6 heads cannot share 4"},
		{"negative", func(h map[string]any, _ weights) { h["hidden_size"] = -24 }, "width is -24"},
		{"vocabulary", func(h map[string]any, _ weights) { h["vocab_size"] = 68 }, "67 rows and the config says a vocabulary of 68"},
		{"shape", func(h map[string]any, _ weights) { h["intermediate_size"] = 40 }, "the config calls for [40 24]"},
		{"missing", func(_ map[string]any, w weights) { delete(w, "model.layers.1.mlp.up_proj.weight") }, `"model.layers.1.mlp.up_proj.weight" is missing`},
		{"unknown", func(_ map[string]any, w weights) {
			w["model.layers.0.self_attn.q_proj.bias"] = matrix{[]int{24}, make([]float32, 24)}
		}, `"model.layers.0.self_attn.q_proj.bias" is not part`},
		{"not a number", func(_ map[string]any, w weights) {
			w["model.layers.1.mlp.up_proj.weight"].data[30] = float32(math.Inf(1))
		}, `"model.layers.1.mlp.up_proj.weight", row 1`},
		{"NaN", func(_ map[string]any, w weights) { w["model.embed_tokens.weight"].data[0] = float32(math.NaN()) }, `"model.embed_tokens.weight", row 0`},
		{"infinite in bf16", func(_ map[string]any, w weights) {
			w["model.layers.0.self_attn.q_proj.weight"].data[24] = -math.MaxFloat32
		}, `"model.layers.0.self_attn.q_proj.weight", row 1`},
		{"norm", func(_ map[string]any, w weights) { w["model.norm.weight"].data[3] = float32(math.NaN()) }, `"model.norm.weight" holds a value that is not finite`},
	} {
		h, w := hfConfig(cfg), randomWeights(cfg)
		c.change(h, w)
		if _, err := transformer.LoadSafetensors(writeFolder(t, h, w, 1)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
	if _, err := transformer.LoadSafetensors(t.TempDir()); err == nil || !strings.Contains(err.Error(), "config.json") {
		t.Errorf("empty folder: error %v", err)
	}
}

func TestLoadGGUFErrors(t *testing.T) {
	cfg := tinyConfigs["llama"]
	for _, c := range []struct {
		name   string
		change func(extra map[string]any, w weights)
		want   string
	}{
		{"family", func(e map[string]any, _ weights) { e["general.architecture"] = "mamba" }, `architecture "mamba"`},
		{"scaling", func(e map[string]any, _ weights) { e["llama.rope.scaling.type"] = "yarn" }, "rope scaling yarn"},
		{"frequencies", func(_ map[string]any, w weights) { w["rope_freqs.weight"] = matrix{[]int{3}, []float32{1, 1, 1}} }, "\"rope_freqs.weight\" has shape [3]"},
		{"zero frequency", func(_ map[string]any, w weights) { w["rope_freqs.weight"] = matrix{[]int{2}, []float32{1, 0}} }, "\"rope_freqs.weight\": divisor 1"},
		{"partial rotation", func(e map[string]any, _ weights) { e["llama.rope.dimension_count"] = uint32(2) }, "rope.dimension_count is 2"},
		{"type", func(e map[string]any, _ weights) { e["llama.block_count"] = "two" }, "llama.block_count is two"},
		{"vocabulary", func(e map[string]any, _ weights) { e["llama.vocab_size"] = uint32(70) }, "vocabulary of 70"},
		{"missing", func(_ map[string]any, w weights) { delete(w, "model.layers.1.mlp.up_proj.weight") }, `"blk.1.ffn_up.weight" is missing`},
		{"unknown", func(_ map[string]any, w weights) { w["model.layers.1.other.weight"] = matrix{[]int{1}, []float32{1}} }, "is not part"},
		{"no embedding", func(_ map[string]any, w weights) { delete(w, "model.embed_tokens.weight") }, "token_embd.weight"},
	} {
		extra, w := map[string]any{}, randomWeights(cfg)
		c.change(extra, w)
		if _, err := openGGUF(writeGGUF(t, cfg, w, extra)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
}
