package tensor

import (
	"fmt"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

// PageSize is the number of positions one page of a KV holds.
const PageSize = kernel.PageSize

// KV is a paged key/value cache for all layers of one model. A page id stands
// for PageSize positions in every layer; who owns which page is the caller's
// affair. Reads may run at the same time as reads, not as Grow or Write.
type KV struct {
	layers int
	shape  AttentionShape
	kv     kernel.KV
}

// NewKV returns a cache of the given number of pages for keys and values of
// shape s.
func NewKV(layers, pages int, s AttentionShape) *KV {
	s.check("NewKV")
	if layers < 0 || pages < 0 {
		panic(fmt.Sprintf("tensor.NewKV: %d layers, %d pages", layers, pages))
	}
	return &KV{layers, s, device.NewKV(layers, pages, kernel.AttentionShape(s))}
}

// Pages is the number of pages.
func (c *KV) Pages() int { return c.kv.Pages() }

// Grow makes the cache at least pages pages large; contents stay.
func (c *KV) Grow(pages int) { c.kv.Grow(pages) }

// CopyPage copies page src to dst in every layer.
func (c *KV) CopyPage(dst, src int) {
	c.checkPage("CopyPage", dst, 0)
	c.checkPage("CopyPage", src, 0)
	c.kv.CopyPage(dst, src)
}

// Write stores row i of k and v [n, KVHeads*HeadDim] at page[i], slot[i] of a
// layer.
func (c *KV) Write(layer int, k, v *Tensor, page, slot []int32) {
	check(same(k, v) && c.shape.kv(k) && k.Rows == len(page) && k.Rows == len(slot), "KV.Write", k, v)
	c.checkLayer("KV.Write", layer)
	for i := range page {
		c.checkPage("Write", int(page[i]), int(slot[i]))
	}
	c.kv.Write(layer, k.matrix(), v.matrix(), page, slot)
}

// AttentionKV lets query row i of q [n, Heads*HeadDim] attend to the first
// lengths[i] positions stored in pages[i], its own position included, or to the
// last window of these if window is above 0. The bits of dst equal those of
// Attention with that Window on the same values. The Window of the cache's own
// shape means nothing, as layers may differ.
func AttentionKV(dst, q *Tensor, c *KV, layer int, pages [][]int32, lengths []int32, window int) {
	check(same(dst, q) && c.shape.q(q) && q.Rows == len(pages) && q.Rows == len(lengths) && window >= 0, "AttentionKV", dst, q)
	c.checkLayer("AttentionKV", layer)
	for i, n := range lengths {
		if n < 1 || int(n) > len(pages[i])*PageSize {
			panic(fmt.Sprintf("tensor.AttentionKV: row %d has length %d on %d pages of %d", i, n, len(pages[i]), PageSize))
		}
		for _, p := range pages[i] {
			c.checkPage("AttentionKV", int(p), 0)
		}
	}
	device.AttentionKV(dst.matrix(), q.matrix(), c.kv, layer, pages, lengths, window)
}

func (c *KV) checkPage(op string, page, slot int) {
	if page < 0 || page >= c.kv.Pages() || slot < 0 || slot >= PageSize {
		panic(fmt.Sprintf("tensor.KV.%s: page %d slot %d, cache has %d pages of %d", op, page, slot, c.kv.Pages(), PageSize))
	}
}

func (c *KV) checkLayer(op string, layer int) {
	if layer < 0 || layer >= c.layers {
		panic(fmt.Sprintf("tensor.%s: layer %d of %d", op, layer, c.layers))
	}
}
