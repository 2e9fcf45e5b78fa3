package transformer

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/opencharacter/opencharacter/lm/gguf"
)

// Stream is a model whose matrices stay in their file. It is read row by row, an adapter added on the way, to be
// written in another form: no more than some rows of it are in memory at a time.
type Stream struct {
	Config
	m       *Model // vectors only
	l       *loader
	permute func(int) int
	adapter *Adapter
	close   func() error
}

// StreamGGUF opens what LoadGGUF loads. The file must stay open as long as the Stream is used.
func StreamGGUF(f *gguf.File) (*Stream, error) {
	l, cfg, permute, err := ggufLoader(f)
	if err != nil {
		return nil, err
	}
	return openStream(l, cfg, permute, func() error { return nil })
}

// StreamSafetensors opens what LoadSafetensors loads. Close it.
func StreamSafetensors(dir string) (*Stream, error) {
	l, cfg, src, err := folderLoader(dir)
	if err != nil {
		return nil, err
	}
	s, err := openStream(l, cfg, nil, src.close)
	if err != nil {
		return nil, errors.Join(err, src.close())
	}
	return s, nil
}

func openStream(l *loader, cfg Config, permute func(int) int, closer func() error) (*Stream, error) {
	l.dry = true
	m, err := l.load(cfg, permute)
	if err != nil {
		return nil, err
	}
	return &Stream{Config: cfg, m: m, l: l, permute: permute, close: closer}, nil
}

// Close closes the files that StreamSafetensors opened.
func (s *Stream) Close() error { return s.close() }

// Merge makes every matrix that is read from now on W + scale * B.A. The products are summed in float32, each
// rounded on its own, in the order of the rank, and then added to W as the engine has it, which is bf16: the same
// numbers on every machine, whatever its kernels.
func (s *Stream) Merge(a *Adapter) error {
	if err := s.CheckStack([]*Adapter{a}); err != nil {
		return err
	}
	s.adapter = a
	return nil
}

// StreamTensor is one tensor of a model in the naming and the layout of a file format.
type StreamTensor struct {
	Name   string
	Shape  []int     // row-major: [out, in], or [n] of a vector
	Vector []float32 // of a vector; nil for a matrix
	// Row reads row r into dst: quickest in ascending order, and not from two goroutines at once.
	Row func(r int, dst []float32) error
}

// Rows and Cols see the tensor as a matrix; a vector is one row.
func (t StreamTensor) Rows() int {
	if len(t.Shape) == 1 {
		return 1
	}
	return t.Shape[0]
}

// Cols is the length of a row.
func (t StreamTensor) Cols() int { return t.Shape[len(t.Shape)-1] }

// HF lists the tensors as Hugging Face's transformers names and lays them out. Rotary divisors that stand with the
// weights are none of them: see ConfigJSON.
func (s *Stream) HF() []StreamTensor {
	plus := float32(0)
	if s.Architecture == archGemma3 { // its files hold norm weights less 1; exact: the difference of two floats this close
		plus = 1
	}
	return s.list(func(hf string) string { return hf }, nil, plus)
}

// GGUF lists the tensors as llama.cpp names and lays them out, in the order of the layers.
func (s *Stream) GGUF() []StreamTensor {
	list := s.list(ggufNames(s.Config), s.ggufOrder(), 0)
	if d := s.RopeScaling.divisors(s.HeadDim, s.RopeBase); d != nil && s.RopeScaling.Type == ropeLlama3 {
		v := make([]float32, len(d))
		for i, x := range d {
			v[i] = float32(x)
		}
		list = append(list, vectorTensor(ropeFreqs, v))
	}
	if s.m.divisors != nil {
		list = append(list, vectorTensor(ropeFreqs, s.m.divisors))
	}
	return list
}

// ggufOrder gives the row of the model for a row of a file's query or key matrix: the inverse of interleaved.
func (s *Stream) ggufOrder() func(int) int {
	if s.Architecture != archLlama {
		return nil
	}
	d := s.HeadDim
	return func(row int) int {
		head, k := row/d*d, row%d
		return head + k/2 + k%2*(d/2)
	}
}

func vectorTensor(name string, v []float32) StreamTensor {
	return StreamTensor{Name: name, Shape: []int{len(v)}, Vector: v, Row: func(_ int, dst []float32) error {
		copy(dst, v)
		return nil
	}}
}

// list gives all tensors names of a format; order is that of its query and key rows, minus is taken from norms.
func (s *Stream) list(name func(string) string, order func(int) int, minus float32) []StreamTensor {
	norm := func(hf string, v []float32) StreamTensor {
		if minus != 0 {
			v = slices.Clone(v)
			for i := range v {
				v[i] -= minus
			}
		}
		return vectorTensor(name(hf), v)
	}
	list := []StreamTensor{s.matrix("model.embed_tokens.weight", name, s.Vocab, s.Width, nil, nil, nil)}
	for i := range s.m.layers {
		prefix := fmt.Sprintf("model.layers.%d.", i)
		for _, v := range s.norms(&s.m.layers[i]) {
			list = append(list, norm(prefix+v.name+".weight", *v.at))
		}
		for p := range projCount {
			out, in := s.dims(p)
			read, write := s.permute, order
			if p != projQ && p != projK {
				read, write = nil, nil
			}
			var low *pair
			if s.adapter != nil {
				low = &s.adapter.pairs[i][p]
			}
			list = append(list, s.matrix(prefix+projNames[p]+".weight", name, out, in, read, write, low))
		}
	}
	list = append(list, norm("model.norm.weight", s.m.finalNorm))
	if !s.Tied {
		list = append(list, s.matrix("lm_head.weight", name, s.Vocab, s.Width, nil, nil, nil))
	}
	return list
}

// matrix reads blocks of rows on all cores. read gives the source's row of a model's row, write the model's row of
// one that is asked for.
func (s *Stream) matrix(hf string, name func(string) string, out, in int, read, write func(int) int, low *pair) StreamTensor {
	b := &rowBlock{rows: min(out, max(1, blockValues/in)), from: -1}
	fill := func(r int, dst []float32) error {
		if write != nil {
			r = write(r)
		}
		return s.row(s.l.name(hf), r, dst, read, low)
	}
	return StreamTensor{Name: name(hf), Shape: []int{out, in}, Row: func(r int, dst []float32) error {
		return b.row(r, out, in, dst, fill)
	}}
}

// row reads row r of the model's matrix as the engine has it, rounded to bf16, and adds the adapter's.
func (s *Stream) row(name string, r int, dst []float32, read func(int) int, low *pair) error {
	at := r
	if read != nil {
		at = read(r)
	}
	if err := s.l.src.readRow(name, at, dst); err != nil {
		return err
	}
	if !finiteBF16(dst) {
		return fmt.Errorf("%s: tensor %q, row %d holds a value that is not finite in bf16; re-download the model", s.l.from, name, at)
	}
	for i, v := range dst {
		dst[i] = roundBF16(v)
	}
	if low == nil {
		return nil
	}
	delta := make([]float32, len(dst))
	scale := s.adapter.Scale()
	for k, b := range low.b.Row(r) {
		f := scale * b
		for j, a := range low.a.Row(k) {
			delta[j] += float32(f * a) // rounded by itself: no fused multiply-add
		}
	}
	for j, d := range delta {
		dst[j] += d
	}
	if !finiteBF16(dst) {
		return fmt.Errorf("tensor %q, row %d with the adapter holds a value that is not finite in bf16; the adapter has diverged", name, at)
	}
	return nil
}

// roundBF16 rounds a finite number to nearest, ties to even.
func roundBF16(v float32) float32 {
	u := math.Float32bits(v)
	return math.Float32frombits((u + 0x7fff + u>>16&1) &^ 0xffff)
}

// blockValues is how many values of a matrix are made at a time.
const blockValues = 1 << 20

// rowBlock holds some rows of a matrix, made beside each other.
type rowBlock struct {
	rows, from int
	data       []float32
}

func (b *rowBlock) row(r, out, in int, dst []float32, fill func(r int, dst []float32) error) error {
	if b.from < 0 || r < b.from || r >= b.from+len(b.data)/in {
		n := min(b.rows, out-r)
		if b.data == nil {
			b.data = make([]float32, b.rows*in)
		}
		b.data, b.from = b.data[:n*in], r
		var g errgroup.Group
		g.SetLimit(runtime.GOMAXPROCS(0))
		const each = 16
		for first := 0; first < n; first += each {
			g.Go(func() error {
				for i := first; i < min(n, first+each); i++ {
					if err := fill(r+i, b.data[i*in:(i+1)*in]); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			b.from = -1
			return err
		}
	}
	copy(dst, b.data[(r-b.from)*in:])
	if r == out-1 { // the last of a matrix: another one comes
		b.data, b.from = nil, -1
	}
	return nil
}

// LoRA lists the adapter's matrices as llama.cpp names and lays them out: NAME.lora_a [rank, in] and NAME.lora_b
// [out, rank], for each matrix NAME of GGUF. llama.cpp multiplies their product by Alpha / Rank, as we do.
func (s *Stream) LoRA(a *Adapter) ([]StreamTensor, error) {
	if err := s.CheckStack([]*Adapter{a}); err != nil {
		return nil, err
	}
	name, order := ggufNames(s.Config), s.ggufOrder()
	var list []StreamTensor
	for i := range a.pairs {
		for p := range projCount {
			low, to := a.pairs[i][p], name(fmt.Sprintf("model.layers.%d.%s.weight", i, projNames[p]))
			row := order
			if p != projQ && p != projK {
				row = nil
			}
			list = append(list,
				StreamTensor{Name: to + ".lora_a", Shape: []int{low.a.Rows, low.a.Cols}, Row: func(r int, dst []float32) error {
					copy(dst, low.a.Row(r))
					return nil
				}},
				StreamTensor{Name: to + ".lora_b", Shape: []int{low.b.Rows, low.b.Cols}, Row: func(r int, dst []float32) error {
					if row != nil {
						r = row(r)
					}
					copy(dst, low.b.Row(r))
					return nil
				}})
		}
	}
	return list, nil
}
