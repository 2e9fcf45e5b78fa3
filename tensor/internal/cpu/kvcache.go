package cpu

import (
	"unsafe"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

// A page holds the keys and values of PageSize positions of one layer in the
// order attention reads them as panels: for each key/value head, the keys as
// [headDim][32 positions], then the values as panels of 32 columns,
// [ceil(headDim/32)][32 positions][32], padded with zeros.
type pageLayout struct {
	headDim, kvHeads int
	values           int // where a head's values start
	head, page       int // float32s per head and page
}

func newPageLayout(s kernel.AttentionShape) pageLayout {
	v := panel * s.HeadDim
	head := v + (s.HeadDim+panel-1)/panel*panel*kernel.PageSize
	return pageLayout{s.HeadDim, s.KVHeads, v, head, head * s.KVHeads}
}

// put stores one head of key k and value v at a slot of page p.
func (l pageLayout) put(p []float32, slot int, k, v []float32) {
	for d, x := range k {
		p[d*panel+slot] = x
	}
	for d := 0; d < len(v); d += panel {
		copy(p[l.values+d*kernel.PageSize+slot*panel:], v[d:min(d+panel, len(v))])
	}
}

// kvCache is a paged cache: per layer, pages in the layout above.
type kvCache struct {
	shape  kernel.AttentionShape
	layout pageLayout
	pages  int           // asked for
	room   int           // pages of all blocks
	layers [][][]float32 // per layer, blocks of pages
	block  []int         // first page of each block; the same for all layers
}

// NewKV returns an empty cache.
func (k *Kernels) NewKV(layers, pages int, s kernel.AttentionShape) kernel.KV {
	c := &kvCache{shape: s, layout: newPageLayout(s), layers: make([][][]float32, layers)}
	c.Grow(pages)
	return c
}

func (c *kvCache) Pages() int { return c.pages }

// Grow adds a block, at least half as large as all before it, so that pages
// never move and blocks stay few.
func (c *kvCache) Grow(pages int) {
	c.pages = max(c.pages, pages)
	if c.pages <= c.room {
		return
	}
	n := max(c.pages-c.room, c.room/2)
	for l := range c.layers {
		c.layers[l] = append(c.layers[l], Floats(n*c.layout.page))
	}
	c.block = append(c.block, c.room)
	c.room += n
}

func (c *kvCache) page(layer, p int) []float32 {
	b := len(c.block) - 1
	for c.block[b] > p {
		b--
	}
	n := c.layout.page
	return c.layers[layer][b][(p-c.block[b])*n:][:n]
}

func (c *kvCache) CopyPage(dst, src int) {
	for l := range c.layers {
		copy(c.page(l, dst), c.page(l, src))
	}
}

func (c *kvCache) Write(layer int, k, v kernel.Matrix, page, slot []int32) {
	hd := c.layout.headDim
	for i := range page {
		p, kr, vr := c.page(layer, int(page[i])), k.Row(i), v.Row(i)
		for h := range c.layout.kvHeads {
			c.layout.put(p[h*c.layout.head:], int(slot[i]), kr[h*hd:][:hd], vr[h*hd:][:hd])
		}
	}
}

// run is query rows that one task does: up to 4 tiles that read the same pages, or one
// tile whose rows begin with the same pages.
type run struct {
	lo, hi int
	shared int // pages that all tables begin with, where they differ
}

// runs joins neighbours; some tiles of one row would read the same memory again and again.
func (k *Kernels) runs(pages [][]int32, lengths []int32, group, window int) []run {
	var runs []run
	tile := max(1, k.micro.f32.rows/group)
	for i := range pages {
		if n := len(runs) - 1; n >= 0 {
			r := &runs[n]
			first, size := pages[r.lo], r.hi-r.lo
			if r.shared == 0 && size < 4*tile && samePages(first, pages[i]) {
				r.hi++
				continue
			}
			if window == 0 && size < tile && (size == 1 || r.shared > 0) {
				most := int(min(lengths[r.lo], lengths[i])) / kernel.PageSize // whole pages
				if r.shared > 0 {
					most = min(most, r.shared)
				}
				if n := sharedPages(first[:most], pages[i]); n > 0 {
					r.hi, r.shared = i+1, n
					continue
				}
			}
		}
		runs = append(runs, run{lo: i, hi: i + 1})
	}
	return runs
}

// sharedPages counts the pages that both tables begin with.
func sharedPages(a, b []int32) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// AttentionKV attends to cached positions. Neighbouring rows that read the
// same pages share tiles, as do the query heads of one key/value head; where only the
// first pages are the same, as after a common prompt, those are read once.
func (k *Kernels) AttentionKV(dst, q kernel.Matrix, kv kernel.KV, layer int, pages [][]int32, lengths []int32, window int) {
	c := kv.(*kvCache)
	s, group := c.shape, c.shape.Heads/c.shape.KVHeads
	s.Window = window
	runs := k.runs(pages, lengths, group, window)
	parallel(len(runs)*s.KVHeads, func(t int) {
		r, h := runs[t/s.KVHeads], t%s.KVHeads
		var longest int32
		for _, n := range lengths[r.lo:r.hi] {
			longest = max(longest, n)
		}
		table := func(row int, length int32) []unsafe.Pointer {
			t := make([]unsafe.Pointer, (int(length)+kernel.PageSize-1)/kernel.PageSize)
			for i := range t {
				t[i] = at(c.page(layer, int(pages[row][i])), h*c.layout.head)
			}
			return t
		}
		a := k.newAttender(s, c.layout, int(longest))
		defer a.free()
		var same []unsafe.Pointer
		if r.shared == 0 {
			same = table(r.lo, longest)
		}
		for x := r.lo * group; x < r.hi*group; {
			n := min(a.rows, r.hi*group-x)
			for i := range n {
				a.dst[i] = dst.Row((x + i) / group)[(h*group+(x+i)%group)*s.HeadDim:][:s.HeadDim]
				a.q[i] = q.Row((x + i) / group)[(h*group+(x+i)%group)*s.HeadDim:][:s.HeadDim]
				a.length[i] = int(lengths[(x+i)/group])
				a.first[i] = s.First(a.length[i])
				a.stats[i] = nil
			}
			x += n
			if r.shared == 0 {
				a.tile([]part{{0, n, same[:(a.longest(0, n)+kernel.PageSize-1)/kernel.PageSize]}}, 0)
				continue
			}
			var parts []part
			for row := r.lo; row < r.hi; row++ {
				at := (row - r.lo) * group
				parts = append(parts, part{at, at + group, table(row, lengths[row])})
			}
			a.tile(parts, r.shared)
		}
	})
}

// samePages reports whether two page tables are the same memory.
func samePages(a, b []int32) bool {
	return len(a) == len(b) && unsafe.SliceData(a) == unsafe.SliceData(b)
}
