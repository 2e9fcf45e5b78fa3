package transformer

import (
	"fmt"
	"hash/fnv"
	"math"

	"github.com/opencharacter/opencharacter/tensor"
)

// stream is a counter-based random source: the value at index i depends on the
// key and i alone, so tensors may be filled in any order by any number of threads.
type stream uint64

// newStream derives the stream of one named tensor from a seed.
func newStream(seed uint64, name string) stream {
	h := fnv.New64a()
	h.Write([]byte(name))
	return stream(mix(seed) ^ h.Sum64())
}

// mix is the finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// uniform returns number i of the stream, in [-1, 1), with 24 random bits.
func (s stream) uniform(i int) float64 {
	u := mix(uint64(s) + mix(uint64(i)))
	return float64(u>>40)/(1<<23) - 1
}

// NewRandom builds a model with random weights, for tests: matrices uniform with
// variance 1/In, norm vectors around 1. The same config and seed give the same model.
func NewRandom(cfg Config, seed uint64) (*Model, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m := newModel(cfg)
	var divisors []float32
	if cfg.RopeScaling.Type == ropeDivisors {
		divisors = randomNorm(cfg.HeadDim/2, seed, "divisors")
	}
	if err := m.setRope(divisors); err != nil {
		return nil, err
	}
	m.embed = randomWeight(cfg.Vocab, cfg.Width, seed, "embed")
	m.head = m.embed
	if !cfg.Tied {
		m.head = randomWeight(cfg.Vocab, cfg.Width, seed, "head")
	}
	m.finalNorm = randomNorm(cfg.Width, seed, "norm")
	for i := range m.layers {
		l := &m.layers[i]
		key := func(name string) string { return string(rune('A'+i%26)) + string(rune('0'+i/26)) + name }
		for _, v := range cfg.norms(l) {
			*v.at = randomNorm(v.n, seed, key(v.key))
		}
		for p := range projCount {
			out, in := cfg.dims(p)
			l.proj[p] = randomWeight(out, in, seed, key(projNames[p]))
		}
	}
	return m, nil
}

func randomWeight(out, in int, seed uint64, name string) *tensor.Weight {
	s, bound := newStream(seed, name), math.Sqrt(3/float64(in))
	w, row := tensor.NewWeight(out, in), make([]float32, in)
	for r := range out {
		for j := range row {
			row[j] = float32(bound * s.uniform(r*in+j))
		}
		w.SetRow(r, row)
	}
	return w
}

func randomNorm(n int, seed uint64, name string) []float32 {
	s, v := newStream(seed, name), make([]float32, n)
	for j := range v {
		v[j] = float32(1 + 0.25*s.uniform(j))
	}
	return v
}

// NewRandomQuantized is NewRandom with quantised matrices: the embedding and the head in
// tensor.Q8, the others in tensor.Q4. All rows must be multiples of tensor.Block long.
// Scales are powers of two and minimums -8 times the scale, so every weight is a bf16
// number too.
func NewRandomQuantized(cfg Config, seed uint64) (*Model, error) {
	m, err := NewRandom(cfg, seed)
	if err != nil {
		return nil, err
	}
	for p := range projCount {
		if _, in := cfg.dims(p); in%tensor.Block != 0 {
			return nil, fmt.Errorf("transformer: quantized weights come in blocks of %d, but %s has rows of %d", tensor.Block, projNames[p], in)
		}
	}
	head := m.head == m.embed
	m.embed = quantize(m.embed, tensor.Q8)
	if m.head = quantize(m.head, tensor.Q8); head {
		m.head = m.embed
	}
	for i := range m.layers {
		for p, w := range m.layers[i].proj {
			m.layers[i].proj[p] = quantize(w, tensor.Q4)
		}
	}
	return m, nil
}

// quantize rounds w to blocks.
func quantize(w *tensor.Weight, f tensor.Format) *tensor.Weight {
	most, offset := 7.0, 8.0 // q-offset reaches from -offset to most
	if f == tensor.Q8 {
		most, offset = 127, 0
	}
	to, row, q := tensor.NewQuantized(w.Out, w.In, f), make([]float32, w.In), make([]byte, w.In)
	for r := range w.Out {
		w.Row(r, row)
		var scale, minimum []uint16
		for b := 0; b < w.In; b += tensor.Block {
			top := 0x1p-14 // the least normal float16
			for _, x := range row[b : b+tensor.Block] {
				top = max(top, math.Abs(float64(x)))
			}
			_, e := math.Frexp(top / most) // 2^e is more than top/most
			e = max(e, -14)
			scale = append(scale, uint16(e+15)<<10)
			if f == tensor.Q4 {
				minimum = append(minimum, uint16(e+3+15)<<10|0x8000)
			}
			for i, x := range row[b : b+tensor.Block] {
				q[b+i] = byte(int8(math.RoundToEven(math.Ldexp(float64(x), -e)) + offset))
			}
		}
		to.SetBlocks(r, q, scale, minimum)
	}
	return to
}
