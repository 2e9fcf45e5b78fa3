package cpu

import (
	"math"
	"sync"
	"unsafe"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

const lanes = kernel.Lanes

// micro is one variant's table of inner loops. Every n is a multiple of lanes;
// callers pad. Loops are short, because assembly cannot be preempted.
type micro struct {
	name  string
	width int // float32s in a vector

	// Tiles of a product, see tiles.
	f32, bf16, outer, q4, q8 tiles

	// widenQ4 and widenQ8 write n steps, a multiple of kernel.Block, of a panel of blocks
	// as float32s [n][32]; nil where tiles do not gain by it.
	widenQ4, widenQ8 func(dst, src unsafe.Pointer, n int)

	// dot adds a[i]*b[i] to sum[i%lanes], fused where the machine can.
	dot func(sum *[lanes]float32, a, b *float32, n int)
	// fold adds the lanes by halves.
	fold func(sum *[lanes]float32) float32
	// max returns the greatest of src; NaNs may be passed over.
	max func(src *float32, n int) float32
	// exp sets dst = exp(src*scale + bias) and adds it to sum by lane.
	exp func(dst, src *float32, n int, scale, bias float32, sum *[lanes]float32)

	add        func(dst, x *float32, n int)
	scale      func(dst *float32, n int, s float32)                    // dst = dst*s + 0, which is never -0
	norm       func(dst, x, w *float32, n int, s float32)              // dst = x*s*w
	normBack   func(dst, dy, x, w, base *float32, n int, a, b float32) // dst = base + dy*w*a + x*b; base may be nil
	swiglu     func(dst, gate, up *float32, n int)
	swigluBack func(dgate, dup, dy, gate, up *float32, n int)
	geglu      func(dst, gate, up *float32, n int)
	gegluBack  func(dgate, dup, dy, gate, up *float32, n int)
	rotate     func(x1, x2, cos, sin *float32, n int, sign float32)   // see kernel.Rotate
	adamw      func(param, grad, m, v *float32, n int, c *[8]float32) // c: see adamw.go
	softBack   func(ds, p, dp *float32, n int, d, scale float32)      // ds = p*(dp-d)*scale
	// transpose sets dst[c][r] = src[r][c] for 16 rows r and cols columns, a
	// multiple of four; ldd and lds are the bytes between rows of each.
	transpose func(dst, src *float32, ldd, lds, cols int)
	// copy copies n chunks of 16; ldd and lds are the bytes between them.
	copy func(dst, src *float32, ldd, lds, n int)
	// prefetch asks for the n bytes at p, which need not be mapped.
	prefetch func(p unsafe.Pointer, n int)
	// peak does n turns of 24 multiply-adds of vectors.
	peak func(n int)
}

// generic is the definition of every loop.
var generic = &micro{
	name: "generic", width: 1,
	f32: genericTiles(tileF32), bf16: genericTiles(tileBF16), outer: genericTiles(tileOuter),
	q4: genericTiles(tileBlocks(&q4)), q8: genericTiles(tileBlocks(&q8)),
	dot: dotGeneric, fold: foldGeneric, max: maxGeneric, exp: expGeneric,
	add: addGeneric, scale: scaleGeneric, norm: normGeneric, normBack: normBackGeneric,
	swiglu: swigluGeneric, swigluBack: swigluBackGeneric, geglu: gegluGeneric, gegluBack: gegluBackGeneric, rotate: rotateGeneric,
	adamw: adamwGeneric, softBack: softBackGeneric, transpose: transposeGeneric, copy: copyGeneric, peak: peakGeneric,
	prefetch: func(unsafe.Pointer, int) {},
}

// pad is room for the last, incomplete lanes of up to six operands.
type pad [6][lanes]float32

var pads = sync.Pool{New: func() any { return new(pad) }}

// fill copies src to the front of p's row i and sets the rest to v.
func (p *pad) fill(i int, src []float32, v float32) *float32 {
	n := copy(p[i][:], src)
	for ; n < lanes; n++ {
		p[i][n] = v
	}
	return &p[i][0]
}

var negInf = float32(math.Inf(-1))

func (m *micro) dotOf(a, b []float32) float32 {
	p := pads.Get().(*pad)
	sum := &p[2]
	clear(sum[:])
	n := len(a) &^ (lanes - 1)
	if n > 0 {
		m.dot(sum, &a[0], &b[0], n)
	}
	if n < len(a) {
		m.dot(sum, p.fill(0, a[n:], 0), p.fill(1, b[n:], 0), lanes)
	}
	r := m.fold(sum)
	pads.Put(p)
	return r
}

func (m *micro) maxOf(a []float32) float32 {
	r, n := negInf, len(a)&^(lanes-1)
	if n > 0 {
		r = m.max(&a[0], n)
	}
	if n < len(a) {
		p := pads.Get().(*pad)
		r = max(r, m.max(p.fill(0, a[n:], negInf), lanes))
		pads.Put(p)
	}
	return r
}

// expOf sets dst = exp(src*scale + bias), scale > 0, and returns the sum.
func (m *micro) expOf(dst, src []float32, scale, bias float32) float32 {
	p := pads.Get().(*pad)
	sum := &p[2]
	clear(sum[:])
	n := len(src) &^ (lanes - 1)
	if n > 0 {
		m.exp(&dst[0], &src[0], n, scale, bias, sum)
	}
	if n < len(src) {
		m.exp(&p[1][0], p.fill(0, src[n:], negInf), lanes, scale, bias, sum)
		copy(dst[n:len(src)], p[1][:])
	}
	r := m.fold(sum)
	pads.Put(p)
	return r
}
