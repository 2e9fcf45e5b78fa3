package transformer_test

import (
	"maps"
	"math"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/lm/transformer"
)

// inTextConfig is the config of the text and image model around a text model's.
func inTextConfig(h map[string]any) map[string]any {
	return map[string]any{"model_type": "gemma3", "text_config": h, "vision_config": map[string]any{"model_type": "siglip_vision_model"}}
}

// renamed is a text and image model around the weights of a text model.
func renamed(w weights, rename func(string) string, extra ...string) weights {
	out := weights{}
	for name, m := range w {
		out[rename(name)] = m
	}
	for _, name := range extra {
		out[name] = matrix{[]int{2, 2}, make([]float32, 4)}
	}
	return out
}

// The same Gemma in every spelling of its config and tensor names is the same model.
func TestLoadGemmaSpellings(t *testing.T) {
	cfg := tinyConfigs["gemma3"]
	w := randomWeights(cfg)
	old := hfConfig(cfg)
	layers := maps.Clone(old) // explicit kinds of layers
	delete(layers, "sliding_window_pattern")
	layers["layer_types"] = []string{"sliding_attention", "sliding_attention", "full_attention", "sliding_attention"}
	five := maps.Clone(layers) // transformers 5
	for _, key := range []string{"rope_theta", "rope_scaling", "rope_local_base_freq"} {
		delete(five, key)
	}
	five["rope_parameters"] = map[string]any{
		"full_attention":    map[string]any{"rope_type": "linear", "factor": cfg.RopeScaling.Factor, "rope_theta": cfg.RopeBase},
		"sliding_attention": map[string]any{"rope_type": "default", "rope_theta": cfg.LocalRopeBase},
	}
	want, err := transformer.LoadSafetensors(writeFolder(t, old, w, 1))
	if err != nil {
		t.Fatal(err)
	}
	if want.Config != cfg {
		t.Fatalf("config %+v, want %+v", want.Config, cfg)
	}
	for name, c := range map[string]struct {
		config  map[string]any
		weights weights
	}{
		"layer types":    {layers, w},
		"transformers 5": {five, w},
		"text and image": {inTextConfig(old), renamed(w, func(s string) string { return "language_model." + s }, "vision_tower.a.weight", "multi_modal_projector.b.weight")},
		"text and image, later": {inTextConfig(five), renamed(w, func(s string) string { return "model.language_model." + strings.TrimPrefix(s, "model.") },
			"model.vision_tower.a.weight", "model.multi_modal_projector.b.weight")},
	} {
		m, err := transformer.LoadSafetensors(writeFolder(t, c.config, c.weights, 1))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if m.Hash() != want.Hash() {
			t.Errorf("%s: another model: %+v", name, m.Config)
		}
	}
}

func TestLoadGemmaErrors(t *testing.T) {
	cfg := tinyConfigs["gemma3"]
	rope := func(full, sliding any) map[string]any {
		return map[string]any{"full_attention": full, "sliding_attention": sliding}
	}
	plain := map[string]any{"rope_type": "default"}
	for _, c := range []struct {
		name, key string
		value     any
		want      string
	}{
		{"capped logits", "final_logit_softcapping", 30.0, "final_logit_softcapping is 30"},
		{"capped scores", "attn_logit_softcapping", 50.0, "attn_logit_softcapping is 50"},
		{"both ways", "use_bidirectional_attention", true, "use_bidirectional_attention"},
		{"activation", "hidden_activation", "gelu", `hidden_activation "gelu"`},
		{"pattern", "sliding_window_pattern", 0, "sliding_window_pattern is 0"},
		{"window", "sliding_window", -3, "sliding_window -3"},
		{"query scalar", "query_pre_attn_scalar", 0, "query_pre_attn_scalar is 0"},
		{"local base", "rope_local_base_freq", 1, "local_rope_base is 1"},
		{"layers", "layer_types", []string{"full_attention"}, "layer_types names 1 layers"},
		{"unsteady layers", "layer_types", []string{"sliding_attention", "full_attention", "full_attention", "sliding_attention"}, "layer_types: layer 2 has"},
		{"unknown layers", "layer_types", []string{"sliding_attention", "chunked_attention", "full_attention", "sliding_attention"}, `layer 1 has "chunked_attention"`},
		{"scaled windows", "rope_parameters", rope(plain, map[string]any{"rope_type": "linear", "factor": 2}), "of sliding_attention layers"},
		{"flat rope", "rope_parameters", plain, "neither full_attention nor"},
		{"rope of text", "rope_parameters", rope("linear", plain), "full_attention is linear"},
		{"rope factor", "rope_parameters", rope(map[string]any{"rope_type": "linear", "factor": -1}, plain), "factor is -1"},
		{"rope type", "rope_parameters", rope(map[string]any{"rope_type": "proportional"}, plain), "rope scaling proportional"},
	} {
		h := hfConfig(cfg)
		h[c.key] = c.value
		if _, err := transformer.LoadSafetensors(writeFolder(t, h, nil, 1)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
	h := inTextConfig(nil)
	delete(h, "text_config")
	if _, err := transformer.LoadSafetensors(writeFolder(t, h, nil, 1)); err == nil || !strings.Contains(err.Error(), "text_config is missing") {
		t.Errorf("no text_config: error %v", err)
	}
	for _, c := range []struct {
		name, key string
		value     any
		want      string
	}{
		{"capped logits", "gemma3.final_logit_softcapping", float32(30), "final_logit_softcapping is 30"},
		{"pattern", "gemma3.attention.sliding_window_pattern", uint32(0), "sliding_window_pattern is 0"},
		{"window", "gemma3.attention.sliding_window", uint32(0), "sliding_window is 0"},
		{"scaling", "gemma3.rope.scaling.type", "longrope", "rope scaling longrope"},
	} {
		if _, err := openGGUF(writeGGUF(t, cfg, randomWeights(cfg), map[string]any{c.key: c.value})); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("GGUF, %s: error %v, want one with %q", c.name, err, c.want)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	for _, c := range []struct {
		want   string
		change func(c *transformer.Config)
	}{
		{"window is -1", func(c *transformer.Config) { c.Window = -1 }},
		{"full_every is 1;", func(c *transformer.Config) { c.FullEvery = 1 }},
		{"full_every is 6;", func(c *transformer.Config) { c.FullEvery = 6 }},
		{"without a window", func(c *transformer.Config) { c.Window = 0 }},
		{"local_rope_base is NaN", func(c *transformer.Config) { c.LocalRopeBase = math.NaN() }},
		{"query_scalar is -1", func(c *transformer.Config) { c.QueryScalar = -1 }},
		{"rope scaling yarn", func(c *transformer.Config) { c.RopeScaling.Type = "yarn" }},
		{"has parameters", func(c *transformer.Config) { c.RopeScaling.Type = "" }},
		{"beside its factor", func(c *transformer.Config) { c.RopeScaling.Original = 5 }},
		{"factor is 0", func(c *transformer.Config) { c.RopeScaling.Factor = 0 }},
		{"must be positive, the second greater", func(c *transformer.Config) {
			c.RopeScaling = transformer.RopeScaling{Type: "llama3", Factor: 2, LowFreq: 4, HighFreq: 4, Original: 10}
		}},
		{"original_max_position_embeddings is 0", func(c *transformer.Config) {
			c.RopeScaling = transformer.RopeScaling{Type: "llama3", Factor: 2, LowFreq: 1, HighFreq: 4}
		}},
	} {
		cfg := tinyConfigs["gemma3"]
		c.change(&cfg)
		if _, err := transformer.NewRandom(cfg, 1); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want one with %q", cfg, err, c.want)
		}
	}
}
