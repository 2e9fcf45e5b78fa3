package chaos

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"time"
)

// Kinds of faults.
const (
	KillWorker   = "kill-worker"   // kill -9 of the worker: its parent starts it again
	KillS3       = "kill-s3"       // kill -9 of the S3 server's process
	KillTemporal = "kill-temporal" // kill -9 of the process with the Temporal server, parent of the others
	KillAll      = "kill-all"      // kill -9 of everything at once
	TermWorker   = "term-worker"   // SIGTERM: the worker commits what it has and ends
	TermAll      = "term-all"      // SIGTERM of the parent: everything ends in order
	StopWorker   = "stop-worker"   // SIGSTOP for longer than a worker may be silent while another takes over, then SIGCONT
	StopTemporal = "stop-temporal" // SIGSTOP of the process with the Temporal server, then SIGCONT
	StopS3       = "stop-s3"       // SIGSTOP of the S3 server, then SIGCONT
)

// Kinds lists them all.
func Kinds() []string {
	return []string{KillWorker, KillS3, KillTemporal, KillAll, TermWorker, TermAll, StopWorker, StopTemporal, StopS3}
}

// Fault is one thing to do to a run.
type Fault struct {
	Kind string `json:"kind"`
	// Work is how much of the run's work is done when it happens, from 0 to 1. Negative: it happens Delay after the fault
	// before it was over (or after the start), so it hits what starts or recovers.
	Work  float64       `json:"work"`
	Delay time.Duration `json:"delay"`
	For   time.Duration `json:"for,omitempty"` // of stops
}

// Plan is what happens to one run; the same seed gives the same plan.
type Plan struct {
	Seed   uint64
	Faults []Fault
	// Apart runs servers, worker and follower as commands of their own, as on several machines.
	Apart bool
	// Network puts a proxy that drops, breaks and delays calls between the worker and each server. Implies Apart.
	Network bool
}

// draw is a random number of [0, 1) that depends on the seed and the name only.
func draw(seed uint64, name string, i int) float64 {
	h := fnv.New64a()
	_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, seed)) // never fails
	_, _ = fmt.Fprintf(h, "/%s/%d", name, i)
	x := h.Sum64() // FNV's high bits are poor: mix as splitmix64 does
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return float64((x^x>>31)>>11) / (1 << 53)
}

// NewPlan draws a plan of n faults of the given kinds; n = 0 draws one to four.
func NewPlan(seed uint64, kinds []string, n int) Plan {
	p := Plan{Seed: seed}
	layout := draw(seed, "layout", 0)
	p.Apart, p.Network = layout < .4, layout < .2
	if n == 0 {
		n = 1 + int(4*draw(seed, "faults", 0))
	}
	for i := range n {
		f := Fault{Kind: kinds[int(float64(len(kinds))*draw(seed, "kind", i))], Work: draw(seed, "work", i),
			Delay: time.Duration(float64(400*time.Millisecond) * draw(seed, "delay", i))}
		if draw(seed, "early", i) < .15 {
			f.Work, f.Delay = -1, time.Duration(float64(4*time.Second)*draw(seed, "delay", i))
		}
		switch u := draw(seed, "for", i); f.Kind {
		case StopWorker: // 20 s of silence are too many
			f.For = 22*time.Second + time.Duration(u*float64(8*time.Second))
		case StopTemporal, StopS3: // squared: mostly short, at times longer than any timeout
			f.For = time.Second + time.Duration(u*u*float64(34*time.Second))
		}
		p.Faults = append(p.Faults, f)
	}
	slices.SortStableFunc(p.Faults, func(a, b Fault) int {
		switch {
		case a.Work < b.Work:
			return -1
		case a.Work > b.Work:
			return 1
		}
		return 0
	})
	// One that follows another stays behind a random one of them, not always first.
	for i, f := range p.Faults {
		if f.Work < 0 {
			j := i + int(float64(len(p.Faults)-i)*draw(seed, "after", i))
			p.Faults = slices.Insert(slices.Delete(p.Faults, i, i+1), j, f)
		}
	}
	return p
}
