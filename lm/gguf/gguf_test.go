package gguf_test

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/opencharacter/opencharacter/lm/gguf"
)

// TestRecordedBlocks compares every dequantiser, bit by bit, with what the Python package gguf made of
// the same blocks (testdata/record.py).
func TestRecordedBlocks(t *testing.T) {
	f, err := gguf.Open(filepath.Join("testdata", "blocks.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want, err := os.ReadFile(filepath.Join("testdata", "blocks.f32"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range f.Order {
		info := f.Tensors[name]
		if name != info.Type+".weight" || info.Name != name {
			t.Errorf("tensor %q has type %s", name, info.Type)
		}
		if diff := cmp.Diff([]int{3, 512}, info.Shape); diff != "" {
			t.Fatalf("%s: shape: %s", name, diff)
		}
		dst := make([]float32, info.Cols())
		for row := range info.Rows() {
			if err := f.ReadRow(name, row, dst); err != nil {
				t.Fatal(err)
			}
			for i, got := range dst {
				if bits := binary.LittleEndian.Uint32(want); math.Float32bits(got) != bits {
					t.Fatalf("%s[%d,%d] = %g, ggml has %g", name, row, i, got, math.Float32frombits(bits))
				}
				want = want[4:]
			}
		}
	}
	if len(f.Order) != 11 || len(want) != 0 {
		t.Errorf("%d tensors read, %d recorded bytes left", len(f.Order), len(want))
	}
}

func TestRecordedMetadata(t *testing.T) {
	f, err := gguf.Open(filepath.Join("testdata", "blocks.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := map[string]any{
		"general.architecture": "test",
		"scalar.uint8":         uint64(200), "scalar.int8": int64(-100), "scalar.uint16": uint64(60000),
		"scalar.int16": int64(-30000), "scalar.uint32": uint64(4_000_000_000), "scalar.int32": int64(-2_000_000_000),
		"scalar.uint64": uint64(1<<63 + 1), "scalar.int64": int64(math.MinInt64), "scalar.float32": float64(float32(0.1)),
		"scalar.float64": 0.1, "scalar.bool": true, "scalar.string": "ahoy, naïve ⚓",
		"array.int32": []int64{1, -2, 3}, "array.float32": []float64{0.5, -0.25}, "array.bool": []bool{true, false},
		"array.string": []string{"a", "", "Ġc"}, "array.uint32": []int64{7, 8},
	}
	if diff := cmp.Diff(want, f.Meta); diff != "" {
		t.Error(diff)
	}
}

func TestReadRowRefuses(t *testing.T) {
	f, err := gguf.Parse(valid().bytes())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		row  int
		n    int
		want string
	}{
		{"c", 0, 4, `no tensor "c"`},
		{"a", 2, 4, "row 2 of 2"},
		{"a", -1, 4, "row -1 of 2"},
		{"a", 0, 3, "rows have 4 weights, the caller wants 3"},
	} {
		err := f.ReadRow(c.name, c.row, make([]float32, c.n))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("ReadRow(%q, %d, %d): %v, want %q", c.name, c.row, c.n, err, c.want)
		}
	}
}

func TestReadRowConcurrent(t *testing.T) {
	f, err := gguf.Open(filepath.Join("testdata", "blocks.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			dst, again := make([]float32, 512), make([]float32, 512)
			for i := range 50 {
				name := f.Order[(i+worker)%len(f.Order)]
				if err := f.ReadRow(name, i%3, dst); err != nil {
					t.Error(err)
				}
				if err := f.ReadRow(name, i%3, again); err != nil {
					t.Error(err)
				}
				if !cmp.Equal(dst, again) {
					t.Errorf("%s: two reads differ", name)
				}
			}
		})
	}
	wg.Wait()
}

// TestFileShrinks cuts the file while it is open: a clear error, not a crash.
func TestFileShrinks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.gguf")
	data := valid().bytes()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Truncate(path, int64(len(data)-20)); err != nil {
		t.Fatal(err)
	}
	err = f.ReadRow("b", 0, make([]float32, 8))
	if err == nil || !strings.Contains(err.Error(), "became shorter") {
		t.Errorf("ReadRow: %v", err)
	}
}

// TestRealModel reads the whole file of the demo's model.
func TestRealModel(t *testing.T) {
	f, err := gguf.Open(realModel(t))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	types := map[string]int{}
	weights := 0
	for _, name := range f.Order {
		info := f.Tensors[name]
		types[info.Type]++
		dst := make([]float32, info.Cols())
		for row := range info.Rows() {
			if err := f.ReadRow(name, row, dst); err != nil {
				t.Fatal(err)
			}
			for _, v := range dst {
				if v-v != 0 {
					t.Fatalf("%s: row %d holds %g", name, row, v)
				}
			}
			weights += len(dst)
		}
	}
	if diff := cmp.Diff(map[string]int{"Q4_1": 210, "F32": 61, "Q8_0": 1}, types); diff != "" {
		t.Error(diff)
	}
	if weights != 134_515_008 {
		t.Errorf("%d weights", weights)
	}
	if diff := cmp.Diff([]int{49152, 576}, f.Tensors["token_embd.weight"].Shape); diff != "" {
		t.Error(diff)
	}
	tokens, _ := f.Meta["tokenizer.ggml.tokens"].([]string)
	if f.Meta["general.architecture"] != "llama" || len(f.Meta) != 33 || len(tokens) != 49152 {
		t.Errorf("architecture %v, %d keys, %d tokens", f.Meta["general.architecture"], len(f.Meta), len(tokens))
	}
}

func BenchmarkReadRow(b *testing.B) {
	f, err := gguf.Open(realModel(b))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for _, name := range []string{"blk.0.ffn_down.weight", "token_embd.weight"} {
		info := f.Tensors[name]
		b.Run(info.Type, func(b *testing.B) {
			dst := make([]float32, info.Cols())
			b.SetBytes(int64(len(dst))) // so that MB/s reads as million weights a second
			for i := 0; b.Loop(); i++ {
				if err := f.ReadRow(name, i%info.Rows(), dst); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func realModel(t testing.TB) string {
	path := os.Getenv("CHARACTER_TESTMODEL")
	if path == "" {
		if strings.Contains(os.Getenv("CHARACTER_REQUIRE"), "model") {
			t.Fatal("CHARACTER_REQUIRE asks for the real model, CHARACTER_TESTMODEL does not name it")
		}
		t.Skip("set CHARACTER_TESTMODEL to the SmolLM2-135M-Instruct Q4_1 GGUF file")
	}
	return path
}
