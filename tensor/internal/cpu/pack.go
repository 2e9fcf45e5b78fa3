package cpu

import "unsafe"

// operand is a packed right side: panels stride bytes apart, step bytes per
// reduction step within one.
type operand struct {
	base         unsafe.Pointer
	stride, step int
	tiles        *tiles
	round        *pairLoops // rounds the left side to words, or nil
	// widen writes n steps of a panel as float32s, for tiles flat, or is nil.
	widen func(dst, src unsafe.Pointer, n int)
	flat  *tiles
	outer bool // tiles read both sides in place, see tileFunc
}

// steps is the number of reduction steps over k values.
func (o operand) steps(k int) int {
	if o.round != nil {
		return (k + 1) / 2
	}
	return k
}

// newSide is room for a left side [m,k] packed or rounded for o.
func (o operand) newSide(m, k, height int) side {
	if o.round != nil {
		return newWords(m, k, height)
	}
	return newPacked(m, k, height)
}

func (o operand) panel(j, k int) unsafe.Pointer { return unsafe.Add(o.base, j*o.stride+k*o.step) }

// skip returns o without its first j panels and k reduction steps.
func (o operand) skip(j, k int) operand {
	o.base = o.panel(j, k)
	return o
}

// widened writes the first steps of np panels to d and returns them as float32 panels.
func (o operand) widened(d []float32, np, steps int) operand {
	for j := range np {
		o.widen(at(d, j*panel*steps), o.panel(j, 0), steps)
	}
	return operand{base: at(d, 0), stride: 4 * panel * steps, step: 4 * panel, tiles: o.flat}
}

// side is a left side [m,k] as tiles read it, tile after tile of up to height
// rows: as it lies in memory, ld values between rows, or packed, each tile
// [ceil(k/16)][tile rows][16].
type side struct {
	data   []float32
	m, k   int
	height int
	ld     int     // 0 if packed
	kp     int     // values per packed row: k rounded up to chunks
	outer  int     // bytes between steps of b if data is [k][ld], read by tiles of table outer
	buf    *buffer // of packed data
}

func newPacked(m, k, height int) side {
	kp := (k + chunk - 1) &^ (chunk - 1)
	buf := scratch(m * kp)
	return side{data: buf.f, m: m, k: k, height: height, kp: kp, buf: buf}
}

func (p side) free() {
	if p.buf != nil {
		p.buf.free()
	}
}

// tile returns the address of step k of the tile that starts at row i, its
// strides (see tileFunc), and its height.
func (p side) tile(i, k int) (a unsafe.Pointer, lda, step, r int) {
	r = min(p.height, p.m-i)
	if p.outer > 0 {
		return at(p.data, k*p.ld+i), 4 * p.ld, p.outer, r
	}
	if p.ld > 0 {
		return at(p.data, i*p.ld+k), 4 * p.ld, 4 * chunk, r
	}
	return at(p.data, i*p.kp+k*r), 4 * chunk, 4 * chunk * r, r
}

// from returns rows [i0,i1); i0 starts a tile.
func (p side) from(i0, i1 int) side {
	if p.outer > 0 {
		p.data, p.m = p.data[i0:], i1-i0
		return p
	}
	p.data, p.m = p.data[i0*max(p.ld, p.kp):], i1-i0
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
func (l left) height(o operand) int {
	t := o.tiles
	if l.columns && !o.outer {
		return t.rows &^ 3
	}
	n := max(1, (l.m+t.rows-1)/t.rows)
	return max(1, (l.m+n-1)/n)
}

// direct returns l as it lies, if tiles can read it so: not across columns, not
// one value beyond an odd k, and not where the rows of a tile would fight for
// the same few sets of the first-level cache.
func (l left) direct(height int, pairs bool) (side, bool) {
	if l.columns || pairs && l.k%2 != 0 || height > 4 && l.ld%badStride == 0 {
		return side{}, false
	}
	return side{data: l.data, m: l.m, k: l.k, height: height, ld: l.ld}, true
}

// pack packs rows [i0,i1) into p, which has room for all of l or for just
// them; o is where row i0 goes.
func (l left) pack(m *micro, p side, i0, i1, o int) {
	if l.columns {
		l.packColumns(m, p, i0, i1, o)
		return
	}
	for i := i0; i < i1; i += p.height {
		r, d := min(p.height, l.m-i), p.data[(i-i0+o)*p.kp:]
		for q := range r {
			packRow(m, d[q*chunk:], l.data[(i+q)*l.ld:][:l.k], r)
		}
	}
}

// packColumns is pack for columns. It takes 16 steps of all tiles at a time,
// because those are near each other in memory.
func (l left) packColumns(m *micro, p side, i0, i1, o int) {
	for c := 0; c < l.k; c += chunk {
		n := min(chunk, l.k-c)
		for i := i0; i < i1; i += p.height {
			r := min(p.height, l.m-i)
			d, src := p.data[(i-i0+o)*p.kp+c*r:][:r*chunk], l.data[c*l.ld+i:]
			if r%4 == 0 && n == chunk {
				m.transpose(&d[0], &src[0], 4*chunk, 4*l.ld, r)
				continue
			}
			clear(d)
			for q := range n {
				for x, v := range src[q*l.ld:][:r] {
					d[q+x*chunk] = v
				}
			}
		}
	}
}

// packRow writes one row of a tile of r rows; d starts at that row.
func packRow(m *micro, d, row []float32, r int) {
	n := len(row) / chunk
	if n > 0 {
		m.copy(&d[0], &row[0], 4*chunk*r, 4*chunk, n)
	}
	if n*chunk < len(row) {
		last := d[n*chunk*r:][:chunk]
		clear(last[copy(last, row[n*chunk:]):])
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
	if r.transposed {
		for p := j0; p < j1; p++ {
			panelT(m, d[(p-j0)*panel*r.k:], r.data[p*panel*r.ld:], min(panel, r.n-p*panel), r.k, r.ld)
		}
		return
	}
	// Whole panels of one row are neighbours in memory: copy them together.
	full := min(j1, r.n/panel)
	if n := full - j0; n > 1 {
		for k := range r.k {
			src, dst := r.data[k*r.ld+j0*panel:], d[k*panel:]
			m.copy(&dst[0], &src[0], 4*panel*r.k, 4*panel, n)
			m.copy(&dst[chunk], &src[chunk], 4*panel*r.k, 4*panel, n)
		}
		d, j0 = d[n*panel*r.k:], full
	}
	for p := j0; p < j1; p++ {
		panelN(m, d[(p-j0)*panel*r.k:], r.data[p*panel:], min(panel, r.n-p*panel), r.k, r.ld)
	}
}

// panelN copies k rows of w values to a panel [k][32].
func panelN(m *micro, d, b []float32, w, k, ld int) {
	if w == panel {
		if k > 0 {
			m.copy(&d[0], &b[0], 4*panel, 4*ld, k)
			m.copy(&d[chunk], &b[chunk], 4*panel, 4*ld, k)
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
