package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// sample is what the processes held after so many runs.
type sample struct {
	runs float64
	of   map[string]usage
}

// fewest is the least number of samples whose slope says anything, and shortest the least number of runs between the first
// and the last of them: over fewer, one page of memory more or less looks like a leak.
const (
	fewest   = 6
	shortest = 50
)

// measures are what is judged, with what a process may grow by in 100 runs. A week of runs of five minutes each is 2,000:
// at the limit it costs 100 MB and 40 open files, which no machine notices, and a leak of one buffer a run is far beyond it.
var measures = []struct {
	name  string
	limit float64
	of    func(usage) float64
}{
	{"RSS MB", 5, func(u usage) float64 { return u.rss }},
	{"heap MB", 2, func(u usage) float64 { return u.heap }},
	{"open files", 2, func(u usage) float64 { return float64(u.files) }},
	{"threads", 2, func(u usage) float64 { return float64(u.threads) }},
	{"goroutines", 10, func(u usage) float64 { return float64(u.goroutines) }},
}

// judge prints the growth over the later half of the samples, the straight line of least squares through them, and fails
// where it is beyond the limit by more than chance: zero is not within two standard errors of it.
func judge(out io.Writer, samples []sample) error {
	late := samples[len(samples)/2:]
	if len(late) < fewest {
		return fmt.Errorf("only %d measurements in the later half, and %d are needed to judge: let it go on for longer, or measure more often (-every)", len(late), fewest)
	}
	if n := late[len(late)-1].runs - late[0].runs; n < shortest {
		return fmt.Errorf("the later half has %.0f runs, and %d are needed to judge: let it go on for longer", n, shortest)
	}
	fmt.Fprintf(out, "Growth in 100 runs over the later half (runs %.0f to %.0f), with two standard errors:\n", late[0].runs, late[len(late)-1].runs)
	var grown []string
	for _, name := range sorted(late[len(late)-1].of) {
		fmt.Fprintf(out, "  %-18s", name)
		for _, m := range measures {
			var x, y []float64
			for _, s := range late {
				u, ok := s.of[name]
				if !ok {
					return fmt.Errorf("%s was not there after %.0f runs: a process has ended and another began, look into its log", name, s.runs)
				}
				x, y = append(x, s.runs/100), append(y, m.of(u))
			}
			slope, deviation := line(x, y)
			fmt.Fprintf(out, "  %s %+.2f ±%.2f (limit %g)", m.name, slope, 2*deviation, m.limit)
			if slope > m.limit && slope-2*deviation > 0 {
				grown = append(grown, fmt.Sprintf("%s of %s by %.2f in 100 runs (limit %g)", m.name, name, slope, m.limit))
			}
		}
		fmt.Fprintln(out)
	}
	if len(grown) > 0 {
		return errors.New("it grows: " + strings.Join(grown, "; ") + "; -keep DIR keeps heap profiles, whose difference `go tool pprof -diff_base` shows")
	}
	fmt.Fprintln(out, "Nothing grows.")
	return nil
}

// line is the slope of the line of least squares through the points, and its standard error.
func line(x, y []float64) (slope, deviation float64) {
	n := float64(len(x))
	var mx, my float64
	for i := range x {
		mx, my = mx+x[i]/n, my+y[i]/n
	}
	var xx, xy float64
	for i := range x {
		xx += (x[i] - mx) * (x[i] - mx)
		xy += (x[i] - mx) * (y[i] - my)
	}
	slope = xy / xx
	var rest float64
	for i := range x {
		d := y[i] - my - slope*(x[i]-mx)
		rest += d * d
	}
	return slope, math.Sqrt(rest / (n - 2) / xx)
}
