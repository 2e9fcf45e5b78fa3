package transformer_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/tensor"
)

// Tiny models of all architectures. Their sizes divide by none of the tile sizes
// of the kernels, and the Qwen3 one has heads wider than Width / Heads. The Gemma one has
// windows shorter than most rows in all but the third layer, and the root of its width
// is no bf16 number.
var tinyConfigs = map[string]transformer.Config{
	"llama": {
		Architecture: "llama", Layers: 2, Width: 24, Heads: 6, KVHeads: 2, HeadDim: 4, FFN: 37, Vocab: 67,
		Context: 160, RopeBase: 10000, NormEps: 1e-5, Tied: true,
	},
	"qwen3": {
		Architecture: "qwen3", Layers: 3, Width: 20, Heads: 4, KVHeads: 4, HeadDim: 6, FFN: 33, Vocab: 51,
		Context: 160, RopeBase: 1000000, NormEps: 1e-6, QKNorm: true,
	},
	"llama3": {
		Architecture: "llama", Layers: 2, Width: 24, Heads: 3, KVHeads: 1, HeadDim: 12, FFN: 31, Vocab: 59,
		Context: 160, RopeBase: 10000, NormEps: 1e-5,
		RopeScaling: transformer.RopeScaling{Type: "llama3", Factor: 4, LowFreq: 1, HighFreq: 4, Original: 64},
	},
	"gemma3": {
		Architecture: "gemma3", Layers: 4, Width: 22, Heads: 4, KVHeads: 2, HeadDim: 6, FFN: 35, Vocab: 53,
		Context: 160, RopeBase: 1000000, NormEps: 1e-6, Tied: true, QKNorm: true,
		RopeScaling: transformer.RopeScaling{Type: "linear", Factor: 8},
		Window:      9, FullEvery: 3, LocalRopeBase: 10000, QueryScalar: 11,
	},
}

// eachTiny runs a test on every tiny model, in both compute modes.
func eachTiny(t *testing.T, f func(t *testing.T, m *transformer.Model)) {
	eachExact(t, f)
	for name, cfg := range tinyConfigs {
		t.Run(name+"/bf16", func(t *testing.T) {
			m := newTiny(t, cfg)
			m.SetCompute(tensor.BF16)
			f(t, m)
		})
	}
}

// eachForward is eachTiny and quantised models, which cannot be trained on.
func eachForward(t *testing.T, f func(t *testing.T, m *transformer.Model)) {
	eachTiny(t, f)
	for _, name := range []string{"llama", "gemma3"} {
		t.Run(name+"/quantized", func(t *testing.T) {
			m, err := transformer.NewRandomQuantized(inBlocks(tinyConfigs[name]), 1)
			if err != nil {
				t.Fatal(err)
			}
			f(t, m)
		})
	}
}

// inBlocks makes the rows of all matrices whole blocks long.
func inBlocks(c transformer.Config) transformer.Config {
	c.Width, c.Heads, c.KVHeads, c.HeadDim, c.FFN = 64, 6, 2, 16, 96
	return c
}

// eachExact is eachTiny for what only holds in mode exact.
func eachExact(t *testing.T, f func(t *testing.T, m *transformer.Model)) {
	for name, cfg := range tinyConfigs {
		t.Run(name, func(t *testing.T) { f(t, newTiny(t, cfg)) })
	}
}

func newTiny(t testing.TB, cfg transformer.Config) *transformer.Model {
	t.Helper()
	m, err := transformer.NewRandom(cfg, 1)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// randomAdapter is an adapter whose B is not zero.
func randomAdapter(cfg transformer.Config, rank int, alpha float64, seed uint64) *transformer.Adapter {
	a := transformer.NewAdapter(cfg, rank, alpha, seed)
	r := rand.New(rand.NewPCG(seed, 7))
	for i, m := range a.Matrices() {
		if i%2 == 1 {
			for j := range m.T.Data() {
				m.T.Data()[j] = float32(r.NormFloat64() * 0.3)
			}
		}
	}
	return a
}

// randomRows makes one row for each length.
func randomRows(vocab int, seed uint64, lengths ...int) [][]int32 {
	r := rand.New(rand.NewPCG(seed, 3))
	rows := make([][]int32, len(lengths))
	for i, n := range lengths {
		for range n {
			rows[i] = append(rows[i], int32(r.IntN(vocab)))
		}
	}
	return rows
}

// pack lays rows side by side and scores every position that has a successor. starts
// tells where each row's scores begin.
func pack(rows ...[]int32) (p transformer.Rows, positions []int32, starts []int) {
	p.Offsets = []int32{0}
	for _, row := range rows {
		starts = append(starts, len(positions))
		for i := range len(row) - 1 {
			positions = append(positions, int32(len(p.Tokens)+i))
		}
		p.Tokens = append(p.Tokens, row...)
		p.Offsets = append(p.Offsets, int32(len(p.Tokens)))
	}
	return p, positions, append(starts, len(positions))
}

// logProbs scores rows in one packed call.
func logProbs(t testing.TB, m *transformer.Model, stack []*transformer.Adapter, rows ...[]int32) []float32 {
	t.Helper()
	p, positions, _ := pack(rows...)
	out, err := m.LogProbs(transformer.NewWorkspace(), p, positions, stack)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// sameBits fails at the first value whose bits differ.
func sameBits(t testing.TB, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	for i := range got {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("%s: value %d is %v, want exactly %v", what, i, got[i], want[i])
		}
	}
}
