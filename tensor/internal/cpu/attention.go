package cpu

import (
	"slices"
	"unsafe"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

// Attention works on tiles of query rows. A row is one query head at one
// position; rows of the heads that share a key/value head stand side by side,
// position by position. Each tile is done in two passes:
//
//	S = Q K^T              chains over headDim
//	P = exp(Scale*(S-max)) lanes by position, outside a row's window 0
//	O = P V / sum          chains over positions
//
// Keys and values come as pages (see pageLayout), from the cache or packed on
// the spot, so that Attention and AttentionKV are the same code. A tile starts
// at the first page that one of its rows attends to. As pages are as long as
// there are lanes, positions keep their lanes, and as what stands before a
// row's window counts as 0, where a tile starts changes no bit.

// attender holds one thread's scratch for tiles.
type attender struct {
	k      *Kernels
	shape  kernel.AttentionShape
	layout pageLayout
	rows   int // per tile
	ld     int // of the scores
	buf    *buffer

	scores, packedQ, out []float32

	// The rows of the tile to do.
	dst, q, stats [maxRows][]float32
	first, length [maxRows]int // a row attends to positions [first, length)
}

func (k *Kernels) newAttender(s kernel.AttentionShape, l pageLayout, longest int) *attender {
	a := &attender{k: k, shape: s, layout: l, rows: k.micro.f32.rows}
	// Half a page more keeps the rows apart in the cache.
	a.ld = (longest+kernel.PageSize-1)/kernel.PageSize*kernel.PageSize + chunk
	width := (s.HeadDim + panel - 1) / panel * panel
	n := a.rows * a.ld
	a.buf = scratch(n + 2*a.rows*width)
	f := a.buf.f
	a.scores, a.packedQ, a.out = f[:n], f[n:n+a.rows*width], f[n+a.rows*width:]
	return a
}

func (a *attender) free() { a.buf.free() }

// part is rows [from, to) of a tile and the pages that they attend to.
type part struct {
	from, to int
	table    []unsafe.Pointer
}

// tile attends the rows of all parts, which stand one after another. The first shared
// pages of all tables are the same: they are read once.
func (a *attender) tile(parts []part, shared int) {
	m := a.k.micro
	n, start := parts[len(parts)-1].to, a.first[0]
	for i := range n {
		packRow(m, a.packedQ[i*chunk:], a.q[i], n)
		start = min(start, a.first[i])
	}
	skip := start / kernel.PageSize
	start = skip * kernel.PageSize
	if len(parts) == 1 {
		shared = 0
	}
	shared = max(shared, skip)
	a.scoreKeys(n, part{0, n, parts[0].table[:shared]}, skip, skip)
	for _, p := range parts {
		a.scoreKeys(n, p, shared, skip)
	}
	var sum [maxRows]float32
	for _, p := range parts {
		for i := p.from; i < p.to; i++ {
			s := a.scores[i*a.ld:][:(len(p.table)-skip)*panel]
			for j := range a.first[i] - start {
				s[j] = negInf
			}
			for j := a.length[i] - start; j < len(s); j++ {
				s[j] = negInf
			}
			top := m.maxOf(s) * a.shape.Scale
			sum[i] = 1 / m.expOf(s, s, a.shape.Scale, -top)
			if a.stats[i] != nil {
				a.stats[i][0], a.stats[i][1] = top, sum[i]
			}
		}
	}
	a.addValues(part{0, n, parts[0].table[:shared]}, skip, skip)
	for _, p := range parts {
		a.addValues(p, shared, skip)
	}
	ld := a.width()
	for i := range n {
		// Scaling also turns -0 into 0: how many zeros a tile added to a chain
		// beyond a row's length must not show.
		m.scale((*float32)(at(a.out, i*ld)), ld, sum[i])
		copy(a.dst[i], a.out[i*ld:])
	}
}

// longest is the greatest length of rows [from, to).
func (a *attender) longest(from, to int) int { return slices.Max(a.length[from:to]) }

// width is the distance between rows of out.
func (a *attender) width() int { return (a.shape.HeadDim + panel - 1) / panel * panel }

// scoreKeys sets the scores of p's rows, of n in the tile, for its pages from one on;
// scores begin with page skip.
func (a *attender) scoreKeys(n int, p part, from, skip int) {
	score, keySize := a.k.micro.f32.f[p.to-p.from], 4*a.layout.values
	for i := from; i < len(p.table); i++ {
		// The tiles prefetch within a page, not from page to page.
		if i+1 < len(p.table) {
			a.k.micro.prefetch(p.table[i+1], keySize)
		} else {
			a.k.micro.prefetch(unsafe.Add(p.table[from], keySize), 4*(a.layout.head-a.layout.values))
		}
		score(a.shape.HeadDim, at(a.packedQ, p.from*chunk), p.table[i], at(a.scores, p.from*a.ld+(i-skip)*panel), 4*chunk, 4*chunk*n, 4*a.ld, 0)
	}
}

// addValues adds the values of p's pages from one on to out.
func (a *attender) addValues(p part, from, skip int) {
	f, keySize, ld, longest := a.k.micro.f32.f[p.to-p.from], 4*a.layout.values, a.width(), a.longest(p.from, p.to)
	for i := from; i < len(p.table); i++ {
		if i+1 < len(p.table) {
			a.k.micro.prefetch(unsafe.Add(p.table[i+1], keySize), 4*(a.layout.head-a.layout.values))
		}
		kc, acc := min(kernel.PageSize, longest-i*kernel.PageSize), min(i-skip, 1)
		for j := 0; j < ld; j += panel {
			f(kc, at(a.scores, p.from*a.ld+(i-skip)*panel), unsafe.Add(p.table[i], keySize+4*j*kernel.PageSize),
				at(a.out, p.from*ld+j), 4*a.ld, 4*chunk, 4*ld, acc)
		}
	}
}

// Attention is causal attention within packed rows.
func (k *Kernels) Attention(dst, q, key, val kernel.Matrix, offsets []int32, s kernel.AttentionShape, stats kernel.Matrix) {
	layout, group, hd := newPageLayout(s), s.Heads/s.KVHeads, s.HeadDim
	// A task is one key/value head and a few positions of one row.
	step := max(1, 4*k.micro.f32.rows/group)
	type piece struct{ o, lo, hi, page int }
	var pieces []piece
	var starts []piece // lo, hi: positions of one page
	for r := 1; r < len(offsets); r++ {
		o, n := int(offsets[r-1]), int(offsets[r]-offsets[r-1])
		for lo := 0; lo < n; lo += step {
			pieces = append(pieces, piece{o, lo, min(lo+step, n), len(starts)})
		}
		for lo := 0; lo < n; lo += kernel.PageSize {
			starts = append(starts, piece{o, lo, min(lo+kernel.PageSize, n), 0})
		}
	}
	pages := scratch(len(starts) * layout.page)
	defer pages.free()
	parallel(len(starts)*s.KVHeads, func(t int) {
		p, h := starts[t/s.KVHeads], t%s.KVHeads
		d := pages.f[t/s.KVHeads*layout.page+h*layout.head:][:layout.head]
		n, base := p.hi-p.lo, (p.o+p.lo)*key.Cols+h*hd
		panelT(k.micro, d, key.Data[base:], n, hd, key.Cols)
		for c := 0; c < hd; c += panel {
			panelN(k.micro, d[layout.values+c*kernel.PageSize:], val.Data[base+c:], min(panel, hd-c), n, val.Cols)
		}
	})
	parallel(len(pieces)*s.KVHeads, func(t int) {
		// The longest pieces first.
		p, h := pieces[len(pieces)-1-t/s.KVHeads], t%s.KVHeads
		table := make([]unsafe.Pointer, (p.hi+kernel.PageSize-1)/kernel.PageSize)
		for i := range table {
			table[i] = at(pages.f, (p.page+i)*layout.page+h*layout.head)
		}
		a := k.newAttender(s, layout, p.hi)
		defer a.free()
		for x := p.lo * group; x < p.hi*group; {
			n := min(a.rows, p.hi*group-x)
			for i := range n {
				pos, head := (x+i)/group, h*group+(x+i)%group
				a.dst[i] = dst.Row(p.o + pos)[head*hd:][:hd]
				a.q[i] = q.Row(p.o + pos)[head*hd:][:hd]
				a.first[i], a.length[i] = s.First(pos+1), pos+1
				a.stats[i] = nil
				if stats.Data != nil {
					a.stats[i] = stats.Row(p.o + pos)[2*head:][:2]
				}
			}
			a.tile([]part{{0, n, table[:(a.longest(0, n)+kernel.PageSize-1)/kernel.PageSize]}}, 0)
			x += n
		}
	})
}
