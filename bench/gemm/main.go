// Command gemm measures the tensor kernels on the shapes of a small language
// model and prints each as a share of the machine's multiply-add peak, as a
// table and then as one JSON line.
//
// The peak is measured again next to every shape, in the same turn, so that
// other load on the machine lowers both. Each figure is the median of its
// turns; the spread stands beside it.
//
//	go run ./bench/gemm [-turns 15] [-only linear] [-threads 0] [-compute bf16]
//
// Lines "bf16", "q4" and "q8" compare the formats of weights, always in mode exact;
// for one row they tell how many bytes of weights are read in a second.
//
// With -compute bf16 products run in that mode, and their peak is that of its
// own instructions. Attention and all else stay as they are.
//
// With -threads 1 time is what the thread used, on Linux, so other load
// disturbs caches only; with more threads it is the clock on the wall.
// bench/compare_gemm.py runs it in turn with OpenBLAS and torch.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
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
	peers := flag.Bool("peers", false, "run only the products with weights, which have peers")
	profile := flag.String("cpuprofile", "", "write a processor profile to this file")
	threads := flag.Int("threads", 0, "threads; 0 means all")
	compute := flag.String("compute", "exact", "mode of the products: exact or bf16")
	flag.Parse()
	var err error
	if mode, err = tensor.ParseCompute(*compute); err != nil {
		fmt.Fprintln(os.Stderr, "gemm: -compute:", err)
		os.Exit(2)
	}
	if *turns < 1 || *threads < 0 {
		fmt.Fprintln(os.Stderr, "gemm: -turns must be at least 1 and -threads not negative")
		os.Exit(2)
	}
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
	fmt.Printf("variant %s, medians of %d turns\n", tensor.VariantOf(mode), *turns)
	fmt.Printf("%-34s %10s %9s %9s %7s   %s\n", "", "us", "GF/s", "peak", "share", "share p10-p90")
	out := report{Variant: tensor.VariantOf(mode), Threads: *threads, Turns: *turns}
	for _, c := range cases() {
		if strings.Contains(c.name, *only) && (c.kind != "" || !*peers) {
			out.Lines = append(out.Lines, c.measure(*turns))
		}
	}
	line, err := json.Marshal(out)
	if err != nil {
		panic(err) // finite numbers and strings always encode
	}
	fmt.Println(string(line))
}

// report is the JSON line.
type report struct {
	Variant string   `json:"variant"`
	Threads int      `json:"threads"`
	Turns   int      `json:"turns"`
	Lines   []result `json:"lines"`
}

// result is one line: medians of its turns. Kind and shape stand with products that have peers.
type result struct {
	Name  string  `json:"name"`
	Kind  string  `json:"kind,omitempty"` // linear: y[m,n] = x[m,k].W^T; backward: y[m,n] += x[m,k].W
	M     int     `json:"m,omitempty"`
	K     int     `json:"k,omitempty"`
	N     int     `json:"n,omitempty"`
	Micro float64 `json:"us"`
	Rate  float64 `json:"gflops,omitempty"` // 1e9 operations a second
	Elems float64 `json:"gelems,omitempty"` // 1e9 elements a second
	Peak  float64 `json:"peak_gflops"`
	Share float64 `json:"share,omitempty"`  // of the peak
	Bytes float64 `json:"gbytes,omitempty"` // 1e9 bytes of weights a second
}

var now = func() time.Duration { return time.Since(start) }

var start = time.Now()

// mode is that of the products.
var mode tensor.Compute

// peak is the peak of a mode by the clock in use.
func peak(c tensor.Compute) float64 {
	t := now()
	flops := tensor.PeakOf(c, 2*time.Millisecond)
	return flops / (now() - t).Seconds()
}

// bench is one line: run does flops operations, or handles elems elements.
type bench struct {
	name    string
	kind    string
	m, k, n int
	flops   float64
	elems   float64
	bytes   int64 // of weights that run reads once
	run     func()
	exact   bool // in every mode
}

// measure prints the line and returns it.
func (b bench) measure(turns int) result {
	b.run()
	t := now()
	b.run()
	n := 1 + int(10*time.Millisecond/max(now()-t, time.Microsecond))
	var us, rate, peaks, share []float64
	mode := mode
	if b.exact || b.elems > 0 {
		mode = tensor.Exact
	}
	for range turns {
		before := peak(mode)
		t := now()
		for range n {
			b.run()
		}
		d := (now() - t).Seconds() / float64(n)
		p := (before + peak(mode)) / 2
		us = append(us, d*1e6)
		peaks = append(peaks, p/1e9)
		rate = append(rate, (b.flops+b.elems)/d/1e9)
		share = append(share, b.flops/d/p)
	}
	for _, s := range [][]float64{us, rate, peaks, share} {
		slices.Sort(s)
	}
	at := func(s []float64, q float64) float64 { return s[int(q*float64(len(s)-1)+0.5)] }
	r := result{Name: b.name, Kind: b.kind, M: b.m, K: b.k, N: b.n, Micro: at(us, .5), Peak: at(peaks, .5)}
	if b.elems > 0 {
		r.Elems = at(rate, .5)
		fmt.Printf("%-34s %10.1f %9.2f Gelem/s (peak %.0f GF/s)\n", b.name, r.Micro, r.Elems, r.Peak)
		return r
	}
	r.Rate, r.Share = at(rate, .5), at(share, .5)
	more := ""
	if b.bytes > 0 {
		r.Bytes = float64(b.bytes) / r.Micro / 1e3
		more = fmt.Sprintf("   %.1f GB/s", r.Bytes)
	}
	fmt.Printf("%-34s %10.1f %9.1f %9.1f %6.1f%%   %.1f-%.1f%s\n", b.name, r.Micro, r.Rate, r.Peak,
		100*r.Share, 100*at(share, .1), 100*at(share, .9), more)
	return r
}
