//go:build unix

// Command overhead measures what the pipeline costs over the same work in a plain loop.
//
// Each round makes one character twice: with `character run` (servers, workflows, S3, Parquet, checkpoints, heartbeats)
// and in a Go loop in one process that calls the same engine and filters and keeps everything in memory. The row law makes
// both end with the same rows, adapters and measurements; their sha256 sums are compared, and a difference is an error:
// so it is the same work.
//
//	go run ./bench/overhead -model SmolLM2-135M-Instruct.Q4_1.gguf                   # a small run: two minutes a round
//	go run ./bench/overhead -model M.gguf -set dpo.epochs=2 -set preferences.pairs=96 -rounds 1
//
// The loop gets the prompts' cuts from the run's history: how many must be tried is known only by trying. -whole adds a
// loop that knows the numbers beforehand and samples each role in one go. Start reading at measure; plain.go is the loop.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/opencharacter/opencharacter/activities"
)

// small makes a run of the demo preset take about a minute.
var small = []string{
	"preferences.pairs=24", "preferences.min_pairs=8", "dpo.epochs=2", "introspection.reflections=16", "introspection.interactions=2",
	"introspection.min_share=0", "evaluation.held_out=8",
}

var stageNames = []string{activities.KindPreferences, activities.KindDPO, activities.KindIntrospection, activities.KindSFT, activities.KindEvaluation}

type options struct {
	model, binary, constitution, preset, dir string
	rounds, threads, gc                      int
	whole                                    bool
	set                                      []string
}

func main() {
	var o options
	var job string
	flag.StringVar(&o.model, "model", "", "model file or folder (required)")
	flag.StringVar(&o.binary, "binary", "bin/character", "the program: `make build` makes it")
	flag.StringVar(&o.constitution, "constitution", "captain", "built-in character")
	flag.StringVar(&o.preset, "preset", "demo", "preset of the run")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds; every second one begins with the loop")
	flag.IntVar(&o.threads, "threads", runtime.NumCPU(), "threads of both sides")
	flag.IntVar(&o.gc, "gc", 10, "garbage collector's percentage of the loop; 10 is what a worker sets itself, to hold its peak down")
	flag.BoolVar(&o.whole, "whole", false, "add a loop that samples each role's rows in one go")
	flag.StringVar(&o.dir, "dir", "", "folder for data directories and logs (empty: a new one, removed in the end)")
	flag.Func("set", "one field of the spec (repeatable); the first one replaces the small run by the preset's own numbers", func(s string) error {
		o.set = append(o.set, s)
		return nil
	})
	flag.StringVar(&job, "plain", "", "run the loop of this job file and print its result: used by the command itself")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := func() error { return measure(ctx, o) }
	if job != "" {
		run = func() error { return plainJob(ctx, job) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "overhead:", err)
		os.Exit(1)
	}
}

// measure runs the rounds and prints what they cost.
func measure(ctx context.Context, o options) (err error) {
	if o.model == "" || o.rounds < 1 || o.threads < 1 {
		return errors.New("-model is missing, or -rounds or -threads is less than 1")
	}
	if len(o.set) == 0 {
		o.set = small
	}
	for _, path := range []*string{&o.model, &o.binary} {
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
		if _, err := os.Stat(*path); err != nil {
			return fmt.Errorf("%w; `make build` makes bin/character, `character model pull` gets a model", err)
		}
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "overhead"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	var rounds []round
	var j job // of the first run: every later one is the same
	for n := range o.rounds {
		var r round
		pipeline := func() (err error) {
			fmt.Printf("round %d: the pipeline runs ...\n", n+1)
			r.Pipeline, err = o.pipeline(ctx, n)
			return err
		}
		loop := func() (err error) {
			if j.Chunks == nil {
				j = r.Pipeline.job
				j.GC = o.gc
			}
			fmt.Printf("round %d: the loop runs ...\n", n+1)
			if r.Plain, err = o.plain(ctx, j); err != nil || !o.whole {
				return err
			}
			w := j
			w.Whole = true
			r.Whole = &loopRun{}
			*r.Whole, err = o.plain(ctx, w)
			return err
		}
		order := []func() error{pipeline, loop}
		if n%2 == 1 {
			slices.Reverse(order)
		}
		for _, f := range order {
			if err := f(); err != nil {
				return err
			}
		}
		for _, l := range []*loopRun{&r.Plain, r.Whole} {
			if l == nil {
				continue
			}
			if err := same(r.Pipeline.Sums, l.Sums); err != nil {
				return fmt.Errorf("round %d: %w", n+1, err)
			}
		}
		rounds = append(rounds, r)
	}
	return o.print(os.Stdout, rounds)
}

// round has what one round took.
type round struct {
	Pipeline pipelineRun `json:"pipeline"`
	Plain    loopRun     `json:"plain"`
	Whole    *loopRun    `json:"whole,omitempty"`
}

// same fails when two results are not the same bytes: then it was not the same work.
func same(pipeline, loop map[string]string) error {
	for _, name := range []string{"pairs", "dpo adapter", "introspection", "sft adapter", "evaluation"} {
		if a, b := pipeline[name], loop[name]; a == "" || a != b {
			return fmt.Errorf("the pipeline's %s has sha256 %.16s and the loop's %.16s: it was not the same work", name, a, b)
		}
	}
	return nil
}

// plain runs the loop in a process of its own, as cold as the pipeline's worker.
func (o options) plain(ctx context.Context, j job) (r loopRun, err error) {
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	path := filepath.Join(o.dir, "job.json")
	b, err := json.Marshal(j)
	if err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		return r, err
	}
	cmd := exec.CommandContext(ctx, self, "-plain", path)
	cmd.Env = append(cmd.Environ(), fmt.Sprintf("GOMAXPROCS=%d", o.threads))
	cmd.Stderr = os.Stderr
	start := time.Now()
	out, err := cmd.Output()
	if err != nil {
		return r, fmt.Errorf("the loop: %w", err)
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return r, fmt.Errorf("the loop's result: %w", err)
	}
	r.Wall = time.Since(start).Seconds()
	r.CPU = cpu(cmd.ProcessState)
	return r, nil
}

func cpu(p *os.ProcessState) float64 { return (p.UserTime() + p.SystemTime()).Seconds() }
