package transformer_test

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/lm/gguf"
	"github.com/opencharacter/opencharacter/lm/safetensors"
	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/testenv/hostile"
)

// least is a model as small as the format allows.
var least = transformer.Config{
	Architecture: "llama", Layers: 1, Width: 2, Heads: 1, KVHeads: 1, HeadDim: 2, FFN: 2, Vocab: 3,
	Context: 8, RopeBase: 10000, NormEps: 1e-5, Tied: true,
}

// loadBounds are what a file of a model may cost to load: its numbers widened and packed, the tables of positions and
// some of everything for each thread.
var loadBounds = hostile.Bounds{Base: 16 << 20, PerByte: 200}

// works runs a loaded model, whatever file it came from: every number of it is finite.
func works(t *testing.T, m *transformer.Model) {
	t.Helper()
	if m.Context < 2 || m.Bytes() > 1<<20 {
		return
	}
	rows := transformer.Rows{Tokens: []int32{0, 0}, Offsets: []int32{0, 2}}
	if _, err := m.LogProbs(transformer.NewWorkspace(), rows, []int32{0}, nil); err != nil {
		t.Errorf("a model that was loaded does not work: %v", err)
	}
}

// FuzzLoadGGUF: a GGUF file is refused or gives a model that works.
func FuzzLoadGGUF(f *testing.F) {
	for _, c := range []transformer.Config{least, tinyConfigs["qwen3"], tinyConfigs["gemma3"]} {
		c.Layers, c.Vocab, c.QueryScalar = 1, 3, 0
		if c.Window > 0 {
			c.FullEvery = 2
		}
		path := writeGGUF(f, c, randomWeights(c), nil)
		if _, err := openGGUF(path); err != nil {
			f.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := gguf.Parse(data)
		if err != nil {
			return
		}
		for _, load := range []func(*gguf.File) (*transformer.Model, error){transformer.LoadGGUF, transformer.LoadGGUFQuantized} {
			var m *transformer.Model
			loadBounds.Hold(t, len(data), func() { m, err = load(file) })
			if err == nil {
				works(t, m)
			}
		}
	})
}

// FuzzLoadFolder: a config.json with a model.safetensors is refused or gives a model that works.
func FuzzLoadFolder(f *testing.F) {
	for _, c := range []transformer.Config{least, tinyConfigs["llama3"], tinyConfigs["gemma3"]} {
		c.Layers, c.Vocab = 1, 3
		if c.Window > 0 {
			c.FullEvery = 2
		}
		dir := writeFolder(f, hfConfig(c), randomWeights(c), 1)
		if _, err := transformer.LoadSafetensors(dir); err != nil {
			f.Fatal(err)
		}
		var files [2][]byte
		for i, name := range []string{"config.json", "model.safetensors"} {
			var err error
			if files[i], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
				f.Fatal(err)
			}
		}
		f.Add(files[0], files[1])
	}
	f.Fuzz(func(t *testing.T, config, weights []byte) {
		dir := t.TempDir()
		for name, data := range map[string][]byte{"config.json": config, "model.safetensors": weights} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var m *transformer.Model
		var err error
		loadBounds.Hold(t, len(config)+len(weights), func() { m, err = transformer.LoadSafetensors(dir) })
		if err == nil {
			works(t, m)
		}
	})
}

// TestNonFiniteWeights: a number in a model file that is not finite, or not in bf16, is refused by the tensor's name,
// wherever it stands.
func TestNonFiniteWeights(t *testing.T) {
	for _, name := range []string{"model.embed_tokens.weight", "model.norm.weight", "model.layers.0.input_layernorm.weight", "model.layers.0.mlp.down_proj.weight"} {
		for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(-1)), math.MaxFloat32} {
			if bad == math.MaxFloat32 && strings.Contains(name, "norm") {
				continue // norms stay float32
			}
			w := randomWeights(least)
			data := slices.Clone(w[name].data)
			data[len(data)-1] = bad
			w[name] = matrix{w[name].shape, data}
			_, err := transformer.LoadSafetensors(writeFolder(t, hfConfig(least), w, 1))
			if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "not finite") {
				t.Errorf("%v in %s of a folder: %v", bad, name, err)
			}
			_, err = openGGUF(writeGGUF(t, least, w, nil))
			if err == nil || !strings.Contains(err.Error(), ggufNames.Replace(name)) || !strings.Contains(err.Error(), "not finite") {
				t.Errorf("%v in %s of a GGUF file: %v", bad, name, err)
			}
		}
	}
}

// TestNonFiniteAdapter: the same for an adapter's file.
func TestNonFiniteAdapter(t *testing.T) {
	files, err := transformer.NewAdapter(least, 1, 1, 1).PEFT("")
	if err != nil {
		t.Fatal(err)
	}
	nan := safetensors.F32Bytes([]float32{float32(math.NaN())})
	weights := files["adapter_model.safetensors"]
	copy(weights[len(weights)-4:], nan)
	if _, err := transformer.ReadPEFT(files, least); err == nil || !strings.Contains(err.Error(), "not finite") || !bytes.Contains([]byte(err.Error()), []byte("lora_")) {
		t.Errorf("error %v", err)
	}
}

// TestLargeConfig: a folder's JSON files are read up to a limit.
func TestLargeConfig(t *testing.T) {
	dir := writeFolder(t, hfConfig(least), randomWeights(least), 1)
	path := filepath.Join(dir, "config.json")
	if err := os.Truncate(path, 64<<20+1); err != nil {
		t.Fatal(err)
	}
	if _, err := transformer.LoadSafetensors(dir); err == nil || !strings.Contains(err.Error(), "has more than 67108864 bytes") {
		t.Errorf("error %v", err)
	}
}
