package transformer

import (
	"math"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencharacter/opencharacter/testenv/hostile"
)

// gemma4B says what the config.json of a published model says: little.
const gemma4B = `{"architectures":["Gemma3ForConditionalGeneration"],"model_type":"gemma3","text_config":{"hidden_size":2560,"intermediate_size":10240,"model_type":"gemma3_text","num_hidden_layers":34,"rope_scaling":{"factor":8.0,"rope_type":"linear"},"sliding_window":1024},"vision_config":{"hidden_size":1152}}`

// What a Gemma config leaves out has the defaults of transformers.
func TestGemmaDefaults(t *testing.T) {
	got, err := parseHFConfig([]byte(gemma4B))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Architecture: "gemma3", Layers: 34, Width: 2560, Heads: 8, KVHeads: 4, HeadDim: 256, FFN: 10240, Vocab: 262208,
		Context: 131072, RopeBase: 1e6, NormEps: 1e-6, Tied: true, QKNorm: true,
		RopeScaling: RopeScaling{Type: "linear", Factor: 8}, Window: 1024, FullEvery: 6, LocalRopeBase: 10000,
	}
	if got != want {
		t.Errorf("config %+v, want %+v", got, want)
	}
	for l := range 34 {
		if full := l == 5 || l == 11 || l == 17 || l == 23 || l == 29; got.windowed(l) == full {
			t.Errorf("layer %d: windowed %v", l, !full)
		}
	}
	// sqrt(2560) = 50.596, and bf16 has steps of a quarter there
	if s := got.embeddingScale(); s != 50.5 {
		t.Errorf("embedding scale %v, want 50.5", s)
	}
}

// Whatever parseHFConfig accepts is a config that can be used.
func FuzzConfigJSON(f *testing.F) {
	f.Add([]byte(`{"model_type":"llama","num_hidden_layers":2,"hidden_size":48,"num_attention_heads":4,"intermediate_size":96,"vocab_size":160,"max_position_embeddings":128,"rms_norm_eps":1e-5,"rope_parameters":{"rope_theta":10000.0,"rope_type":"default"},"tie_word_embeddings":true}`))
	f.Add([]byte(`{"model_type":"qwen3","num_hidden_layers":2,"hidden_size":40,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":16,"intermediate_size":72,"vocab_size":160,"max_position_embeddings":128,"rope_theta":1000000,"rope_scaling":null}`))
	f.Add([]byte(`{"model_type":"llama","num_attention_heads":-1,"hidden_size":1e99}`))
	f.Add([]byte(`{"model_type":"llama","rope_scaling":{"rope_type":["llama3"],"factor":"8"}}`))
	f.Add([]byte(`{"model_type":"llama","num_hidden_layers":2,"hidden_size":48,"num_attention_heads":4,"intermediate_size":96,"vocab_size":160,"max_position_embeddings":128,"rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":8192}}`))
	f.Add([]byte(gemma4B))
	f.Add([]byte(`{"model_type":"gemma3_text","num_hidden_layers":2,"layer_types":["sliding_attention","full_attention"],"sliding_window":512,"rope_parameters":{"full_attention":{"rope_type":"linear","factor":8.0,"rope_theta":1e6},"sliding_attention":{"rope_type":"default","rope_theta":10000.0}},"query_pre_attn_scalar":168,"final_logit_softcapping":null}`))
	f.Add([]byte(`{"model_type":"gemma3","text_config":null}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c Config
		var err error
		hostile.Bounds{PerByte: 200}.Hold(t, len(data), func() { c, err = parseHFConfig(data) })
		if err != nil {
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("accepted, but %v", err)
		}
		for i, d := range c.RopeScaling.divisors(c.HeadDim, c.RopeBase) {
			if !(d > 0) || math.IsInf(d, 0) {
				t.Fatalf("divisor %d of the frequencies is %v", i, d)
			}
		}
		for l := range min(c.Layers, 10) {
			if c.windowed(l) && c.Window < 1 {
				t.Fatalf("layer %d has a window of %d", l, c.Window)
			}
		}
		for p := range projCount {
			if out, in := c.dims(p); out < 1 || in < 1 {
				t.Fatalf("projection %d is %dx%d", p, out, in)
			}
		}
	})
}

// An index never names a file outside its folder, and never one twice.
func FuzzIndexJSON(f *testing.F) {
	f.Add([]byte(`{"metadata":{},"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors","c":"model-00001-of-00002.safetensors"}}`))
	f.Add([]byte(`{"weight_map":{"a":"../secret"}}`))
	f.Add([]byte(`{"weight_map":{"a":"/etc/passwd"}}`))
	f.Add([]byte(`{"weight_map":{"a":".."}}`))
	f.Add([]byte(`{"weight_map":{"":"/"}}`))
	f.Add([]byte(`{"weight_map":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var files []string
		var err error
		hostile.Bounds{PerByte: 200}.Hold(t, len(data), func() { files, err = parseIndex(data) })
		if err != nil {
			return
		}
		if len(files) == 0 || !slices.IsSorted(files) || len(slices.Compact(slices.Clone(files))) != len(files) {
			t.Fatalf("files %q", files)
		}
		for _, name := range files {
			if dir := filepath.Dir(filepath.Join("folder", name)); dir != "folder" {
				t.Fatalf("%q lies in %q", name, dir)
			}
		}
	})
}
