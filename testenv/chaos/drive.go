package chaos

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/opencharacter/opencharacter/testenv/tinymodel"
)

// start runs the commands of the plan's layout until ctx ends, and names the layout.
func (d *drive) start(ctx context.Context) string {
	follow := &service{name: "run", args: tinymodel.RunArgs(d.r.model, "tiny"), ended: func(said string, code int) bool {
		switch {
		case strings.Contains(said, "is finished"):
			close(d.finished)
			return true
		case strings.Contains(said, "did not finish"):
			d.failed <- errors.New(said)
			return true
		}
		return false
	}}
	switch {
	case d.plan.Network:
		d.network = newNetwork(d.plan.Seed, d.data)
		d.serve(ctx, &service{name: "up", args: []string{"up", "--no-worker"}})
		d.services.Go(func() {
			args, env, err := d.network.open(ctx)
			if err != nil {
				d.failed <- err
				return
			}
			d.serve(ctx, &service{name: "worker", args: append([]string{"worker", "--allow-path", d.r.model}, args...), env: env})
			d.serve(ctx, follow)
		})
		return "network"
	case d.plan.Apart:
		d.serve(ctx, &service{name: "up", args: []string{"up", "--no-worker"}})
		d.services.Go(func() {
			if d.awaitStack(ctx) {
				d.serve(ctx, &service{name: "worker", args: []string{"worker"}})
				d.serve(ctx, follow)
			}
		})
		return "apart"
	}
	d.serve(ctx, follow)
	return "one"
}

// awaitStack waits until servers live on the data directory for the first time.
func (d *drive) awaitStack(ctx context.Context) bool {
	for ctx.Err() == nil {
		if stackPID(d.data) != 0 {
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	return false
}

func (d *drive) serve(ctx context.Context, s *service) {
	s.gate = &d.gate
	s.exe, s.log = d.r.Exe, filepath.Join(d.dir, s.name+".log")
	s.args = append([]string{"--data", d.data}, s.args...)
	s.env = append(s.env, "CHARACTER_WORK_LOG="+d.log.path)
	d.mu.Lock()
	d.all = append(d.all, s)
	d.mu.Unlock()
	d.services.Go(func() {
		if err := s.keep(ctx); err != nil {
			select {
			case d.failed <- err:
			default: // one is enough
			}
		}
	})
}

// counts is how often each command was started, and what the network did. Call it when the services are over.
func (d *drive) counts() (starts, network map[string]int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	starts = map[string]int{}
	for _, s := range d.all {
		starts[s.name] += s.starts
	}
	return starts, d.network.counts()
}

// reap kills whatever is left.
func (d *drive) reap() {
	d.network.close()
	for range 200 {
		left := withRole(d.data, "")
		if len(left) == 0 {
			return
		}
		signalAll(left, syscall.SIGKILL)
		time.Sleep(20 * time.Millisecond)
	}
}

// inject does the plan's faults and waits for the run's end.
func (d *drive) inject(ctx context.Context) (outcome string, err error) {
	for i, f := range d.plan.Faults {
		if f.Work >= 0 {
			if outcome, err = d.until(ctx, func() bool { return float64(len(d.log.done)) >= f.Work*float64(d.r.units) }); err != nil {
				return outcome, err
			}
		}
		select {
		case <-ctx.Done():
			return Broken, errCancelled
		case <-d.finished:
			d.hits = append(d.hits, Hit{Fault: f, Missed: "the run was over", began: time.Now(), over: time.Now()})
			continue
		case <-time.After(f.Delay):
		}
		if err := d.log.read(); err != nil {
			return Broken, err
		}
		h := Hit{Fault: f, Stage: d.log.stage(), Done: len(d.log.done), began: time.Now()}
		h.At = h.began.Sub(d.began).Seconds()
		if err := d.hit(ctx, i, f); err != nil {
			h.Missed = err.Error()
			if errors.As(err, new(fatal)) {
				return Broken, err
			}
		}
		h.over = time.Now()
		d.hits = append(d.hits, h)
	}
	return d.until(ctx, func() bool { return false })
}

// until waits for the condition or the run's end. No new unit of work for too long is an error.
func (d *drive) until(ctx context.Context, when func() bool) (outcome string, err error) {
	news, units := time.Now(), -1
	for {
		if err := d.log.read(); err != nil {
			return Broken, err
		}
		if n := len(d.log.done); n != units {
			news, units = time.Now(), n
		}
		if when() {
			return Same, nil
		}
		if quiet := time.Since(news); quiet > d.r.Patience {
			d.dump()
			return Stuck, fmt.Errorf("no new work for %v after %d of %d units; processes: %s", quiet.Round(time.Second), units, d.r.units, d.describe())
		}
		select {
		case <-ctx.Done():
			return Broken, errCancelled
		case <-d.finished:
			return Same, nil
		case err := <-d.failed:
			return Broken, err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// dump makes every process of a stuck run write its stacks to its log.
func (d *drive) dump() {
	signalAll(withRole(d.data, ""), syscall.SIGQUIT)
	time.Sleep(time.Second)
}

func (d *drive) describe() string {
	var out []string
	for _, p := range processes(d.data) {
		out = append(out, fmt.Sprintf("%d %s", p.pid, p.role(d.data)))
	}
	return strings.Join(out, ", ")
}

var errNobody = errors.New("no such process")

// hit does one fault and returns when it is over.
func (d *drive) hit(ctx context.Context, i int, f Fault) error {
	if f.Kind == PowerLoss {
		return d.losePower(ctx)
	}
	verb, role, _ := strings.Cut(f.Kind, "-")
	if role == "all" && verb == "kill" {
		role = ""
	}
	if role == "all" {
		role = "temporal" // its end is everything's end, in order
		if d.plan.Apart {
			signalAll(withRole(d.data, "worker"), syscall.SIGTERM)
		}
	}
	var pids []int
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if pids = withRole(d.data, role); len(pids) > 0 {
			break
		}
		if time.Now().After(deadline) {
			return errNobody
		}
	}
	switch verb {
	case "kill":
		if role == "" && draw(d.plan.Seed, "order", i) < .5 { // at once, and yet one is the first
			slices.Reverse(pids)
		}
		signalAll(pids, syscall.SIGKILL)
	case "term":
		signalAll(pids, syscall.SIGTERM)
	case "stop":
		signalAll(pids, syscall.SIGSTOP)
		defer signalAll(pids, syscall.SIGCONT)
		if f.Kind == StopWorker {
			octx, cancel := context.WithCancel(d.life)
			d.serve(octx, &service{name: fmt.Sprintf("worker-%d", i), args: []string{"worker"}})
			if draw(d.plan.Seed, "leave", i) < .5 {
				time.AfterFunc(f.For+4*time.Second, cancel) // after the zombie woke up
			} else {
				context.AfterFunc(d.life, cancel)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(f.For):
		}
	default:
		return fmt.Errorf("chaos: fault %q is not known", f.Kind)
	}
	return nil
}
