// Command soak trains characters on the tiny model again and again against one `character up`, and prints what memory
// and how many open files each of its processes has. What grows without end is a leak.
//
//	go run ./bench/soak -hours 1          # or: make soak HOURS=1
//
// Every run has a seed of its own, so that no stage is reused. It needs Linux's /proc.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/opencharacter/opencharacter/testenv/tinymodel"
)

// spec makes a run last some seconds, with several chunks and segments in every stage.
var spec = []string{
	"preferences.pairs=24", "preferences.min_pairs=4", "preferences.max_candidates=240", "preferences.chunk=12",
	"preferences.teacher.max_tokens=64", "preferences.student.max_tokens=64", "preferences.filter.repetition_threshold=-1",
	"dpo.rank=4", "dpo.alpha=4", "dpo.batch_size=2", "dpo.epochs=2", "dpo.segment_steps=3", "dpo.learning_rate=1e-3",
	"introspection.reflections=16", "introspection.interactions=3", "introspection.oversample=12", "introspection.chunk=8", "introspection.turns=2", "introspection.min_share=0",
	"introspection.reflection.max_tokens=96", "introspection.interaction.max_tokens=96", "introspection.filter.min_chars=4", "introspection.filter.repetition_threshold=-1",
	"sft.rank=6", "sft.alpha=6", "sft.batch_size=2", "sft.epochs=2", "sft.segment_steps=3", "sft.learning_rate=1e-3",
	"evaluation.held_out=4", "evaluation.sampling.max_tokens=16", `evaluation.prompts=["Hello!","Who are you?"]`,
}

func main() {
	hours := flag.Float64("hours", .5, "how long to go on, in hours")
	binary := flag.String("binary", "bin/character", "the program: `make build` makes it")
	every := flag.Int("every", 5, "print a line for each process after so many runs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := soak(ctx, os.Stdout, *binary, time.Duration(*hours*float64(time.Hour)), max(1, *every)); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func soak(ctx context.Context, out io.Writer, binary string, long time.Duration, every int) (err error) {
	binary, err = filepath.Abs(binary)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	model, data := filepath.Join(dir, "tiny"), filepath.Join(dir, "data")
	if err := tinymodel.Write(model, 1); err != nil {
		return err
	}
	up := exec.Command(binary, "--data", data, "up")
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

	fmt.Fprintln(out, "minutes  runs  process             RSS MB  open files  threads")
	began := time.Now()
	first, last := map[string]usage{}, map[string]usage{}
	runs := 0
	for time.Since(began) < long && ctx.Err() == nil {
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
		if runs%every != 0 {
			continue
		}
		if last, err = processes(up.Process.Pid); err != nil {
			return err
		}
		for _, name := range sorted(last) {
			u := last[name]
			fmt.Fprintf(out, "%7.1f %5d  %-18s %7.1f %11d %8d\n", time.Since(began).Minutes(), runs, name, u.rss, u.files, u.threads)
			if _, ok := first[name]; !ok && runs >= 2*every { // the first runs fill caches
				first[name] = u
			}
		}
	}
	fmt.Fprintf(out, "%d runs in %.1f minutes. Growth from run %d on:\n", runs, time.Since(began).Minutes(), 2*every)
	for _, name := range sorted(first) {
		a, b := first[name], last[name]
		fmt.Fprintf(out, "  %-18s RSS %+.1f MB (%+.0f %%), open files %+d, threads %+d\n", name, b.rss-a.rss, 100*(b.rss/a.rss-1), b.files-a.files, b.threads-a.threads)
	}
	return nil
}

type usage struct {
	rss            float64 // MB
	files, threads int
}

func sorted(m map[string]usage) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// processes measures a process and its descendants, named by their command.
func processes(pid int) (map[string]usage, error) {
	out := map[string]usage{}
	proc := fmt.Sprintf("/proc/%d", pid)
	args, err := os.ReadFile(proc + "/cmdline")
	if err == nil && len(args) == 0 { // it has ended, and nobody has looked yet
		err = os.ErrProcessDone
	}
	if err != nil {
		return nil, fmt.Errorf("%w; soak needs Linux's /proc, and a stack that lives", err)
	}
	var u usage
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(status)) {
		var kb float64
		if _, err := fmt.Sscanf(line, "VmRSS: %f", &kb); err == nil {
			u.rss = kb / 1024
		}
		_, _ = fmt.Sscanf(line, "Threads: %d", &u.threads) // other lines do not match
	}
	fds, err := os.ReadDir(proc + "/fd")
	if err != nil {
		return nil, err
	}
	u.files = len(fds)
	out[command(strings.Split(strings.TrimRight(string(args), "\x00"), "\x00"))] = u
	tasks, _ := filepath.Glob(proc + "/task/*/children") // the pattern is well formed
	for _, f := range tasks {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that has ended
		}
		for s := range strings.FieldsSeq(string(b)) {
			var child int
			if _, err := fmt.Sscan(s, &child); err != nil {
				return nil, err
			}
			more, err := processes(child)
			if err != nil {
				continue // a process that has ended
			}
			for n, u := range more {
				out[n] = u
			}
		}
	}
	return out, nil
}

// command is the first argument that is neither a flag nor a path.
func command(args []string) string {
	for _, a := range args[min(1, len(args)):] {
		if !strings.HasPrefix(a, "-") && !strings.ContainsRune(a, filepath.Separator) {
			return a
		}
	}
	return filepath.Base(args[0])
}
