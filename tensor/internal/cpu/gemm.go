package cpu

import "github.com/opencharacter/opencharacter/tensor/internal/kernel"

// A product packs its left side a [m,k] into tiles of rows, where it must, and its
// right side into panels of 32 columns (operand), and then fills dst tile by
// tile. Only the packing differs between NT, NN, TN and Linear; see pack.go.

const (
	blockK      = 384         // reduction steps per pass over a block of dst: a tile of a stays in L1
	blockRows   = 144         // rows of a task
	blockPanels = 8           // panels of a task: one pass over them stays in L2
	badStride   = 1024        // values between rows that lie in one set of L1
	widenRows   = maxRows + 1 // rows of a task from which panels of blocks are widened once for all tiles
	smallWork   = 1 << 17     // multiply-adds below which one thread does all
)

// plan cuts dst of m rows and np panels into tasks of rb rows and cb panels.
func plan(m, np, k, height int) (rb, cb int) {
	if m*np*panel*k <= smallWork {
		return m, np
	}
	rb = min((m+height-1)/height*height, max(blockRows/height, 1)*height)
	nrb, th := (m+rb-1)/rb, threads()
	best := 0
	for c := blockPanels; c > 0; c-- {
		// The longest thread's share of the panels.
		tasks := nrb * ((np + c - 1) / c)
		if share := (tasks + th - 1) / th * c; best == 0 || share < best {
			best, cb = share, c
		}
	}
	if np <= 2 { // few columns: one task packs and uses its rows of a
		rb, cb = min(rb, max(blockRows/2/height, 1)*height), np
	}
	return rb, min(cb, np)
}

// term is a product with both sides ready, added to another of the same shape
// while a block of dst is in the cache.
type term struct {
	a side
	b operand
}

// packRight packs all panels of r.
func (k *Kernels) packRight(r right) *buffer {
	np := (r.n + panel - 1) / panel
	buf := scratch(np * panel * r.k)
	spread(np, 1+(1<<14)/(panel*r.k+1), func(lo, hi int) { r.pack(k.micro, buf.f[lo*panel*r.k:], lo, hi) })
	return buf
}

// gemm fills dst [m,n], ld values between rows, with l . r and then more; b holds r
// packed, or is empty, to be packed here.
func (k *Kernels) gemm(dst []float32, ld, n int, l left, r right, b operand, accumulate bool, more ...term) {
	if l.m == 0 || n == 0 {
		return
	}
	np, height := (n+panel-1)/panel, l.height(b)
	rb, cb := plan(l.m, np, b.steps(l.k), height)
	nrb, ncb := (l.m+rb-1)/rb, (np+cb-1)/cb

	// A side that only one task reads is packed by that task, while it is in
	// its cache.
	a, direct := k.direct(l, height, b)
	if !direct && ncb > 1 {
		a = b.newSide(l.m, l.k, height)
		spread((l.m+height-1)/height, 1+(1<<15)/(height*l.k+1), func(lo, hi int) {
			k.pack(l, b, a, lo*height, min(hi*height, l.m), lo*height)
		})
		defer a.free()
	}
	raw := b.base == nil
	if raw && nrb > 1 {
		buf := k.packRight(r)
		b.base = at(buf.f, 0)
		defer buf.free()
	}
	parallel(nrb*ncb, func(t int) {
		i0, j0 := t%nrb*rb, t/nrb*cb
		i1, j1 := min(i0+rb, l.m), min(j0+cb, np)
		a, b := a, b
		if !direct && ncb == 1 {
			a = b.newSide(i1-i0, l.k, height)
			k.pack(l, b, a, i0, i1, 0)
			defer a.free()
		} else {
			a = a.from(i0, i1)
		}
		if raw && nrb == 1 {
			buf := scratch((j1 - j0) * panel * r.k)
			r.pack(k.micro, buf.f, j0, j1)
			b.base = at(buf.f, 0)
			defer buf.free()
		} else {
			b.base = b.panel(j0, 0)
		}
		to, cols := dst[i0*ld+j0*panel:], min(n-j0*panel, (j1-j0)*panel)
		block(to, ld, cols, a, b, accumulate)
		for _, t := range more {
			block(to, ld, cols, t.a.from(i0, i1), t.b.skip(j0, 0), true)
		}
	})
}

// block fills n columns of dst, one row for each of a's.
func block(dst []float32, ld, n int, a side, b operand, accumulate bool) {
	var edge *buffer
	full, np := n/panel, (n+panel-1)/panel
	// Where all of a stays in L1 anyway, panels are read from end to end, as memory likes it.
	pass := blockK
	if a.m*a.k <= maxRows*blockK {
		pass = max(a.k, 1)
	}
	for k := 0; k == 0 || k < a.k; k += pass {
		kc, acc := min(pass, a.k-k), 0
		if accumulate || k > 0 {
			acc = 1
		}
		b := b.skip(0, k)
		var wide *buffer
		if b.widen != nil && a.m >= widenRows {
			wide = scratch(np * panel * kc)
			b = b.widened(wide.f, np, kc)
		}
		for i := 0; i < a.m; {
			pa, lda, step, r := a.tile(i, k)
			f := b.tiles.f[r]
			for j := range np {
				d := i*ld + j*panel
				if j < full {
					f(kc, pa, b.panel(j, 0), at(dst, d), lda, step, 4*ld, acc)
					continue
				}
				// The last columns do not fill a panel: they go through a copy.
				if edge == nil {
					edge = scratch(maxRows * panel)
				}
				left := n - j*panel
				for q := 0; q < r && acc != 0; q++ {
					copy(edge.f[q*panel:], dst[d+q*ld:][:left])
				}
				f(kc, pa, b.panel(j, 0), at(edge.f, 0), lda, step, 4*panel, acc)
				for q := range r {
					copy(dst[d+q*ld:][:left], edge.f[q*panel:])
				}
			}
			i += r
		}
		if wide != nil {
			wide.free()
		}
	}
	if edge != nil {
		edge.free()
	}
}

// Linear sets dst (+)= x . W^T + sum A . B^T.
func (k *Kernels) Linear(dst, x kernel.Matrix, w kernel.Weight, accumulate bool, more ...kernel.Term) {
	k.linear(dst, x, w.(*weight), accumulate, more, true)
}

// LinearBackward sets dx (+)= dy . W + sum A . B.
func (k *Kernels) LinearBackward(dx, dy kernel.Matrix, w kernel.Weight, accumulate bool, more ...kernel.Term) {
	k.linear(dx, dy, w.(*weight).transposed(), accumulate, more, false)
}

// linear adds A . B to its product with w, or A . B^T if transposed is set.
func (k *Kernels) linear(dst, x kernel.Matrix, w *weight, accumulate bool, more []kernel.Term, transposed bool) {
	var terms []term
	if k.pairs == nil {
		for _, m := range more {
			b := k.panels(m.A.Cols)
			buf := k.packRight(right{m.B.Data, w.out, m.A.Cols, m.B.Cols, transposed})
			b.base = at(buf.f, 0)
			a := k.sideFor(leftOf(m.A), b)
			terms = append(terms, term{a, b})
			defer buf.free()
			defer a.free()
		}
	}
	k.gemm(dst.Data, dst.Cols, w.out, leftOf(x), right{}, k.operand(w), accumulate, terms...)
	if k.pairs != nil {
		for _, m := range more {
			k.pairProduct(dst, leftOf(m.A), right{m.B.Data, w.out, m.A.Cols, m.B.Cols, transposed}, true)
		}
	}
}

func leftOf(a kernel.Matrix) left { return left{data: a.Data, m: a.Rows, k: a.Cols, ld: a.Cols} }

// MatMulNT sets dst (+)= a . b^T.
func (k *Kernels) MatMulNT(dst, a, b kernel.Matrix, accumulate bool) {
	k.product(dst, left{a.Data, a.Rows, a.Cols, a.Cols, false}, right{b.Data, b.Rows, b.Cols, b.Cols, true}, accumulate)
}

// MatMulNN sets dst (+)= a . b.
func (k *Kernels) MatMulNN(dst, a, b kernel.Matrix, accumulate bool) {
	k.product(dst, left{a.Data, a.Rows, a.Cols, a.Cols, false}, right{b.Data, b.Cols, b.Rows, b.Cols, false}, accumulate)
}

// MatMulTN sets dst (+)= a^T . b.
func (k *Kernels) MatMulTN(dst, a, b kernel.Matrix, accumulate bool) {
	k.product(dst, left{a.Data, a.Cols, a.Rows, a.Cols, true}, right{b.Data, b.Cols, b.Rows, b.Cols, false}, accumulate)
}

func (k *Kernels) product(dst kernel.Matrix, l left, r right, accumulate bool) {
	if k.pairs != nil {
		k.pairProduct(dst, l, r, accumulate)
		return
	}
	b := k.panels(r.k)
	if l.columns && !r.transposed && r.n%panel == 0 {
		b = operand{base: at(r.data, 0), stride: 4 * panel, step: 4 * r.ld, tiles: &k.micro.outer, outer: true}
	}
	k.gemm(dst.Data, dst.Cols, r.n, l, r, b, accumulate)
}

// panels describes float32 panels of k steps, not packed yet.
func (k *Kernels) panels(steps int) operand {
	return operand{stride: 4 * panel * steps, step: 4 * panel, tiles: &k.micro.f32}
}

// leftSide makes l ready for block, packing it if it must.
func (k *Kernels) leftSide(l left, t *tiles) side { return k.sideFor(l, operand{tiles: t}) }

// sideFor is leftSide for products with b.
func (k *Kernels) sideFor(l left, b operand) side {
	height := l.height(b)
	p, direct := k.direct(l, height, b)
	if !direct {
		p = b.newSide(l.m, l.k, height)
		k.pack(l, b, p, 0, l.m, 0)
	}
	return p
}

// direct is left.direct, but for what must be rounded first.
func (k *Kernels) direct(l left, height int, b operand) (side, bool) {
	if b.round != nil {
		return side{}, false
	}
	if b.outer {
		return side{data: l.data, m: l.m, k: l.k, height: height, ld: l.ld, outer: b.step}, true
	}
	return l.direct(height, b.tiles == &k.micro.bf16)
}

// pack packs or rounds rows [i0,i1) of l into p, row i0 to row o.
func (k *Kernels) pack(l left, b operand, p side, i0, i1, o int) {
	if b.round != nil {
		b.round.rows(p, l, i0, i1, o)
		return
	}
	l.pack(k.micro, p, i0, i1, o)
}
