package cpu

import (
	"math"
	"sync"
	"unsafe"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

// panel is the number of columns of dst one packed panel serves.
const panel = 32

// weight is W [out, in] in panels of 32 rows: element (o, i) is at
//
//	panel o/32, then pair i/2, then row o%32, then i%2
//
// so that one 32-bit lane holds two neighbours of the reduction. Rows and
// columns that fill up the last panel and pair are zero. For weights of blocks
// see quantized.go; float32s stand in steps of a row of 32.
type weight struct {
	out, in int
	format  kernel.Format
	stride  int // 16-bit words per panel
	data    []uint16

	once sync.Once
	mu   sync.Mutex
	t    *weight // [in, out], made on first use
}

func newWeight(out, in int) *weight {
	stride := (in + 1) / 2 * 2 * panel
	return &weight{out: out, in: in, stride: stride, data: halves((out + panel - 1) / panel * stride)}
}

// NewWeight returns a zero weight.
func (k *Kernels) NewWeight(out, in int) kernel.Weight { return newWeight(out, in) }

// NewFloat32 returns a zero weight of float32s.
func (k *Kernels) NewFloat32(out, in int) kernel.Weight {
	stride := 2 * in * panel
	return &weight{out: out, in: in, format: kernel.StoredF32, stride: stride, data: halves((out + panel - 1) / panel * stride)}
}

// float32s are the values of the panel of row i, from that row's first; they are panel apart.
func (w *weight) float32s(i int) []float32 {
	p := w.data[i/panel*w.stride:][:w.stride]
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(p))), len(p)/2)[min(i%panel, len(p)/2):]
}

// Format says how w is stored.
func (w *weight) Format() kernel.Format { return w.format }

func (w *weight) SetRow(i int, src []float32) {
	if w.format == kernel.StoredF32 {
		d := w.float32s(i)
		for c, v := range src {
			d[c*panel] = v
		}
		return
	}
	w.only(kernel.StoredBF16, "SetRow")
	d := w.data[i/panel*w.stride:]
	o := i % panel * 2
	for c, v := range src {
		d[c/2*2*panel+o+c%2] = bf16(v)
	}
}

func (w *weight) Row(i int, dst []float32) {
	switch w.format {
	case kernel.Q4, kernel.Q8:
		w.blockRow(i, dst)
		return
	case kernel.StoredF32:
		d := w.float32s(i)
		for c := range dst {
			dst[c] = d[c*panel]
		}
		return
	}
	d := w.data[i/panel*w.stride:]
	o := i % panel * 2
	for c := range dst {
		dst[c] = widen(d[c/2*2*panel+o+c%2])
	}
}

func (w *weight) Bytes() int64 {
	n := 2 * int64(len(w.data))
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		n += w.t.Bytes()
	}
	return n
}

// transposed returns W^T, packed, made once.
func (w *weight) transposed() *weight {
	w.only(kernel.StoredBF16, "a product with the transpose")
	w.once.Do(func() {
		t := newWeight(w.in, w.out)
		parallel((w.in+panel-1)/panel, func(p int) {
			d := t.data[p*t.stride : (p+1)*t.stride]
			n := min(panel, w.in-p*panel)
			for o := range w.out {
				src := w.data[o/panel*w.stride+p*panel*panel+o%panel*2:]
				dst := d[o/2*2*panel+o%2:]
				for i := range n {
					dst[2*i] = src[i/2*2*panel+i%2]
				}
			}
		})
		w.mu.Lock()
		w.t = t
		w.mu.Unlock()
	})
	return w.t
}

// operand is w as a right side, in steps of values or, in mode bf16, of words.
func (k *Kernels) operand(w *weight) operand {
	if w.format != kernel.StoredBF16 && k.pairs != nil {
		panic("cpu: mode bf16 has no products with weights of another format")
	}
	switch w.format {
	case kernel.Q4, kernel.Q8:
		return k.blockOperand(w)
	case kernel.StoredF32:
		return operand{base: unsafe.Pointer(unsafe.SliceData(w.data)), stride: 2 * w.stride, step: 4 * panel, tiles: &k.micro.f32}
	}
	o := operand{base: unsafe.Pointer(unsafe.SliceData(w.data)), stride: 2 * w.stride, step: 2 * panel, tiles: &k.micro.bf16}
	if k.pairs != nil {
		o.step, o.tiles, o.round = 4*panel, &k.pairs.tiles, k.pairs
	}
	return o
}

// bf16 rounds to nearest even; a NaN stays one.
func bf16(f float32) uint16 {
	u := math.Float32bits(f)
	if u&0x7fffffff > 0x7f800000 {
		return uint16(u>>16) | 0x40
	}
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}

func widen(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }
