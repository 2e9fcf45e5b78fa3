package main

import (
	"fmt"
	"math/rand/v2"

	"github.com/opencharacter/opencharacter/tensor"
)

func cases() (all []bench) {
	const vocab, width, ffn = 49152, 576, 1536
	for _, s := range [][2]int{{width, width}, {width, ffn}, {ffn, width}} {
		w := weight(s[1], s[0])
		for _, m := range []int{1, 2, 4, 8, 12, 16, 32, 64, 128, 512, 1200} {
			x, y, in, out := random(m, s[0]), random(m, s[1]), s[0], s[1]
			f := 2 * float64(m) * float64(in*out)
			all = append(all, bench{name: fmt.Sprintf("linear %dx%d->%d", m, in, out), kind: "linear", m: m, k: in, n: out,
				flops: f, run: func() { tensor.Linear(y, x, w, false) }})
			if m >= 512 {
				all = append(all, bench{name: fmt.Sprintf("backward %dx%d->%d", m, out, in), kind: "backward", m: m, k: out, n: in,
					flops: f, run: func() { tensor.LinearBackward(x, y, w, true) }})
			}
		}
	}
	for _, rank := range []int{32, 64} {
		const m = 1000
		for _, n := range []int{width, ffn} {
			x, a, h, y := random(m, n), random(rank, n), random(m, rank), random(m, n)
			b, da, db := random(n, rank), random(rank, n), random(n, rank)
			f := 2 * float64(m*n*rank)
			for _, c := range []struct {
				name string
				run  func()
			}{
				{"NT h=x.A", func() { mode.MatMulNT(h, x, a, false) }},
				{"NT y+=h.B", func() { mode.MatMulNT(y, h, b, true) }},
				{"NN dh=dy.B", func() { mode.MatMulNN(h, y, b, false) }},
				{"NN dx+=dh.A", func() { mode.MatMulNN(x, h, a, true) }},
				{"TN dB+=dy.h", func() { mode.MatMulTN(db, y, h, true) }},
				{"TN dA+=dh.x", func() { mode.MatMulTN(da, h, x, true) }},
			} {
				all = append(all, bench{name: fmt.Sprintf("lora %s m=%d n=%d r=%d", c.name, m, n, rank), flops: f, run: c.run})
			}
		}
	}
	head := weight(vocab, width)
	for _, m := range []int{1, 16, 64} {
		x, y := random(m, width), tensor.New(m, vocab)
		all = append(all, bench{name: fmt.Sprintf("linear head %d", m), kind: "linear", m: m, k: width, n: vocab, flops: 2 * float64(m*width*vocab), run: func() { tensor.Linear(y, x, head, false) }})
	}
	for _, m := range []int{50, 300} {
		x, dx := random(m, width), tensor.New(m, width)
		lp, lse, targets := make([]float32, m), make([]float32, m), make([]int32, m)
		f := 2 * float64(m*width*vocab)
		all = append(all,
			bench{name: fmt.Sprintf("head logprob %d", m), flops: f, run: func() { tensor.HeadLogProb(lp, lse, x, head, targets) }},
			bench{name: fmt.Sprintf("head logprob and gradient %d", m), flops: 2 * f, run: func() { tensor.HeadLogProbGrad(lp, dx, x, head, targets) }})
	}
	return append(append(append(all, formats()...), attentions()...), rows()...)
}

// formats are products with weights of every format: one shape that stays in the cache of
// the machine, and for one row many matrices in turn, which do not.
func formats() (all []bench) {
	const in, out, copies = 576, 1536, 256
	for _, f := range []tensor.Format{tensor.StoredBF16, tensor.Q4, tensor.Q8} {
		w := stored(f, out, in)
		for _, m := range []int{1, 8, 16, 64, 512} {
			x, y := random(m, in), tensor.New(m, out)
			b := bench{name: fmt.Sprintf("%v %dx%d->%d", f, m, in, out), flops: 2 * float64(m*in*out), exact: true,
				run: func() { tensor.Linear(y, x, w, false) }}
			if m == 1 {
				b.bytes = w.Bytes()
			}
			all = append(all, b)
		}
		var many []*tensor.Weight // made when the line is measured
		x, y := random(1, in), tensor.New(1, out)
		all = append(all, bench{name: fmt.Sprintf("%v 1x%d->%d, %d matrices", f, in, out, copies), flops: 2 * copies * in * out, bytes: copies * w.Bytes(), exact: true,
			run: func() {
				for len(many) < copies {
					many = append(many, stored(f, out, in))
				}
				for _, w := range many {
					tensor.Linear(y, x, w, false)
				}
			}})
	}
	return all
}

// stored is a random weight of format f in mode exact.
func stored(f tensor.Format, out, in int) *tensor.Weight {
	if f == tensor.StoredBF16 {
		w := weight(out, in)
		w.SetCompute(tensor.Exact)
		return w
	}
	w, q, scale, minimum := tensor.NewQuantized(out, in, f), make([]byte, in), make([]uint16, in/tensor.Block), make([]uint16, in/tensor.Block)
	for b := range scale { // 0.004 to 0.03, and about -8 times that
		scale[b], minimum[b] = uint16(7<<10+rng.IntN(3<<10)), uint16(0x8000+10<<10+rng.IntN(3<<10))
	}
	if f == tensor.Q8 {
		minimum = nil
	}
	for i := range out {
		for j := range q {
			if q[j] = byte(rng.Uint32()); f == tensor.Q4 {
				q[j] &= 15
			}
		}
		w.SetBlocks(i, q, scale, minimum)
	}
	return w
}

func attentions() (all []bench) {
	s := tensor.AttentionShape{Heads: 9, KVHeads: 3, HeadDim: 64, Scale: 0.125}
	for _, n := range []int{100, 300, 1000} {
		var offsets []int32
		rows := max(1, 1000/n)
		for i := range rows + 1 {
			offsets = append(offsets, int32(i*n))
		}
		t := rows * n
		q, k, v, dst, stats := random(t, 576), random(t, 192), random(t, 192), random(t, 576), tensor.New(t, 18)
		dq, dk, dv := random(t, 576), random(t, 192), random(t, 192)
		f := 4 * 9 * 64 * float64(rows) * float64(n) * float64(n+1) / 2
		all = append(all,
			bench{name: fmt.Sprintf("attention %d rows of %d", rows, n), flops: f, run: func() { tensor.Attention(dst, q, k, v, offsets, s, stats) }},
			bench{name: fmt.Sprintf("attention backward %d rows of %d", rows, n), flops: 2.5 * f, run: func() {
				tensor.AttentionBackward(dq, dk, dv, dst, dst, q, k, v, offsets, s, stats)
			}})
	}
	for _, rows := range []int{1, 16, 64} {
		const n = 400
		pages := (n + tensor.PageSize - 1) / tensor.PageSize
		kv := tensor.NewKV(1, rows*pages, s)
		q, dst := random(rows, 576), random(rows, 576)
		tables, lengths := make([][]int32, rows), make([]int32, rows)
		k, v := random(1, 192), random(1, 192)
		for i := range rows {
			for p := range pages {
				tables[i] = append(tables[i], int32(i*pages+p))
			}
			lengths[i] = n
			for j := range n {
				kv.Write(0, k, v, []int32{tables[i][j/tensor.PageSize]}, []int32{int32(j % tensor.PageSize)})
			}
		}
		all = append(all, bench{name: fmt.Sprintf("attention kv %d rows, %d long", rows, n), flops: 4 * 9 * 64 * n * float64(rows),
			run: func() { tensor.AttentionKV(dst, q, kv, 0, tables, lengths, 0) }})
	}
	for i := range all {
		all[i].exact = true
	}
	return all
}

func rows() []bench {
	const m = 1000
	x, y, z, g, h := random(m, 576), random(m, 576), random(m, 1536), random(m, 1536), random(m, 1536)
	a, b := random(m, 1536), random(m, 1536)
	w, inv := x.Row(0), make([]float32, m)
	rope, pos := tensor.NewRoPE(64, 1e5, 1000), make([]int32, m)
	p, gr, mo, v := random(1, 1<<20).Data(), random(1, 1<<20).Data(), make([]float32, 1<<20), make([]float32, 1<<20)
	logits, probs := random(1, 49152).Data(), make([]float32, 49152)
	o := tensor.AdamW{LR: 1e-6, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Step: 1}
	return []bench{
		{name: "rmsnorm", elems: m * 576, run: func() { tensor.RMSNorm(y, x, w, 1e-5, inv) }},
		{name: "rmsnorm backward", elems: m * 576, run: func() { tensor.RMSNormBackward(y, x, x, w, inv, false) }},
		{name: "rope", elems: m * 576, run: func() { rope.Apply(y, 9, pos) }},
		{name: "add", elems: m * 1536, run: func() { tensor.Add(z, g) }},
		{name: "swiglu", elems: m * 1536, run: func() { tensor.SwiGLU(z, g, h) }},
		{name: "swiglu backward", elems: m * 1536, run: func() { tensor.SwiGLUBackward(a, b, z, g, h) }},
		{name: "softmax 49152 (exp)", elems: 49152, run: func() { tensor.Softmax(probs, logits, 1) }},
		{name: "logsumexp 49152 (exp)", elems: 49152, run: func() { tensor.LogSumExp(logits) }},
		{name: "adamw", elems: 1 << 20, run: func() { o.Apply(p, gr, mo, v) }},
		{name: "sum of squares", elems: 1 << 20, run: func() { tensor.SumSquares(gr) }},
	}
}

var rng = rand.New(rand.NewPCG(1, 2))

func random(rows, cols int) *tensor.Tensor {
	t := tensor.New(rows, cols)
	for i, d := 0, t.Data(); i < len(d); i++ {
		d[i] = float32(rng.NormFloat64())
	}
	return t
}

func weight(out, in int) *tensor.Weight {
	w, row := tensor.NewWeight(out, in), make([]float32, in)
	w.SetCompute(mode)
	for i := range out {
		for j := range row {
			row[j] = float32(rng.NormFloat64()) * 0.03
		}
		w.SetRow(i, row)
	}
	return w
}
