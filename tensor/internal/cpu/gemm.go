package cpu

import (
	"unsafe"

	"github.com/opencharacter/opencharacter/tensor/internal/kernel"
)

// A product packs its left side a [m,k] into tiles of rows (packed) and its
// right side into panels of 32 columns (operand), and then fills dst tile by
// tile. Only the packing differs between NT, NN, TN and Linear.

// operand is a packed right side: panels stride bytes apart, step bytes per
// reduction step within one.
type operand struct {
	base         unsafe.Pointer
	stride, step int
	tiles        *tiles
}

func (o operand) panel(j, k int) unsafe.Pointer { return unsafe.Add(o.base, j*o.stride+k*o.step) }

// packed is a left side [m,k]: tile after tile of up to rows rows, each
// [ceil(k/16)][tile rows][16], zero beyond k.
type packed struct {
	buf      *buffer
	m, k, kp int
	rows     int
}

func newPacked(m, k, rows int) packed {
	kp := (k + chunk - 1) &^ (chunk - 1)
	return packed{scratch(m * kp), m, k, kp, rows}
}

// tile returns the address of step k of the tile that starts at row i, and
// the tile's height.
func (p packed) tile(i, k int) (unsafe.Pointer, int) {
	r := min(p.rows, p.m-i)
	return at(p.buf.f, i*p.kp+k*r), r
}

// packRows packs rows of a with ld values between them.
func packRows(a []float32, m, k, ld, rows int) packed {
	p := newPacked(m, k, rows)
	tiles := (m + rows - 1) / rows
	spread(tiles, 1+(1<<15)/(rows*k+1), func(lo, hi int) {
		for t := lo; t < hi; t++ {
			packTile(p.buf.f[t*rows*p.kp:], a[t*rows*ld:], min(rows, m-t*rows), k, ld)
		}
	})
	return p
}

func packTile(d, a []float32, r, k, ld int) {
	full := k &^ (chunk - 1)
	for i := range r {
		src, dst := unsafe.Pointer(unsafe.SliceData(a[i*ld:i*ld+k])), at(d, i*chunk)
		for c := 0; c < full; c += chunk {
			*(*[chunk]float32)(dst) = *(*[chunk]float32)(src)
			src, dst = unsafe.Add(src, 4*chunk), unsafe.Add(dst, 4*chunk*r)
		}
		if full < k {
			last := (*[chunk]float32)(dst)
			clear(last[copy(last[:], a[i*ld+full:i*ld+k]):])
		}
	}
}

// packColumns packs the columns of a [k,m] as rows.
func packColumns(a []float32, m, k, ld, rows int) packed {
	p := newPacked(m, k, rows)
	tiles := (m + rows - 1) / rows
	spread(tiles, 1+(1<<14)/(rows*k+1), func(lo, hi int) {
		for t := lo; t < hi; t++ {
			r := min(rows, m-t*rows)
			d := p.buf.f[t*rows*p.kp:]
			for c := range k {
				src := a[c*ld+t*rows : c*ld+t*rows+r]
				o := c/chunk*chunk*r + c%chunk
				for i, v := range src {
					d[o+i*chunk] = v
				}
			}
			for c := k; c < p.kp; c++ {
				for i := range r {
					d[c/chunk*chunk*r+c%chunk+i*chunk] = 0
				}
			}
		}
	})
	return p
}

// panelsNN packs b [k,n] into panels [k][32]; panelsNT packs b [n,k].
func panelsNN(buf *buffer, b []float32, n, k, ld int, t *tiles) operand {
	np := (n + panel - 1) / panel
	spread(np, 1+(1<<14)/(panel*k+1), func(lo, hi int) {
		for p := lo; p < hi; p++ {
			d := buf.f[p*panel*k:]
			w := min(panel, n-p*panel)
			for c := range k {
				row := d[c*panel : c*panel+panel]
				clear(row[copy(row, b[c*ld+p*panel:c*ld+p*panel+w]):])
			}
		}
	})
	return operand{at(buf.f, 0), 4 * panel * k, 4 * panel, t}
}

func panelsNT(buf *buffer, b []float32, n, k, ld int, t *tiles) operand {
	np := (n + panel - 1) / panel
	spread(np, 1+(1<<14)/(panel*k+1), func(lo, hi int) {
		for p := lo; p < hi; p++ {
			transposePanel(buf.f[p*panel*k:], b[p*panel*ld:], min(panel, n-p*panel), k, ld)
		}
	})
	return operand{at(buf.f, 0), 4 * panel * k, 4 * panel, t}
}

// transposePanel writes n rows of k values as columns of a panel [k][32].
func transposePanel(d, b []float32, n, k, ld int) {
	for j := range n {
		for c, v := range b[j*ld : j*ld+k] {
			d[c*panel+j] = v
		}
	}
	for j := n; j < panel; j++ {
		for c := range k {
			d[c*panel+j] = 0
		}
	}
}

const (
	blockK    = 768     // reduction steps per pass over a block of dst
	blockRows = 96      // rows of a task
	taskFlops = 4 << 20 // work a task should hold
)

// gemm fills dst [m,n] with ld values between rows.
func gemm(dst []float32, ld, n int, a packed, b operand, accumulate bool) {
	if a.m == 0 || n == 0 {
		return
	}
	np := (n + panel - 1) / panel
	rb := min(a.m, blockRows/a.rows*a.rows)
	nrb := (a.m + rb - 1) / rb
	per := 2 * rb * panel * (a.k + 1)
	cb := max(1, min(taskFlops/per, np/(2*threads())))
	if w := b.tiles.widest(min(a.m, b.tiles.rows)); w > 1 {
		cb = (cb + w - 1) / w * w
	}
	cb = min(cb, np)
	ncb := (np + cb - 1) / cb
	parallel(nrb*ncb, func(t int) {
		i0, j0 := t%nrb*rb, t/nrb*cb
		block(dst, ld, n, a, b, i0, min(i0+rb, a.m), j0, min(j0+cb, np), accumulate)
	})
}

// block fills rows [i0,i1) and panels [j0,j1) of dst.
func block(dst []float32, ld, n int, a packed, b operand, i0, i1, j0, j1 int, accumulate bool) {
	var edge *buffer
	full := n / panel // panels with all 32 columns
	for k := 0; k == 0 || k < a.k; k += blockK {
		kc := min(blockK, a.k-k)
		acc := 0
		if accumulate || k > 0 {
			acc = 1
		}
		for i := i0; i < i1; {
			pa, r := a.tile(i, k)
			wide := b.tiles.widest(r)
			for j := j0; j < j1; {
				if j+wide <= min(j1, full) {
					b.tiles.f[wide][r](kc, pa, b.panel(j, k), at(dst, i*ld+j*panel), 4*ld, b.stride, acc)
					j += wide
					continue
				}
				if j < full {
					b.tiles.f[1][r](kc, pa, b.panel(j, k), at(dst, i*ld+j*panel), 4*ld, b.stride, acc)
					j++
					continue
				}
				if edge == nil {
					edge = scratch(maxRows * panel)
				}
				w := n - j*panel
				for q := 0; q < r && acc != 0; q++ {
					copy(edge.f[q*panel:], dst[(i+q)*ld+j*panel:][:w])
				}
				b.tiles.f[1][r](kc, pa, b.panel(j, k), at(edge.f, 0), 4*panel, b.stride, acc)
				for q := range r {
					copy(dst[(i+q)*ld+j*panel:][:w], edge.f[q*panel:])
				}
				j++
			}
			i += r
		}
	}
	if edge != nil {
		edge.free()
	}
}

// Linear sets dst (+)= x . W^T.
func (k *Kernels) Linear(dst, x kernel.Matrix, w kernel.Weight, accumulate bool) {
	k.linear(dst, x, w.(*weight), accumulate)
}

// LinearBackward sets dx (+)= dy . W.
func (k *Kernels) LinearBackward(dx, dy kernel.Matrix, w kernel.Weight, accumulate bool) {
	k.linear(dx, dy, w.(*weight).transposed(), accumulate)
}

func (k *Kernels) linear(dst, x kernel.Matrix, w *weight, accumulate bool) {
	a := packRows(x.Data, x.Rows, w.in, x.Cols, k.micro.bf16.rows)
	gemm(dst.Data, dst.Cols, w.out, a, w.operand(&k.micro.bf16), accumulate)
	a.buf.free()
}

// MatMulNT sets dst (+)= a . b^T.
func (k *Kernels) MatMulNT(dst, a, b kernel.Matrix, accumulate bool) {
	buf := scratch((b.Rows + panel - 1) / panel * panel * b.Cols)
	op := panelsNT(buf, b.Data, b.Rows, b.Cols, b.Cols, &k.micro.f32)
	pa := packRows(a.Data, a.Rows, a.Cols, a.Cols, k.micro.f32.rows)
	gemm(dst.Data, dst.Cols, b.Rows, pa, op, accumulate)
	pa.buf.free()
	buf.free()
}

// MatMulNN sets dst (+)= a . b.
func (k *Kernels) MatMulNN(dst, a, b kernel.Matrix, accumulate bool) {
	buf := scratch((b.Cols + panel - 1) / panel * panel * b.Rows)
	op := panelsNN(buf, b.Data, b.Cols, b.Rows, b.Cols, &k.micro.f32)
	pa := packRows(a.Data, a.Rows, a.Cols, a.Cols, k.micro.f32.rows)
	gemm(dst.Data, dst.Cols, b.Cols, pa, op, accumulate)
	pa.buf.free()
	buf.free()
}

// MatMulTN sets dst (+)= a^T . b.
func (k *Kernels) MatMulTN(dst, a, b kernel.Matrix, accumulate bool) {
	buf := scratch((b.Cols + panel - 1) / panel * panel * b.Rows)
	op := panelsNN(buf, b.Data, b.Cols, b.Rows, b.Cols, &k.micro.f32)
	pa := packColumns(a.Data, a.Cols, a.Rows, a.Cols, k.micro.f32.rows)
	gemm(dst.Data, dst.Cols, b.Cols, pa, op, accumulate)
	pa.buf.free()
	buf.free()
}
