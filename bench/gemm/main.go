// Command gemm measures the tensor kernels on the shapes of a small language
// model and prints each as a share of the machine's multiply-add peak.
//
// The peak is measured again next to every shape, in the same turn, so that
// other load on the machine lowers both. Each figure is the median of its
// turns; the spread stands beside it.
//
//	go run ./bench/gemm [-turns 15] [-only linear] [-threads 0]
//
// With -threads 1 time is what the thread used, on Linux, so other load
// disturbs caches only; with more threads it is the clock on the wall.
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"github.com/opencharacter/opencharacter/tensor"
)

func main() {
	turns := flag.Int("turns", 15, "measurements per line; the median is printed")
	only := flag.String("only", "", "run lines whose name contains this")
	profile := flag.String("cpuprofile", "", "write a processor profile to this file")
	threads := flag.Int("threads", 0, "threads; 0 means all")
	flag.Parse()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "gemm: -cpuprofile:", err)
			os.Exit(1)
		}
		defer pprof.StopCPUProfile()
	}
	tensor.SetThreads(*threads)
	if *threads == 1 {
		runtime.LockOSThread()
		now = processorTime
	}
	fmt.Printf("variant %s, medians of %d turns\n", tensor.Variant(), *turns)
	fmt.Printf("%-34s %10s %9s %9s %7s   %s\n", "", "us", "GF/s", "peak", "share", "share p10-p90")
	for _, c := range cases() {
		if strings.Contains(c.name, *only) {
			c.measure(*turns)
		}
	}
}

var now = func() time.Duration { return time.Since(start) }

var start = time.Now()

// peak is the multiply-add peak by the clock in use.
func peak() float64 {
	t := now()
	flops := tensor.Peak(2 * time.Millisecond)
	return flops / (now() - t).Seconds()
}

// bench is one line: run does flops operations, or handles elems elements.
type bench struct {
	name  string
	flops float64
	elems float64
	run   func()
}

func (b bench) measure(turns int) {
	b.run()
	t := now()
	b.run()
	n := 1 + int(10*time.Millisecond/max(now()-t, time.Microsecond))
	var us, rate, peaks, share []float64
	for range turns {
		before := peak()
		t := now()
		for range n {
			b.run()
		}
		d := (now() - t).Seconds() / float64(n)
		p := (before + peak()) / 2
		us = append(us, d*1e6)
		peaks = append(peaks, p/1e9)
		rate = append(rate, (b.flops+b.elems)/d/1e9)
		share = append(share, b.flops/d/p)
	}
	for _, s := range [][]float64{us, rate, peaks, share} {
		slices.Sort(s)
	}
	at := func(s []float64, q float64) float64 { return s[int(q*float64(len(s)-1)+0.5)] }
	if b.elems > 0 {
		fmt.Printf("%-34s %10.1f %9.2f Gelem/s (peak %.0f GF/s)\n", b.name, at(us, .5), at(rate, .5), at(peaks, .5))
		return
	}
	fmt.Printf("%-34s %10.1f %9.1f %9.1f %6.1f%%   %.1f-%.1f\n", b.name, at(us, .5), at(rate, .5), at(peaks, .5),
		100*at(share, .5), 100*at(share, .1), 100*at(share, .9))
}

func cases() (all []bench) {
	const vocab, width, ffn = 49152, 576, 1536
	for _, s := range [][2]int{{width, width}, {width, ffn}, {ffn, width}} {
		w := weight(s[1], s[0])
		for _, m := range []int{1, 2, 4, 8, 12, 16, 32, 64, 128, 512, 1200} {
			x, y := random(m, s[0]), random(m, s[1])
			f := 2 * float64(m) * float64(s[0]*s[1])
			all = append(all, bench{name: fmt.Sprintf("linear %dx%d->%d", m, s[0], s[1]), flops: f, run: func() { tensor.Linear(y, x, w, false) }})
			if m >= 512 {
				all = append(all, bench{name: fmt.Sprintf("backward %dx%d->%d", m, s[1], s[0]), flops: f, run: func() { tensor.LinearBackward(x, y, w, true) }})
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
				{"NT h=x.A", func() { tensor.MatMulNT(h, x, a, false) }},
				{"NT y+=h.B", func() { tensor.MatMulNT(y, h, b, true) }},
				{"NN dh=dy.B", func() { tensor.MatMulNN(h, y, b, false) }},
				{"NN dx+=dh.A", func() { tensor.MatMulNN(x, h, a, true) }},
				{"TN dB+=dy.h", func() { tensor.MatMulTN(db, y, h, true) }},
				{"TN dA+=dh.x", func() { tensor.MatMulTN(da, h, x, true) }},
			} {
				all = append(all, bench{name: fmt.Sprintf("lora %s m=%d n=%d r=%d", c.name, m, n, rank), flops: f, run: c.run})
			}
		}
	}
	head := weight(vocab, width)
	for _, m := range []int{1, 16, 64} {
		x, y := random(m, width), tensor.New(m, vocab)
		all = append(all, bench{name: fmt.Sprintf("linear head %d", m), flops: 2 * float64(m*width*vocab), run: func() { tensor.Linear(y, x, head, false) }})
	}
	for _, m := range []int{50, 300} {
		x, dx := random(m, width), tensor.New(m, width)
		lp, lse, targets := make([]float32, m), make([]float32, m), make([]int32, m)
		f := 2 * float64(m*width*vocab)
		all = append(all,
			bench{name: fmt.Sprintf("head logprob %d", m), flops: f, run: func() { tensor.HeadLogProb(lp, lse, x, head, targets) }},
			bench{name: fmt.Sprintf("head logprob and gradient %d", m), flops: 2 * f, run: func() { tensor.HeadLogProbGrad(lp, dx, x, head, targets) }})
	}
	return append(append(all, attentions()...), rows()...)
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
			run: func() { tensor.AttentionKV(dst, q, kv, 0, tables, lengths) }})
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
	for i := range out {
		for j := range row {
			row[j] = float32(rng.NormFloat64()) * 0.03
		}
		w.SetRow(i, row)
	}
	return w
}
