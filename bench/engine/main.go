// Command engine measures the CPU engine on a real model: scoring, training and
// decoding. It prints one JSON line and a table. Every figure is the median of the
// repeats, in tokens a second of wall time; prompts are random token ids.
//
//	go run ./bench/engine -model SmolLM2-135M-Instruct.Q4_1.gguf
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"github.com/opencharacter/opencharacter/lm/gguf"
	"github.com/opencharacter/opencharacter/lm/train"
	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/tensor"
)

func main() {
	model := flag.String("model", "", "GGUF file of a model")
	repeat := flag.Int("repeat", 5, "repeats of each measurement")
	threads := flag.Int("threads", 0, "threads; 0 means all")
	only := flag.String("only", "", "measure only the cases whose name contains this")
	profile := flag.String("cpuprofile", "", "write a CPU profile of the measurements")
	compute := flag.String("compute", "exact", "mode of the products: exact or bf16")
	flag.Parse()
	if err := run(*model, *compute, *repeat, *threads, *only, *profile); err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}

// result is what the JSON line holds.
type result struct {
	Variant    string             `json:"variant"`
	Threads    int                `json:"threads"`
	Repeat     int                `json:"repeat"`
	LoadSecond float64            `json:"load_s"`
	TokensPerS map[string]float64 `json:"tokens_per_s"`
	PeakRSSMB  map[string]float64 `json:"peak_rss_mb"` // of each case alone, the model included
}

// bench is one measurement: what setup returns processes tokens tokens a call.
type bench struct {
	name   string
	tokens int
	setup  func() (func() error, error)
}

func run(path, compute string, repeat, threads int, only, profile string) error {
	if path == "" || repeat < 1 {
		return fmt.Errorf("give -model FILE.gguf and a -repeat of at least 1")
	}
	mode, err := tensor.ParseCompute(compute)
	if err != nil {
		return fmt.Errorf("-compute: %w", err)
	}
	tensor.SetThreads(threads)
	start := time.Now()
	f, err := gguf.Open(path)
	if err != nil {
		return err
	}
	m, err := transformer.LoadGGUF(f)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := m.SetCompute(mode); err != nil {
		return err
	}
	r := result{Variant: tensor.VariantOf(mode), Threads: threads, Repeat: repeat, LoadSecond: time.Since(start).Seconds(), TokensPerS: map[string]float64{}, PeakRSSMB: map[string]float64{}}
	if threads == 0 {
		r.Threads = runtime.GOMAXPROCS(0)
	}
	if profile != "" {
		out, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer out.Close()
		if err := pprof.StartCPUProfile(out); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	fmt.Printf("%-32s %8s %10s %10s %8s\n", "case", "tokens", "median s", "tokens/s", "peak MB")
	for _, b := range cases(m) {
		if !strings.Contains(b.name, only) {
			continue
		}
		resetPeak()
		f, err := b.setup()
		if err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
		median, err := measure(f, repeat)
		if err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
		r.PeakRSSMB[b.name] = peakRSS()
		r.TokensPerS[b.name] = float64(b.tokens) / median
		fmt.Printf("%-32s %8d %10.3f %10.0f %8.0f\n", b.name, b.tokens, median, r.TokensPerS[b.name], r.PeakRSSMB[b.name])
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	return nil
}

// measure returns the median seconds of repeat calls after one to warm up.
func measure(f func() error, repeat int) (float64, error) {
	var seconds []float64
	for i := range repeat + 1 {
		start := time.Now()
		if err := f(); err != nil {
			return 0, err
		}
		if i > 0 {
			seconds = append(seconds, time.Since(start).Seconds())
		}
	}
	slices.Sort(seconds)
	return seconds[len(seconds)/2], nil
}

// cases lists the measurements: the demo's sizes.
func cases(m *transformer.Model) []bench {
	random := rand.New(rand.NewPCG(1, 1))
	ids := func(n int) []int32 {
		row := make([]int32, n)
		for i := range row {
			row[i] = int32(random.IntN(m.Vocab))
		}
		return row
	}
	example := func(prompt, answer int) train.Example {
		e := train.Example{Tokens: ids(prompt + answer), Mask: make([]bool, prompt+answer)}
		for i := prompt; i < prompt+answer; i++ {
			e.Mask[i] = true
		}
		return e
	}
	stack := func(ranks ...int) (list []*transformer.Adapter) {
		for i, r := range ranks {
			list = append(list, transformer.NewAdapter(m.Config, r, float64(r), uint64(i)))
		}
		return list
	}
	score := func(ranks ...int) func() (func() error, error) {
		return func() (func() error, error) {
			var rows []train.Example
			for range 8 {
				rows = append(rows, example(40, 60))
			}
			ws, adapters := transformer.NewWorkspace(), stack(ranks...)
			return func() error { _, _, err := train.SumLogProbs(m, ws, rows, adapters); return err }, nil
		}
	}
	dpo := func() (func() error, error) {
		var pairs []train.Pair
		for range 8 {
			p := train.Pair{ID: "pair", Chosen: example(40, 60), Rejected: example(40, 60)}
			copy(p.Rejected.Tokens[:40], p.Chosen.Tokens) // two answers to one prompt
			pairs = append(pairs, p)
		}
		t, err := train.New(m, nil, stack(32)[0], train.Options{Loss: train.LossDPO, LR: 1e-6})
		return func() error { _, err := t.StepDPO(pairs); return err }, err
	}
	sft := func() (func() error, error) {
		var rows []train.Row
		for range 8 {
			rows = append(rows, train.Row{ID: "row", Example: example(40, 60)})
		}
		t, err := train.New(m, stack(32), stack(64)[0], train.Options{Loss: train.LossSFT, LR: 1e-6})
		return func() error { _, err := t.StepSFT(rows); return err }, err
	}
	generate := func(rows, prompt, steps int, ranks ...int) func() (func() error, error) {
		return func() (func() error, error) {
			ws, adapters := transformer.NewWorkspace(), stack(ranks...)
			return func() error { return decode(m, ws, adapters, prompts(ids, rows, prompt), steps) }, nil
		}
	}
	return []bench{
		{"score 8x100", 800, score()},
		{"score 8x100, r32", 800, score(32)},
		{"dpo step r32, 8 pairs 2x100", 1600, dpo},
		{"sft step r64 on r32, 8x100", 800, sft},
		{"prefill 1x512", 512, generate(1, 512, 0)},
		{"prefill 16x40", 640, generate(16, 40, 0)},
		{"decode 1 row, 1+32", 32, generate(1, 1, 32)},
		{"decode 16 rows, 1+32", 16 * 32, generate(16, 1, 32)},
		{"decode 16 rows, 1+32, r32", 16 * 32, generate(16, 1, 32, 32)},
		{"decode 16 rows, 1+32, r32+r64", 16 * 32, generate(16, 1, 32, 32, 64)},
		{"decode 64 rows, 1+16", 64 * 16, generate(64, 1, 16)},
	}
}

func prompts(ids func(int) []int32, rows, length int) [][]int32 {
	list := make([][]int32, rows)
	for i := range list {
		list[i] = ids(length)
	}
	return list
}

// decode prefills the prompts together and then takes steps tokens of every row,
// the greediest each time.
func decode(m *transformer.Model, ws *transformer.Workspace, stack []*transformer.Adapter, prompts [][]int32, steps int) error {
	c := m.NewCache()
	chunks := make([]transformer.Chunk, len(prompts))
	for i, p := range prompts {
		chunks[i] = transformer.Chunk{Seq: c.NewSequence(), Tokens: p}
	}
	logits := tensor.New(len(prompts), m.Vocab)
	for range steps + 1 {
		if err := m.Extend(ws, c, chunks, stack, logits); err != nil {
			return err
		}
		for i := range chunks {
			row, best := logits.Row(i), 0
			for v := range row {
				if row[v] > row[best] {
					best = v
				}
			}
			chunks[i].Tokens = []int32{int32(best)}
		}
	}
	return nil
}

// resetPeak gives freed memory back and, where the system allows it, forgets the
// greatest resident size so far.
func resetPeak() {
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		fmt.Fprintln(os.Stderr, "engine: peaks include the cases before:", err)
	}
}

// peakRSS is the largest resident size so far in MB, where the system tells it, or 0.
func peakRSS() float64 {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		var kb float64
		if _, err := fmt.Sscanf(line, "VmHWM: %f kB", &kb); err == nil {
			return kb / 1024
		}
	}
	return 0
}
