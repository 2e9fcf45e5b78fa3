package transformer

import (
	"path/filepath"
	"slices"
	"testing"
)

// Whatever parseHFConfig accepts is a config that can be used.
func FuzzConfigJSON(f *testing.F) {
	f.Add([]byte(`{"model_type":"llama","num_hidden_layers":2,"hidden_size":48,"num_attention_heads":4,"intermediate_size":96,"vocab_size":160,"max_position_embeddings":128,"rms_norm_eps":1e-5,"rope_parameters":{"rope_theta":10000.0,"rope_type":"default"},"tie_word_embeddings":true}`))
	f.Add([]byte(`{"model_type":"qwen3","num_hidden_layers":2,"hidden_size":40,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":16,"intermediate_size":72,"vocab_size":160,"max_position_embeddings":128,"rope_theta":1000000,"rope_scaling":null}`))
	f.Add([]byte(`{"model_type":"llama","num_attention_heads":-1,"hidden_size":1e99}`))
	f.Add([]byte(`{"model_type":"llama","rope_scaling":{"rope_type":["llama3"],"factor":"8"}}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseHFConfig(data)
		if err != nil {
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("accepted, but %v", err)
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
		files, err := parseIndex(data)
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
