// Command soak trains characters on the tiny model again and again against one `character up`, and judges whether what
// its processes hold grows: memory, live heap, open files, threads and goroutines. What grows without end is a leak, and
// ends in exit code 1. docs/workers.md has the limits.
//
//	go run ./bench/soak -hours 1          # or: make soak HOURS=1
//	go run ./bench/soak -runs 40 -every 5 -keep DIR
//	go tool pprof -top -diff_base DIR/up-10.heap DIR/up-40.heap
//
// Every run has a seed of its own, so that no stage is reused. It needs Linux's /proc.
package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/opencharacter/opencharacter/testenv/tinymodel"
)

// spec makes a run last some seconds, with two segments in each training.
var spec = []string{
	"preferences.pairs=4", "preferences.min_pairs=2", "preferences.max_candidates=160", "preferences.chunk=16",
	"preferences.teacher.max_tokens=48", "preferences.student.max_tokens=32", "preferences.filter.repetition_threshold=-1",
	"dpo.rank=4", "dpo.alpha=4", "dpo.batch_size=2", "dpo.epochs=1", "dpo.segment_steps=1", "dpo.learning_rate=1e-3",
	"introspection.reflections=3", "introspection.interactions=1", "introspection.oversample=12", "introspection.chunk=8", "introspection.turns=2", "introspection.min_share=0",
	"introspection.reflection.max_tokens=48", "introspection.interaction.max_tokens=48", "introspection.filter.min_chars=4", "introspection.filter.repetition_threshold=-1",
	"sft.rank=6", "sft.alpha=6", "sft.batch_size=2", "sft.epochs=1", "sft.segment_steps=1", "sft.learning_rate=1e-3",
	"evaluation.held_out=2", "evaluation.sampling.max_tokens=8", `evaluation.prompts=["Hello!"]`,
}

type options struct {
	binary, keep string
	long         time.Duration
	runs, every  int
}

func main() {
	hours := flag.Float64("hours", .5, "how long to go on, in hours")
	var o options
	flag.StringVar(&o.binary, "binary", "bin/character", "the program: `make build` makes it")
	flag.StringVar(&o.keep, "keep", "", "folder that keeps the heap profiles, ROLE-RUNS.heap (empty: none is kept)")
	flag.IntVar(&o.runs, "runs", 0, "stop after so many runs (0: when the time is over)")
	flag.IntVar(&o.every, "every", 10, "measure after so many runs")
	flag.Parse()
	o.long, o.every = time.Duration(*hours*float64(time.Hour)), max(1, o.every)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := o.soak(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func (o options) soak(ctx context.Context, out io.Writer) (err error) {
	binary, err := filepath.Abs(o.binary)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	profiles, err := filepath.Abs(cmp.Or(o.keep, filepath.Join(dir, "heaps")))
	if err == nil {
		err = os.MkdirAll(profiles, 0o700)
	}
	if err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(profiles, "wanted")); err != nil && !errors.Is(err, os.ErrNotExist) { // of a soak before
		return err
	}
	model, data := filepath.Join(dir, "tiny"), filepath.Join(dir, "data")
	if err := tinymodel.Write(model, 1); err != nil {
		return err
	}
	up := exec.Command(binary, "--data", data, "up")
	up.Env = append(up.Environ(), "CHARACTER_HEAP_PROFILES="+profiles)
	var errs strings.Builder
	up.Stderr = &errs
	said, err := up.StdoutPipe()
	if err != nil {
		return err
	}
	if err := up.Start(); err != nil {
		return fmt.Errorf("start %s up: %w; `make build` builds it", binary, err)
	}
	defer func() {
		_ = up.Process.Signal(syscall.SIGTERM) // gone already, if it failed
		_ = up.Wait()
	}()
	sc := bufio.NewScanner(said)
	ready := false
	for !ready && sc.Scan() {
		ready = strings.Contains(sc.Text(), "Ctrl-C")
	}
	if !ready {
		err := up.Wait()
		return fmt.Errorf("%s up ended before it was ready: %w\n%s", binary, err, errs.String())
	}
	go func() { _, _ = io.Copy(io.Discard, said) }()

	fmt.Fprintln(out, "minutes  runs  process             RSS MB  heap MB  open files  threads  goroutines")
	began := time.Now()
	var samples []sample
	runs := 0
	for time.Since(began) < o.long && (o.runs == 0 || runs < o.runs) && ctx.Err() == nil {
		args := []string{"--data", data, "run", "captain", "--id", fmt.Sprint("soak-", runs), "--model", model, "--set", fmt.Sprint("seed=", runs+1)}
		for _, s := range spec {
			args = append(args, "--set", s)
		}
		if b, err := exec.CommandContext(ctx, binary, args...).CombinedOutput(); err != nil {
			if ctx.Err() != nil {
				break
			}
			return fmt.Errorf("run %d: %w\n%s", runs, err, b)
		}
		runs++
		if runs%o.every != 0 {
			continue
		}
		now, err := processes(up.Process.Pid)
		if err == nil {
			err = heaps(profiles, fmt.Sprint(runs), now)
		}
		if err != nil {
			return err
		}
		samples = append(samples, sample{float64(runs), now})
		for _, name := range sorted(now) {
			u := now[name]
			fmt.Fprintf(out, "%7.1f %5d  %-18s %7.1f %8.1f %11d %8d %11d\n", time.Since(began).Minutes(), runs, name, u.rss, u.heap, u.files, u.threads, u.goroutines)
		}
	}
	fmt.Fprintf(out, "%d runs in %.1f minutes.\n", runs, time.Since(began).Minutes())
	return judge(out, samples)
}
