// Command chaos runs whole character runs on a tiny model, kills, stops and starves their processes at random instants,
// and compares every byte of what they end with to an undisturbed run's.
//
// It runs the built program as a user would and knows nothing of its inside. The plan of a round follows from its seed
// alone (testenv/chaos); the instants do not repeat to the microsecond. docs/chaos.md tells how to read what it says.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opencharacter/opencharacter/testenv/chaos"
)

type options struct {
	exe, log, dir, kinds, seeds, layout string
	n, jobs, faults                     int
	seed                                uint64
	patience                            time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.exe, "exe", "bin/character", "the built program")
	flag.IntVar(&o.n, "n", 50, "rounds")
	flag.Uint64Var(&o.seed, "seed", 1, "seed of the first round; the others count up from it")
	flag.StringVar(&o.seeds, "seeds", "", "comma-separated seeds, instead of -n and -seed")
	flag.IntVar(&o.jobs, "jobs", 1, "rounds at once")
	flag.IntVar(&o.faults, "faults", 0, "faults a round (0: one to four)")
	flag.StringVar(&o.kinds, "kinds", strings.Join(chaos.Kinds(), ","), "kinds of faults")
	flag.StringVar(&o.layout, "layout", "", "one (all in one process tree), apart (servers and worker by themselves) or network (apart, with proxies that drop and break calls between them); empty: drawn")
	flag.StringVar(&o.dir, "dir", "", "folder for the rounds (empty: a new one, removed when all is well)")
	flag.StringVar(&o.log, "log", "", "file that gets one line of JSON for each round (empty: chaos.jsonl in the folder of the rounds, which then stays)")
	flag.DurationVar(&o.patience, "patience", 0, "a run without progress for so long is stuck (0: 3 minutes)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

var errFailed = errors.New("not every round ended as the undisturbed run")

func run(ctx context.Context, o options) (err error) {
	seeds, err := o.rounds()
	if err != nil {
		return err
	}
	if !slices.Contains([]string{"", "one", "apart", "network"}, o.layout) {
		return fmt.Errorf("-layout %s: want one, apart or network", o.layout)
	}
	if o.faults < 0 || o.faults > 100 {
		return fmt.Errorf("-faults %d: want 0 to 100", o.faults)
	}
	kinds := strings.Split(o.kinds, ",")
	if o.exe, err = filepath.Abs(o.exe); err != nil {
		return err
	}
	own := o.dir == ""
	if own {
		if o.dir, err = os.MkdirTemp("", "character-chaos-"); err != nil {
			return err
		}
		if o.log != "" {
			defer func() {
				if err == nil {
					err = os.RemoveAll(o.dir)
				}
			}()
		}
	} else if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	if o.log == "" {
		o.log = filepath.Join(o.dir, "chaos.jsonl")
	}
	log, err := os.OpenFile(o.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	r := &chaos.Runner{Exe: o.exe, Dir: o.dir, Patience: o.patience}
	if err := r.Undisturbed(ctx); err != nil {
		return err
	}
	fmt.Printf("Undisturbed: %s\nRounds in %s, log in %s\n", r.Describe(), o.dir, o.log)
	s := newSummary()
	var mu sync.Mutex
	next := make(chan uint64)
	var wg sync.WaitGroup
	for range max(1, o.jobs) {
		wg.Go(func() {
			for seed := range next {
				p := chaos.NewPlan(seed, kinds, o.faults)
				if o.layout != "" {
					p.Apart, p.Network = o.layout != "one", o.layout == "network"
				}
				res := r.Round(ctx, p)
				mu.Lock()
				if ctx.Err() == nil { // one that was cut off says nothing
					err = errors.Join(err, s.add(res, log))
				}
				mu.Unlock()
			}
		})
	}
	for _, seed := range seeds {
		select {
		case next <- seed:
		case <-ctx.Done():
		}
	}
	close(next)
	wg.Wait()
	if err != nil {
		return err
	}
	fmt.Print(s)
	if s.bad() > 0 {
		return fmt.Errorf("%w: %d of %d; their folders are kept in %s", errFailed, s.bad(), s.rounds, o.dir)
	}
	return context.Cause(ctx)
}

// rounds are the seeds to run.
func (o options) rounds() ([]uint64, error) {
	var out []uint64
	if o.seeds == "" {
		for i := range o.n {
			out = append(out, o.seed+uint64(i))
		}
		return out, nil
	}
	for _, s := range strings.Split(o.seeds, ",") {
		n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("-seeds: %w", err)
		}
		out = append(out, n)
	}
	return out, nil
}

// line writes one round's line of JSON.
func line(f *os.File, res chaos.Result) error {
	b, err := json.Marshal(res)
	if err == nil {
		_, err = f.Write(append(b, '\n'))
	}
	return err
}

func clock() string { return time.Now().Format("15:04:05") }
