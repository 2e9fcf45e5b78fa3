package export_test

import (
	"encoding/json"
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/lm/export"
	"github.com/opencharacter/opencharacter/lm/gguf"
	"github.com/opencharacter/opencharacter/lm/hub"
	"github.com/opencharacter/opencharacter/lm/safetensors"
	"github.com/opencharacter/opencharacter/lm/transformer"
)

const fixtures = "../transformer/testdata/ref"

// base copies a tiny model of the recordings into a folder of its own, adds a tokenizer, and changes its config.
func base(t *testing.T, name string, change map[string]any) hub.Model {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(fixtures, name, "model"))); err != nil {
		t.Fatal(err)
	}
	config := map[string]any{}
	path := filepath.Join(dir, "config.json")
	readJSON(t, path, &config)
	for k, v := range change {
		config[k] = v
	}
	writeJSON(t, path, config)
	level := map[string]any{"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}
	writeJSON(t, filepath.Join(dir, "tokenizer.json"), map[string]any{
		"added_tokens": []any{map[string]any{"id": 2, "content": "<end>", "special": true}}, "pre_tokenizer": level, "decoder": level,
		"model": map[string]any{"type": "BPE", "vocab": map[string]int{"a": 0, "b": 1, "<end>": 2, "ab": 3}, "merges": []string{"a b"}}})
	writeJSON(t, filepath.Join(dir, "tokenizer_config.json"), map[string]any{"eos_token": "<end>", "chat_template": "{{ messages[0]['content'] }}<end>"})
	return hub.Model{Name: name, Path: dir, Format: "safetensors"}
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func writeJSON(t *testing.T, path string, v any) {
	t.Helper()
	b, err := json.Marshal(v)
	if err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// adapters reads the two recorded adapters and joins them.
func adapters(t *testing.T, name string, cfg transformer.Config) (stack []*transformer.Adapter, joined *transformer.Adapter) {
	t.Helper()
	for _, part := range []string{"frozen", "trainable"} {
		files := map[string][]byte{}
		for _, f := range []string{"adapter_config.json", "adapter_model.safetensors"} {
			b, err := os.ReadFile(filepath.Join(fixtures, name, part, f))
			if err != nil {
				t.Fatal(err)
			}
			files[f] = b
		}
		a, err := transformer.ReadPEFT(files, cfg)
		if err != nil {
			t.Fatal(err)
		}
		stack = append(stack, a)
	}
	joined, err := transformer.Concat(cfg, stack, []float64{1, 1})
	if err != nil {
		t.Fatal(err)
	}
	return stack, joined
}

func loadFolder(t *testing.T, dir string) *transformer.Model {
	t.Helper()
	m, err := transformer.LoadSafetensors(dir)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func loadGGUF(t *testing.T, path string) *transformer.Model {
	t.Helper()
	f, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := transformer.LoadGGUF(f)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// families are the tiny models, so changed that GGUF can say what they are.
var families = map[string]map[string]any{
	"tiny-llama": nil, "tiny-qwen3": nil, "tiny-llama3": nil,
	"tiny-gemma3": {"query_pre_attn_scalar": 16, "layer_types": []string{"sliding_attention", "sliding_attention", "sliding_attention", "sliding_attention"}},
}

// TestMerged writes each family in all forms and reads them back with our own loaders.
func TestMerged(t *testing.T) {
	for name, change := range families {
		t.Run(name, func(t *testing.T) {
			from := base(t, name, change)
			s, err := export.Open(from)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			model := loadFolder(t, from.Path)
			stack, joined := adapters(t, name, model.Config)
			dir := t.TempDir()
			o := export.Options{Name: "merged", Adapter: joined, Shard: 40_000}
			if err := s.Safetensors(dir, o); err != nil {
				t.Fatal(err)
			}
			exact(t, from.Path, dir, joined)
			merged := loadFolder(t, dir)
			if merged.Config != model.Config {
				t.Errorf("config %+v, want %+v", merged.Config, model.Config)
			}
			want := logProbs(t, model, stack)
			close(t, "safetensors", model, want, logProbs(t, merged, nil), 0x1p-8)

			full := t.TempDir()
			if err := s.Safetensors(full, export.Options{Adapter: joined, Float32: true}); err != nil {
				t.Fatal(err)
			}
			// Our loader rounds to bf16, so what it reads of this folder is the other one.
			if loadFolder(t, full).Hash() != merged.Hash() {
				t.Error("the folder in float32 holds other weights than the one in bf16")
			}

			path := filepath.Join(dir, "m.gguf")
			if err := s.GGUF(path, "BF16", o); err != nil {
				t.Fatal(err)
			}
			same := loadGGUF(t, path)
			if name != "tiny-llama3" && same.Hash() != merged.Hash() { // which holds divisors in place of parameters
				t.Error("the GGUF file holds other weights than the folder")
			}
			for i, v := range logProbs(t, same, nil) {
				if was := logProbs(t, merged, nil)[i]; math.Abs(float64(v-was)) > 1e-4 {
					t.Fatalf("position %d: %g of GGUF, %g of the folder", i, v, was)
				}
			}
			quantized := filepath.Join(dir, "q.gguf")
			if err := s.GGUF(quantized, "Q8_0", o); err != nil {
				t.Fatal(err)
			}
			// Rounding to steps of amax/127 is off by half of one, and amax of 32 weights is about three times their spread;
			// our loader then rounds to bf16.
			close(t, "q8_0", model, want, logProbs(t, loadGGUF(t, quantized), nil), 3.0/254+0x1p-8)

			// From a GGUF base the files are the same again but for its name: nothing is lost on the way.
			again, err := export.Open(hub.Model{Name: "m", Path: path, Format: "gguf"})
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			second := t.TempDir()
			if err := again.Safetensors(second, export.Options{}); err != nil {
				t.Fatal(err)
			}
			if got := loadFolder(t, second); got.Hash() != merged.Hash() {
				t.Error("the folder made of the GGUF file holds other weights")
			}
		})
	}
}

// exact checks every written matrix against W + scale * B.A in float64: it is the nearest bf16 but for what summing in
// float32 can do.
func exact(t *testing.T, from, to string, a *transformer.Adapter) {
	t.Helper()
	in, err := safetensors.OpenIndex(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := safetensors.OpenIndex(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if len(out.Shards) < 2 {
		t.Errorf("%d files, want several", len(out.Shards))
	}
	list, changed := a.Matrices(), 0
	for i := 0; i < len(list); i += 2 {
		A, B := list[i].T, list[i+1].T
		name := strings.TrimSuffix(strings.TrimPrefix(list[i].Name, "base_model.model."), ".lora_A.weight") + ".weight"
		w, err := in.Floats(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := out.Floats(name)
		if err != nil {
			t.Fatal(err)
		}
		for r := range B.Rows {
			for c := range A.Cols {
				sum, size := float64(w[r*A.Cols+c]), math.Abs(float64(w[r*A.Cols+c]))
				for k := range a.Rank {
					p := float64(a.Scale()) * float64(B.Row(r)[k]) * float64(A.Row(k)[c])
					sum, size = sum+p, size+math.Abs(p)
				}
				v := float64(got[r*A.Cols+c])
				if allowed := math.Abs(sum)*0x1p-8 + size*float64(a.Rank+2)*0x1p-24; math.Abs(v-sum) > allowed {
					t.Fatalf("%s[%d,%d] = %g, want %g within %g", name, r, c, v, sum, allowed)
				}
				if v != float64(w[r*A.Cols+c]) {
					changed++
				}
			}
		}
	}
	if changed == 0 {
		t.Error("the adapter changed nothing")
	}
}

// rows are the positions that are compared.
const rows = 48

func logProbs(t *testing.T, m *transformer.Model, stack []*transformer.Adapter) []float32 {
	t.Helper()
	r := rand.New(rand.NewPCG(3, 4))
	tokens, positions := make([]int32, rows), make([]int32, rows-1)
	for i := range tokens {
		tokens[i] = int32(r.IntN(m.Vocab))
	}
	for i := range positions {
		positions[i] = int32(i)
	}
	out, err := m.LogProbs(transformer.NewWorkspace(), transformer.Rows{Tokens: tokens, Offsets: []int32{0, rows}}, positions, stack)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// close compares log-probs with the bound that rounding weights gives. A weight that is rounded to nearest is off by at
// most u of itself, evenly spread, so by u/sqrt(3) in the mean square; then so is each element of a product with a
// matrix, relative to the length of its terms. The errors of the 7 matrices of each of the layers are independent, so
// they add as squares, and what reaches the logits is that share of the logits' own spread s; a log-prob is the
// difference of two such numbers. rms <= u/sqrt(3) * sqrt(7*layers) * s * sqrt(2), and four times that for the worst.
func close(t *testing.T, name string, m *transformer.Model, want, got []float32, u float64) {
	t.Helper()
	mean, spread := 0.0, 0.0
	for _, v := range want {
		mean += float64(v) / float64(len(want))
	}
	for _, v := range want {
		spread += (float64(v) - mean) * (float64(v) - mean) / float64(len(want))
	}
	bound := u / math.Sqrt(3) * math.Sqrt(7*float64(m.Layers)) * math.Sqrt(spread) * math.Sqrt2
	sum, worst := 0.0, 0.0
	for i := range want {
		d := math.Abs(float64(got[i]) - float64(want[i]))
		sum, worst = sum+d*d/float64(len(want)), max(worst, d)
	}
	t.Logf("%s: rms %.4f, worst %.4f, bound %.4f", name, math.Sqrt(sum), worst, bound)
	if math.Sqrt(sum) > bound || worst > 4*bound {
		t.Errorf("%s: log-probs differ by %.4f in the mean square and %.4f at most, the bound is %.4f and %.4f", name, math.Sqrt(sum), worst, bound, 4*bound)
	}
}

// TestLoRA: the base's GGUF rows plus the product of the adapter's are the merged file's, matrix by matrix, so the rows
// stand in the same order.
func TestLoRA(t *testing.T) {
	for name, change := range families {
		t.Run(name, func(t *testing.T) {
			s, err := export.Open(base(t, name, change))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			_, a := adapters(t, name, s.Stream.Config)
			dir := t.TempDir()
			open := func(file string, write func(path string) error) *gguf.File {
				path := filepath.Join(dir, file)
				if err := write(path); err != nil {
					t.Fatal(err)
				}
				f, err := gguf.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { f.Close() })
				return f
			}
			plain := open("base.gguf", func(p string) error { return s.GGUF(p, "BF16", export.Options{}) })
			lora := open("lora.gguf", func(p string) error { return s.LoRA(p, export.Options{Name: "x", Adapter: a}) })
			whole := open("merged.gguf", func(p string) error { return s.GGUF(p, "BF16", export.Options{Adapter: a}) })
			for key, want := range map[string]any{"general.type": "adapter", "adapter.type": "lora", "general.name": "x", "adapter.lora.alpha": a.Alpha,
				"general.architecture": plain.Meta["general.architecture"]} {
				if lora.Meta[key] != want {
					t.Errorf("%s is %v, want %v", key, lora.Meta[key], want)
				}
			}
			if len(lora.Order) != len(a.Matrices()) {
				t.Errorf("%d tensors, the adapter has %d matrices", len(lora.Order), len(a.Matrices()))
			}
			row := func(f *gguf.File, name string, r int) []float32 {
				dst := make([]float32, f.Tensors[name].Cols())
				if err := f.ReadRow(name, r, dst); err != nil {
					t.Fatal(err)
				}
				return dst
			}
			for _, name := range lora.Order {
				matrix, ok := strings.CutSuffix(name, ".lora_b")
				if !ok {
					continue
				}
				rank := lora.Tensors[name].Cols()
				scale := lora.Meta["adapter.lora.alpha"].(float64) / float64(rank)
				for r := range lora.Tensors[name].Rows() {
					b, w, got := row(lora, name, r), row(plain, matrix, r), row(whole, matrix, r)
					for c := range w {
						want := float64(w[c])
						for k := range rank {
							want += scale * float64(b[k]) * float64(row(lora, matrix+".lora_a", k)[c])
						}
						if math.Abs(float64(got[c])-want) > math.Abs(want)*0x1p-8+1e-5 {
							t.Fatalf("%s[%d,%d]: %g, want %g", matrix, r, c, got[c], want)
						}
					}
					if r == 7 { // the row order shows in the first head
						break
					}
				}
			}
		})
	}
}

// TestSameBytes: two exports are equal, whatever the number of processors.
func TestSameBytes(t *testing.T) {
	from := base(t, "tiny-llama", nil)
	var files [2]map[string]string
	for i, procs := range []int{1, 4} {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
		s, err := export.Open(from)
		if err != nil {
			t.Fatal(err)
		}
		_, a := adapters(t, "tiny-llama", s.Stream.Config)
		dir, o := t.TempDir(), export.Options{Name: "m", Adapter: a}
		err = errors.Join(s.Safetensors(dir, o), s.GGUF(filepath.Join(dir, "b"), "BF16", o), s.GGUF(filepath.Join(dir, "q"), "Q8_0", o), s.LoRA(filepath.Join(dir, "l"), o), s.Close())
		if err != nil {
			t.Fatal(err)
		}
		files[i] = map[string]string{}
		list, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			files[i][e.Name()] = string(b)
		}
	}
	if !maps.Equal(files[0], files[1]) {
		t.Error("two exports differ")
	}
	if len(files[0]) != 8 { // config, generation_config, tokenizer, tokenizer_config, weights, three GGUF files
		t.Errorf("%d files: %v", len(files[0]), slices.Sorted(maps.Keys(files[0])))
	}
}

func TestRefuses(t *testing.T) {
	write := func(t *testing.T, name string, change map[string]any, typ string) error {
		s, err := export.Open(base(t, name, change))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		return s.GGUF(filepath.Join(t.TempDir(), "m.gguf"), typ, export.Options{})
	}
	for _, c := range []struct {
		name, model string
		change      map[string]any
		typ, want   string
	}{
		{"pattern", "tiny-gemma3", map[string]any{"query_pre_attn_scalar": 16}, "BF16", "every 3. layer has full attention"},
		{"scalar", "tiny-gemma3", map[string]any{"layer_types": families["tiny-gemma3"]["layer_types"]}, "BF16", "a GGUF file cannot say what this model is"},
		{"type", "tiny-llama", nil, "Q4_0", `type "Q4_0" is not written`},
	} {
		if err := write(t, c.model, c.change, c.typ); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	s, err := export.Open(base(t, "tiny-llama", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.LoRA(filepath.Join(t.TempDir(), "l"), export.Options{}); err == nil || !strings.Contains(err.Error(), "no adapter") {
		t.Errorf("no adapter: %v", err)
	}
	cfg := s.Stream.Config
	cfg.Layers++
	for name, err := range map[string]error{
		"merge": s.Safetensors(t.TempDir(), export.Options{Adapter: transformer.NewAdapter(cfg, 2, 2, 1)}),
		"lora":  s.LoRA(filepath.Join(t.TempDir(), "l"), export.Options{Adapter: transformer.NewAdapter(cfg, 2, 2, 1)}),
		"full":  s.GGUF("/dev/full", "BF16", export.Options{}),
	} {
		if err == nil || !strings.Contains(err.Error(), map[string]string{"merge": "it was made for 3 layers", "lora": "it was made for 3 layers", "full": "no space left"}[name]) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
