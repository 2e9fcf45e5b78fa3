package cpu

import "unsafe"

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
	data     []float32
	m, k, kp int
	rows     int
	buf      *buffer
}

func newPacked(m, k, rows int) packed {
	kp := (k + chunk - 1) &^ (chunk - 1)
	buf := scratch(m * kp)
	return packed{buf.f, m, k, kp, rows, buf}
}

func (p packed) free() { p.buf.free() }

// tile returns the address of step k of the tile that starts at row i, and
// the tile's height.
func (p packed) tile(i, k int) (unsafe.Pointer, int) {
	r := min(p.rows, p.m-i)
	return at(p.data, i*p.kp+k*r), r
}

// from returns rows [i0,i1); i0 starts a tile.
func (p packed) from(i0, i1 int) packed {
	p.data, p.m = p.data[i0*p.kp:], i1-i0
	return p
}

// left is a left side as it comes: element (i, k) at data[i*ld+k], or at
// data[k*ld+i] if columns is set.
type left struct {
	data     []float32
	m, k, ld int
	columns  bool
}

// height is the height of l's tiles: as equal as possible, since low tiles are
// slow. Transposition needs multiples of four.
func (l left) height(t *tiles) int {
	if l.columns {
		return t.rows &^ 3
	}
	n := max(1, (l.m+t.rows-1)/t.rows)
	return max(1, (l.m+n-1)/n)
}

// pack packs rows [i0,i1) into p, which has room for all of l or for just
// them; o is where row i0 goes.
func (l left) pack(m *micro, p packed, i0, i1, o int) {
	for i := i0; i < i1; i += p.rows {
		r, d := min(p.rows, l.m-i), p.data[(i-i0+o)*p.kp:]
		if l.columns {
			packColumns(m, d, l.data[i:], r, l.k, l.ld)
			continue
		}
		for q := range r {
			packRow(d[q*chunk:], l.data[(i+q)*l.ld:][:l.k], r)
		}
	}
}

// packRow writes one row of a tile of r rows; d starts at that row.
func packRow(d, row []float32, r int) {
	full := len(row) &^ (chunk - 1)
	src, dst := unsafe.Pointer(unsafe.SliceData(row)), at(d, 0)
	for c := 0; c < full; c += chunk {
		*(*[chunk]float32)(dst) = *(*[chunk]float32)(src)
		src, dst = unsafe.Add(src, 4*chunk), unsafe.Add(dst, 4*chunk*r)
	}
	if full < len(row) {
		last := (*[chunk]float32)(dst)
		clear(last[copy(last[:], row[full:]):])
	}
}

// packColumns writes a tile of r rows from r columns of a [k, ld].
func packColumns(m *micro, d, a []float32, r, k, ld int) {
	c := 0
	if r%4 == 0 {
		for ; c+chunk <= k; c += chunk {
			m.transpose(&d[c*r], &a[c*ld], 4*chunk, 4*ld, r)
		}
	}
	for ; c < k; c++ {
		o := c/chunk*chunk*r + c%chunk
		for i, v := range a[c*ld:][:r] {
			d[o+i*chunk] = v
		}
	}
	for ; c%chunk != 0; c++ {
		o := c/chunk*chunk*r + c%chunk
		for i := range r {
			d[o+i*chunk] = 0
		}
	}
}

// right is a right side as it comes: element (k, j) at data[k*ld+j], or at
// data[j*ld+k] if transposed is set.
type right struct {
	data       []float32
	n, k, ld   int
	transposed bool
}

// pack writes panels [j0,j1), each [k][32], to d.
func (r right) pack(m *micro, d []float32, j0, j1 int) {
	for p := j0; p < j1; p++ {
		w, dst := min(panel, r.n-p*panel), d[(p-j0)*panel*r.k:]
		if r.transposed {
			panelT(m, dst, r.data[p*panel*r.ld:], w, r.k, r.ld)
		} else {
			panelN(dst, r.data[p*panel:], w, r.k, r.ld)
		}
	}
}

// panelN copies k rows of w values to a panel [k][32].
func panelN(d, b []float32, w, k, ld int) {
	if w == panel {
		for c := range k {
			*(*[panel]float32)(d[c*panel:]) = *(*[panel]float32)(b[c*ld:])
		}
		return
	}
	for c := range k {
		row := d[c*panel:][:panel]
		clear(row[copy(row, b[c*ld:][:w]):])
	}
}

// panelT writes w rows of k values as columns of a panel [k][32].
func panelT(m *micro, d, b []float32, w, k, ld int) {
	j := 0
	for whole := k &^ 3; j+chunk <= w; j += chunk {
		if whole > 0 {
			m.transpose(&d[j], &b[j*ld], 4*panel, 4*ld, whole)
		}
		for c := whole; c < k; c++ {
			for i := range chunk {
				d[c*panel+j+i] = b[(j+i)*ld+c]
			}
		}
	}
	for ; j < panel; j++ {
		if j < w {
			for c, v := range b[j*ld:][:k] {
				d[c*panel+j] = v
			}
			continue
		}
		for c := range k {
			d[c*panel+j] = 0
		}
	}
}
