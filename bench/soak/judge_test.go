package main

import (
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// made makes samples every ten runs of a process that holds 100 MB and grows by so much a run, with noise.
func made(n int, grow, noise float64) []sample {
	r := rand.New(rand.NewPCG(1, 2))
	var out []sample
	for i := range n {
		runs := float64(10 * (i + 1))
		out = append(out, sample{runs, map[string]usage{"worker": {rss: 100 + grow*runs + noise*r.NormFloat64(), heap: 10, files: 30, threads: 9, goroutines: 80}}})
	}
	return out
}

// often makes the samples of two runs each.
func often(samples []sample) []sample {
	for i := range samples {
		samples[i].runs = float64(2 * (i + 1))
	}
	return samples
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name    string
		samples []sample
		want    string // part of the error; "" = none
	}{
		{"flat", made(30, 0, 0), ""},
		{"noise", made(30, 0, 5), ""},
		{"slow growth below the limit", made(30, .02, 1), ""},
		{"a leak", made(30, .2, 1), "RSS MB of worker"},
		{"a leak in noise", made(30, .5, 10), "RSS MB of worker"},
		{"too few", made(10, 0, 0), "5 measurements"},
		{"too short", often(made(30, 0, 0)), "28 runs"},
	} {
		err := judge(io.Discard, c.samples)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	warm := made(30, 0, 0) // what grows at first only is a cache
	for i := range 15 {
		u := warm[i].of["worker"]
		u.files = i
		warm[i].of["worker"] = u
	}
	if err := judge(io.Discard, warm); err != nil {
		t.Error(err)
	}
	for i := range warm {
		u := warm[i].of["worker"]
		u.files = 30 + i
		warm[i].of["worker"] = u
	}
	if err := judge(io.Discard, warm); err == nil || !strings.Contains(err.Error(), "open files of worker by 10.00") {
		t.Errorf("one more open file every ten runs: %v", err)
	}
	delete(warm[20].of, "worker")
	if err := judge(io.Discard, warm); err == nil {
		t.Error("a process that was away passes")
	}
}

func TestLine(t *testing.T) {
	if slope, err := line([]float64{1, 2, 3, 4}, []float64{5, 7, 9, 11}); math.Abs(slope-2) > 1e-12 || err > 1e-9 {
		t.Errorf("%v %v", slope, err)
	}
}
