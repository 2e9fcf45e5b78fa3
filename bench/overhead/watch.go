//go:build unix

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// watcher notes the CPU time of a process and its descendants some times a second, from Linux's /proc; elsewhere it
// notes nothing, and stages have wall times only.
type watcher struct {
	done    chan struct{}
	wg      sync.WaitGroup
	samples []sample
}

// sample is the CPU seconds of each process so far, by its role.
type sample struct {
	at  time.Time
	cpu map[string]float64
}

func watch(pid int) *watcher {
	w := &watcher{done: make(chan struct{})}
	w.wg.Go(func() {
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			s := sample{time.Now(), map[string]float64{}}
			s.add(pid)
			if n := len(w.samples); n > 0 { // what a process used stays used when it has ended
				for role, v := range w.samples[n-1].cpu {
					s.cpu[role] = max(s.cpu[role], v)
				}
			}
			w.samples = append(w.samples, s)
			select {
			case <-w.done:
				return
			case <-tick.C:
			}
		}
	})
	return w
}

func (w *watcher) stop() {
	close(w.done)
	w.wg.Wait()
}

// ticks is how many of a process's clock ticks are a second: 100 on every Linux of today.
const ticks = 100

// add adds a process and its descendants. One that ends meanwhile is left out.
func (s sample) add(pid int) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	args, err2 := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || err2 != nil {
		return
	}
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // the name before it may have spaces
	if len(f) < 13 {
		return
	}
	user, _ := strconv.ParseFloat(f[11], 64)   // numbers, says proc(5)
	system, _ := strconv.ParseFloat(f[12], 64) //
	role := "servers"
	for _, name := range []string{"worker", "_s3"} {
		if bytes.Contains(args, []byte("\x00"+name+"\x00")) {
			role = name
		}
	}
	s.cpu[role] += (user + system) / ticks
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is well formed
	for _, t := range tasks {
		b, _ := os.ReadFile(t) // a thread that has ended has none
		for child := range strings.FieldsSeq(string(b)) {
			if n, err := strconv.Atoi(child); err == nil {
				s.add(n)
			}
		}
	}
}

// between is what each role used from one instant to another.
func (w *watcher) between(from, to time.Time) map[string]float64 {
	out := map[string]float64{}
	a, b := w.at(from), w.at(to)
	for role, v := range b {
		out[role] = v - a[role]
	}
	return out
}

// at is the CPU time at an instant, on a straight line between two samples.
func (w *watcher) at(t time.Time) map[string]float64 {
	out := map[string]float64{}
	for i, s := range w.samples {
		if i > 0 && !s.at.Before(t) {
			before := w.samples[i-1]
			share := t.Sub(before.at).Seconds() / s.at.Sub(before.at).Seconds()
			for role, v := range s.cpu {
				out[role] = before.cpu[role] + share*(v-before.cpu[role])
			}
			return out
		}
	}
	return out
}
