package cpu

import "github.com/opencharacter/opencharacter/tensor/internal/kernel"

// queryBlock is how many query rows one step of the backward pass holds.
const queryBlock = 48

// AttentionBackward is the gradient of Attention. A task is one key/value head
// of one packed row; it walks the queries in blocks, in order, so that the
// chains of dk and dv run over (position, head) ascending. Per block
//
//	S = Q K^T, P = exp(Scale*S - top)/sum, dP = dO V^T, dS = P*(dP - D)*Scale
//	dQ = dS K, dV += P^T dO, dK += dS^T Q
//
// With a window a block starts at the panel of keys that its first query
// attends to first; what that leaves out of a chain are zeros.
func (k *Kernels) AttentionBackward(dq, dk, dv, dout, out, q, key, val kernel.Matrix, offsets []int32, s kernel.AttentionShape, stats kernel.Matrix) {
	clear(dk.Data)
	clear(dv.Data)
	parallel((len(offsets)-1)*s.KVHeads, func(t int) {
		r, h := t/s.KVHeads, t%s.KVHeads
		o, n := int(offsets[r]), int(offsets[r+1]-offsets[r])
		if n > 0 {
			b := &backward{Kernels: k, s: s, o: o, n: n, h: h, dq: dq, dk: dk, dv: dv, dout: dout, out: out, q: q, key: key, val: val, stats: stats}
			b.run()
		}
	})
}

// backward is one task.
type backward struct {
	*Kernels
	s                                         kernel.AttentionShape
	o, n, h                                   int // first position, length, key/value head
	dq, dk, dv, dout, out, q, key, val, stats kernel.Matrix
}

func (b *backward) run() {
	m, hd, group := b.micro, b.s.HeadDim, b.s.Heads/b.s.KVHeads
	step := max(1, queryBlock/group) // positions of a block
	rows := step * group
	whole := (b.n + panel - 1) / panel * panel
	ld := whole + chunk // keeps rows apart in the cache
	width := (hd + panel - 1) / panel * panel

	buf := scratch(whole*hd*2 + b.n*width + 2*rows*ld + 2*rows*width + rows*hd)
	defer buf.free()
	rest := buf.f
	take := func(n int) []float32 {
		s := rest[:n]
		rest = rest[n:]
		return s
	}
	kv := b.o*b.key.Cols + b.h*hd
	pack := func(r right, d []float32) operand {
		r.pack(m, d, 0, (r.n+panel-1)/panel)
		p := b.panels(r.k)
		p.base = at(d, 0)
		return p
	}
	keysT := pack(right{b.key.Data[kv:], b.n, hd, b.key.Cols, true}, take(whole*hd))
	valuesT := pack(right{b.val.Data[kv:], b.n, hd, b.val.Cols, true}, take(whole*hd))
	keys := pack(right{b.key.Data[kv:], hd, b.n, b.key.Cols, false}, take(b.n*width))
	sc, dp := take(rows*ld), take(rows*ld)
	qb, db, dqb := take(rows*width), take(rows*width), take(rows*hd)

	for lo := 0; lo < b.n; lo += step {
		hi := min(lo+step, b.n)
		// Keys outside [start,hi) are masked for the whole block.
		start := b.s.First(lo+1) / panel * panel
		nr, nk := (hi-lo)*group, hi-start
		qs, gs := b.gather(b.q, lo, hi), b.gather(b.dout, lo, hi)
		for _, x := range []struct {
			rows side
			keys operand
			dst  []float32
		}{{qs, keysT.skip(start/panel, 0), sc}, {gs, valuesT.skip(start/panel, 0), dp}} {
			block(x.dst, ld, (nk+panel-1)/panel*panel, x.rows, x.keys, false)
			x.rows.free()
		}
		for i := range nr {
			pos, head := lo+i/group, b.h*group+i%group
			st := b.stats.Row(b.o + pos)[2*head:][:2]
			p, g := sc[i*ld:][:(nk+panel-1)/panel*panel], dp[i*ld:]
			for j := range b.s.First(pos+1) - start {
				p[j], g[j] = negInf, 0
			}
			for j := pos + 1 - start; j < len(p); j++ {
				p[j], g[j] = negInf, 0
			}
			m.expOf(p, p, b.s.Scale, -st[0])
			m.scale(&p[0], len(p), st[1])
			d := m.dotOf(b.dout.Row(b.o + pos)[head*hd:][:hd], b.out.Row(b.o + pos)[head*hd:][:hd])
			m.softBack(&g[0], &p[0], &g[0], len(p), d, b.s.Scale)
		}
		ds := b.leftSide(left{dp, nr, nk, ld, false}, &m.f32)
		block(dqb, hd, hd, ds, keys.skip(0, start), false)
		ds.free()
		for i := range nr {
			pos, head := lo+i/group, b.h*group+i%group
			copy(b.dq.Row(b.o + pos)[head*hd:][:hd], dqb[i*hd:])
		}
		// The block's rows as right sides [rows][headDim].
		b.rowPanels(qb, b.q, lo, hi)
		b.rowPanels(db, b.dout, lo, hi)
		for _, x := range []struct {
			coef, rows []float32
			dst        kernel.Matrix
		}{{sc, db, b.dv}, {dp, qb, b.dk}} {
			c := b.leftSide(left{x.coef, nk, nr, ld, true}, &m.f32)
			op := b.panels(nr)
			op.base = at(x.rows, 0)
			block(x.dst.Data[kv+start*x.dst.Cols:], x.dst.Cols, hd, c, op, true)
			c.free()
		}
	}
}

// gather packs the query rows of positions [lo,hi) as a left side.
func (b *backward) gather(x kernel.Matrix, lo, hi int) side {
	hd, group := b.s.HeadDim, b.s.Heads/b.s.KVHeads
	l := left{m: (hi - lo) * group, k: hd}
	p := newPacked(l.m, hd, l.height(operand{tiles: &b.micro.f32}))
	for i := range l.m {
		first := i / p.height * p.height
		r := min(p.height, l.m-first)
		packRow(b.micro, p.data[first*p.kp+(i-first)*chunk:], x.Row(b.o + lo + i/group)[(b.h*group+i%group)*hd:][:hd], r)
	}
	return p
}

// rowPanels packs the same rows as a right side.
func (b *backward) rowPanels(d []float32, x kernel.Matrix, lo, hi int) {
	hd, group := b.s.HeadDim, b.s.Heads/b.s.KVHeads
	n := (hi - lo) * group
	for i := range n {
		row := x.Row(b.o + lo + i/group)[(b.h*group+i%group)*hd:][:hd]
		for c := 0; c < hd; c += panel {
			w := d[c*n+i*panel:][:panel]
			if c+panel <= hd {
				b.micro.copy(&w[0], &row[c], 4*chunk, 4*chunk, panel/chunk)
				continue
			}
			clear(w[copy(w, row[c:]):])
		}
	}
}
