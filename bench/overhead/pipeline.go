//go:build unix

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// runID is the run's name.
const runID = "overhead"

// pipelineRun is what `character run` took and made.
type pipelineRun struct {
	took
	Start  float64              `json:"start"` // from the command to the run's first event, in seconds
	Load   float64              `json:"load"`  // from there to the first stage: spec, model, kernels
	Stop   float64              `json:"stop"`  // from the run's last event to the command's end
	Stages map[string]stageTook `json:"stages"`
	// Between is from the first stage's begin to the run's end, without the stages: the run is recorded, children begin.
	Between took              `json:"between"`
	Sums    map[string]string `json:"sums"`

	job job
}

// stageTook is where a stage's time went.
type stageTook struct {
	took
	Engine  float64            `json:"engine"`  // the engine's activities run
	Wait    float64            `json:"wait"`    // an activity waits for its worker
	Data    float64            `json:"data"`    // other activities run
	Rest    float64            `json:"rest"`    // none of these: workflow tasks
	CPUs    map[string]float64 `json:"cpus"`    // by process
	Engines int                `json:"engines"` // activities of the engine
	Others  int                `json:"others"`
}

// pipeline makes a character with the built program on a fresh data directory.
func (o options) pipeline(ctx context.Context, n int) (r pipelineRun, err error) {
	data := filepath.Join(o.dir, fmt.Sprint("data-", n))
	defer func() { err = errors.Join(err, os.RemoveAll(data)) }()
	log, err := os.Create(filepath.Join(o.dir, fmt.Sprintf("run-%d.log", n)))
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	args := []string{"--data", data, "run", o.constitution, "--preset", o.preset, "--id", runID, "--model", o.model}
	for _, s := range o.set {
		args = append(args, "--set", s)
	}
	cmd := exec.CommandContext(ctx, o.binary, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Env = append(cmd.Environ(), fmt.Sprintf("GOMAXPROCS=%d", o.threads))
	cmd.Stdout, cmd.Stderr = log, log
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return r, err
	}
	w := watch(cmd.Process.Pid)
	err = cmd.Wait()
	end := time.Now()
	w.stop()
	if err != nil {
		return r, fmt.Errorf("character run: %w; the end of its output:\n%s", err, lastLines(log.Name()))
	}
	r.Wall, r.CPU = end.Sub(begin).Seconds(), cpu(cmd.ProcessState)
	if err := o.read(ctx, data, n, &r, w, begin, end); err != nil {
		return r, fmt.Errorf("read what the run did: %w", err)
	}
	return r, nil
}

// read takes histories, plan and sums off a finished run.
func (o options) read(ctx context.Context, data string, n int, r *pipelineRun, w *watcher, begin, end time.Time) (err error) {
	up := exec.CommandContext(ctx, o.binary, "--data", data, "up", "--no-worker")
	up.Cancel = func() error { return up.Process.Signal(syscall.SIGTERM) }
	up.Stderr = os.Stderr
	said, err := up.StdoutPipe()
	if err != nil {
		return err
	}
	if err := up.Start(); err != nil {
		return err
	}
	defer func() {
		_ = up.Process.Signal(syscall.SIGTERM)
		err = errors.Join(err, up.Wait())
	}()
	ready := false
	for sc := bufio.NewScanner(said); !ready && sc.Scan(); {
		ready = strings.Contains(sc.Text(), "Ctrl-C")
	}
	go func() { _, _ = io.Copy(io.Discard, said) }()
	if !ready {
		return errors.New("the servers did not start again")
	}
	export := filepath.Join(o.dir, fmt.Sprint("export-", n))
	if b, err := exec.CommandContext(ctx, o.binary, "--data", data, "export", runID, "--out", export).CombinedOutput(); err != nil {
		return fmt.Errorf("export: %w\n%s", err, b)
	}
	b, err := os.ReadFile(filepath.Join(export, "spec.json"))
	if err != nil {
		return err
	}
	if err := errors.Join(json.Unmarshal(b, &r.job.Plan), os.RemoveAll(export)); err != nil {
		return err
	}
	history := func(workflow string) ([]event, error) {
		cmd := exec.CommandContext(ctx, o.binary, "--data", data, "_history", workflow)
		cmd.Stderr = os.Stderr
		b, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("history of %s: %w", workflow, err)
		}
		var h struct{ Events []event }
		if err := json.Unmarshal(b, &h); err != nil {
			return nil, fmt.Errorf("history of %s: %w", workflow, err)
		}
		return h.Events, nil
	}
	main, err := history(runID)
	if err != nil {
		return err
	}
	children := childTimes(main)
	r.Start, r.Stop = main[0].EventTime.Sub(begin).Seconds(), end.Sub(main[len(main)-1].EventTime).Seconds()
	r.Load = children[stageNames[0]][0].Sub(main[0].EventTime).Seconds()
	r.Stages, r.Sums, r.job.Chunks = map[string]stageTook{}, map[string]string{}, map[string][][2]int{}
	for _, name := range stageNames {
		events, err := history(runID + "/" + name)
		if err != nil {
			return err
		}
		span, ok := children[name]
		if !ok {
			return fmt.Errorf("the run has no finished stage %s", name)
		}
		acts, err := activitiesOf(events)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		t := stageTook{CPUs: w.between(span[0], span[1])}
		t.Wall = span[1].Sub(span[0]).Seconds()
		for _, c := range t.CPUs {
			t.CPU += c
		}
		t.Rest = t.Wall
		for _, a := range acts {
			wait, ran := a.started.Sub(a.scheduled).Seconds(), a.closed.Sub(a.started).Seconds()
			t.Wait, t.Rest = t.Wait+wait, t.Rest-wait-ran
			if a.engine {
				t.Engine, t.Engines = t.Engine+ran, t.Engines+1
			} else {
				t.Data, t.Others = t.Data+ran, t.Others+1
			}
			if err := r.note(a); err != nil {
				return fmt.Errorf("%s: %s: %w", name, a.kind, err)
			}
		}
		r.Stages[name] = t
	}
	from, to := children[stageNames[0]][0], main[len(main)-1].EventTime
	r.Between.Wall = to.Sub(from).Seconds() - all(r.Stages, func(t stageTook) float64 { return t.Wall })
	for _, c := range w.between(from, to) {
		r.Between.CPU += c
	}
	r.Between.CPU -= all(r.Stages, func(t stageTook) float64 { return t.CPU })
	return nil
}

func lastLines(path string) string {
	b, _ := os.ReadFile(path) // it was written by us; without it the message is shorter
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}
