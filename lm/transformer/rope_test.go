package transformer_test

import (
	"math"
	"testing"

	"github.com/opencharacter/opencharacter/lm/transformer"
)

// llama3Divisors is what llama.cpp's converter writes to rope_freqs.weight, by its formula.
func llama3Divisors(c transformer.Config) []float32 {
	var out []float32
	for i := 0; i < c.HeadDim; i += 2 {
		r, wavelen := c.RopeScaling, 2*math.Pi*math.Pow(c.RopeBase, float64(i)/float64(c.HeadDim))
		low, high := float64(r.Original)/r.LowFreq, float64(r.Original)/r.HighFreq
		switch {
		case wavelen < high:
			out = append(out, 1)
		case wavelen > low:
			out = append(out, float32(r.Factor))
		default:
			smooth := (float64(r.Original)/wavelen - r.LowFreq) / (r.HighFreq - r.LowFreq)
			out = append(out, float32(1/((1-smooth)/r.Factor+smooth)))
		}
	}
	return out
}

// Llama 3's rope scaling is the same from config.json, where it stands as parameters, and
// from GGUF, where it stands as divisors rounded to float32. These shift an angle below
// 160 by at most 160 * 2^-24, some 1e-5, and so a score, the logits and a log-prob: each
// by about that, as scores here are below 1. Leaving the divisors out shifts them much more.
func TestLoadRopeDivisors(t *testing.T) {
	cfg := tinyConfigs["llama3"]
	w := randomWeights(cfg)
	hf, err := transformer.LoadSafetensors(writeFolder(t, hfConfig(cfg), w, 1))
	if err != nil {
		t.Fatal(err)
	}
	if hf.Config != cfg {
		t.Errorf("config %+v, want %+v", hf.Config, cfg)
	}
	w["rope_freqs.weight"] = matrix{[]int{cfg.HeadDim / 2}, llama3Divisors(cfg)}
	scaled, err := openGGUF(writeGGUF(t, cfg, w, nil))
	if err != nil {
		t.Fatal(err)
	}
	hash := scaled.Hash()
	w["rope_freqs.weight"].data[cfg.HeadDim/2-1]++
	other, err := openGGUF(writeGGUF(t, cfg, w, nil))
	if err != nil {
		t.Fatal(err)
	}
	if other.Hash() == hash {
		t.Error("other divisors have the same hash")
	}
	delete(w, "rope_freqs.weight")
	plain, err := openGGUF(writeGGUF(t, cfg, w, nil))
	if err != nil {
		t.Fatal(err)
	}
	row := randomRows(cfg.Vocab, 30, 150)[0]
	want, got, unscaled := logProbs(t, hf, nil, row), logProbs(t, scaled, nil, row), logProbs(t, plain, nil, row)
	var near, far float64
	for i := range want {
		near, far = max(near, math.Abs(float64(got[i]-want[i]))), max(far, math.Abs(float64(unscaled[i]-want[i])))
	}
	if near > 2e-5 || far < 1e-3 {
		t.Errorf("log-probs differ by %v with divisors and by %v without", near, far)
	}
}

// Linear scaling is read in both spellings of its type.
func TestLoadLinearRope(t *testing.T) {
	cfg := tinyConfigs["qwen3"]
	for _, key := range []string{"type", "rope_type"} {
		h := hfConfig(cfg)
		h["rope_scaling"] = map[string]any{key: "linear", "factor": 2}
		m, err := transformer.LoadSafetensors(writeFolder(t, h, randomWeights(cfg), 1))
		if err != nil {
			t.Fatal(err)
		}
		want := cfg
		want.RopeScaling = transformer.RopeScaling{Type: "linear", Factor: 2}
		if m.Config != want {
			t.Errorf("%s: config %+v, want %+v", key, m.Config, want)
		}
	}
}
