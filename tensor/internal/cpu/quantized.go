package cpu

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

// blocks is the layout of a weight of blocks. Like other weights it stands in panels
// of 32 rows; a panel is one piece for each kernel.Block steps of the reduction:
//
//	Q4: [step/8][row] 32-bit words, step%8 four bits up in each; then scale[row], min[row]
//	Q8: [step][row] bytes; then scale[row]
//
// with scales and minimums as float16. 32-bit words are two of 16, the low half first.
// Rows that fill up the last panel are zero. To store a row nothing is read, so rows
// may be stored at the same time.
type blocks struct {
	words int // of a piece
	scale int // where the scales stand in it
	// set stores the integers of one row of a piece, value returns an element.
	set   func(p []uint16, row int, q []byte)
	value func(p []uint16, row, step int, d, m float32) float32
}

var q4 = blocks{
	words: panel*kernel.Block/4 + 2*panel, scale: panel * kernel.Block / 4,
	set: func(p []uint16, row int, q []byte) {
		for s := 0; s < kernel.Block; s += 4 {
			v := q[s:][:4]
			p[(s/8*panel+row)*2+s%8/4] = uint16(v[0]) | uint16(v[1])<<4 | uint16(v[2])<<8 | uint16(v[3])<<12
		}
	},
	value: func(p []uint16, row, step int, d, m float32) float32 {
		q := p[(step/8*panel+row)*2+step%8/4] >> (step % 4 * 4) & 15
		return float32(d*float32(q)) + m // the product is exact, so this is one rounding
	},
}

var q8 = blocks{
	words: panel*kernel.Block/2 + panel, scale: panel * kernel.Block / 2,
	set: func(p []uint16, row int, q []byte) {
		for s, v := range q[:kernel.Block] {
			octets(p)[s][row] = v
		}
	},
	value: func(p []uint16, row, step int, d, _ float32) float32 {
		return d * float32(int8(octets(p)[step][row]))
	},
}

// blocksOf returns the layout of a format of blocks.
func blocksOf(f kernel.Format) *blocks {
	if f == kernel.Q8 {
		return &q8
	}
	return &q4
}

// NewQuantized returns a zero weight of blocks.
func (k *Kernels) NewQuantized(out, in int, f kernel.Format) kernel.Weight {
	stride := in / kernel.Block * blocksOf(f).words
	return &weight{out: out, in: in, format: f, stride: stride, data: halves((out + panel - 1) / panel * stride)}
}

// only panics if w is stored in another way.
func (w *weight) only(f kernel.Format, what string) {
	if w.format != f {
		panic(fmt.Sprintf("cpu: a weight of format %d has no %s", w.format, what))
	}
}

// piece returns the words of block b of the panel of row i.
func (w *weight) piece(i, b int) []uint16 {
	n := blocksOf(w.format).words
	return w.data[i/panel*w.stride+b*n:][:n:n]
}

// SetBlocks stores row i.
func (w *weight) SetBlocks(i int, q []byte, scale, minimum []uint16) {
	if w.format != kernel.Q8 {
		w.only(kernel.Q4, "SetBlocks")
	}
	l, row := blocksOf(w.format), i%panel
	for b := range scale {
		p := w.piece(i, b)
		l.set(p, row, q[b*kernel.Block:])
		p[l.scale+row] = scale[b]
		if w.format == kernel.Q4 {
			p[l.scale+panel+row] = minimum[b]
		}
	}
}

// blockRow sets dst to the values of row i.
func (w *weight) blockRow(i int, dst []float32) {
	l, row := blocksOf(w.format), i%panel
	for b := range w.in / kernel.Block {
		p := w.piece(i, b)
		d, m := l.scales(p, row)
		for s := range kernel.Block {
			dst[b*kernel.Block+s] = l.value(p, row, s, d, m)
		}
	}
}

// blockOperand is w as a right side.
func (k *Kernels) blockOperand(w *weight) operand {
	o := operand{base: unsafe.Pointer(unsafe.SliceData(w.data)), stride: 2 * w.stride, tiles: &k.micro.q4, flat: &k.micro.f32, widen: k.micro.widenQ4}
	if w.format == kernel.Q8 {
		o.tiles, o.widen = &k.micro.q8, k.micro.widenQ8
	}
	o.step = 2 * blocksOf(w.format).words / kernel.Block
	return o
}

// tileBlocks is the definition of a tile: widen, then multiply.
func tileBlocks(l *blocks) func(rows int) tileFunc {
	return func(rows int) tileFunc {
		f := tileF32(rows)
		return func(kc int, a, b, c unsafe.Pointer, lda, step, ldc, acc int) {
			for k := 0; k < kc; k += kernel.Block {
				wide := l.widen(b)
				f(kernel.Block, unsafe.Add(a, k/chunk*step), unsafe.Pointer(&wide), c, lda, step, ldc, acc)
				b, acc = unsafe.Add(b, 2*l.words), 1
			}
		}
	}
}

// widen returns the values of one piece, [step][row].
func (l *blocks) widen(b unsafe.Pointer) (wide [kernel.Block * panel]float32) {
	p := unsafe.Slice((*uint16)(b), l.words)
	for row := range panel {
		d, m := l.scales(p, row)
		for s := range kernel.Block {
			wide[s*panel+row] = l.value(p, row, s, d, m)
		}
	}
	return wide
}

// scales returns a row's scale and its minimum, if the format has one.
func (l *blocks) scales(p []uint16, row int) (d, m float32) {
	d = half(p[l.scale+row])
	if at := l.scale + panel + row; at < l.words {
		m = half(p[at])
	}
	return d, m
}

// octets are the integers of a piece of Q8.
func octets(p []uint16) *[kernel.Block][panel]byte {
	return (*[kernel.Block][panel]byte)(unsafe.Pointer(unsafe.SliceData(p)))
}

// half widens a float16, exactly: the factor 2^112 turns the bias of the exponent from
// 15 to 127 and makes subnormal numbers normal.
func half(h uint16) float32 {
	u := uint32(h&0x7fff) << 13
	if h&0x7c00 == 0x7c00 {
		u |= 0x7f800000
	} else {
		u = math.Float32bits(math.Float32frombits(u) * 0x1p112)
	}
	return math.Float32frombits(u | uint32(h&0x8000)<<16)
}
