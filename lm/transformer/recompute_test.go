package transformer

import (
	"math"
	"testing"

	"github.com/opencharacter/opencharacter/tensor"
)

// recomputeConfigs has a model without norms after the branches and one with them.
var recomputeConfigs = map[string]Config{
	"qwen3": {
		Architecture: archQwen3, Layers: 3, Width: 20, Heads: 4, KVHeads: 2, HeadDim: 6, FFN: 33, Vocab: 51,
		Context: 160, RopeBase: 10000, NormEps: 1e-6, QKNorm: true,
	},
	"gemma3": {
		Architecture: archGemma3, Layers: 3, Width: 20, Heads: 4, KVHeads: 2, HeadDim: 6, FFN: 33, Vocab: 51,
		Context: 160, RopeBase: 10000, NormEps: 1e-6, QKNorm: true, Tied: true, Window: 7, FullEvery: 2, LocalRopeBase: 100,
	},
}

// oneBatch is 128 tokens in three rows, the second of which shares a beginning if so said.
func oneBatch(shared bool) (Rows, []int32) {
	rows := Rows{Offsets: []int32{0, 50, 90, 128}}
	var positions []int32
	for i := range int32(128) {
		id := (i*i + 3*i) % 51
		if i >= 50 && i < 60 {
			id = rows.Tokens[i-50]
		}
		rows.Tokens = append(rows.Tokens, id)
		if i != 49 && i != 89 && i != 127 && i%3 > 0 {
			positions = append(positions, i)
		}
	}
	if shared {
		rows.Shared = []int32{0, 10, 0}
	}
	return rows, positions
}

// Recomputed activations give the bits of kept ones, whatever the workspace did before.
func TestRecomputeBits(t *testing.T) {
	for name, cfg := range recomputeConfigs {
		for _, compute := range []tensor.Compute{tensor.Exact, tensor.BF16} {
			m, err := NewRandom(cfg, 1)
			if err != nil {
				t.Fatal(err)
			}
			m.SetCompute(compute)
			stack := []*Adapter{NewAdapter(cfg, 4, 8, 1), NewAdapter(cfg, 6, 12, 2)}
			for _, a := range stack {
				for i, x := range a.Matrices() {
					for j := range x.T.Data() {
						x.T.Data()[j] += float32((i+j)%7-3) / 8
					}
				}
			}
			grad := func(ws *Workspace, shared bool) (out []float32) {
				rows, positions := oneBatch(shared)
				g := NewGradients(stack[1])
				err := m.Grad(ws, rows, positions, stack, g, func(lp []float32) []float32 {
					out = append(out, lp...)
					d := make([]float32, len(lp))
					for i := range d {
						d[i] = float32(i%5) - 1.75
					}
					return d
				})
				if err != nil {
					t.Fatal(err)
				}
				for _, x := range g.Matrices() {
					out = append(out, x.T.Data()...)
				}
				return out
			}
			limited := NewWorkspace()
			for step, shared := range []bool{false, true, false, true} {
				want := grad(NewWorkspace(), shared)
				limited.MemoryLimit = []int64{1, 1, 0, 1}[step] // the third batch is kept whole
				got := grad(limited, shared)
				if limited.recompute != (step != 2) {
					t.Fatalf("%s, step %d: recompute is %v", name, step, limited.recompute)
				}
				for i := range want {
					if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
						t.Fatalf("%s, %v, step %d: value %d is %v recomputed, %v kept", name, compute, step, i, got[i], want[i])
					}
				}
			}
		}
	}
}

// ActivationBytes is what a workspace holds, in both ways; 128 tokens need no rounding up.
func TestActivationBytes(t *testing.T) {
	for name, cfg := range recomputeConfigs {
		m, err := NewRandom(cfg, 1)
		if err != nil {
			t.Fatal(err)
		}
		kept, recomputed := cfg.ActivationBytes(128, 6)
		stack := []*Adapter{NewAdapter(cfg, 6, 12, 2)}
		ws := NewWorkspace()
		for _, c := range []struct{ limit, want int64 }{{kept, kept}, {kept - 1, recomputed}, {0, kept}} {
			ws.MemoryLimit = c.limit
			rows, positions := oneBatch(false)
			err := m.Grad(ws, rows, positions, stack, NewGradients(stack[0]), func(lp []float32) []float32 { return lp })
			if err != nil {
				t.Fatal(err)
			}
			var held int64
			for i := range ws.layers {
				for j := range ws.layers[i].store {
					held += 4 * int64(len(ws.layers[i].store[j].data))
				}
			}
			if held != c.want {
				t.Errorf("%s, limit %d: %d bytes held, want %d", name, c.limit, held, c.want)
			}
		}
		ws.MemoryLimit = 5
		if ws.Release(); ws.MemoryLimit != 5 || ws.layers != nil {
			t.Errorf("%s: Release left %d layers and a limit of %d", name, len(ws.layers), ws.MemoryLimit)
		}
	}
}
