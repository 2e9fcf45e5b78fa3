package cpu

import (
	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

func (k *Kernels) score(q, key []float32) float32 {
	var s float32
	for d := range q {
		s += float32(q[d] * key[d])
	}
	return s
}

// attend is the definition of attention for one query.
func (k *Kernels) attend(dst, q []float32, n int, key, val func(j int) []float32, scale float32, stats []float32) {
	buf := scratch(n)
	p := buf.f[:n]
	for j := range p {
		p[j] = k.score(q, key(j))
	}
	top := k.micro.maxOf(p) * scale
	inv := 1 / k.micro.expOf(p, p, scale, -top)
	clear(dst)
	for j, w := range p {
		for d, v := range val(j) {
			dst[d] += float32(w * v)
		}
	}
	for d := range dst {
		dst[d] = dst[d]*inv + 0
	}
	if stats != nil {
		stats[0], stats[1] = top, inv
	}
	buf.free()
}

// Attention is causal attention within packed rows.
func (k *Kernels) Attention(dst, q, key, val kernel.Matrix, offsets []int32, s kernel.AttentionShape, stats kernel.Matrix) {
	group, hd := s.Heads/s.KVHeads, s.HeadDim
	for i := 1; i < len(offsets); i++ {
		o := int(offsets[i-1])
		parallel(int(offsets[i])-o, func(t int) {
			for h := range s.Heads {
				kv := h / group * hd
				var st []float32
				if stats.Data != nil {
					st = stats.Row(o + t)[2*h:]
				}
				k.attend(dst.Row(o + t)[h*hd:][:hd], q.Row(o + t)[h*hd:][:hd], t+1,
					func(j int) []float32 { return key.Row(o + j)[kv:][:hd] },
					func(j int) []float32 { return val.Row(o + j)[kv:][:hd] }, s.Scale, st)
			}
		})
	}
}

// AttentionBackward is the gradient of Attention.
func (k *Kernels) AttentionBackward(dq, dk, dv, dout, out, q, key, val kernel.Matrix, offsets []int32, s kernel.AttentionShape, stats kernel.Matrix) {
	group, hd := s.Heads/s.KVHeads, s.HeadDim
	clear(dq.Data)
	clear(dk.Data)
	clear(dv.Data)
	for i := 1; i < len(offsets); i++ {
		o, n := int(offsets[i-1]), int(offsets[i]-offsets[i-1])
		parallel(s.KVHeads, func(kv int) {
			for h := kv * group; h < (kv+1)*group; h++ {
				for t := range n {
					qr, gr := q.Row(o + t)[h*hd:][:hd], dout.Row(o + t)[h*hd:][:hd]
					st := stats.Row(o + t)[2*h:]
					d := k.score(gr, out.Row(o + t)[h*hd:][:hd])
					for j := range t + 1 {
						kr, vr := key.Row(o + j)[kv*hd:][:hd], val.Row(o + j)[kv*hd:][:hd]
						p := exp1(k.score(qr, kr)*s.Scale-st[0]) * st[1]
						ds := p * (k.score(gr, vr) - d) * s.Scale
						dvr, dkr, dqr := dv.Row(o + j)[kv*hd:], dk.Row(o + j)[kv*hd:], dq.Row(o + t)[h*hd:]
						for e := range hd {
							dvr[e] += p * gr[e]
							dkr[e] += ds * qr[e]
							dqr[e] += ds * kr[e]
						}
					}
				}
			}
		})
	}
}

// kvCache holds keys and values of all layers: layer, page, slot, then
// KVHeads*HeadDim values.
type kvCache struct {
	layers, width, pages int
	shape                kernel.AttentionShape
	k, v                 [][]float32 // per layer
}

// NewKV returns an empty cache.
func (k *Kernels) NewKV(layers, pages int, s kernel.AttentionShape) kernel.KV {
	c := &kvCache{shape: s, layers: layers, width: s.KVHeads * s.HeadDim, k: make([][]float32, layers), v: make([][]float32, layers)}
	c.Grow(pages)
	return c
}

func (c *kvCache) Pages() int { return c.pages }

func (c *kvCache) Grow(pages int) {
	if pages <= c.pages {
		return
	}
	for l := range c.layers {
		for _, s := range []*[]float32{&c.k[l], &c.v[l]} {
			n := Floats(pages * kernel.PageSize * c.width)
			copy(n, *s)
			*s = n
		}
	}
	c.pages = pages
}

func (c *kvCache) CopyPage(dst, src int) {
	n := kernel.PageSize * c.width
	for l := range c.layers {
		copy(c.k[l][dst*n:(dst+1)*n], c.k[l][src*n:])
		copy(c.v[l][dst*n:(dst+1)*n], c.v[l][src*n:])
	}
}

func (c *kvCache) Write(layer int, k, v kernel.Matrix, page, slot []int32) {
	for i := range page {
		o := (int(page[i])*kernel.PageSize + int(slot[i])) * c.width
		copy(c.k[layer][o:], k.Row(i))
		copy(c.v[layer][o:], v.Row(i))
	}
}

// AttentionKV attends to cached positions.
func (k *Kernels) AttentionKV(dst, q kernel.Matrix, kv kernel.KV, layer int, pages [][]int32, lengths []int32) {
	c := kv.(*kvCache)
	s := c.shape
	group, hd := s.Heads/s.KVHeads, s.HeadDim
	parallel(q.Rows, func(i int) {
		at := func(data []float32, j, o int) []float32 {
			p := int(pages[i][j/kernel.PageSize])*kernel.PageSize + j%kernel.PageSize
			return data[p*c.width+o:][:hd]
		}
		for h := range s.Heads {
			o := h / group * hd
			k.attend(dst.Row(i)[h*hd:][:hd], q.Row(i)[h*hd:][:hd], int(lengths[i]),
				func(j int) []float32 { return at(c.k[layer], j, o) },
				func(j int) []float32 { return at(c.v[layer], j, o) }, s.Scale, nil)
		}
	})
}
