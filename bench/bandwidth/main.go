// Command bandwidth measures how fast this machine reads memory, and what share of
// that the engine reaches where memory is its limit: decoding one row, which reads
// every weight once a token. It prints a table and one JSON line.
//
//	go run ./bench/bandwidth [-model M.gguf] [-threads 2] [-turns 7]
//
// The memory is allocated as the engine allocates its weights: large blocks that ask
// for huge pages. It is read by a loop of one word a cache line and, where the
// processor has it, by vector loads that prefetch as the engine's matrix-vector
// kernel does; shares are of the faster one. All are measured in turn, so that other
// load on the machine lowers each of them; figures are medians.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencharacter/opencharacter/lm/gguf"
	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/tensor"
)

func main() {
	model := flag.String("model", "", "GGUF file; without one the decoding of a row is left out")
	threads := flag.Int("threads", runtime.GOMAXPROCS(0), "threads")
	turns := flag.Int("turns", 7, "turns of which the median counts")
	megabytes := flag.Int("mb", 512, "memory to read; far more than the caches hold")
	tokens := flag.Int("tokens", 16, "tokens of a turn of decoding")
	compute := flag.String("compute", "exact", "arithmetic of the decoding's products: exact or bf16")
	weights := flag.String("weights", "bf16", "how the model keeps its weights: bf16, or quantized as in the file")
	flag.Parse()
	if *weights != "bf16" && *weights != "quantized" {
		fmt.Fprintf(os.Stderr, "bandwidth: -weights %q is not known; give bf16 or quantized\n", *weights)
		os.Exit(2)
	}
	if err := run(*model, *compute, *weights == "quantized", *threads, *turns, *megabytes, *tokens); err != nil {
		fmt.Fprintln(os.Stderr, "bandwidth:", err)
		os.Exit(1)
	}
}

// probe is one line of the table: once reads so many bytes.
type probe struct {
	name    string
	bytes   float64
	ceiling bool // one of the loops that the others are a share of
	once    func() error
	seconds []float64
}

// result is a line of the JSON.
type result struct {
	Name  string  `json:"name"`
	Rate  float64 `json:"gb_per_s"`
	Share float64 `json:"share"` // of the fastest loop
}

func run(model, compute string, quantized bool, threads, turns, megabytes, tokens int) error {
	if threads < 1 || turns < 1 || megabytes < 1 || tokens < 1 {
		return errors.New("-threads, -turns, -mb and -tokens must be at least 1")
	}
	mode, err := tensor.ParseCompute(compute)
	if err != nil {
		return fmt.Errorf("-compute: %w", err)
	}
	tensor.SetThreads(threads)
	memory := tensor.New(megabytes, 1<<18).Data() // rows of 1 MiB
	for i := 0; i < len(memory); i += 1024 {
		memory[i] = 1 // untouched pages would all be the one page of zeros
	}
	probes := loops(memory, threads)
	probes = append(probes, headProbe())
	if model != "" {
		p, err := decodeProbe(model, mode, quantized, tokens)
		if err != nil {
			return err
		}
		probes = append(probes, p)
	}
	for turn := range turns + 1 { // the first warms up
		for _, p := range probes {
			start := time.Now()
			if err := p.once(); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			if turn > 0 {
				p.seconds = append(p.seconds, time.Since(start).Seconds())
			}
		}
	}
	return report(probes, tensor.VariantOf(mode), threads, megabytes, tokens)
}

func report(probes []*probe, variant string, threads, megabytes, tokens int) error {
	rate := func(p *probe) float64 {
		slices.Sort(p.seconds)
		return p.bytes / p.seconds[len(p.seconds)/2] / 1e9
	}
	top := 0.0
	for _, p := range probes {
		if p.ceiling {
			top = max(top, rate(p))
		}
	}
	fmt.Printf("CPU: %s; %s; variant %s, %d threads, %d MiB, medians of %d turns\n", processor(), runtime.Version(), variant, threads, megabytes, len(probes[0].seconds))
	fmt.Printf("%-44s %8s %7s\n", "", "GB/s", "share")
	out := map[string]any{"cpu": processor(), "go": runtime.Version(), "variant": variant, "threads": threads}
	var results []result
	for _, p := range probes {
		r := result{p.name, rate(p), rate(p) / top}
		results = append(results, r)
		fmt.Printf("%-44s %8.1f %6.0f%%\n", r.Name, r.Rate, 100*r.Share)
		if p.name == decoding {
			out["tokens_per_s"] = r.Rate * 1e9 / p.bytes * float64(tokens)
			fmt.Printf("    %.1f tokens/s, %.0f MB of weights a token\n", out["tokens_per_s"], p.bytes/float64(tokens)/1e6)
		}
	}
	out["lines"] = results
	line, err := json.Marshal(out)
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	return nil
}

// processor is the processor's name, where the system tells it, or its architecture.
func processor() string {
	data, _ := os.ReadFile("/proc/cpuinfo") // other systems have none
	for line := range strings.Lines(string(data)) {
		if name, found := strings.CutPrefix(line, "model name"); found {
			return strings.Trim(name, "\t :\n")
		}
	}
	return runtime.GOARCH
}

// loops read the memory, each thread its part.
func loops(memory []float32, threads int) []*probe {
	read := func(name string, loop func([]float32) float32) *probe {
		return &probe{name: name, bytes: 4 * float64(len(memory)), ceiling: true, once: func() error {
			var all sync.WaitGroup
			part := len(memory) / threads / 4096 * 4096
			for i := range threads {
				all.Go(func() { sink(loop(memory[i*part : (i+1)*part])) })
			}
			all.Wait()
			return nil
		}}
	}
	list := []*probe{read("read, one word a line", words)}
	if hasVector {
		list = append(list, read("read, vectors with prefetch", vectors))
	}
	return list
}

// words reads one word of every cache line: the line has to come, the rest is little.
func words(x []float32) float32 {
	var a, b, c, d float32
	for ; len(x) >= 64; x = x[64:] {
		a, b, c, d = a+x[0], b+x[16], c+x[32], d+x[48]
	}
	return a + b + c + d
}

// sink keeps the compiler from leaving a loop out.
func sink(x float32) { sunk.Store(math.Float32bits(x)) }

var sunk atomic.Uint32

// headProbe is the model's largest product: one row times a vocabulary.
func headProbe() *probe {
	const in, out = 576, 4 * 49152 // four vocabularies: more than a cache holds
	w, row := tensor.NewWeight(out, in), make([]float32, in)
	for i := range row {
		row[i] = 0.01 * float32(i%7)
	}
	for i := range out {
		w.SetRow(i, row)
	}
	x, y := tensor.FromSlice(1, in, row), tensor.New(1, out)
	return &probe{name: fmt.Sprintf("one row x a %dx%d weight", out, in), bytes: float64(w.Bytes()),
		once: func() error { tensor.Linear(y, x, w, false); return nil }}
}

const decoding = "decoding of one row"

// decodeProbe decodes tokens of one row, each after a short beginning.
func decodeProbe(path string, mode tensor.Compute, quantized bool, tokens int) (*probe, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return nil, err
	}
	load := transformer.LoadGGUF
	if quantized {
		load = transformer.LoadGGUFQuantized
	}
	m, err := load(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if err := m.SetCompute(mode); err != nil {
		return nil, err
	}
	ws, logits := transformer.NewWorkspace(), tensor.New(1, m.Vocab)
	r := rand.New(rand.NewPCG(1, 1))
	cache := m.NewCache()
	return &probe{name: decoding, bytes: float64(m.Bytes()) * float64(tokens), once: func() error {
		s := cache.NewSequence()
		defer cache.Free(s)
		for range tokens {
			chunk := []transformer.Chunk{{Seq: s, Tokens: []int32{int32(r.IntN(m.Vocab))}}}
			if err := m.Extend(ws, cache, chunk, nil, logits); err != nil {
				return err
			}
		}
		return nil
	}}, nil
}
