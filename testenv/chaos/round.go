package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencharacter/opencharacter/testenv/tinymodel"
)

// Outcomes of a round.
const (
	Same      = "same"      // every byte is the undisturbed run's
	Different = "different" // the run ended with other bytes
	Stuck     = "stuck"     // no progress for Runner.Patience
	Broken    = "broken"    // the run, or a command that must work, failed
	TooMuch   = "too-much"  // equal bytes, but more than a chunk or segment a worker was done again after one fault
)

// Runner makes rounds. It runs the built program only, on Linux.
type Runner struct {
	Exe string // the program
	Dir string // rounds have their folders here
	// Patience is how long a run may make no progress, faults apart; 0 is 3 minutes.
	Patience time.Duration

	model string
	want  string // SHA256SUMS of the undisturbed run
	units int    // of work in it
	chunk int    // most units of one activity
	quiet time.Duration
}

// Hit is a fault as it happened.
type Hit struct {
	Fault
	At            float64 `json:"at"`    // seconds after the round's start
	Stage         string  `json:"stage"` // what the engine did last
	Done          int     `json:"done"`  // units of work done, each counted once
	Missed        string  `json:"missed,omitempty"`
	Back          float64 `json:"back"` // seconds from the fault's end to the next unit of work; 0: none came
	Redone        int     `json:"redone"`
	RedoneSeconds float64 `json:"redone_seconds"`
	over          time.Time
	began         time.Time
}

// Result is what became of a round.
type Result struct {
	Seed    uint64         `json:"seed"`
	Layout  string         `json:"layout"` // one, apart, network
	Outcome string         `json:"outcome"`
	Detail  string         `json:"detail,omitempty"`
	Seconds float64        `json:"seconds"`
	Hits    []Hit          `json:"hits"`
	Starts  map[string]int `json:"starts"` // how often each command was started
	// Redone without a fault before it, and by faults of the network.
	Unexplained int            `json:"unexplained"`
	Network     map[string]int `json:"network,omitempty"` // faults of the proxies by kind
	Dir         string         `json:"dir,omitempty"`     // kept for study
}

// Undisturbed makes the model and the run that all others are compared with.
func (r *Runner) Undisturbed(ctx context.Context) error {
	if r.Patience == 0 {
		r.Patience = 3 * time.Minute
	}
	r.model = filepath.Join(r.Dir, "model") // its path is part of the spec: all runs use one
	if err := tinymodel.Write(r.model, 1); err != nil {
		return err
	}
	began := time.Now()
	res, sums, log := r.run(ctx, Plan{}, filepath.Join(r.Dir, "undisturbed"))
	if res.Outcome != Same {
		return fmt.Errorf("chaos: the undisturbed run is %s: %s; see %s", res.Outcome, res.Detail, res.Dir)
	}
	r.want, r.units, r.chunk, r.quiet = sums, len(log.done), log.biggest(), time.Since(began)
	if len(log.units) != len(log.done) || r.units == 0 {
		return fmt.Errorf("chaos: the undisturbed run did %d units of work, %d of them different", len(log.units), len(log.done))
	}
	return os.RemoveAll(filepath.Join(r.Dir, "undisturbed"))
}

// Describe says what the undisturbed run was.
func (r *Runner) Describe() string {
	return fmt.Sprintf("%.1f s, %d units of work, at most %d in one chunk or segment, %d files compared", r.quiet.Seconds(), r.units, r.chunk, strings.Count(r.want, "\n"))
}

// Round runs a plan and compares what comes out. The round's folder is removed when all is well.
func (r *Runner) Round(ctx context.Context, p Plan) Result {
	dir := filepath.Join(r.Dir, fmt.Sprintf("round-%d", p.Seed))
	res, sums, log := r.run(ctx, p, dir)
	if res.Outcome == Same && sums != r.want {
		res.Outcome, res.Detail = Different, diff(r.want, sums)
	}
	r.account(&res, log)
	if res.Outcome == Same {
		res.Dir = ""
		if err := os.RemoveAll(dir); err != nil {
			res.Outcome, res.Detail = Broken, err.Error()
		}
	}
	return res
}

// account fills in what each fault cost.
func (r *Runner) account(res *Result, log *workLog) {
	var at []time.Time
	for _, h := range res.Hits {
		at = append(at, h.began)
	}
	cost := log.redone(at)
	res.Unexplained = cost[len(at)].units
	for i := range res.Hits {
		h := &res.Hits[i]
		h.Redone, h.RedoneSeconds = cost[i].units, cost[i].seconds
		if first, ok := log.firstAfter(h.over); ok && (i+1 == len(res.Hits) || first.Before(res.Hits[i+1].began)) {
			h.Back = first.Sub(h.over).Seconds()
		}
		// Each of two workers may have had a chunk when they were hit.
		if limit := 2 * r.chunk; h.Redone > limit && res.Outcome == Same && res.Layout != "network" {
			res.Outcome, res.Detail = TooMuch, fmt.Sprintf("%d units were done again after %s, a chunk has %d", h.Redone, h.Kind, r.chunk)
		}
	}
	if res.Unexplained > 0 && res.Outcome == Same && res.Layout != "network" {
		res.Outcome, res.Detail = TooMuch, fmt.Sprintf("%d units were done twice before any fault", res.Unexplained)
	}
}

// diff shows the lines that are in one of the two only.
func diff(want, got string) string {
	var b strings.Builder
	for _, side := range []struct{ sign, in, other string }{{"-", want, got}, {"+", got, want}} {
		have := map[string]bool{}
		for line := range strings.Lines(side.other) {
			have[line] = true
		}
		for line := range strings.Lines(side.in) {
			if !have[line] {
				b.WriteString(side.sign + line)
			}
		}
	}
	return b.String()
}

// run makes one run with the plan's faults and exports it.
func (r *Runner) run(ctx context.Context, p Plan, dir string) (res Result, sums string, log *workLog) {
	began := time.Now()
	log = newWorkLog(filepath.Join(dir, "work.jsonl"))
	res = Result{Seed: p.Seed, Layout: "one", Outcome: Same, Dir: dir, Starts: map[string]int{}}
	fail := func(outcome string, err error) {
		if res.Outcome == Same {
			res.Outcome, res.Detail = outcome, err.Error()
		}
	}
	defer func() { res.Seconds = time.Since(began).Seconds() }()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		fail(Broken, err)
		return res, "", log
	}
	d := &drive{r: r, plan: p, dir: dir, data: filepath.Join(dir, "data"), log: log, began: began, finished: make(chan struct{}), failed: make(chan error, 8)}
	defer d.reap()
	if slices.ContainsFunc(p.Faults, func(f Fault) bool { return f.Kind == PowerLoss }) {
		var err error
		if d.disk, err = newDisk(dir, d.data); err != nil {
			fail(Broken, err)
			return res, "", log
		}
		defer func() {
			d.reap()
			if err := d.disk.close(); err != nil {
				fail(Broken, err)
			}
		}()
	}
	sctx, stop := context.WithCancel(ctx)
	defer d.services.Wait()
	defer stop()
	d.life = sctx
	res.Layout = d.start(sctx)
	outcome, err := d.inject(ctx)
	res.Hits = d.hits
	if err != nil {
		fail(outcome, err)
	}
	if res.Outcome == Same {
		out := filepath.Join(dir, "export")
		ectx, cancel := context.WithTimeout(ctx, 3*time.Minute)
		defer cancel()
		b, err := exec.CommandContext(ectx, r.Exe, "--data", d.data, "export", "tiny", "--out", out).CombinedOutput()
		if err != nil {
			fail(Broken, fmt.Errorf("export: %w: %s", err, b))
		} else if b, err = os.ReadFile(filepath.Join(out, "SHA256SUMS")); err != nil {
			fail(Broken, err)
		}
		sums = string(b)
	}
	if err := log.read(); err != nil {
		fail(Broken, err)
	}
	stop()
	d.services.Wait()
	res.Starts, res.Network = d.counts()
	return res, sums, log
}

// drive is one run on its way.
type drive struct {
	r        *Runner
	plan     Plan
	dir      string
	data     string
	log      *workLog
	began    time.Time
	life     context.Context // ends when all commands shall
	hits     []Hit
	finished chan struct{} // closed when the run is over
	failed   chan error

	services sync.WaitGroup
	gate     sync.RWMutex
	disk     *disk // nil: the data directory is a plain folder
	mu       sync.Mutex
	all      []*service
	network  *network
}

var errCancelled = errors.New("the round was cancelled")
