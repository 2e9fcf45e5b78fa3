//go:build unix

// Command ours does one piece of work with our engine and prints one JSON line: tokens,
// seconds of wall and of CPU time, and the peak of resident memory. The comparisons in
// bench run it in turn with the peers, whose scripts (bench/peers/*.py) take the same
// sizes and print the same line. Rows are random token ids: time depends on lengths only.
//
//	ours -model M.gguf -work dpo -rows 4 -prompt 38 -new 58 -steps 3
//	ours -model M.gguf -work generate -rows 64 -shared 600 -prompt 637 -new 64
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/pprof"
	"time"

	"github.com/opencharacter/opencharacter/lm/gguf"
	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/tensor"
)

const special = 17 // the first ids of SmolLM2 are special tokens

// job is what the flags say.
type job struct {
	model, work       string
	threads, steps    int
	rows, prompt, new int
	shared            int
	temperature, topP float64
	compute, weights  string
	dpoRank, sftRank  int
	profile           string
}

// works are the pieces of work by name.
var works = map[string]func(*transformer.Model, job) (line, error){
	"score": score, "dpo": dpo, "sft": sft, "generate": generate,
}

func main() {
	var j job
	flag.StringVar(&j.model, "model", "", "GGUF file of SmolLM2-135M-Instruct")
	flag.StringVar(&j.work, "work", "dpo", "score, dpo, sft or generate")
	flag.IntVar(&j.threads, "threads", 2, "threads")
	flag.IntVar(&j.steps, "steps", 3, "score, dpo, sft: timed steps, after one to warm up")
	flag.IntVar(&j.rows, "rows", 4, "rows a step (dpo: pairs), or rows generated at once")
	flag.IntVar(&j.prompt, "prompt", 40, "prompt tokens of a row")
	flag.IntVar(&j.new, "new", 60, "answer tokens of a row, or tokens to generate for each")
	flag.IntVar(&j.shared, "shared", 0, "generate: prompt tokens that all rows have in common")
	flag.Float64Var(&j.temperature, "temperature", 0.7, "generate: temperature; 0 takes the most probable token")
	flag.Float64Var(&j.topP, "top-p", 0.95, "generate: top-p")
	flag.IntVar(&j.dpoRank, "dpo-rank", 32, "dpo: rank of the adapter")
	flag.IntVar(&j.sftRank, "sft-rank", 64, "sft: rank of the adapter")
	flag.StringVar(&j.compute, "compute", "exact", "arithmetic of products: exact or bf16")
	flag.StringVar(&j.weights, "weights", "bf16", "score, generate: bf16, or quantized to keep the blocks of the file")
	flag.StringVar(&j.profile, "cpuprofile", "", "write a profile of the work here, for go tool pprof")
	flag.Parse()
	if err := run(j); err != nil {
		fmt.Fprintln(os.Stderr, "ours:", err)
		os.Exit(1)
	}
}

func run(j job) error {
	work, known := works[j.work]
	switch {
	case !known:
		return fmt.Errorf("-work %q is not known; give score, dpo, sft or generate", j.work)
	case j.model == "":
		return fmt.Errorf("-model is missing: name a GGUF file")
	case j.steps < 1 || j.rows < 1 || j.prompt < 1 || j.new < 1 || j.threads < 1:
		return fmt.Errorf("-steps %d, -rows %d, -prompt %d, -new %d and -threads %d must be at least 1", j.steps, j.rows, j.prompt, j.new, j.threads)
	case j.shared < 0 || j.shared >= j.prompt:
		return fmt.Errorf("-shared %d must be less than -prompt %d: every row has a token of its own", j.shared, j.prompt)
	case j.weights != "bf16" && j.weights != "quantized":
		return fmt.Errorf("-weights %q is not known; give bf16 or quantized", j.weights)
	case j.weights == "quantized" && j.work != "score" && j.work != "generate":
		return fmt.Errorf("-weights quantized is for -work score and generate, not %s: quantized weights cannot be trained on", j.work)
	}
	compute, err := tensor.ParseCompute(j.compute)
	if err != nil {
		return fmt.Errorf("-compute: %w", err)
	}
	tensor.SetThreads(j.threads)
	start := time.Now()
	f, err := gguf.Open(j.model)
	if err != nil {
		return err
	}
	open := transformer.LoadGGUF
	if j.weights == "quantized" {
		open = transformer.LoadGGUFQuantized
	}
	m, err := open(f)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := m.SetCompute(compute); err != nil {
		return fmt.Errorf("-compute %s: %w", j.compute, err)
	}
	load := time.Since(start).Seconds()
	if j.prompt+j.new > m.Context {
		return fmt.Errorf("-prompt %d and -new %d are more than the model's context of %d", j.prompt, j.new, m.Context)
	}
	if j.profile != "" {
		out, err := os.Create(j.profile)
		if err != nil {
			return fmt.Errorf("-cpuprofile: %w", err)
		}
		defer out.Close()
		if err := pprof.StartCPUProfile(out); err != nil {
			return fmt.Errorf("-cpuprofile: %w", err)
		}
		defer pprof.StopCPUProfile()
	}
	l, err := work(m, j)
	if err != nil {
		return fmt.Errorf("%s: %w", j.work, err)
	}
	l.Work, l.Variant, l.Weights, l.Threads, l.LoadSeconds = j.work, tensor.VariantOf(compute), j.weights, j.threads, load
	return json.NewEncoder(os.Stdout).Encode(l)
}

func ids(r *rand.Rand, vocab, n int) []int32 {
	row := make([]int32, n)
	for i := range row {
		row[i] = int32(special + r.IntN(vocab-special))
	}
	return row
}
