package kerneltest

import (
	"fmt"
	"math"
	"testing"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

type attentionCase struct {
	shape   kernel.AttentionShape
	offsets []int32
}

func (c attentionCase) String() string { return fmt.Sprintf("%+v %v", c.shape, c.offsets) }
func (c attentionCase) rows() int      { return int(c.offsets[len(c.offsets)-1]) }

var attentionCases = []attentionCase{
	{kernel.AttentionShape{Heads: 1, KVHeads: 1, HeadDim: 16, Scale: 0.25}, []int32{0, 1}},
	{kernel.AttentionShape{Heads: 3, KVHeads: 1, HeadDim: 64, Scale: 0.125}, []int32{0, 70, 71, 71, 104}},
	{kernel.AttentionShape{Heads: 4, KVHeads: 2, HeadDim: 40, Scale: 0.2}, []int32{0, 33, 45}},
	{kernel.AttentionShape{Heads: 2, KVHeads: 2, HeadDim: 128, Scale: 0.09}, []int32{0, 32, 65}},
	{kernel.AttentionShape{Heads: 10, KVHeads: 2, HeadDim: 18, Scale: 0.3}, []int32{0, 5, 40}},
	{kernel.AttentionShape{Heads: 15, KVHeads: 1, HeadDim: 7, Scale: 0.3}, []int32{0, 70}},
	{kernel.AttentionShape{Heads: 1, KVHeads: 1, HeadDim: 32, Scale: 1}, []int32{0}},
	// windows: of one position, within a page, of a page, over pages, beyond the row
	{kernel.AttentionShape{Heads: 2, KVHeads: 1, HeadDim: 16, Scale: 0.25, Window: 1}, []int32{0, 40}},
	{kernel.AttentionShape{Heads: 3, KVHeads: 1, HeadDim: 20, Scale: 0.2, Window: 5}, []int32{0, 70, 71, 71, 104}},
	{kernel.AttentionShape{Heads: 4, KVHeads: 4, HeadDim: 24, Scale: 0.2, Window: 32}, []int32{0, 33, 130}},
	{kernel.AttentionShape{Heads: 4, KVHeads: 2, HeadDim: 40, Scale: 0.2, Window: 45}, []int32{0, 170, 182}},
	{kernel.AttentionShape{Heads: 1, KVHeads: 1, HeadDim: 9, Scale: 0.3, Window: 100}, []int32{0, 90, 191}},
}

func (c attentionCase) inputs(seed uint64) (q, k, v kernel.Matrix) {
	rng, n := newRand(seed), c.rows()
	q = random(rng, n, c.shape.Heads*c.shape.HeadDim)
	k = random(rng, n, c.shape.KVHeads*c.shape.HeadDim)
	v = random(rng, n, c.shape.KVHeads*c.shape.HeadDim)
	return q, k, v
}

// attention64 is the definition; it returns the output of head h at position
// t of a row that starts at o.
func (c attentionCase) attention64(q []float64, k, v func(j, d int) float64, n int) []float64 {
	hd := c.shape.HeadDim
	if w := c.shape.Window; w > 0 && n > w { // the last w positions alone
		from, all, values := n-w, k, v
		k, v = func(j, d int) float64 { return all(from+j, d) }, func(j, d int) float64 { return values(from+j, d) }
		n = w
	}
	p, top, sum := make([]float64, n), math.Inf(-1), 0.0
	for j := range p {
		for d := range hd {
			p[j] += q[d] * k(j, d)
		}
		p[j] *= float64(c.shape.Scale)
		top = max(top, p[j])
	}
	for j := range p {
		p[j] = math.Exp(p[j] - top)
		sum += p[j]
	}
	out := make([]float64, hd)
	for j := range p {
		for d := range hd {
			out[d] += p[j] / sum * v(j, d)
		}
	}
	return out
}

func attention(t *testing.T, ks kernel.Kernels) {
	for _, c := range attentionCases {
		q, k, v := c.inputs(20)
		s, hd, group := c.shape, c.shape.HeadDim, c.shape.Heads/c.shape.KVHeads
		dst, stats := random(newRand(1), q.Rows, q.Cols), zeros(q.Rows, 2*s.Heads)
		ks.Attention(dst, q, k, v, c.offsets, s, stats)
		for r := 1; r < len(c.offsets); r++ {
			o := int(c.offsets[r-1])
			for t0 := range int(c.offsets[r]) - o {
				for h := range s.Heads {
					kv, qf := h/group*hd, make([]float64, hd)
					var qn, kn, vn float64
					for d := range hd {
						qf[d] = float64(q.Row(o + t0)[h*hd+d])
						qn += qf[d] * qf[d]
					}
					at := func(m kernel.Matrix) func(j, d int) float64 {
						return func(j, d int) float64 { return float64(m.Row(o + j)[kv+d]) }
					}
					for j := range t0 + 1 {
						var n2 float64
						for d := range hd {
							n2 += at(k)(j, d) * at(k)(j, d)
							vn = max(vn, math.Abs(at(v)(j, d)))
						}
						kn = max(kn, n2)
					}
					want := c.attention64(qf, at(k), at(v), t0+1)
					// A score is off by at most g(hd+2) |q||k| Scale, so a weight
					// by twice that relatively, plus the exponential's and the
					// sums' errors; the output is a mean of values up to vn.
					score := gamma(hd+6) * math.Sqrt(qn*kn) * float64(s.Scale)
					bound := vn * (4*score + 2*expError + 2*gamma(t0+8+hd))
					for d := range hd {
						near(t, c.String(), d, dst.Row(o + t0)[h*hd+d], want[d], bound)
					}
				}
			}
		}
		again := zeros(q.Rows, q.Cols)
		ks.Attention(again, q, k, v, c.offsets, s, kernel.Matrix{})
		equal(t, "Attention without stats", again.Data, dst.Data)
	}
}

// attentionRowLaw: packed rows alone, and prefixes of rows, give the same
// bits; what follows a position, even NaN, does not reach it.
func attentionRowLaw(t *testing.T, ks kernel.Kernels) {
	for _, c := range attentionCases {
		q, k, v := c.inputs(21)
		s := c.shape
		dst, stats := zeros(q.Rows, q.Cols), zeros(q.Rows, 2*s.Heads)
		ks.Attention(dst, q, k, v, c.offsets, s, stats)
		grads := func(q, k, v, out, stats kernel.Matrix, offsets []int32) [3]kernel.Matrix {
			g := [3]kernel.Matrix{zeros(q.Rows, q.Cols), zeros(k.Rows, k.Cols), zeros(k.Rows, k.Cols)}
			ks.AttentionBackward(g[0], g[1], g[2], out, out, q, k, v, offsets, s, stats)
			return g
		}
		all := grads(q, k, v, dst, stats, c.offsets)
		for r := 1; r < len(c.offsets); r++ {
			o, e := int(c.offsets[r-1]), int(c.offsets[r])
			for _, n := range []int{e - o, (e - o) / 2, 1} {
				if n == 0 || n > e-o {
					continue
				}
				part, st := zeros(n, q.Cols), zeros(n, 2*s.Heads)
				ks.Attention(part, view(q, o, o+n), view(k, o, o+n), view(v, o, o+n), []int32{0, int32(n)}, s, st)
				equal(t, fmt.Sprint(c, " prefix ", n), part.Data, view(dst, o, o+n).Data)
				equal(t, "stats of a prefix", st.Data, view(stats, o, o+n).Data)
				if n == e-o {
					g := grads(view(q, o, e), view(k, o, e), view(v, o, e), part, st, []int32{0, int32(n)})
					for i, name := range []string{"dq", "dk", "dv"} {
						equal(t, name+" of a row alone", g[i].Data, view(all[i], o, e).Data)
					}
				}
			}
		}
	}
}

func attentionGradient(t *testing.T, ks kernel.Kernels) {
	for _, c := range attentionCases {
		q, k, v := c.inputs(22)
		s, hd, group := c.shape, c.shape.HeadDim, c.shape.Heads/c.shape.KVHeads
		dout := random(newRand(23), q.Rows, q.Cols)
		out, stats := zeros(q.Rows, q.Cols), zeros(q.Rows, 2*s.Heads)
		ks.Attention(out, q, k, v, c.offsets, s, stats)
		rng := newRand(24)
		g := [3]kernel.Matrix{random(rng, q.Rows, q.Cols), random(rng, k.Rows, k.Cols), random(rng, k.Rows, k.Cols)}
		ks.AttentionBackward(g[0], g[1], g[2], dout, out, q, k, v, c.offsets, s, stats)
		// loss restricted to what element (row, kv head) can reach
		loss := func(m [3][]float64, o, e, kv int) (l float64) {
			for t0 := o; t0 < e; t0++ {
				for h := kv * group; h < (kv+1)*group; h++ {
					at := func(m []float64) func(j, d int) float64 {
						return func(j, d int) float64 { return m[(o+j)*k.Cols+kv*hd+d] }
					}
					y := c.attention64(m[0][t0*q.Cols+h*hd:][:hd], at(m[1]), at(m[2]), t0-o+1)
					for d := range hd {
						l += float64(dout.Row(t0)[h*hd+d]) * y[d]
					}
				}
			}
			return l
		}
		var m [3][]float64
		for i, x := range []kernel.Matrix{q, k, v} {
			m[i] = make([]float64, len(x.Data))
			for j, f := range x.Data {
				m[i][j] = float64(f)
			}
		}
		for i, name := range []string{"dq", "dk", "dv"} {
			cols := len(m[i]) / max(q.Rows, 1)
			for range 6 {
				if q.Rows == 0 {
					break
				}
				j := rng.IntN(len(m[i]))
				row, kv := j/cols, j%cols/hd
				if i == 0 {
					kv /= group
				}
				o, e := 0, 0
				for r := 1; r < len(c.offsets); r++ {
					if row >= int(c.offsets[r-1]) && row < int(c.offsets[r]) {
						o, e = int(c.offsets[r-1]), int(c.offsets[r])
					}
				}
				const h = 1e-5
				keep := m[i][j]
				m[i][j] = keep + h
				up := loss(m, o, e, kv)
				m[i][j] = keep - h
				down := loss(m, o, e, kv)
				m[i][j] = keep
				near(t, fmt.Sprint(c, " ", name), j, g[i].Data[j], (up-down)/(2*h), 2e-4)
			}
		}
	}
}

// cache: reading from pages in any order gives the bits of Attention, pages
// can be copied, and what stands beyond a row's length does not matter.
func cache(t *testing.T, ks kernel.Kernels) {
	for _, c := range attentionCases {
		q, k, v := c.inputs(25)
		s, n := c.shape, c.rows()
		want := zeros(n, q.Cols)
		ks.Attention(want, q, k, v, c.offsets, s, kernel.Matrix{})

		const layers, layer = 2, 1
		kv := ks.NewKV(layers, 1, s)
		free := int32(0)
		tables, lengths := make([][]int32, n), make([]int32, n)
		page, slot := make([]int32, n), make([]int32, n)
		for r := 1; r < len(c.offsets); r++ {
			o, e := int(c.offsets[r-1]), int(c.offsets[r])
			var table []int32
			for i := o; i < e; i++ {
				if (i-o)%kernel.PageSize == 0 {
					table = append(table, free*3%64)
					free++
				}
				page[i], slot[i] = table[(i-o)/kernel.PageSize], int32((i-o)%kernel.PageSize)
			}
			for i := o; i < e; i++ {
				tables[i], lengths[i] = table, int32(i-o+1)
			}
		}
		kv.Grow(64)
		// First rubbish everywhere, then the real values, in two parts.
		for p := range int32(64) {
			for sl := range int32(kernel.PageSize) {
				bad := random(newRand(uint64(p)), 1, k.Cols)
				bad.Data[0] = float32(math.NaN())
				kv.Write(layer, bad, bad, []int32{p}, []int32{sl})
			}
		}
		cut := n / 3
		for _, b := range [][2]int{{cut, n}, {0, cut}} {
			kv.Write(layer, view(k, b[0], b[1]), view(v, b[0], b[1]), page[b[0]:b[1]], slot[b[0]:b[1]])
		}
		got := zeros(n, q.Cols)
		ks.AttentionKV(got, q, kv, layer, tables, lengths, s.Window)
		equal(t, fmt.Sprint("AttentionKV ", c), got.Data, want.Data)
		for _, step := range []int{1, 3, 17} {
			part := zeros(n, q.Cols)
			for i := 0; i < n; i += step {
				e := min(i+step, n)
				ks.AttentionKV(view(part, i, e), view(q, i, e), kv, layer, tables[i:e], lengths[i:e], s.Window)
			}
			equal(t, "AttentionKV in parts", part.Data, want.Data)
		}
		if n == 0 {
			continue
		}
		// Move every page of the last row elsewhere.
		kv.Grow(64 + len(tables[n-1]))
		moved := make([]int32, len(tables[n-1]))
		for i, p := range tables[n-1] {
			moved[i] = int32(64 + i)
			kv.CopyPage(64+i, int(p))
		}
		ks.AttentionKV(view(got, 0, 1), view(q, n-1, n), kv, layer, [][]int32{moved}, lengths[n-1:], s.Window)
		equal(t, "AttentionKV on copied pages", got.Row(0), want.Row(n-1))
	}
}
