//go:build unix

// Command ours does the work of bench/peers/workload.py with our engine and prints
// one JSON line: tokens a second, of wall and of CPU time, for dpo_step, sft_step and
// generate16.
// The rows are random token ids of the same lengths as the peers'. bench/compare.py
// runs it in turn with them.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"time"

	"github.com/opencharacter/opencharacter/lm/gguf"
	"github.com/opencharacter/opencharacter/lm/sample"
	"github.com/opencharacter/opencharacter/lm/train"
	"github.com/opencharacter/opencharacter/lm/transformer"
	"github.com/opencharacter/opencharacter/tensor"
)

// Lengths of bench/peers/workload.py.
const (
	prompt, response = 40, 60
	pairs, rows      = 4, 8
	generated        = 16
	newTokens        = 64
	special          = 17 // the first ids of SmolLM2 are special tokens
)

func main() {
	model := flag.String("model", "", "GGUF file of SmolLM2-135M-Instruct")
	threads := flag.Int("threads", 2, "threads")
	steps := flag.Int("steps", 3, "timed training steps, after one to warm up")
	flag.Parse()
	if err := run(*model, *threads, *steps); err != nil {
		fmt.Fprintln(os.Stderr, "ours:", err)
		os.Exit(1)
	}
}

func run(path string, threads, steps int) error {
	if path == "" || steps < 1 {
		return fmt.Errorf("give -model FILE.gguf and -steps of at least 1")
	}
	tensor.SetThreads(threads)
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
	random, out := rand.New(rand.NewPCG(1, 1)), map[string]any{"variant": tensor.Variant(), "threads": threads}
	if out["generate16"], err = generate(m, random); err != nil {
		return fmt.Errorf("generate16: %w", err)
	}
	if out["dpo_step"], err = dpo(m, random, steps); err != nil {
		return fmt.Errorf("dpo_step: %w", err)
	}
	if out["sft_step"], err = sft(m, random, steps); err != nil {
		return fmt.Errorf("sft_step: %w", err)
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

func ids(r *rand.Rand, vocab, n int) []int32 {
	row := make([]int32, n)
	for i := range row {
		row[i] = int32(special + r.IntN(vocab-special))
	}
	return row
}

// example is a row of prompt and response; sameAs, if given, lends its prompt.
func example(r *rand.Rand, vocab int, sameAs []int32) train.Example {
	e := train.Example{Tokens: ids(r, vocab, prompt+response), Mask: make([]bool, prompt+response)}
	copy(e.Tokens[:prompt], sameAs)
	for i := prompt; i < len(e.Mask); i++ {
		e.Mask[i] = true
	}
	return e
}

// rate is how fast some work went. CPU time leaves waiting for a core out, and is
// the steadier figure on a busy machine.
type rate struct {
	PerSecond    float64 `json:"tokens_per_second"`
	PerCPUSecond float64 `json:"tokens_per_cpu_second"`
}

// measure runs work that makes or takes so many tokens.
func measure(tokens int, work func() error) (rate, error) {
	start, cpu := time.Now(), cpuSeconds()
	if err := work(); err != nil {
		return rate{}, err
	}
	return rate{float64(tokens) / time.Since(start).Seconds(), float64(tokens) / (cpuSeconds() - cpu)}, nil
}

// cpuSeconds is what all threads of this process have used.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it cannot fail with these arguments
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// timed runs step once to warm up and then measures it so many times.
func timed(steps, tokens int, step func() error) (rate, error) {
	if err := step(); err != nil {
		return rate{}, err
	}
	return measure(steps*tokens, func() error {
		for range steps {
			if err := step(); err != nil {
				return err
			}
		}
		return nil
	})
}

// dpo times steps with rank 32 on 4 new pairs each. TRL computes the reference in
// every step; ours is stored, so it is computed inside the timed step here too:
// once, as a run of one epoch needs it.
func dpo(m *transformer.Model, r *rand.Rand, steps int) (rate, error) {
	t, err := train.New(m, nil, transformer.NewAdapter(m.Config, 32, 32, 1), train.Options{Loss: "dpo", NLL: 0.2, LR: 2e-4, ClipNorm: 1, BatchSize: pairs})
	if err != nil {
		return rate{}, err
	}
	ws := transformer.NewWorkspace()
	return timed(steps, pairs*2*(prompt+response), func() error {
		var batch []train.Pair
		var both []train.Example
		for i := range pairs {
			c := example(r, m.Vocab, nil)
			p := train.Pair{ID: fmt.Sprint(i), Chosen: c, Rejected: example(r, m.Vocab, c.Tokens[:prompt])}
			batch, both = append(batch, p), append(both, p.Chosen, p.Rejected)
		}
		sums, _, err := train.SumLogProbs(m, ws, both, nil)
		if err != nil {
			return err
		}
		for i := range batch {
			batch[i].RefChosen, batch[i].RefRejected = sums[2*i], sums[2*i+1]
		}
		_, err = t.StepDPO(batch)
		return err
	})
}

// sft times steps with rank 64 on 8 new rows each.
func sft(m *transformer.Model, r *rand.Rand, steps int) (rate, error) {
	t, err := train.New(m, nil, transformer.NewAdapter(m.Config, 64, 64, 2), train.Options{Loss: "sft", LR: 2e-5, ClipNorm: 1, BatchSize: rows})
	if err != nil {
		return rate{}, err
	}
	return timed(steps, rows*(prompt+response), func() error {
		var batch []train.Row
		for i := range rows {
			batch = append(batch, train.Row{ID: fmt.Sprint(i), Example: example(r, m.Vocab, nil)})
		}
		_, err := t.StepSFT(batch)
		return err
	})
}

// generate times prefill and decode of 16 unlike prompts, 64 new tokens each.
func generate(m *transformer.Model, r *rand.Rand) (rate, error) {
	requests := func(tokens int) []sample.Request {
		reqs := make([]sample.Request, generated)
		for i := range reqs {
			reqs[i] = sample.Request{Key: uint64(i), Prompt: ids(r, m.Vocab, prompt),
				Params: sample.Params{Temperature: 0.7, TopP: 0.95, MaxTokens: tokens, Seed: 1}}
		}
		return reqs
	}
	made := 0
	count := func(_ int, res sample.Result) error { made += len(res.Tokens); return nil }
	ctx := context.Background()
	if err := sample.Generate(ctx, m, nil, requests(4), sample.Options{MaxRows: generated}, count); err != nil {
		return rate{}, err
	}
	made = 0
	reqs := requests(newTokens)
	result, err := measure(generated*newTokens, func() error {
		return sample.Generate(ctx, m, nil, reqs, sample.Options{MaxRows: generated}, count)
	})
	if err == nil && made != generated*newTokens {
		err = fmt.Errorf("drew %d tokens, wanted %d", made, generated*newTokens)
	}
	return result, err
}
