package cpu

import (
	"math"
	"unsafe"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

// In compute mode bf16 both sides of a product are matrices of words, 32 bits
// that hold two neighbours of the reduction as bfloat16, the even one in the low
// half. A packed weight is one already; other sides are rounded first. Words
// travel as float32s, and a product of words runs through the same code as one of
// float32s, half as many steps long, with tiles of its own.

// pairLoops are the loops of mode bf16. All give the same bits: per word an
// element adds the odd product and then the even one, each with one rounding,
// reading subnormal numbers as 0 and writing them as 0.
type pairLoops struct {
	name  string
	tiles tiles // kc counts words; b is [kc][32] words
	// round writes n words from 2n neighbours of src, pair from n even and n odd
	// values; n is a multiple of 16. They round to nearest even.
	round func(dst, src *float32, n int)
	pair  func(dst, even, odd *float32, n int)
	peak  func(n int) // n turns of 24 word products of vectors; nil if like micro's
}

var pairsGeneric = &pairLoops{name: "bf16", tiles: genericTiles(tilePair), round: roundGeneric, pair: pairGeneric}

func words(p *float32, n int) []uint32 { return unsafe.Slice((*uint32)(unsafe.Pointer(p)), n) }

// bf16Word is bf16 for a factor: subnormal numbers count as 0.
func bf16Word(f float32) uint32 {
	if u := math.Float32bits(f); u&0x7f800000 == 0 {
		return u >> 16 & 0x8000
	}
	return uint32(bf16(f))
}

func roundGeneric(dst, src *float32, n int) {
	s := vec(src, 2*n)
	for i, d := 0, words(dst, n); i < n; i++ {
		d[i] = bf16Word(s[2*i]) | bf16Word(s[2*i+1])<<16
	}
}

func pairGeneric(dst, even, odd *float32, n int) {
	e, o := vec(even, n), vec(odd, n)
	for i, d := 0, words(dst, n); i < n; i++ {
		d[i] = bf16Word(e[i]) | bf16Word(o[i])<<16
	}
}

// flushed reads a subnormal number as 0.
func flushed(f float32) float64 {
	if math.Float32bits(f)&0x7f800000 == 0 {
		return math.Copysign(0, float64(f))
	}
	return float64(f)
}

// addPair is one fused multiply-add of mode bf16: c + a*b for bfloat16s a and b.
// The sum in float64 rounds to the right float32: only where a and b are at
// least 2^29 times smaller or larger than c is it not exact, and then it is not
// near the middle of two float32s either.
func addPair(a, b uint32, c float32) float32 {
	s := flushed(math.Float32frombits(a))*flushed(math.Float32frombits(b)) + flushed(c)
	if math.Abs(s) < 0x1p-126-0x1p-151 { // would round to below 2^-126
		return float32(math.Copysign(0, s))
	}
	return float32(s)
}

func tilePair(rows int) tileFunc {
	return func(kc int, a, b, c unsafe.Pointer, lda, step, ldc, acc int) {
		bs := words((*float32)(b), kc*panel)
		for r := range rows {
			dst := (*[panel]float32)(unsafe.Add(c, r*ldc))
			var sum [panel]float32
			if acc != 0 {
				sum = *dst
			}
			for k := range kc {
				x := *(*uint32)(unsafe.Add(a, r*lda+k/chunk*step+k%chunk*4))
				row := (*[panel]uint32)(bs[k*panel:])
				for j := range sum {
					odd := addPair(x&0xffff0000, row[j]&0xffff0000, sum[j])
					sum[j] = addPair(x<<16, row[j]<<16, odd)
				}
			}
			*dst = sum
		}
	}
}

// wordStride is the distance between rows of k values as words: whole lines,
// and not such that neighbours fight for one set of the cache.
func wordStride(k int) int {
	ld := (k + 2*chunk - 1) / (2 * chunk) * chunk
	if ld%badStride == 0 {
		ld += chunk
	}
	return ld
}

// newWords is room for a left side [m,k] of words.
func newWords(m, k, height int) side {
	ld := wordStride(k)
	buf := scratch(m * ld)
	return side{data: buf.f, m: m, k: (k + 1) / 2, height: height, ld: ld, buf: buf}
}

// row rounds one row; an odd one ends in a zero.
func (p *pairLoops) row(dst, src []float32) {
	n := len(src) / 2 &^ (chunk - 1)
	if n > 0 {
		p.round(&dst[0], &src[0], n)
	}
	if rest := src[2*n:]; len(rest) > 0 {
		tmp := pads.Get().(*pad)
		p.round(&tmp[1][0], tmp.fill(0, rest, 0), chunk)
		copy(dst[n:], tmp[1][:(len(rest)+1)/2])
		pads.Put(tmp)
	}
}

// rows rounds rows [i0,i1) of l, which are no columns, to d from row o on.
func (p *pairLoops) rows(d side, l left, i0, i1, o int) {
	for i := i0; i < i1; i++ {
		p.row(d.data[(i-i0+o)*d.ld:], l.data[i*l.ld:][:l.k])
	}
}

// columns rounds k rows of n values, ld apart, to pairs of rows.
func (p *pairLoops) columns(data []float32, k, n, ld int) (dst []float32, stride int, buf *buffer) {
	stride = (n + chunk - 1) &^ (chunk - 1)
	buf = scratch((k+1)/2*stride + n)
	dst = buf.f[:(k+1)/2*stride]
	none := buf.f[len(dst):][:n]
	clear(none)
	whole := n &^ (chunk - 1)
	spread((k+1)/2, 1+(1<<14)/(n+1), func(lo, hi int) {
		tmp := pads.Get().(*pad)
		defer pads.Put(tmp)
		for w := lo; w < hi; w++ {
			d, even, odd := dst[w*stride:], data[2*w*ld:][:n], none
			if 2*w+1 < k {
				odd = data[(2*w+1)*ld:][:n]
			}
			if whole > 0 {
				p.pair(&d[0], &even[0], &odd[0], whole)
			}
			if whole < n {
				p.pair(&tmp[2][0], tmp.fill(0, even[whole:], 0), tmp.fill(1, odd[whole:], 0), chunk)
				copy(d[whole:n], tmp[2][:])
			}
		}
	})
	return dst, stride, buf
}

// pairProduct is product in mode bf16.
func (k *Kernels) pairProduct(dst kernel.Matrix, l left, r right, accumulate bool) {
	if l.m == 0 || r.n == 0 {
		return
	}
	p, steps := k.pairs, (l.k+1)/2
	b := operand{stride: 4 * panel * steps, step: 4 * panel, tiles: &p.tiles, round: p}
	if l.columns {
		data, ld, buf := p.columns(l.data, l.k, l.m, l.ld)
		defer buf.free()
		l, b.round = left{data, l.m, steps, ld, true}, nil
	}
	if r.transposed {
		d := newWords(r.n, r.k, 1)
		defer d.free()
		rows := left{r.data, r.n, r.k, r.ld, false}
		spread(r.n, 1+(1<<14)/(r.k+1), func(lo, hi int) { p.rows(d, rows, lo, hi, lo) })
		r = right{d.data, r.n, steps, d.ld, true}
	} else {
		data, ld, buf := p.columns(r.data, r.k, r.n, r.ld)
		defer buf.free()
		r = right{data, r.n, steps, ld, false}
	}
	k.gemm(dst.Data, dst.Cols, r.n, l, r, b, accumulate)
}
