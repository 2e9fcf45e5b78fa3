package transformer_test

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencharacter/opencharacter/lm/gguf"
	"github.com/opencharacter/opencharacter/lm/safetensors"
	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/tensor"
)

// ggml's numbers of the block types.
const (
	typeF32  = 0
	typeQ4_0 = 2
	typeQ4_1 = 3
	typeQ8_0 = 8
)

// blocks encodes values in blocks of 32 with scales that are powers of two, so that every
// weight read back is a bf16 number.
func blocks(kind uint32, data []float32) []byte {
	var out []byte
	for ; len(data) > 0; data = data[32:] {
		var top float64
		for _, x := range data[:32] {
			top = max(top, math.Abs(float64(x)))
		}
		_, e := math.Frexp(top)
		if e -= 3; kind == typeQ8_0 {
			e -= 4
		}
		out = binary.LittleEndian.AppendUint16(out, uint16(e+15)<<10)
		offset := 8
		if kind == typeQ4_1 { // a minimum of -7 scales: 1.75 times 2^(e+2)
			offset = 7
			out = binary.LittleEndian.AppendUint16(out, 0x8000|uint16(e+2+15)<<10|0x300)
		}
		var q [32]int
		for i, x := range data[:32] {
			q[i] = int(math.RoundToEven(math.Ldexp(float64(x), -e)))
			if kind == typeQ8_0 {
				out = append(out, byte(int8(min(q[i], 127))))
			} else {
				q[i] = min(max(q[i]+offset, 0), 15)
			}
		}
		for i := range 16 {
			if kind != typeQ8_0 {
				out = append(out, byte(q[i]|q[i+16]<<4))
			}
		}
	}
	return out
}

// mixed gives each kind of matrix a type; the output of attention stays F32.
func mixed(name string, data []float32) (uint32, []byte) {
	kind := uint32(typeF32)
	switch {
	case strings.Contains(name, "embed"), strings.Contains(name, "head"), strings.Contains(name, "v_proj"):
		kind = typeQ8_0
	case strings.Contains(name, "q_proj"), strings.Contains(name, "down_proj"):
		kind = typeQ4_0
	case strings.Contains(name, "_proj") && !strings.Contains(name, "o_proj"):
		kind = typeQ4_1
	}
	if kind == typeF32 {
		return kind, safetensors.F32Bytes(data)
	}
	return kind, blocks(kind, data)
}

// openQuantized is openGGUF for LoadGGUFQuantized.
func openQuantized(path string) (*transformer.Model, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return transformer.LoadGGUFQuantized(f)
}

// Where rounding to bf16 loses nothing, the quantised model and the rounded one have the
// same bits: every row stands at its place, queries and keys of llama too, and all
// products add in one order.
func TestLoadQuantized(t *testing.T) {
	for name, cfg := range tinyConfigs {
		t.Run(name, func(t *testing.T) {
			cfg := inBlocks(cfg)
			cfg.RopeScaling = transformer.RopeScaling{}
			path := writeGGUFAs(t, cfg, randomWeights(cfg), nil, mixed)
			rounded, err := openGGUF(path)
			if err != nil {
				t.Fatal(err)
			}
			m, err := openQuantized(path)
			if err != nil {
				t.Fatal(err)
			}
			if !m.Quantized() || rounded.Quantized() {
				t.Error("Quantized does not tell the models apart")
			}
			again, err := openQuantized(path)
			if err != nil {
				t.Fatal(err)
			}
			if m.Hash() == rounded.Hash() || m.Hash() != again.Hash() {
				t.Error("the hash does not name the weights")
			}
			if m.Bytes() > rounded.Bytes()*2/3 {
				t.Errorf("%d bytes quantised, %d rounded", m.Bytes(), rounded.Bytes())
			}
			stack := []*transformer.Adapter{randomAdapter(cfg, 3, 6, 1)}
			rows := randomRows(cfg.Vocab, 4, 50, 21, 3)
			sameBits(t, "log-probs", logProbs(t, m, stack, rows...), logProbs(t, rounded, stack, rows...))
			a, b := newDecoder(t, m), newDecoder(t, rounded)
			for _, d := range []*decoder{a, b} {
				d.stack = stack
			}
			sameBits(t, "logits", a.extend(transformer.Chunk{Seq: a.c.NewSequence(), Tokens: rows[0]}).Data(),
				b.extend(transformer.Chunk{Seq: b.c.NewSequence(), Tokens: rows[0]}).Data())
		})
	}
}

func TestQuantizedRefuses(t *testing.T) {
	cfg := inBlocks(tinyConfigs["llama"])
	plain := writeGGUF(t, cfg, randomWeights(cfg), nil)
	if _, err := openQuantized(plain); err == nil || !strings.Contains(err.Error(), "only of F32") || !strings.Contains(err.Error(), "bf16 weights") {
		t.Errorf("a file without blocks: %v", err)
	}
	damaged := writeGGUFAs(t, cfg, randomWeights(cfg), nil, func(name string, data []float32) (uint32, []byte) {
		kind, raw := mixed(name, data)
		if strings.Contains(name, "1.mlp.gate_proj") {
			raw[len(raw)-20+3] = 0x7c // the last block's minimum
		}
		return kind, raw
	})
	if _, err := openQuantized(damaged); err == nil || !strings.Contains(err.Error(), `"blk.1.ffn_gate.weight": row 95: block 1: the minimum`) {
		t.Errorf("a minimum that is not finite: %v", err)
	}
	m, err := transformer.NewRandomQuantized(cfg, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.SetCompute(tensor.BF16); err == nil || !strings.Contains(err.Error(), "mode exact only") || m.Compute() != tensor.Exact {
		t.Errorf("mode bf16: %v", err)
	}
	if err := m.SetCompute(tensor.Exact); err != nil {
		t.Error(err)
	}
	a := randomAdapter(cfg, 3, 6, 1)
	p, positions, _ := pack(randomRows(cfg.Vocab, 4, 9)...)
	err = m.Grad(transformer.NewWorkspace(), p, positions, []*transformer.Adapter{a}, transformer.NewGradients(a), func([]float32) []float32 {
		t.Error("the loss was asked")
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "without quantized weights to train") {
		t.Errorf("Grad: %v", err)
	}
	cfg.FFN = 33
	if _, err := transformer.NewRandomQuantized(cfg, 1); err == nil || !strings.Contains(err.Error(), "rows of 33") {
		t.Errorf("odd rows: %v", err)
	}
}

// With its matrices as they stand in the file, the real model has the log-probs that
// plain transformers has with the dequantised float32 weights; bf16 weights are hundreds
// of times further away (TestRecordedSmolLM2 holds their own recording).
func TestQuantizedSmolLM2(t *testing.T) {
	path, dir := testModel(t), filepath.Join("testdata", "ref", "smollm2")
	m, err := openQuantized(path)
	if err != nil {
		t.Fatal(err)
	}
	var rows smolRows
	if err := json.Unmarshal(readFile(t, dir, "rows.json"), &rows); err != nil {
		t.Fatal(err)
	}
	var rounding float64
	if err := json.Unmarshal(rows.Error["logprobs.base"], &rounding); err != nil {
		t.Fatal(err)
	}
	r := &recording{dir: dir, model: m, rows: rows.refRows}
	packed, positions := r.batch()
	got, err := m.LogProbs(transformer.NewWorkspace(), packed, positions, nil)
	if err != nil {
		t.Fatal(err)
	}
	near(t, openTensors(t, filepath.Join(dir, "tensors.safetensors")), "logprobs.unrounded", got, slack*rounding)
	// 106 million weights of 5 bits in blocks and 28 million of 8.5.
	if want := int64(106_168_320/8*5 + 49152*576/32*34); m.Bytes() != want {
		t.Errorf("%d bytes, want %d", m.Bytes(), want)
	}
}
